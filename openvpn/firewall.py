"""The gateway's own nftables table: default deny in and through, translation out of the tunnel.

It is one transaction on one table (a segment has another one, see `openvpn.segment_filter`), so that other tables stay
untouched and no packet ever meets half of it. The tunnel
is known by name and every other interface is the uplink, so that nothing here depends on how the kernel calls the
network card.
Source: nft(8); the AWS page "Use the Instance Metadata Service to access instance metadata" for the addresses that are
kept from clients.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from string import Template
from textwrap import indent

from openvpn import segment_filter
from openvpn.model import Tunnel

TABLE = "inet drawbridge"

#: Bytes around a packet in the tunnel (IPv4, UDP, OpenVPN's header and tag), and of IPv4 and TCP headers inside.
OVERHEAD = 20 + 8 + 24 + 20 + 20
#: A segment's packets are in frames.
_ETHERNET = 14
#: The header of IPv6 inside, beyond that of IPv4.
_LONGER = 20


def render_nftables(
    tunnel: Tunnel,
    *,
    admin_from: tuple[IPv4Network, ...],
    allow_from: tuple[IPv4Network, ...],
    vpc: tuple[IPv4Network, ...],
) -> str:
    """Return a file for `nft -f` that makes the table anew, whatever was there of it.

    SSH is open to `admin_from`, the tunnel's port to `allow_from`. Clients reach `vpc` and the tunnel's routes
    (everything, if it takes all of their traffic), but nothing link-local, which is where the instance's metadata and
    so its credentials are. Hosts in `vpc` open connections only towards what clients declare reachable.
    """
    everything = (IPv4Network("0.0.0.0/0"),)
    sets = {
        "admin": admin_from,
        "allowed": allow_from,
        "vpc": vpc,
        "sources": tunnel.sources,
        "destinations": everything if tunnel.redirect else (*vpc, *tunnel.routes),
        "reachable": tunnel.reachable,
        "peers": (tunnel.pool, *tunnel.reachable) if tunnel.client_to_client else (),
    }
    tap = tunnel.device == "tap"
    pool6 = (tunnel.pool6,) if tunnel.pool6 else ()
    sets6 = {
        "sources6": (*pool6, *((IPv6Network("fe80::/10"), IPv6Network("::/128")) if tap else ())),
        "destinations6": tunnel.routes6,
        "clients6": pool6,
        "opened6": tunnel.opened6,
        "peers6": pool6 if tunnel.client_to_client else (),
    }
    values = {
        "TUNNEL": tunnel.interface,
        "PROTOCOL": tunnel.listener.protocol,
        "PORT": "-".join(map(str, dict.fromkeys(tunnel.listener.port_range))),
        "MSS": (mss := tunnel.path_mtu - OVERHEAD - (_ETHERNET if tap else 0)),
        "MSS6": mss - _LONGER,
        # On a segment hosts have link-local addresses, and need them to find each other.
        "METADATA6": "fd00:ec2::/32" if tap else "{ fe80::/10, fd00:ec2::/32 }",
    }
    group = Template(_GROUPS if tap else "").substitute(values)
    chains = (_SPOOFING, _INPUT.replace("$GROUPS\n", group), _FORWARD, *([_POSTROUTING] if tunnel.nat else []))
    body = "\n".join(
        [
            *(_set(name, "ipv4_addr", networks) for name, networks in sets.items()),
            *(_set(name, "ipv6_addr", networks) for name, networks in sets6.items()),
            *(f"counter {name} {{\n}}\n" for name in COUNTERS),
            *(Template(chain).substitute(values) for chain in chains),
        ]
    )
    # To delete a table that may not be there, make it first.
    rules = f"table {TABLE}\ndelete table {TABLE}\n\ntable {TABLE} {{\n{indent(body, '    ')}}}\n"
    return f"# The gateway's firewall\n{rules}" + (f"\n{segment_filter.render_nftables(tunnel)}" if tap else "")


#: What is counted when dropped: a client's packets from addresses that are nobody's, or to the metadata; all else.
COUNTERS = ("spoofed", "metadata", "refused_input", "refused_forward")

# Before anything else, and for what stays here as for what passes through. OpenVPN itself holds each client to its own
# addresses; this holds all of them together to what is declared.
_SPOOFING = """\
chain tunnel {
    type filter hook prerouting priority raw; policy accept;
    iifname != "$TUNNEL" accept
    ip daddr 169.254.0.0/16 counter name metadata drop
    ip6 daddr $METADATA6 counter name metadata drop
    ip saddr != @sources counter name spoofed drop
    ip6 saddr != @sources6 drop
}
"""

_INPUT = """\
chain input {
    type filter hook input priority filter; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname "lo" accept
    icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept
    icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
    icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query } accept
    iifname != "$TUNNEL" udp sport 67 udp dport 68 accept
    iifname != "$TUNNEL" ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
    iifname != "$TUNNEL" ip saddr @allowed $PROTOCOL dport $PORT accept
    ip saddr @admin tcp dport 22 accept
$GROUPS
    limit rate 5/second log prefix "drawbridge refused input: "
    counter name refused_input
}
"""

# What crosses a segment is for the gateway as well; it is there that it is judged.
_GROUPS = """\
    iifname "$TUNNEL" ip daddr 224.0.0.0/4 accept
    iifname "$TUNNEL" ip6 daddr ff00::/8 accept
"""

# The segment size comes first: the answer to a SYN is already of an established connection.
_FORWARD = """\
chain forward {
    type filter hook forward priority filter; policy drop;
    tcp flags syn / syn,rst tcp option maxseg size set $MSS
    meta nfproto ipv6 tcp flags syn / syn,rst tcp option maxseg size set $MSS6
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname "$TUNNEL" oifname != "$TUNNEL" ip daddr @destinations accept
    iifname "$TUNNEL" oifname "$TUNNEL" ip daddr @peers accept
    iifname != "$TUNNEL" oifname "$TUNNEL" ip saddr @vpc ip daddr @reachable accept
    iifname "$TUNNEL" oifname != "$TUNNEL" ip6 daddr @destinations6 accept
    iifname "$TUNNEL" oifname "$TUNNEL" ip6 daddr @peers6 accept
    iifname != "$TUNNEL" oifname "$TUNNEL" ip6 saddr @opened6 ip6 daddr @clients6 accept
    limit rate 5/second log prefix "drawbridge refused forward: "
    counter name refused_forward
}
"""

_POSTROUTING = """\
chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname != { "lo", "$TUNNEL" } ip saddr @sources masquerade
}
"""


def _set(name: str, kind: str, networks: Iterable[IPv4Network] | Iterable[IPv6Network]) -> str:
    """Without overlaps, which a set refuses, and without elements where there are none."""
    elements = ", ".join(map(str, collapse_addresses(networks)))  # type: ignore[type-var]  # one kind or the other
    lines = [f"type {kind}", "flags interval", *([f"elements = {{ {elements} }}"] if elements else [])]
    return f"set {name} {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"
