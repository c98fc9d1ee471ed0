"""Render the gateway's own nftables table: default deny in and through, translation out of the tunnel.

It is one transaction on one table (a segment has another one, see `openvpn.segment_filter`), so that other tables stay
untouched and no packet ever meets half of it. The tunnel is known by name and every other interface counts as the
uplink, so that nothing here depends on how the kernel names the network card.
Source: nft(8); the AWS page "Use the Instance Metadata Service to access instance metadata" for the addresses that are
kept from clients.
"""

from functools import partial
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from string import Template

from openvpn import segment_filter
from openvpn.listener import Listener
from openvpn.model import Tunnel
from openvpn.nft import render_set, render_table

TABLE = "inet drawbridge"

#: Bytes by which an IPv6 header is longer than one of IPv4.
_IPV6_EXTRA = 20

#: Bytes that every path takes which has IPv6 (RFC 8200, section 5); segments of a tunnel over TCP fit it.
_SMALLEST_PATH = 1280

_EVERYTHING = IPv4Network("0.0.0.0/0")


def render_nftables(
    tunnel: Tunnel,
    *,
    admin_from: tuple[IPv4Network, ...],
    allow_from: tuple[IPv4Network, ...],
    vpc: tuple[IPv4Network, ...],
) -> str:
    """Return a file for `nft -f` that replaces the gateway's tables.

    SSH is open to `admin_from`, the tunnel's ports to `allow_from`. Clients reach `vpc` and the tunnel's routes
    (everything, if it takes all of their traffic), but nothing link-local, where the instance's metadata and so its
    credentials are, and the VPC's resolver only if the tunnel pushes it. Hosts in `vpc` open connections only towards
    what clients declare reachable.
    """
    segment, ipv6 = tunnel.layout.is_segment, tunnel.ipv6
    sets = {
        "admin": admin_from,
        "allowed": allow_from,
        "vpc": vpc,
        "sources": tunnel.sources,
        "destinations": (_EVERYTHING,) if tunnel.redirect else (*vpc, *tunnel.routes),
        "reachable": tunnel.reachable,
        # Whoever may ask the VPC's resolver (its base plus two) can read all private zones of the VPC.
        "resolvers": () if tunnel.resolver else tuple(IPv4Network(network[2]) for network in vpc),
        "peers": (tunnel.pool, *tunnel.reachable) if tunnel.client_to_client else (),
    }
    pool6 = (ipv6.pool,) if ipv6 else ()
    link_local6 = (IPv6Network("fe80::/10"), IPv6Network("::/128")) if segment else ()
    sets6 = {
        "sources6": (*pool6, *link_local6),
        "destinations6": ipv6.routes if ipv6 else (),
        "clients6": pool6,
        "opened6": ipv6.open_to if ipv6 else (),
        "peers6": pool6 if tunnel.client_to_client else (),
    }
    protocol = tunnel.listener.protocol
    ports, choice = tunnel.listener.process_ports, _choose_process(tunnel.listener)
    interfaces = ", ".join(f'"{name}"' for name in tunnel.interfaces)
    new_sessions = _FIRST_PACKETS[protocol] * tunnel.clients_per_address * len(tunnel.listener.ports)
    values = {
        "TUNNEL": interfaces if len(tunnel.interfaces) == 1 else f"{{ {interfaces} }}",
        "INTERFACES": interfaces,
        "PROTOCOL": protocol,
        "PORT": _spell_ports(ports),
        "CLOSED": Template(_CLOSED).substitute(choice) if choice else "",
        "CHOICE": Template(_CHOICE).substitute(choice) if choice else "",
        "RESTORED": Template(_RESTORED).substitute(choice) if choice else "",
        "MSS": tunnel.segment_size,
        "MSS6": tunnel.segment_size - _IPV6_EXTRA,
        "CLIENT_MSS": tunnel.client_segment_size,
        "CLIENT_MSS6": tunnel.client_segment_size - _IPV6_EXTRA,
        "OUTER_MSS": _SMALLEST_PATH - 20 - 20,
        # On a segment hosts have link-local addresses, and need them to find each other.
        "METADATA6": "fd00:ec2::/32" if segment else "{ fe80::/10, fd00:ec2::/32 }",
        "NEW_SESSION": _NEW_SESSION[protocol],
        "NEW_SESSIONS": new_sessions,
        "FLOWS_EACH": FLOWS_EACH,
        "FLOWS_ALL": FLOWS_ALL,
        "TRANSLATED": "{}-{}".format(*translated_ports(tunnel.listener)),
    }
    groups = Template(_GROUPS if segment else "").substitute(values)
    measured = bool(tunnel.measured_paths)
    values["MEASURED"] = _MEASURED if measured else ""
    chains = (
        _METERS,
        _SPOOFING,
        _UNTRACKED,
        *([_TCP_SEGMENTS] if protocol == "tcp" else []),
        *([_FRAGMENTS, *map(partial(_render_path, tunnel), tunnel.measured_paths)] if measured else []),
        _FLOWS,
        _INPUT.replace("$GROUPS\n", groups),
        _FORWARD,
        _OUTPUT,
        *([_POSTROUTING] if tunnel.nat else []),
    )
    body = "\n".join(
        [
            *(render_set(name, "ipv4_addr", collapse_addresses(ranges), "interval") for name, ranges in sets.items()),
            *(render_set(name, "ipv6_addr", collapse_addresses(ranges), "interval") for name, ranges in sets6.items()),
            *(f"counter {name} {{\n}}\n" for name in COUNTERS),
            *(Template(chain).substitute(values) for chain in chains),
        ]
    )
    rules = render_table("The gateway's firewall", TABLE, body)
    return f"{rules}\n{segment_filter.render_nftables(tunnel)}" if segment else rules


def _spell_ports(ports: tuple[int, ...]) -> str:
    return "-".join(map(str, dict.fromkeys((ports[0], ports[-1]))))


def _choose_process(listener: Listener) -> dict[str, object]:
    """Return the values of the rules that hand clients to processes which share a port; none for one process."""
    first, *others = listener.process_ports
    if listener.sharing == 1:
        return {}
    return {
        "PROTOCOL": listener.protocol,
        "SHARED": first,
        "OTHERS": _spell_ports(tuple(others)),
        "SHARING": listener.sharing,
        "PORTS": ", ".join(f"{number} : {port}" for number, port in enumerate(listener.process_ports)),
    }


def path_chain(path_mtu: int) -> str:
    """Return the name of the chain for clients whose path takes packets of so many bytes."""
    return f"path_{path_mtu}"


def _render_path(tunnel: Tunnel, path_mtu: int) -> str:
    """Return the chain that sets the segment size of clients by their path."""
    size = tunnel.segment_size_over(path_mtu)
    if size == tunnel.segment_size:
        return f"chain {path_chain(path_mtu)} {{\n}}\n"
    rules = (
        f"tcp option maxseg size set {size}",
        f"meta nfproto ipv6 tcp option maxseg size set {size - _IPV6_EXTRA}",
    )
    return f"chain {path_chain(path_mtu)} {{\n" + "".join(f"    {rule}\n" for rule in rules) + "}\n"


def complement(*networks: IPv4Network) -> tuple[IPv4Network, ...]:
    """Return all IPv4 addresses but those of some networks.

    >>> [str(n) for n in complement(IPv4Network("128.0.0.0/2"), IPv4Network("128.0.0.0/1"))]
    ['0.0.0.0/1']
    """
    rest = [_EVERYTHING]
    for network in collapse_addresses(networks):
        rest = [
            piece
            for part in rest
            if not part.subnet_of(network)
            for piece in (part.address_exclude(network) if network.subnet_of(part) else (part,))
        ]
    return tuple(sorted(rest))


def translated_ports(listener: Listener) -> tuple[int, int]:
    """Return the first and last source port that clients' packets leave from: the tunnel's own are not among them.

    Packets to the tunnel's ports are not tracked, so a reply to a client there would not be translated back.
    """
    first, last = listener.process_ports[0], listener.process_ports[-1]
    below, above = (_UNPRIVILEGED, first - 1), (max(last + 1, _UNPRIVILEGED), 65535)
    return max(below, above, key=lambda ports: ports[1] - ports[0])


#: First port that a network ACL lets replies back to.
_UNPRIVILEGED = 1024

#: Connections that the tables of the kernel have room for, as the script `size-conntrack` sets it.
_TABLE_SIZE = 65536
FLOWS_EACH = _TABLE_SIZE // 8
"""Connections that one source may have through the gateway, and to it."""
FLOWS_ALL = _TABLE_SIZE // 8 * 7
"""Connections of all sources together: the rest is for those that the gateway opens itself."""

#: First packets of a new session, by protocol: P_CONTROL_HARD_RESET_CLIENT_V3 and P_CONTROL_WKC_V1 in the first byte
#: of OpenVPN's header, or TCP's SYN (openvpn-wire-protocol, "Message types").
_NEW_SESSION = {"udp": "@th,64,8 { 0x50, 0x58 }", "tcp": "tcp flags & (syn | ack) == syn"}
#: Such packets that a client sends to open a session.
_FIRST_PACKETS = {"udp": 2, "tcp": 1}

#: Counters of dropped packets: from a client with a source that is not the tunnel's; to the metadata, from a client or
#: from a program of the gateway's that is not root's; to open a session, beyond an address' rate; to open a connection,
#: beyond a source's number; and all others, by chain.
COUNTERS = ("spoofed", "metadata", "sessions", "flows", "refused_input", "refused_forward")

_METERS = """\
set openers {
    type ipv4_addr
    size 65536
    flags dynamic
    timeout 1m
}
set flows4 {
    type ipv4_addr
    size 65536
    flags dynamic
}
set flows6 {
    type ipv6_addr
    size 65536
    flags dynamic
}
"""

# Comes before all other chains, for packets to the gateway and packets through it. OpenVPN holds each client to its own
# addresses; this chain holds all clients together to the declared ones.
_SPOOFING = """\
chain tunnel {
    type filter hook prerouting priority raw; policy accept;
    iifname != $TUNNEL accept
    ip daddr 169.254.0.0/16 counter name metadata drop
    ip6 daddr $METADATA6 counter name metadata drop
    ip saddr != @sources counter name spoofed drop
    ip6 saddr != @sources6 drop
}
"""

# Opening sessions is limited by source address before OpenVPN, which has one thread, sees the packets. OpenVPN makes
# sure that the source is not forged (`force-cookie`, TCP's handshake). The tunnel's packets and SSH are not tracked: a
# full connection table drops packets that would begin a flow, and would lock clients and operator out.
_UNTRACKED = """\
chain untracked {
    type filter hook prerouting priority raw; policy accept;
    iifname $TUNNEL accept
    fib daddr type != local accept
$CLOSED    $PROTOCOL dport $PORT $NEW_SESSION \\
        update @openers { ip saddr limit rate over $NEW_SESSIONS/minute burst $NEW_SESSIONS packets } \\
        counter name sessions drop
    $PROTOCOL dport $PORT notrack
$CHOICE    tcp dport 22 ip saddr @admin notrack
}
chain untracked_replies {
    type filter hook output priority raw; policy accept;
    $PROTOCOL sport $PORT notrack
$RESTORED    tcp sport 22 ip daddr @admin notrack
}
"""

# Processes that share a port: behind the limits the filter writes into each packet which of them it is for, and into
# their answers the port that clients know. By the address alone: a home router may give a session another port, and
# OpenVPN follows it only within a process. The seed is fixed, else each load of the filter would deal anew and end all
# sessions.
_CLOSED = """\
    $PROTOCOL dport $OTHERS drop
"""
_CHOICE = """\
    $PROTOCOL dport $SHARED $PROTOCOL dport set jhash ip saddr mod $SHARING seed 0x5eed map { $PORTS }
"""
_RESTORED = """\
    $PROTOCOL sport $OTHERS $PROTOCOL sport set $SHARED
"""

# A TCP sender whose segments are too big for the path learns of it by an error that many networks drop.
_TCP_SEGMENTS = """\
chain segments_from_clients {
    type filter hook prerouting priority mangle; policy accept;
    iifname != $TUNNEL tcp dport $PORT tcp flags syn / syn,rst tcp option maxseg size set $OUTER_MSS
}
chain segments_to_clients {
    type filter hook output priority mangle; policy accept;
    oifname != $TUNNEL tcp sport $PORT tcp flags syn / syn,rst tcp option maxseg size set $OUTER_MSS
}
"""

# What path_mtu.py has measured: the chain of each client's path. Elements expire, so that no old measurement stays. A
# packet that came in fragments did not pass its path as it was; the chain sees it before the kernel puts it together
# again (priority -400).
_FRAGMENTS = """\
map client_paths {
    type ipv4_addr : verdict
    flags interval, timeout
}
map client_paths6 {
    type ipv6_addr : verdict
    flags interval, timeout
}
set fragmented {
    type ipv4_addr
    size 65536
    flags dynamic
    timeout 1m
}
chain fragments {
    type filter hook prerouting priority -450; policy accept;
    ip frag-off & 0x3fff == 0x2000 iifname != $TUNNEL udp dport $PORT update @fragmented { ip saddr }
}
"""

_MEASURED = """\
    ip daddr vmap @client_paths
    ip6 daddr vmap @client_paths6
"""

# No source fills the connection table, and all together leave room for the gateway's calls to AWS.
_FLOWS = """\
chain flows {
    add @flows4 { ip saddr ct count over $FLOWS_EACH } counter name flows drop
    add @flows6 { ip6 saddr ct count over $FLOWS_EACH } counter name flows drop
    ct count over $FLOWS_ALL counter name flows drop
}
"""

# The tunnel's own packets come first: no connection is tracked for them, and each of them pays for every rule before
# theirs. Errors are next: one that is about the tunnel's own packets is invalid, since it belongs to no tracked
# connection. Of a path that takes smaller packets the gateway learns by such an error alone.
_INPUT = """\
chain input {
    type filter hook input priority filter; policy drop;
    $PROTOCOL dport $PORT iifname != $TUNNEL ip saddr @allowed accept
    icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname "lo" accept
    ct state new jump flows
    icmp type echo-request accept
    icmpv6 type { echo-request, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query } accept
    iifname != $TUNNEL udp sport 67 udp dport 68 accept
    iifname != $TUNNEL ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
    ip saddr @admin tcp dport 22 accept
$GROUPS
    limit rate 5/second log prefix "drawbridge refused input: "
    counter name refused_input
}
"""

# Multicast that crosses a segment reaches the gateway too; the segment's own table filters it.
_GROUPS = """\
    iifname $TUNNEL ip daddr 224.0.0.0/4 accept
    iifname $TUNNEL ip6 daddr ff00::/8 accept
"""

# The maximum segment size comes first: the answer to a SYN already belongs to an established connection. It says what
# the one who reads it may send.
_FORWARD = """\
chain segments {
    tcp option maxseg size set $MSS
    meta nfproto ipv6 tcp option maxseg size set $MSS6
    oifname != $TUNNEL return
$MEASURED    tcp option maxseg size set $CLIENT_MSS
    meta nfproto ipv6 tcp option maxseg size set $CLIENT_MSS6
}
chain forward {
    type filter hook forward priority filter; policy drop;
    tcp flags syn / syn,rst jump segments
    ct state vmap { established : accept, related : accept, invalid : drop }
    ct state new jump flows
    iifname $TUNNEL ip daddr @resolvers counter name refused_forward drop
    iifname $TUNNEL oifname != $TUNNEL ip daddr @destinations accept
    iifname $TUNNEL oifname $TUNNEL ip daddr @peers accept
    iifname != $TUNNEL oifname $TUNNEL ip saddr @vpc ip daddr @reachable accept
    iifname $TUNNEL oifname != $TUNNEL ip6 daddr @destinations6 accept
    iifname $TUNNEL oifname $TUNNEL ip6 daddr @peers6 accept
    iifname != $TUNNEL oifname $TUNNEL ip6 saddr @opened6 ip6 daddr @clients6 accept
    limit rate 5/second log prefix "drawbridge refused forward: "
    counter name refused_forward
}
"""

# The role's credentials are for root: the agent and the metrics. Whoever takes OpenVPN over gets none.
_OUTPUT = """\
chain output {
    type filter hook output priority filter; policy accept;
    oifname $TUNNEL tcp flags syn / syn,rst jump segments
    ip daddr 169.254.169.254 meta skuid != 0 counter name metadata reject
    ip6 daddr fd00:ec2::254 meta skuid != 0 counter name metadata reject
}
"""

# A client's port is kept where it can be, but replies to ports below 1024 do not pass the public subnet's network ACL:
# an NTP daemon sends from 123, IKE from 500.
_POSTROUTING = """\
chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname != { "lo", $INTERFACES } ip saddr @sources meta l4proto { tcp, udp } masquerade to :$TRANSLATED
    oifname != { "lo", $INTERFACES } ip saddr @sources masquerade
}
"""
