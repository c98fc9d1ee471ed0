"""Build the frames that tests of a segment send by hand, and count what the segment's filter drops.

Sources: RFC 826 (ARP), RFC 768 (UDP), RFC 791 (IPv4), RFC 4861 (neighbour discovery), RFC 1071 (checksum).
"""

import json
import struct
from ipaddress import IPv6Address

from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.segment import SegmentMember
from openvpn.segment_filter import COUNTERS

BROADCAST = b"\xff" * 6
#: `kind` of a neighbour discovery message (RFC 4861, 4.2 and 4.4).
ROUTER_ADVERTISEMENT, NEIGHBOUR_ADVERTISEMENT = 134, 136


def mac(member: SegmentMember) -> bytes:
    """Return the hardware address of a member's interface."""
    path = f"/sys/class/net/{member.device}/address"
    return bytes.fromhex(run_checked(member.host, "cat", path).replace(":", ""))


def udp(source: bytes, sender: SegmentMember, receiver: SegmentMember, text: bytes) -> bytes:
    """Return a datagram to port 9 from a hardware address, with the sender's network address."""
    datagram = struct.pack("!HHHH", 9, 9, 8 + len(text), 0) + text
    addresses = sender.address.packed, receiver.address.packed
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, *addresses)
    header = header[:10] + checksum(header) + header[12:]
    return mac(receiver) + source + b"\x08\x00" + header + datagram


def arp(source: bytes, hardware: bytes, member: SegmentMember, operation: int = 1) -> bytes:
    """Return a broadcast that announces a member's network address at the address `hardware`."""
    message = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + hardware + member.address.packed
    return BROADCAST + source + b"\x08\x06" + message + bytes(6) + member.address.packed


def neighbour(
    source: bytes,
    sender: IPv6Address,
    target: IPv6Address,
    receiver: IPv6Address,
    text: bytes,
    kind: int = NEIGHBOUR_ADVERTISEMENT,
) -> bytes:
    """Return a neighbour discovery message that announces the address `target`; `text` makes the frame unique."""
    message = struct.pack("!BBHI", kind, 0, 0, 0x20000000) + target.packed + b"\x02\x01" + source + text.ljust(8, b"\1")
    pseudo = sender.packed + receiver.packed + struct.pack("!II", len(message), 58)
    message = message[:2] + checksum(pseudo + message) + message[4:]
    header = struct.pack("!IHBB", 0x60000000, len(message), 58, 255) + sender.packed + receiver.packed
    return b"\x33\x33" + receiver.packed[-4:] + source + b"\x86\xdd" + header + message


def dhcp_offer(source: bytes, sender: SegmentMember, receiver: SegmentMember) -> bytes:
    """Return a datagram from a DHCP server's port to a client's."""
    frame = udp(source, sender, receiver, b"lease")
    return frame[:34] + struct.pack("!HH", 67, 68) + frame[38:]


def checksum(data: bytes) -> bytes:
    """Return the Internet checksum of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def count_drops(deployed: Deployment) -> dict[str, int]:
    """Return how many packets the segment's filter has dropped, by its reason."""
    table = run_checked(deployed.gateway, "nft", "-j", "list", "counters", "table", "bridge", "drawbridge")
    counters = [entry["counter"] for entry in json.loads(table)["nftables"] if "counter" in entry]
    drops = {counter["name"]: int(counter["packets"]) for counter in counters}
    assert set(drops) == set(COUNTERS)
    return drops
