"""Craft what a client of a segment with IPv6 would try: other addresses than its own, and ways past the gateway."""

from collections.abc import Iterator
from dataclasses import dataclass

from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6NDOptDstLLAddr,
    IPv6,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from drawbridge.trial.ipv6 import global_address
from drawbridge.trial.segment import SegmentMember
from openvpn.addressing import derive_link_local
from tests.support.attempts import Attempt, cut_ipv6, token
from tests.support.frames import mac

ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
#: AWS's services at unique local addresses: instance metadata, the resolver, time, containers' credentials.
SERVICES = {
    "metadata": "fd00:ec2::254",
    "resolver": "fd00:ec2::253",
    "time": "fd00:ec2::123",
    "containers' credentials": "fd00:ec2::23",
}


@dataclass(frozen=True, slots=True)
class Station6:
    """A member's addresses."""

    mac: str
    address: str
    link_local: str

    @classmethod
    def of(cls, member: SegmentMember) -> "Station6":
        """Return the addresses that a member has now."""
        hardware = ":".join(f"{byte:02x}" for byte in mac(member))
        return cls(hardware, str(global_address(member.host, member.device)), str(derive_link_local(hardware)))


@dataclass(frozen=True, slots=True)
class Stations6:
    """Who takes part: the attacker, another client, the gateway, and the address of a host on the Internet."""

    attacker: Station6
    other: Station6
    gateway: Station6
    internet: str

    def through_gateway(self, packet: Packet) -> list[Packet]:
        """Return a packet as a frame to the gateway."""
        return [Ether(src=self.attacker.mac, dst=self.gateway.mac) / packet]

    def to_other(self, packet: Packet) -> list[Packet]:
        """Return a packet as a frame to the other client."""
        return [Ether(src=self.attacker.mac, dst=self.other.mac) / packet]

    def claim(self, target: str, source: str, mark: bytes) -> Packet:
        """Return a neighbour advertisement to everybody that the attacker has an address."""
        return (
            Ether(src=self.attacker.mac, dst=ALL_NODES_MAC)
            / IPv6(src=source, dst=ALL_NODES, hlim=255)
            / ICMPv6ND_NA(tgt=target, R=0, S=0, O=1)
            / ICMPv6NDOptDstLLAddr(lladdr=self.attacker.mac)
            / Raw(mark)
        )


def _datagram(mark: bytes) -> Packet:
    return UDP(sport=40000, dport=53) / Raw(mark)


def _attempts(frames: dict[str, list[Packet]]) -> list[Attempt]:
    return [Attempt.of(name, *(bytes(frame) for frame in frames[name])) for name in frames]


def forged_sources(stations: Stations6, free: str) -> dict[str, str]:
    """Return addresses that the attacker does not have; `free` is one of the clients' prefix that nobody has."""
    return {
        "the other client": stations.other.address,
        "the other client's link-local": stations.other.link_local,
        "the gateway": stations.gateway.address,
        "the gateway's link-local": stations.gateway.link_local,
        "nobody of the prefix": free,
        "the Internet": stations.internet,
        "a foreign network": "2001:db8:bad::1",
        "a unique local address": "fd12:3456::1",
        "the metadata service": SERVICES["metadata"],
        "loopback": "::1",
    }


def leaving(stations: Stations6, free: str) -> Iterator[Attempt]:
    """Yield each attempt that would leave the gateway for the VPC or the Internet (3.1, 3.2, 3.6)."""
    own, gateway = stations.attacker, stations.gateway
    transports = {
        "datagram": UDP(sport=40000, dport=53),
        "SYN": TCP(sport=40000, dport=80),
        "ping": ICMPv6EchoRequest(),
    }
    for service, target in SERVICES.items():
        for transport, header in transports.items():
            for kind, source in (("global", own.address), ("link-local", own.link_local)):
                name = f"{service} {transport} {kind}"
                packet = IPv6(src=source, dst=target) / header / Raw(token(name))
                yield Attempt.of(name, *map(bytes, stations.through_gateway(packet)))
    for kind, source in forged_sources(stations, free).items():
        name = f"out from {kind}"
        packet = IPv6(src=source, dst=stations.internet) / _datagram(token(name))
        yield Attempt.of(name, *map(bytes, stations.through_gateway(packet)))
    for kind, target in (("metadata", SERVICES["metadata"]), ("Internet", stations.internet)):
        for name, header in (
            (f"routed to {kind}, type 0", IPv6ExtHdrRouting(type=0, addresses=[target])),
            (f"routed to {kind}, type 2", IPv6ExtHdrRouting(type=2, addresses=[target])),
            (f"routed to {kind}, segments", IPv6ExtHdrSegmentRouting(addresses=[target, gateway.address], segleft=1)),
        ):
            packet = IPv6(src=own.address, dst=gateway.address) / header / _datagram(token(name))
            yield Attempt.of(name, *map(bytes, stations.through_gateway(packet)))


def leaving_controls(stations: Stations6) -> list[Attempt]:
    """Return what may leave the gateway."""
    name = "out"
    packet = IPv6(src=stations.attacker.address, dst=stations.internet) / _datagram(token(name))
    return [Attempt.of(name, *map(bytes, stations.through_gateway(packet)))]


def crossing(stations: Stations6, free: str) -> Iterator[Attempt]:
    """Yield each attempt that would reach the other client (3.2, 3.3, 3.4, 3.6)."""
    own, other, gateway = stations.attacker, stations.other, stations.gateway
    for kind, source in forged_sources(stations, free).items():
        name = f"across from {kind}"
        packet = IPv6(src=source, dst=other.address) / _datagram(token(name))
        yield Attempt.of(name, *map(bytes, stations.to_other(packet)))
    for kind, target in (
        ("the other client's", other.address),
        ("the gateway's", gateway.address),
        ("the gateway's link-local", gateway.link_local),
    ):
        for source in (own.address, own.link_local):
            name = f"{kind} address from {source}"
            yield Attempt.of(name, bytes(stations.claim(target, source, token(name))))
    for cut in (16, 0):
        name = f"the gateway's link-local address in fragments, cut at {cut}"
        frames = cut_ipv6(stations.claim(gateway.link_local, own.link_local, token(name)), cut)
        yield Attempt.of(name, *map(bytes, frames))
    for name, header in (
        ("routed back, type 0", IPv6ExtHdrRouting(type=0, addresses=[other.address])),
        ("routed back, segments", IPv6ExtHdrSegmentRouting(addresses=[other.address, gateway.address], segleft=1)),
    ):
        packet = IPv6(src=own.address, dst=gateway.address) / header / _datagram(token(name))
        yield Attempt.of(name, *map(bytes, stations.through_gateway(packet)))


def crossing_controls(stations: Stations6) -> list[Attempt]:
    """Return what may reach the other client."""
    own, other = stations.attacker, stations.other
    to_other = IPv6(src=own.address, dst=other.address)
    return _attempts(
        {
            "a datagram": stations.to_other(to_other / _datagram(token("a datagram"))),
            "by the gateway": stations.through_gateway(to_other / _datagram(token("by the gateway"))),
            "its own address": [stations.claim(own.address, own.address, token("its own address"))],
            "its own link-local": [stations.claim(own.link_local, own.link_local, token("its own link-local"))],
            "fragments": cut_ipv6(stations.to_other(to_other / _datagram(token("fragments")))[0]),
        }
    )
