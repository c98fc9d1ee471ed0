"""Give instances their addresses as a VPC does: by DHCP, by router advertisements and by DHCPv6.

It answers at the router's end of an interface's link, so no other machine ever sees it.

Sources: RFC 2131 and 2132 (DHCP), RFC 4861 (router advertisements), RFC 8415 (DHCPv6); packet(7), socket(7); the
kernel's Documentation/networking/filter.rst; Amazon VPC User Guide, "DHCP option sets in Amazon VPC".
"""

import contextlib
import ctypes
import selectors
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Address

from lab.linux import within

_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_ROUTER_MAC = bytes.fromhex("020000000001")
_LEASE = 3600
#: Seconds between router advertisements that nobody has asked for.
_ADVERTISE = 20.0
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5
_ALL_NODES = IPv6Address("ff02::1")
_LOAD_BYTE, _LOAD_HALF, _LOAD_HALF_INDEXED, _LOAD_HEADER_LENGTH = 0x30, 0x28, 0x48, 0xB1
_IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x15, 0x45, 0x06
#: Has the kernel pass requests for addresses alone: (code, jump if true, jump if false, value) of classic BPF.
_REQUESTS_ONLY = (
    (_LOAD_HALF, 0, 0, 12),
    (_IF_EQUAL, 0, 7, 0x0800),
    (_LOAD_BYTE, 0, 0, 23),
    (_IF_EQUAL, 0, 14, socket.IPPROTO_UDP),
    (_LOAD_HALF, 0, 0, 20),
    (_IF_ANY_BIT, 12, 0, 0x1FFF),  # a later fragment has no ports
    (_LOAD_HEADER_LENGTH, 0, 0, 14),
    (_LOAD_HALF_INDEXED, 0, 0, 16),
    (_IF_EQUAL, 8, 9, 67),
    (_IF_EQUAL, 0, 8, 0x86DD),
    (_LOAD_BYTE, 0, 0, 20),
    (_IF_EQUAL, 0, 2, socket.IPPROTO_ICMPV6),
    (_LOAD_BYTE, 0, 0, 54),
    (_IF_EQUAL, 3, 4, 133),
    (_IF_EQUAL, 0, 3, socket.IPPROTO_UDP),
    (_LOAD_HALF, 0, 0, 56),
    (_IF_EQUAL, 0, 1, 547),
    (_RETURN, 0, 0, 0xFFFF),
    (_RETURN, 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class Lease:
    """Addresses and routes of one interface."""

    mac: bytes
    address: IPv4Interface
    resolver: IPv4Address
    domain: str
    mtu: int
    router: IPv4Address | None = None
    """Default route, if it has one."""
    addresses6: tuple[IPv6Address, ...] = ()
    router6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class RouterLink:
    """Router's end of the link of an instance's interface."""

    namespace: str
    device: str
    instance: str
    """An interface that moves to another instance gets another link of the same name."""


class AddressServer:
    """Answers requests for addresses on the links that it is given, in a thread of its own."""

    def __init__(self) -> None:
        self._leases: dict[RouterLink, Lease] = {}
        self._sockets: dict[RouterLink, socket.socket] = {}
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        threading.Thread(target=self._serve, daemon=True, name="addresses").start()

    def update(self, leases: Mapping[RouterLink, Lease]) -> None:
        """Answer on these links from now on, and on no other."""
        with self._lock:
            self._leases = dict(leases)
            for link in [link for link in self._sockets if link not in leases]:
                self._close(link)
            for link in [link for link in leases if link not in self._sockets]:
                with contextlib.suppress(OSError):  # a link that could not be made is tried again with the next update
                    self._sockets[link] = within(link.namespace, partial(_open_socket, link.device))
                    self._selector.register(self._sockets[link], selectors.EVENT_READ, link)

    def _close(self, link: RouterLink) -> None:
        packets = self._sockets.pop(link)
        self._selector.unregister(packets)
        packets.close()

    def _serve(self) -> None:
        next_advertisement = time.monotonic() + _ADVERTISE
        while True:
            ready = self._selector.select(timeout=max(next_advertisement - time.monotonic(), 0))
            with self._lock:
                for key, _ in ready:
                    self._answer(key.data)
                if time.monotonic() >= next_advertisement:
                    next_advertisement = time.monotonic() + _ADVERTISE
                    for link, packets in self._sockets.items():
                        if self._leases[link].router6:
                            _send(packets, advertise(self._leases[link], _ALL_NODES))

    def _answer(self, link: RouterLink) -> None:
        """Answer one request on a link, if it still has one."""
        packets = self._sockets.get(link)
        if packets is None:
            return
        try:
            frame, sender = packets.recvfrom(2048)
            answer = None if sender[2] == socket.PACKET_OUTGOING else answer_frame(frame, self._leases[link])
        except BlockingIOError:
            return
        except OSError:
            self._close(link)  # the link is gone
            return
        except (struct.error, IndexError, ValueError):
            return  # a damaged frame
        if answer:
            _send(packets, answer)


def _open_socket(device: str) -> socket.socket:
    """Return a socket that gets the requests for addresses on a device of this namespace."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # nothing comes before the filter is there
    try:
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in _REQUESTS_ONLY))
        packets.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_REQUESTS_ONLY), ctypes.addressof(program))
        )
        packets.bind((device, _ETH_P_ALL))
        packets.setblocking(False)
    except BaseException:
        packets.close()
        raise
    return packets


def _send(packets: socket.socket, frame: bytes) -> None:
    with contextlib.suppress(OSError):  # while the machine is off its link takes nothing
        packets.send(frame)


def answer_frame(frame: bytes, lease: Lease) -> bytes | None:
    """Return the frame that answers one of an interface's, or None for one that asks for nothing of this."""
    if frame[6:12] != lease.mac:
        return None
    kind = int.from_bytes(frame[12:14], "big")
    if kind == 0x0800 and frame[23] == socket.IPPROTO_UDP:
        header = (frame[14] & 15) * 4
        udp = frame[14 + header :]
        return _answer_dhcp(udp[8:], lease) if udp[2:4] == b"\0\x43" else None
    if kind == 0x86DD and lease.router6:
        source = IPv6Address(frame[22:38])
        if frame[20] == socket.IPPROTO_ICMPV6 and frame[54] == 133:
            return advertise(lease, source if not source.is_unspecified else _ALL_NODES)
        if frame[20] == socket.IPPROTO_UDP and frame[56:58] == b"\x02\x23":
            return _answer_dhcp6(frame[62:], source, lease)
    return None


def _answer_dhcp(request: bytes, lease: Lease) -> bytes | None:
    options = dict(_read_options(request[240:]))
    answers = {_DISCOVER: _OFFER, _REQUEST: _ACK}
    kind = options.get(53, b"\0")[0]
    if kind not in answers:
        return None
    server = lease.router or lease.address.network[1]
    written = {
        53: bytes([answers[kind]]),
        54: server.packed,
        51: struct.pack("!I", _LEASE),
        1: lease.address.netmask.packed,
        6: lease.resolver.packed,
        15: lease.domain.encode(),
        26: struct.pack("!H", lease.mtu),
        **({3: lease.router.packed} if lease.router else {}),
    }
    packed = b"".join(bytes([code, len(value)]) + value for code, value in written.items()) + b"\xff"
    head = struct.pack("!BBBB4sHH4s4s4s4s", 2, 1, 6, 0, request[4:8], 0, 0x8000, b"\0" * 4,
                       lease.address.ip.packed, server.packed, b"\0" * 4)  # fmt: skip
    message = head + lease.mac + b"\0" * 10 + b"\0" * 192 + b"\x63\x82\x53\x63" + packed
    udp = struct.pack("!HHHH", 67, 68, 8 + len(message), 0) + message
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0, server.packed,
                     lease.address.ip.packed)  # fmt: skip
    ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    return lease.mac + _ROUTER_MAC + b"\x08\x00" + ip + udp


def _read_options(text: bytes) -> list[tuple[int, bytes]]:
    options, place = [], 0
    while place < len(text) and text[place] != 255:
        if text[place] == 0:
            place += 1
            continue
        length = text[place + 1]
        options.append((text[place], text[place + 2 : place + 2 + length]))
        place += 2 + length
    return options


def advertise(lease: Lease, target: IPv6Address) -> bytes:
    """Return a router advertisement: the default route for half an hour, and that addresses come by DHCPv6."""
    assert lease.router6 is not None
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0x80, 1800, 0, 0) + struct.pack("!BBHI", 5, 1, 0, lease.mtu)
    return _frame6(lease, target, socket.IPPROTO_ICMPV6, body, hops=255)


def _answer_dhcp6(request: bytes, client: IPv6Address, lease: Lease) -> bytes | None:
    kind, options = request[0], _read_options6(request[4:])
    answer = {1: 2, 3: 7, 4: 7, 5: 7, 6: 7, 11: 7}.get(kind)  # Solicit is answered by Advertise, all else by Reply
    identity, association = options.get(1), options.get(3)
    if answer is None or identity is None or not lease.addresses6:
        return None
    body = bytes([answer]) + request[1:4] + _option6(1, identity) + _option6(2, b"\0\x03\0\x01" + _ROUTER_MAC)
    if association is not None:
        addresses = b"".join(
            _option6(5, address.packed + struct.pack("!II", _LEASE, _LEASE)) for address in lease.addresses6
        )
        body += _option6(3, association[:4] + struct.pack("!II", _LEASE // 2, _LEASE * 4 // 5) + addresses)
    udp = struct.pack("!HHHH", 547, 546, 8 + len(body), 0) + body
    return _frame6(lease, client, socket.IPPROTO_UDP, udp, hops=64)


def _read_options6(text: bytes) -> dict[int, bytes]:
    options, place = {}, 0
    while place + 4 <= len(text):
        code, length = struct.unpack_from("!HH", text, place)
        options[code] = text[place + 4 : place + 4 + length]
        place += 4 + length
    return options


def _option6(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def _frame6(lease: Lease, target: IPv6Address, protocol: int, body: bytes, *, hops: int) -> bytes:
    """Return a frame from the router; the checksum is put where the protocol has it."""
    assert lease.router6 is not None
    pseudo = lease.router6.packed + target.packed + struct.pack("!II", len(body), protocol)
    place = 2 if protocol == socket.IPPROTO_ICMPV6 else 6
    body = body[:place] + struct.pack("!H", _checksum(pseudo + body)) + body[place + 2 :]
    header = struct.pack("!IHBB", 0x60000000, len(body), protocol, hops) + lease.router6.packed + target.packed
    mac = b"\x33\x33" + target.packed[-4:] if target.is_multicast else lease.mac
    return mac + _ROUTER_MAC + b"\x86\xdd" + header + body


def _checksum(data: bytes) -> int:
    """Return the Internet's checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF or 0xFFFF
