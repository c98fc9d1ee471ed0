"""Put packets on a virtual machine's wire that no router of the lab would let through."""

import socket
import struct
from ipaddress import IPv4Address

from lab.linux import within
from lab.region import Host


def inject_datagram(host: Host, mac: str, *, source: IPv4Address, target: IPv4Address, port: int) -> None:
    """Have a UDP datagram arrive at the first interface of a machine with a kernel of its own."""
    udp = struct.pack("!HHHH", 40000, port, 9, 0) + b"x"
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0, source.packed, target.packed
    )
    total = sum(struct.unpack("!10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack("!H", checksum) + header[12:]
    frame = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("020000000001") + b"\x08\x00" + header + udp

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
            packets.bind(("tens5", 0))
            packets.send(frame)

    within(host.namespace, send)
