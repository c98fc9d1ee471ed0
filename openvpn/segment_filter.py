"""Render a segment's own nftables table, of the bridge family, which sees each frame that a client sends.

OpenVPN refuses a client the hardware addresses of others (`learn-address`). This table drops frames from an address
that nobody has, holds each hardware address to the network addresses of its client, also in ARP and neighbour
discovery, drops what only a router may send, and lets multicast and broadcasts cross as far as the stack allows. A
client that is a bridge sends the frames of its LAN's hosts: from any hardware address, but only from network addresses
of that LAN, and from none that is another client's.
Source: nft(8), "BRIDGE ADDRESS FAMILY" and "PAYLOAD EXPRESSIONS"; RFC 4861 for the messages that claim an address.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses

from openvpn.addressing import derive_link_local, fixed_addresses6, gateway_mac, segment_addresses, source_macs
from openvpn.model import MulticastRange, Tunnel
from openvpn.nft import render_set, render_table
from openvpn.topology import BridgedSegment

TABLE = "bridge drawbridge"

#: Counters of dropped frames: with addresses that are not the client's; of kinds that only a router sends or no segment
#: needs; multicast that is not allowed or beyond the rate; broadcasts beyond the rate.
COUNTERS = ("spoofed", "foreign", "multicast", "broadcast")

#: Bits of an IPv6 address that a host forms from its hardware address (RFC 4862).
_INTERFACE_ID = 2**64 - 1


def render_nftables(tunnel: Tunnel) -> str:
    """Return a file for `nft -f` that replaces the segment's table."""
    bridged = isinstance(tunnel.topology, BridgedSegment)
    multicast = _MULTICAST if tunnel.multicast else _ALL
    multicast6 = _MULTICAST6 if tunnel.multicast else _ALL
    advertised = [str(tunnel.ipv6.pool)] if tunnel.ipv6 and tunnel.ipv6.advertised else []
    values = {"$BROADCASTS": str(tunnel.broadcasts), "$MULTICASTS": str(tunnel.multicasts)}
    values4 = {**values, "$MULTICAST\n": multicast}
    values6 = {
        **values,
        "$MULTICAST\n": multicast6,
        "$NETWORKS6": ", ".join(["::", "fe80::/10", *([str(tunnel.ipv6.pool)] if tunnel.ipv6 else [])]),
        "$FORMED": f"{{ {', '.join(['fe80::/10', *advertised])} }}" if advertised else "fe80::/10",
        "$FREE": f"{{ {', '.join(['::', 'fe80::/10', *advertised])} }}",
    }
    frames = {
        **values,
        "$PORTS": ", ".join(f'"{name}"' for name in tunnel.adapters),
        "$STRANGER": "goto lan_frames" if bridged else "counter name spoofed drop",
    }
    body = "\n".join(
        [
            *_address_sets(tunnel),
            *_multicast_sets(tunnel.multicast),
            *_lan_sets(tunnel),
            *(f"counter {name} {{\n}}\n" for name in COUNTERS),
            *(_TALKERS.format(name=name) for name in ("talkers", "group_talkers")),
            _fill(_FRAMES, frames),
            _ARP,
            _fill(_IP, values4),
            _fill(_IP6, values6),
            *([_fill(_LAN, values4), _fill(_LAN6, values6)] if bridged else []),
        ]
    )
    return render_table("Its segment", TABLE, body)


def _address_sets(tunnel: Tunnel) -> Iterable[str]:
    """Yield the sets that say which addresses each client may use."""
    addresses, macs_by_client = segment_addresses(tunnel), source_macs(tunnel)
    pairs = [(mac, addresses[name]) for name, macs in macs_by_client.items() for mac in macs]
    pairs6 = _own_addresses6(tunnel, macs_by_client)
    claims = (
        f"{mac} . {sender} . {address}"
        for name, macs in macs_by_client.items()
        for mac in macs
        for sender in macs
        for address in (addresses[name], "0.0.0.0")
    )
    gateway6 = {derive_link_local(gateway_mac(tunnel)), *([tunnel.ipv6.address] if tunnel.ipv6 else [])}
    yield render_set("members", "ether_addr", (mac for mac, _ in pairs))
    yield render_set("claims", "ether_addr . ether_addr . ipv4_addr", claims)
    yield render_set("own", "ether_addr . ipv4_addr", (f"{mac} . {address}" for mac, address in pairs))
    yield render_set("own6", "ether_addr . ipv6_addr", (f"{mac} . {address}" for mac, address in pairs6))
    yield render_set("taken6", "ipv6_addr", sorted({*gateway6, *(address for _, address in pairs6)}))


def _own_addresses6(tunnel: Tunnel, macs_by_client: Mapping[str, tuple[str, ...]]) -> list[tuple[str, IPv6Address]]:
    """Return pairs of a hardware address and an IPv6 address that its client owns."""
    addresses6 = fixed_addresses6(tunnel)
    # Each address of a client may be used from each of its hardware addresses.
    formed = [(mac, derive_link_local(source)) for macs in macs_by_client.values() for mac in macs for source in macs]
    fixed = [(mac, addresses6[name]) for name, macs in macs_by_client.items() for mac in macs if name in addresses6]
    if tunnel.ipv6 is None or not tunnel.ipv6.advertised:
        return formed + fixed
    # Hosts may form other addresses of the prefix too, as long as they are nobody else's.
    pool = tunnel.ipv6.pool
    return formed + fixed + [(mac, pool[int(address) & _INTERFACE_ID]) for mac, address in formed]


def _multicast_sets(allowed: Iterable[MulticastRange]) -> Iterable[str]:
    if allowed:
        ranges4 = [(entry.group, entry.ports) for entry in allowed if isinstance(entry.group, IPv4Network)]
        ranges6 = [(entry.group, entry.ports) for entry in allowed if isinstance(entry.group, IPv6Network)]
        elements4, elements6 = (
            (f"{group} . {first}-{last}" for group, (first, last) in ranges) for ranges in (ranges4, ranges6)
        )
        networks4, networks6 = (group for group, _ in ranges4), (group for group, _ in ranges6)
        yield render_set("groups", "ipv4_addr . inet_service", elements4, "interval")
        yield render_set("groups6", "ipv6_addr . inet_service", elements6, "interval")
        yield render_set("any_port_groups", "ipv4_addr", collapse_addresses(networks4), "interval")
        yield render_set("any_port_groups6", "ipv6_addr", collapse_addresses(networks6), "interval")


def _lan_sets(tunnel: Tunnel) -> Iterable[str]:
    """Yield what a bridged LAN's hosts may use and may not: the pool is for the gateway and the clients."""
    if isinstance(tunnel.topology, BridgedSegment):
        behind = collapse_addresses(tunnel.topology.lan.address_exclude(tunnel.pool))
        macs = (mac for macs in source_macs(tunnel).values() for mac in macs)
        yield render_set("behind", "ipv4_addr", sorted(behind), "interval")
        yield render_set("guarded", "ether_addr", (gateway_mac(tunnel), *macs))


def _fill(chain: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        chain = chain.replace(name, value)
    return chain


_TALKERS = """\
set {name} {{
    type ether_addr
    size 4096
    flags dynamic
    timeout 1m
}}
"""

# Filters frames before the bridge decides where they go, so that it protects the gateway and the clients alike.
_FRAMES = """\
chain frames {
    type filter hook prerouting priority filter; policy drop;
    iifname != { $PORTS } accept
    ether saddr != @members $STRANGER
    ether daddr ff:ff:ff:ff:ff:ff \\
        update @talkers { ether saddr limit rate over $BROADCASTS/second burst $BROADCASTS packets } \\
        counter name broadcast drop
    ether daddr & 01:00:00:00:00:00 != 0 ether daddr != ff:ff:ff:ff:ff:ff \\
        update @group_talkers { ether saddr limit rate over $MULTICASTS/second burst $MULTICASTS packets } \\
        counter name multicast drop
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
    igmp type membership-query counter name foreign drop
$MULTICAST
}
"""

_ALL = "    accept\n"

# Only the first fragment of a packet holds its port, so later ones pass to a group whatever their port.
_MULTICAST = """\
    ip daddr != 224.0.0.0/4 accept
    ip protocol igmp accept
    ip daddr . udp dport @groups accept
    ip frag-off & 0x1fff != 0 ip daddr @any_port_groups accept
    counter name multicast drop
"""

# A client may form temporary link-local addresses (RFC 8981) and addresses of an advertised prefix, but none that
# belongs to another client. Neighbour discovery is valid only with hop limit 255, and never in fragments (RFC 6980),
# which could hide its type behind other headers; so could fragments for a group, unless UDP comes first in them.
_IP6 = """\
chain claim {
    ether saddr . icmpv6 taddr != @own6 counter name spoofed drop
}

chain source {
    ether saddr . ip6 saddr != @own6 counter name spoofed drop
}

chain fragments {
    ip6 hoplimit 255 counter name foreign drop
    ip6 daddr ff00::/8 frag nexthdr != udp counter name foreign drop
}

chain ip6_frames {
    exthdr frag exists jump fragments
    icmpv6 type { nd-router-advert, nd-redirect, mld-listener-query } counter name foreign drop
    icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit != 255 \\
        counter name foreign drop
    icmpv6 type nd-neighbor-advert icmpv6 taddr != $FORMED jump claim
    icmpv6 type nd-neighbor-advert icmpv6 taddr @taken6 jump claim
    ip6 saddr :: icmpv6 type nd-neighbor-solicit icmpv6 taddr @taken6 jump claim
    ip6 saddr != $FREE jump source
    ip6 saddr @taken6 jump source
    udp sport 547 counter name foreign drop
$MULTICAST
}
"""

# A MAC address that does not belong to a client has passed learn-address, so it came through the bridge. Hosts behind
# the bridge share one limit of broadcasts, and one of multicast.
_LAN = """\
chain lan_frames {
    ether saddr @guarded counter name spoofed drop
    ether daddr ff:ff:ff:ff:ff:ff limit rate over $BROADCASTS/second burst $BROADCASTS packets \\
        counter name broadcast drop
    ether daddr & 01:00:00:00:00:00 != 0 ether daddr != ff:ff:ff:ff:ff:ff \\
        limit rate over $MULTICASTS/second burst $MULTICASTS packets counter name multicast drop
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
    igmp type membership-query counter name foreign drop
$MULTICAST
}
"""

_LAN6 = """\
chain lan_ip6 {
    exthdr frag exists jump fragments
    icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect, mld-listener-query } counter name foreign drop
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit != 255 counter name foreign drop
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
    frag frag-off != 0 ip6 daddr @any_port_groups6 accept
    counter name multicast drop
"""
