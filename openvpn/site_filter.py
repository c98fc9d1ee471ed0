"""Render the filter of a host that routes for a LAN at the far end of the tunnel.

It is a table of its own that filters only what comes out of the tunnel and what goes into it: the host may filter
other traffic as it likes. Source: nft(8).
"""

from ipaddress import IPv4Network, collapse_addresses
from string import Template

from openvpn.firewall import TABLE
from openvpn.model import Tunnel, TunnelClient
from openvpn.nft import render_set, render_table


def remote_networks(client: TunnelClient, tunnel: Tunnel) -> tuple[IPv4Network, ...]:
    """Return the networks that a client's LAN reaches through the tunnel."""
    lans = [lan for peer in tunnel.clients if peer.name != client.name for lan in peer.lan]
    return tuple(collapse_addresses((tunnel.pool, *tunnel.routes, *(lans if tunnel.client_to_client else ()))))


def render_nftables(client: TunnelClient, tunnel: Tunnel, *, interface: str) -> str:
    """Return a file for `nft -f`; `interface` is the tunnel's name on the host.

    Packets out of the tunnel must come from a network that the tunnel leads to. They reach what the client declares
    reachable and nothing else; of the host itself only echo requests. The gateway has the same rule, so this table
    still protects the LAN if somebody takes the gateway over.
    """
    sets = (
        render_set("far", "ipv4_addr", remote_networks(client, tunnel), "interval"),
        render_set("reachable", "ipv4_addr", collapse_addresses(client.reachable), "interval"),
    )
    rules = Template(_RULES).substitute(TUNNEL=interface, MSS=tunnel.segment_size)
    return render_table("What the tunnel may bring", TABLE, "".join(sets) + rules)


# The maximum segment size comes first: the answer to a SYN already belongs to an established connection. It is that of
# the tunnel; the gateway, which has measured the path, makes what the LAN sends smaller where it must be.
_RULES = """\
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
