"""Attacks by a client of a segment: frames that a switch's neighbour would send, crafted byte by byte.

Does not prove anything about members that are not Linux.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.igmp import IGMP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLQuery,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, LLC, STP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.measure import ping
from drawbridge.trial.segment import FrameListener, SegmentMember, find_members
from openvpn.addressing import derive_link_local
from tests.support.attempts import Attempt, count_arrivals, cut_ipv6, token
from tests.support.foreign_macs import TUNNEL, check_flood, check_suspended, is_suspended, members_by_name, reconnect
from tests.support.frames import mac, udp

ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
BROADCAST = "ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True, slots=True)
class Station:
    """A member's addresses."""

    mac: str
    address: str
    link_local: str


@dataclass(frozen=True, slots=True)
class Stations:
    """The members of the segment that an attack is about."""

    desktop: Station
    robot: Station
    gateway: Station


Craft = Callable[[Stations, bytes], list[Packet]]


def plain(s: Stations, mark: bytes) -> list[Packet]:
    return [Ether(src=s.desktop.mac, dst=s.robot.mac) / IP(src=s.desktop.address, dst=s.robot.address) / _udp(mark)]


def _udp(mark: bytes, port: int = 9) -> Packet:
    return UDP(sport=40000, dport=port) / Raw(mark)


def _advertisement(s: Stations, mark: bytes, *extensions: Packet, hop_limit: int = 255) -> Packet:
    packet = Ether(src=s.desktop.mac, dst=ALL_NODES_MAC) / IPv6(src=s.desktop.link_local, dst=ALL_NODES, hlim=hop_limit)
    for extension in extensions:
        packet = packet / extension
    return packet / ICMPv6ND_RA(routerlifetime=1800) / ICMPv6NDOptSrcLLAddr(lladdr=s.desktop.mac) / Raw(mark)


def _neighbour(s: Stations, mark: bytes, target: str, hop_limit: int = 255) -> Packet:
    return (
        Ether(src=s.desktop.mac, dst=ALL_NODES_MAC)
        / IPv6(src=s.desktop.link_local, dst=ALL_NODES, hlim=hop_limit)
        / ICMPv6ND_NA(tgt=target, R=0, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=s.desktop.mac)
        / Raw(mark)
    )


def _datagramcut_ipv6(s: Stations, content: bytes) -> list[Packet]:
    packet = bytes(IP(src=s.desktop.address, dst=s.robot.address) / _udp(content))[20:]
    return [
        Ether(src=s.desktop.mac, dst=s.robot.mac)
        / IP(src=s.desktop.address, dst=s.robot.address, id=9, proto=17, frag=start // 8, flags="MF" * (start == 0))
        / Raw(packet[start:end])
        for start, end in ((0, 400), (400, len(packet)))
    ]


def _ethernet(s: Stations, kind: int, mark: bytes, destination: str) -> list[Packet]:
    return [Ether(src=s.desktop.mac, dst=destination, type=kind) / Raw(mark)]


def _group(s: Stations, group: str, payload: Packet) -> Packet:
    low = [int(part) for part in group.split(".")]
    hardware = f"01:00:5e:{low[1] & 127:02x}:{low[2]:02x}:{low[3]:02x}"
    return Ether(src=s.desktop.mac, dst=hardware) / IP(src=s.desktop.address, dst=group) / payload


#: Controls: what the same listener gets from the same sender.
ALLOWED: Mapping[str, Craft] = {
    "a datagram": plain,
    "a named group": lambda s, mark: [_group(s, "239.255.0.1", _udp(mark, 7400))],
    "its own neighbour advertisement": lambda s, mark: [_neighbour(s, mark, s.desktop.link_local)],
    "a datagram in fragments": lambda s, mark: _datagramcut_ipv6(s, bytes(800) + mark),
}

#: number of the row, name -> frames
REFUSED: Mapping[tuple[str, str], Craft] = {
    ("2.1", "another's hardware address"): lambda s, mark: [
        Ether(src=s.robot.mac, dst=s.robot.mac) / IP(src=s.desktop.address, dst=s.robot.address) / _udp(mark)
    ],
    ("2.1", "the gateway's hardware address"): lambda s, mark: [
        Ether(src=s.gateway.mac, dst=s.robot.mac) / IP(src=s.desktop.address, dst=s.robot.address) / _udp(mark)
    ],
    ("2.2", "another's IP address"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=s.robot.mac) / IP(src=s.robot.address, dst=s.robot.address) / _udp(mark)
    ],
    ("2.2", "the gateway's IP address"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=s.robot.mac) / IP(src=s.gateway.address, dst=s.robot.address) / _udp(mark)
    ],
    ("2.3", "ARP for another"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=BROADCAST)
        / ARP(op=2, hwsrc=s.desktop.mac, psrc=s.robot.address, pdst=s.robot.address)
        / Raw(mark)
    ],
    ("2.3", "ARP for the gateway"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=BROADCAST)
        / ARP(op=2, hwsrc=s.desktop.mac, psrc=s.gateway.address, pdst=s.robot.address)
        / Raw(mark)
    ],
    ("2.3", "ARP with another's hardware address inside"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=BROADCAST)
        / ARP(op=2, hwsrc=s.gateway.mac, psrc=s.desktop.address, pdst=s.robot.address)
        / Raw(mark)
    ],
    ("2.4", "802.1Q"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=s.robot.mac)
        / Dot1Q(vlan=7)
        / IP(src=s.desktop.address, dst=s.robot.address)
        / _udp(mark)
    ],
    ("2.4", "802.1Q with VLAN 0"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=s.robot.mac)
        / Dot1Q(vlan=0)
        / IP(src=s.desktop.address, dst=s.robot.address)
        / _udp(mark)
    ],
    ("2.4", "QinQ"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=s.robot.mac, type=0x88A8)
        / Dot1Q(vlan=7)
        / Dot1Q(vlan=8)
        / IP(src=s.desktop.address, dst=s.robot.address)
        / _udp(mark)
    ],
    ("2.4", "spanning tree"): lambda s, mark: [
        Ether(bytes(Ether(src=s.desktop.mac, dst="01:80:c2:00:00:00", type=60)) + bytes(LLC() / STP()) + mark)
    ],
    ("2.4", "LLDP"): lambda s, mark: _ethernet(s, 0x88CC, mark, "01:80:c2:00:00:0e"),
    ("2.4", "EAPOL"): lambda s, mark: _ethernet(s, 0x888E, mark, s.robot.mac),
    ("2.4", "PPPoE"): lambda s, mark: _ethernet(s, 0x8863, mark, BROADCAST),
    ("2.4", "loopback test"): lambda s, mark: _ethernet(s, 0x9000, mark, s.robot.mac),
    ("2.5", "a DHCP offer"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=BROADCAST)
        / IP(src=s.desktop.address, dst="255.255.255.255")
        / UDP(sport=67, dport=68)
        / BOOTP(op=2, sname=mark.ljust(64, b"\0"))
        / DHCP(options=[("message-type", "offer"), "end"])
    ],
    ("2.6", "a router advertisement"): lambda s, mark: [_advertisement(s, mark)],
    ("2.6", "behind hop-by-hop options"): lambda s, mark: [_advertisement(s, mark, IPv6ExtHdrHopByHop())],
    ("2.6", "behind destination options"): lambda s, mark: [_advertisement(s, mark, IPv6ExtHdrDestOpt())],
    ("2.7", "a router advertisement in fragments"): lambda s, mark: cut_ipv6(_advertisement(s, mark)),
    ("2.7", "a router advertisement in an atomic fragment"): lambda s, mark: cut_ipv6(_advertisement(s, mark), 0),
    ("2.8", "another's link-local address"): lambda s, mark: [_neighbour(s, mark, s.robot.link_local)],
    ("2.8", "the gateway's link-local address"): lambda s, mark: [_neighbour(s, mark, s.gateway.link_local)],
    ("2.8", "the same in fragments"): lambda s, mark: cut_ipv6(_neighbour(s, mark, s.gateway.link_local)),
    ("2.8", "a solicitation from another's"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=ALL_NODES_MAC)
        / IPv6(src=s.gateway.link_local, dst=ALL_NODES)
        / ICMPv6ND_NS(tgt=s.robot.link_local)
        / ICMPv6NDOptSrcLLAddr(lladdr=s.desktop.mac)
        / Raw(mark)
    ],
    ("2.9", "a group that is not named"): lambda s, mark: [_group(s, "239.1.2.3", _udp(mark, 7400))],
    ("2.9", "a port that is not named"): lambda s, mark: [_group(s, "239.255.0.1", _udp(mark, 7399))],
    ("2.10", "a later fragment to a group that is not named"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst="01:00:5e:01:02:03")
        / IP(src=s.desktop.address, dst="239.1.2.3", frag=100, proto=17)
        / Raw(mark)
    ],
    ("2.11", "an IGMP query"): lambda s, mark: [_group(s, "224.0.0.1", IGMP(type=0x11, mrcode=10) / Raw(mark))],
    ("2.11", "an MLD query"): lambda s, mark: [
        Ether(src=s.desktop.mac, dst=ALL_NODES_MAC)
        / IPv6(src=s.desktop.link_local, dst=ALL_NODES, hlim=1)
        / IPv6ExtHdrHopByHop()
        / ICMPv6MLQuery()
        / Raw(mark)
    ],
    ("2.16", "a neighbour advertisement from afar"): lambda s, mark: [
        _neighbour(s, mark, s.desktop.link_local, hop_limit=254)
    ],
}


@pytest.fixture(scope="module")
def arrivals(segment: Deployment) -> Mapping[str, int]:
    """Send every attempt, and return the number of frames of each that came to the robot."""
    gateway, desktop, robot, *_ = find_members(segment)
    stations = Stations(*(_describe(member) for member in (desktop, robot, gateway)))
    named = {**ALLOWED, **{name: craft for (_, name), craft in REFUSED.items()}}
    attempts = [
        Attempt.of(name, *(bytes(frame) for frame in craft(stations, token(name)))) for name, craft in named.items()
    ]
    return count_arrivals(
        attempts, sender=desktop.host, device="tap0", listener=robot.host, listener_device="tap0", seconds=4
    )


def _describe(member: SegmentMember) -> Station:
    hardware = ":".join(f"{byte:02x}" for byte in mac(member))
    return Station(hardware, str(member.address), str(derive_link_local(hardware)))


@pytest.mark.attack("2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8", "2.9", "2.10", "2.11", "2.16")
@pytest.mark.parametrize("name", ALLOWED)
def test_control_what_is_allowed_arrives(arrivals: Mapping[str, int], name: str) -> None:
    assert arrivals[name] > 0


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.attack(number)) for number, name in REFUSED])
def test_no_frame_of_an_attack_arrives(arrivals: Mapping[str, int], name: str) -> None:
    assert arrivals[name] == 0


@pytest.mark.attack("2.12")
def test_no_frame_asks_a_link_local_service(segment: Deployment) -> None:
    gateway, desktop, *_ = find_members(segment)
    sender, station = _describe(desktop), _describe(gateway)
    services = {"metadata": "169.254.169.254", "resolver": "169.254.169.253", "time": "169.254.169.123"}
    targets = {
        **{(name, "unicast"): (station.mac, address) for name, address in services.items()},
        **{(name, "broadcast"): (BROADCAST, address) for name, address in services.items()},
        ("VPC host", "unicast"): (station.mac, segment.region.host("private-host").address),
    }
    attempts = [
        Attempt.of(
            " ".join(name),
            bytes(
                Ether(src=sender.mac, dst=hardware) / IP(src=sender.address, dst=address) / _udp(token(" ".join(name)))
            ),
        )
        for name, (hardware, address) in targets.items()
    ]
    uplink = json.loads(run_checked(gateway.host, "ip", "-json", "route", "show", "default"))[0]["dev"]
    left = count_arrivals(
        attempts, sender=desktop.host, device="tap0", listener=gateway.host, listener_device=uplink, forwarded=True
    )
    assert {name for name, frames in left.items() if frames} == {"VPC host unicast"}, "the VPC host is the control"


#: Sends a frame so many times a second.
FLOOD = """
import socket, sys, time
device, rate, seconds, frame = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4])
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind((device, 0))
    begin = time.monotonic()
    for number in range(rate * seconds):
        time.sleep(max(0, begin + number / rate - time.monotonic()))
        wire.send(frame)
print(time.monotonic() - begin)
"""


@pytest.mark.attack("2.15")
def test_a_flood_of_multicast_reaches_members_at_its_rate(segment: Deployment) -> None:
    gateway, desktop, robot, *_ = find_members(segment)
    stations = Stations(*(_describe(member) for member in (desktop, robot, gateway)))
    mark, rate = token("flood"), 1500

    def flood(frame: Packet) -> tuple[int, float]:
        """Return how many frames come to the robot, and for how many seconds they were sent."""
        with FrameListener(robot.host, "count", "tap0", "6", mark.hex()) as arrived:
            seconds = run_checked(desktop.host, "python3", "-", "tap0", str(rate), "2", bytes(frame).hex(), stdin=FLOOD)
        return arrived(), float(seconds)

    limit = segment.settings.tunnel.multicasts
    arrived, seconds = flood(_group(stations, "239.255.0.1", _udp(mark, 7400)))
    assert limit <= arrived <= limit * (seconds + 1) * 1.1
    # The control: as many frames to one member.
    arrived, seconds = flood(plain(stations, mark)[0])
    assert arrived > limit * (seconds + 1) * 1.1


@pytest.mark.attack("2.13")
def test_addresses_that_nobody_has_cost_the_others_nothing(segment: Deployment) -> None:
    members = members_by_name(segment)
    gateway, desktop, robot, mallory = (members[name] for name in ("gateway", "ros_desktop", "ros_robot", "mallory"))
    frame = udp(mac(mallory), mallory, gateway, b"flood")
    assert ping(desktop.host, robot.address, TUNNEL) is not None
    check_flood(desktop.host, robot.address, mallory.host, "tap0", 400, "own", frame)
    for rate in (10, 50, 200, 400, 1500):
        reconnect(mallory, gateway)
        check_flood(desktop.host, robot.address, mallory.host, "tap0", rate, "random", frame)
    # Nor the sender: this is what a client does that has virtual machines on its tap.
    assert not is_suspended(segment, "mallory")
    assert ping(mallory.host, robot.address, 5) is not None


@pytest.mark.attack("2.13")
def test_another_s_address_ends_the_sender_s_session(segment: Deployment) -> None:
    """Runs last on its region: the client stays suspended for minutes."""
    members = members_by_name(segment)
    gateway, desktop, robot, mallory = (members[name] for name in ("gateway", "ros_desktop", "ros_robot", "mallory"))
    reconnect(mallory, gateway)
    frame = udp(mac(robot), mallory, gateway, b"flood")
    check_flood(desktop.host, robot.address, mallory.host, "tap0", 400, "own", frame)
    check_suspended(segment, "mallory")
    assert ping(mallory.host, gateway.address, 3) is None
    # A new session is refused, whatever it would send.
    run_checked(mallory.host, "systemctl", "restart", "openvpn-client@mallory")
    assert ping(mallory.host, gateway.address, 10) is None
    for member in (desktop, robot):
        assert ping(member.host, gateway.address, 5) is not None
