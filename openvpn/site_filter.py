"""The filter of a host that routes for a LAN at the far end of the tunnel.

It is a table of its own that judges what the tunnel brings and what goes into it, and nothing else: the host may filter
other things as it likes. Source: nft(8).
"""

from ipaddress import IPv4Network, collapse_addresses
from string import Template
from textwrap import indent

from openvpn.firewall import OVERHEAD, TABLE
from openvpn.model import Client, Tunnel


def far(client: Client, tunnel: Tunnel) -> tuple[IPv4Network, ...]:
    """Networks that a client's LAN reaches through the tunnel."""
    lans = (lan for other in tunnel.clients if other.name != client.name for lan in other.lan)
    everything = (tunnel.pool, *tunnel.routes, *(lans if tunnel.client_to_client else ()))
    return tuple(collapse_addresses(everything))


def render_nftables(client: Client, tunnel: Tunnel, *, interface: str) -> str:
    """Return a file for `nft -f`; `interface` is the tunnel's name on the host.

    What comes out of the tunnel has to come from where it leads, and reaches what the client declares reachable and
    nothing else: not the host itself either, but for echo requests. The gateway holds the VPC to the same, so that
    taking it over does not open the LAN.
    """
    values = {
        "TUNNEL": interface,
        "MSS": tunnel.path_mtu - OVERHEAD,
        "FAR": _elements(far(client, tunnel)),
        "REACHABLE": _elements(client.reachable),
    }
    body = indent(Template(_TABLE).substitute(values), "    ")
    return f"# What the tunnel may bring\ntable {TABLE}\ndelete table {TABLE}\n\ntable {TABLE} {{\n{body}}}\n"


def outside(*networks: IPv4Network) -> tuple[IPv4Network, ...]:
    """Return all addresses but those of some networks.

    >>> [str(n) for n in outside(IPv4Network("128.0.0.0/2"), IPv4Network("128.0.0.0/1"))]
    ['0.0.0.0/1']
    """
    rest = [IPv4Network("0.0.0.0/0")]
    for network in collapse_addresses(networks):
        rest = [
            piece
            for part in rest
            if not part.subnet_of(network)
            for piece in (part.address_exclude(network) if network.subnet_of(part) else (part,))
        ]
    return tuple(sorted(rest))


def _elements(networks: tuple[IPv4Network, ...]) -> str:
    """A set without elements has no list of them."""
    listed = ", ".join(map(str, collapse_addresses(networks)))
    return f"\n    elements = {{ {listed} }}" if listed else ""


# The segment size comes first: the answer to a SYN is already of an established connection.
_TABLE = """\
set far {
    type ipv4_addr
    flags interval$FAR
}
set reachable {
    type ipv4_addr
    flags interval$REACHABLE
}
counter refused_input {
}
counter refused_forward {
}
chain input {
    type filter hook input priority filter; policy accept;
    iifname != "$TUNNEL" accept
    ct state vmap { established : accept, related : accept, invalid : drop }
    ip saddr @far icmp type echo-request accept
    ip saddr @far ip daddr @reachable accept
    limit rate 5/second log prefix "drawbridge refused input: "
    counter name refused_input drop
}
chain forward {
    type filter hook forward priority filter; policy accept;
    iifname != "$TUNNEL" oifname != "$TUNNEL" accept
    tcp flags syn / syn,rst tcp option maxseg size set $MSS
    iifname != "$TUNNEL" accept
    ct state vmap { established : accept, related : accept, invalid : drop }
    oifname != "$TUNNEL" ip saddr @far ip daddr @reachable accept
    limit rate 5/second log prefix "drawbridge refused forward: "
    counter name refused_forward drop
}
"""
