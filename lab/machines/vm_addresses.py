"""Give a virtual machine its addresses as a VPC does: by DHCP, by router advertisements and by DHCPv6.

It answers on the machine's tap alone, so no other machine ever sees it.

Sources: RFC 2131 and 2132 (DHCP), RFC 4861 (router advertisements), RFC 8415 (DHCPv6); packet(7); Amazon VPC User
Guide, "DHCP option sets in Amazon VPC".
"""

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from lab.linux import within

_ETH_P_ALL = 3
_ROUTER_MAC = bytes.fromhex("020000000001")
_LEASE = 3600
#: Seconds between router advertisements that nobody has asked for.
_ADVERTISE = 20.0
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5
_ALL_NODES = IPv6Address("ff02::1")


@dataclass(frozen=True, slots=True)
class Lease:
    """Addresses and routes of one interface."""

    mac: bytes
    address: IPv4Interface
    router: IPv4Address
    resolver: IPv4Address
    domain: str
    mtu: int
    addresses6: tuple[IPv6Address, ...] = ()
    router6: IPv6Address | None = None

    @property
    def has_router4(self) -> bool:
        """True if the interface has a default route."""
        return not self.router.is_unspecified


class AddressServer:
    """Answers one interface's requests until it is closed."""

    def __init__(self, namespace: str, tap: str, lease: Lease) -> None:
        self._lease = lease
        self._closed = False

        def open_socket() -> socket.socket:
            packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            packets.bind((tap, 0))
            packets.settimeout(_ADVERTISE)
            return packets

        self._socket = within(namespace, open_socket)
        threading.Thread(target=self._serve, daemon=True, name=f"addresses-{tap}").start()

    def close(self) -> None:
        """End; the thread follows with the next frame or within seconds."""
        self._closed = True

    def _serve(self) -> None:
        with self._socket:
            while not self._closed:
                try:
                    frame, sender = self._socket.recvfrom(2048)
                    if sender[2] == socket.PACKET_OUTGOING:
                        continue
                    answer = answer_frame(frame, self._lease)
                except TimeoutError:
                    answer = advertise(self._lease, _ALL_NODES) if self._lease.router6 else None
                except OSError:
                    return  # the machine's namespace is gone
                except (struct.error, IndexError, ValueError):
                    continue  # a damaged frame
                if answer:
                    with contextlib.suppress(OSError):  # while the machine is off its tap takes nothing
                        self._socket.send(answer)


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
    server = lease.router if lease.has_router4 else lease.address.network.network_address + 1
    written = {
        53: bytes([answers[kind]]),
        54: server.packed,
        51: struct.pack("!I", _LEASE),
        1: lease.address.netmask.packed,
        6: lease.resolver.packed,
        15: lease.domain.encode(),
        26: struct.pack("!H", lease.mtu),
        **({3: lease.router.packed} if lease.has_router4 else {}),
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


def create_lease(
    *, mac: str, addresses: tuple[str, ...], gateways: tuple[str, ...], resolver: str, domain: str, mtu: int
) -> Lease:
    """Return the lease of an interface from its addresses (with prefix lengths) and default routes as texts."""
    own4 = next(IPv4Interface(text) for text in addresses if "." in text)
    return Lease(
        mac=bytes.fromhex(mac.replace(":", "")),
        address=own4,
        router=next((IPv4Address(text) for text in gateways if "." in text), IPv4Address(0)),
        resolver=IPv4Address(resolver),
        domain=domain,
        mtu=mtu,
        addresses6=tuple(IPv6Interface(text).ip for text in addresses if ":" in text),
        router6=next((IPv6Address(text) for text in gateways if ":" in text), None),
    )
