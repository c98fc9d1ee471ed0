"""What may cross a segment: its own nftables table, of the bridge family, which sees each frame that a client sends.

OpenVPN holds each client to its own hardware address (`learn-address`); this holds each hardware address to the network
addresses of its client, also in ARP and neighbour discovery, keeps out what only a router may say, and lets multicast
and broadcasts cross as far as the stack allows. A client that is a bridge brings the frames of its LAN's hosts: these
come from whatever hardware addresses, but from network addresses of that LAN, and from none that is another client's.
Source: nft(8), "BRIDGE ADDRESS FAMILY" and "PAYLOAD EXPRESSIONS"; RFC 4861 for which messages claim an address; RFC
4291, 2.5.1 for the link-local one of a hardware address.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, collapse_addresses
from textwrap import indent

from openvpn.model import Multicast, Tunnel

TABLE = "bridge drawbridge"

#: What is counted when dropped: a client with addresses not its own; what only a router says, or no segment needs;
#: multicast that is not named; broadcasts beyond the rate.
COUNTERS = ("spoofed", "foreign", "multicast", "broadcast")


def render_nftables(tunnel: Tunnel, adapters: Sequence[str] = ()) -> str:
    """Return a file for `nft -f` that makes the table anew.

    `adapters` are all ports of the bridge where it has more than the tunnel's own.
    """
    addresses, addresses6, hardware = tunnel.addresses, tunnel.addresses6, tunnel.hardware
    members = [(mac, addresses[name]) for name, owned in hardware.items() for mac in owned]
    own6 = [(mac, link_local(local)) for owned in hardware.values() for mac in owned for local in owned]
    own6 += [(mac, addresses6[name]) for name, owned in hardware.items() for mac in owned if name in addresses6]
    if tunnel.advertised and tunnel.pool6:
        # What a host makes of the prefix and its hardware address; anything else it makes must be nobody's.
        own6 += [
            (mac, tunnel.pool6[int(link_local(local)) & (2**64 - 1)])
            for owned in hardware.values()
            for mac in owned
            for local in owned
        ]
    claims = [
        f"{mac} . {sender} . {ip}"
        for name, owned in hardware.items()
        for mac in owned
        for sender in owned
        for ip in (addresses[name], "0.0.0.0")
    ]
    ours = (link_local(tunnel.mac), *([tunnel.address6] if tunnel.address6 else []))
    taken6 = {*ours, *(address for _, address in own6)}
    made_up = f"{{ fe80::/10, {tunnel.pool6} }}" if tunnel.advertised else "fe80::/10"
    free = f"{{ ::, fe80::/10, {tunnel.pool6} }}" if tunnel.advertised else "{ ::, fe80::/10 }"
    sets = (
        _set("members", "ether_addr", (mac for mac, _ in members)),
        _set("claims", "ether_addr . ether_addr . ipv4_addr", claims),
        _set("own", "ether_addr . ipv4_addr", (f"{mac} . {address}" for mac, address in members)),
        _set("own6", "ether_addr . ipv6_addr", (f"{mac} . {address}" for mac, address in own6)),
        _set("taken6", "ipv6_addr", sorted(taken6)),
        *_groups(tunnel.multicast),
        *_behind(tunnel),
    )
    passes = {"$MULTICAST\n": _MULTICAST if tunnel.multicast else _ALL, "$RATE": str(tunnel.broadcasts)}
    passes6 = {**passes, "$MULTICAST\n": _MULTICAST6 if tunnel.multicast else _ALL, "$NETWORKS6": _networks6(tunnel)}
    passes6 |= {"$MADE_UP": made_up, "$FREE": free}
    lan = [_filled(_LAN, passes), _filled(_LAN6, passes6)] if tunnel.bridged else []
    stranger = "goto lan_frames" if tunnel.bridged else "counter name spoofed drop"
    ports = ", ".join(f'"{name}"' for name in adapters or tunnel.adapters)
    body = "\n".join(
        [
            *sets,
            *(f"counter {name} {{\n}}\n" for name in COUNTERS),
            _TALKERS,
            _filled(_FRAMES, {**passes, "$PORTS": ports, "$STRANGER": stranger}),
            _ARP,
            _filled(_IP, passes),
            _filled(_IP6, passes6),
            *lan,
        ]
    )
    return f"# Its segment\ntable {TABLE}\ndelete table {TABLE}\n\ntable {TABLE} {{\n{indent(body, '    ')}}}\n"


def link_local(mac: str) -> IPv6Address:
    """Return the link-local address that an interface derives from its hardware address.

    >>> link_local("02:00:00:00:00:01")
    IPv6Address('fe80::ff:fe00:1')
    """
    octets = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:])


def _groups(allowed: Iterable[Multicast]) -> Iterable[str]:
    if allowed:
        four = [one for one in allowed if isinstance(one.group, IPv4Network)]
        six = [one for one in allowed if one not in four]
        for name, kind, ranges in (("groups", "ipv4_addr", four), ("groups6", "ipv6_addr", six)):
            elements = (f"{one.group} . {one.ports[0]}-{one.ports[1]}" for one in ranges)
            yield _set(name, f"{kind} . inet_service", elements, "interval")


def _behind(tunnel: Tunnel) -> Iterable[str]:
    """Addresses of a bridged LAN: those of the segment's part of it are the gateway's and the clients'."""
    if tunnel.bridged:
        rest = collapse_addresses(tunnel.network.address_exclude(tunnel.pool))
        yield _set("behind", "ipv4_addr", sorted(rest), "interval")
        yield _set("guarded", "ether_addr", (tunnel.mac, *(mac for owned in tunnel.hardware.values() for mac in owned)))


def _networks6(tunnel: Tunnel) -> str:
    return ", ".join(["::", "fe80::/10", *([str(tunnel.pool6)] if tunnel.pool6 else [])])


def _filled(chain: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        chain = chain.replace(name, value)
    return chain


def _set(name: str, kind: str, elements: Iterable[object], flags: str = "") -> str:
    listed = ", ".join(dict.fromkeys(map(str, elements)))
    lines = [
        f"type {kind}",
        *([f"flags {flags}"] if flags else []),
        *([f"elements = {{ {listed} }}"] if listed else []),
    ]
    return f"set {name} {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


_TALKERS = """\
set talkers {
    type ether_addr
    size 4096
    flags dynamic
    timeout 1m
}
"""

# A port's frames, before the bridge decides where they go: the gateway is guarded just as the clients are.
_FRAMES = """\
chain frames {
    type filter hook prerouting priority filter; policy drop;
    iifname != { $PORTS } accept
    ether saddr != @members $STRANGER
    ether daddr ff:ff:ff:ff:ff:ff update @talkers { ether saddr limit rate over $RATE/second burst $RATE packets } \\
        counter name broadcast drop
    ether type vmap { arp : goto arp_frames, ip : goto ip_frames, ip6 : goto ip6_frames }
    counter name foreign
}
"""

_ARP = """\
chain arp_frames {
    ether saddr . arp saddr ether . arp saddr ip @claims accept
    counter name spoofed drop
}
"""

_IP = """\
chain ip_frames {
    ether saddr . ip saddr != @own counter name spoofed drop
    udp sport 67 counter name foreign drop
$MULTICAST
}
"""

_ALL = "    accept\n"

# Of a packet in parts, only the first one tells its port.
_MULTICAST = """\
    ip daddr != 224.0.0.0/4 accept
    ip protocol igmp accept
    ip daddr . udp dport @groups accept
    ip frag-off & 0x1fff != 0 accept
    counter name multicast drop
"""

# A client may make up link-local addresses (RFC 8981), and those of a prefix that is announced, but none that another
# one has.
_IP6 = """\
chain claim {
    ether saddr . icmpv6 taddr != @own6 counter name spoofed drop
}

chain source {
    ether saddr . ip6 saddr != @own6 counter name spoofed drop
}

chain ip6_frames {
    icmpv6 type { nd-router-advert, nd-redirect } counter name foreign drop
    icmpv6 type nd-neighbor-advert icmpv6 taddr != $MADE_UP jump claim
    icmpv6 type nd-neighbor-advert icmpv6 taddr @taken6 jump claim
    ip6 saddr :: icmpv6 type nd-neighbor-solicit icmpv6 taddr @taken6 jump claim
    ip6 saddr != $FREE jump source
    ip6 saddr @taken6 jump source
    udp sport 547 counter name foreign drop
$MULTICAST
}
"""

# Whose a hardware address is that is no client's, OpenVPN has judged: the bridge's. All of its LAN shares one rate.
_LAN = """\
chain lan_frames {
    ether saddr @guarded counter name spoofed drop
    ether daddr ff:ff:ff:ff:ff:ff limit rate over $RATE/second burst $RATE packets counter name broadcast drop
    ether type vmap { arp : goto lan_arp, ip : goto lan_ip, ip6 : goto lan_ip6 }
    counter name foreign
}

chain lan_arp {
    arp saddr ether @guarded counter name spoofed drop
    arp saddr ip 0.0.0.0 accept
    arp saddr ip @behind accept
    counter name spoofed drop
}

chain lan_ip {
    udp sport { 67, 68 } counter name foreign drop
    ip saddr != @behind counter name spoofed drop
$MULTICAST
}
"""

_LAN6 = """\
chain lan_ip6 {
    icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } counter name foreign drop
    icmpv6 type nd-neighbor-advert icmpv6 taddr @taken6 counter name spoofed drop
    ip6 saddr :: icmpv6 type nd-neighbor-solicit icmpv6 taddr @taken6 counter name spoofed drop
    ip6 saddr @taken6 counter name spoofed drop
    ip6 saddr != { $NETWORKS6 } counter name spoofed drop
    udp sport { 546, 547 } counter name foreign drop
$MULTICAST
}
"""

_MULTICAST6 = """\
    ip6 daddr != ff00::/8 accept
    meta l4proto ipv6-icmp accept
    ip6 daddr . udp dport @groups6 accept
    frag frag-off != 0 accept
    counter name multicast drop
"""
