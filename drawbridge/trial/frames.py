"""Runs on a machine of the lab, by itself: multicast heard and said, and frames with whatever is to be tried in them.

    frames.py hear DEVICE GROUP PORT SECONDS              how many datagrams came of the ten that `say` sends
    frames.py say DEVICE GROUP PORT                       sends ten, numbered
    frames.py send DEVICE TIMES FRAME…                    sends Ethernet frames, in hexadecimal, as they are
    frames.py count DEVICE SECONDS BYTES…                 how many frames came that hold these bytes, in hexadecimal
    frames.py count-sent DEVICE SECONDS BYTES…            the same of frames that the machine sends

`hear`, `count` and `count-sent` print `ready` when they listen, then a number for all that was asked for. Only Python's
own library.
"""

import socket
import struct
import sys
import time
from ipaddress import ip_address

COUNT = 10
EVERY_PROTOCOL = 3  # ETH_P_ALL (linux/if_ether.h)


def hear(device: str, group: str, port: int, seconds: float) -> int:
    """Return how many of `say`'s datagrams came within so many seconds."""
    address, index = ip_address(group), socket.if_nametoindex(device)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind((group, port) if address.version == 4 else (group, port, 0, index))
        if address.version == 4:
            # struct ip_mreqn (ip(7)): group, address, index
            joined = address.packed + bytes(4) + struct.pack("@i", index)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        else:
            joined = address.packed + struct.pack("@i", index)
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, joined)
        print("ready", flush=True)
        heard, end = set[bytes](), time.monotonic() + seconds
        while len(heard) < COUNT and (left := end - time.monotonic()) > 0:
            ear.settimeout(left)
            try:
                heard.add(ear.recv(2048))
            except TimeoutError:
                break
    return len(heard)


def say(device: str, group: str, port: int) -> None:
    """Send ten datagrams to a group."""
    address, index = ip_address(group), socket.if_nametoindex(device)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as mouth:
        if address.version == 4:
            out = bytes(8) + struct.pack("@i", index)
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, out)
        else:
            mouth.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        for number in range(COUNT):
            mouth.sendto(f"datagram {number}".encode(), (group, port))


def send(device: str, times: int, frames: list[bytes]) -> None:
    """Send frames as they are, source address and all."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        for _ in range(times):
            for frame in frames:
                wire.send(frame)


def count(device: str, seconds: float, patterns: list[bytes], sent: bool = False) -> list[int]:
    """Return how many frames came in, or were sent, that hold some bytes, for each of those."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL)) as wire:
        wire.bind((device, EVERY_PROTOCOL))
        print("ready", flush=True)
        counts, end = [0] * len(patterns), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            wire.settimeout(left)
            try:
                frame, source = wire.recvfrom(2048)
            except TimeoutError:
                break
            if (source[2] == socket.PACKET_OUTGOING) == sent:
                counts = [times + (pattern in frame) for times, pattern in zip(counts, patterns, strict=True)]
    return counts


def main(arguments: list[str]) -> None:
    """Do as the command line says."""
    match arguments:
        case ["hear", device, group, port, seconds]:
            print(hear(device, group, int(port), float(seconds)))
        case ["say", device, group, port]:
            say(device, group, int(port))
        case ["send", device, times, *frames]:
            send(device, int(times), [bytes.fromhex(frame) for frame in frames])
        case ["count", device, seconds, *patterns]:
            print(*count(device, float(seconds), [bytes.fromhex(pattern) for pattern in patterns]))
        case ["count-sent", device, seconds, *patterns]:
            print(*count(device, float(seconds), [bytes.fromhex(pattern) for pattern in patterns], sent=True))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
