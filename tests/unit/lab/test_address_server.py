"""The answers that give an instance its addresses, as bytes. That a system takes them: tests/lab/aws."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address

import pytest

from lab.network.address_server import Lease, advertise, answer_frame

MAC = bytes.fromhex("02aabbccddee")
CLIENT6 = IPv6Address("fe80::aa:bbff:fecc:ddee")


@pytest.fixture
def lease() -> Lease:
    return Lease(
        mac=MAC,
        address=IPv4Interface("10.1.0.7/24"),
        router=IPv4Address("10.1.0.1"),
        resolver=IPv4Address("10.1.0.2"),
        domain="eu-west-1.compute.internal",
        mtu=9001,
        addresses6=(IPv6Address("2001:db8:1::7"),),
        router6=IPv6Address("fe80::1"),
    )


def dhcp_frame(kind: int, mac: bytes = MAC) -> bytes:
    message = struct.pack("!BBBB4s", 1, 1, 6, 0, b"abcd") + b"\0" * 20 + mac + b"\0" * 202
    message += b"\x63\x82\x53\x63" + bytes([53, 1, kind, 255])
    udp = struct.pack("!HHHH", 68, 67, 8 + len(message), 0) + message
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\0" * 4, b"\xff" * 4)
    return b"\xff" * 6 + mac + b"\x08\x00" + ip + udp


def ipv6_frame(protocol: int, body: bytes) -> bytes:
    target = IPv6Address("ff02::2")
    header = struct.pack("!IHBB", 0x60000000, len(body), protocol, 255) + CLIENT6.packed + target.packed
    return b"\x33\x33\0\0\0\x02" + MAC + b"\x86\xdd" + header + body


def sum_packet(frame: bytes) -> int:
    body = frame[54:]
    data = frame[22:54] + struct.pack("!II", len(body), frame[20]) + body + b"\0" * (len(body) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return int((total & 0xFFFF) + (total >> 16))


@pytest.mark.parametrize(("request_kind", "answer_kind"), [(1, 2), (3, 5)])
def test_dhcp_offers_and_acknowledges_the_one_address(lease: Lease, request_kind: int, answer_kind: int) -> None:
    answer = answer_frame(dhcp_frame(request_kind), lease)

    assert answer is not None
    assert answer[:6] == MAC
    message = answer[42:]
    assert (message[0], message[4:8], message[16:20]) == (2, b"abcd", bytes([10, 1, 0, 7]))
    options = message[240:]
    assert bytes([53, 1, answer_kind]) in options
    assert bytes([1, 4, 255, 255, 255, 0]) in options
    assert bytes([3, 4, 10, 1, 0, 1]) in options
    assert bytes([6, 4, 10, 1, 0, 2]) in options
    assert struct.pack("!BBH", 26, 2, 9001) in options


def test_other_interfaces_and_other_messages_get_nothing(lease: Lease) -> None:
    assert answer_frame(dhcp_frame(1, mac=bytes(6)), lease) is None
    assert answer_frame(dhcp_frame(7), lease) is None
    assert answer_frame(ipv6_frame(58, bytes([135, 0, 0, 0])), lease) is None


def test_a_solicitation_is_answered_by_an_advertisement_that_names_dhcpv6(lease: Lease) -> None:
    answer = answer_frame(ipv6_frame(58, bytes([133, 0, 0, 0, 0, 0, 0, 0])), lease)

    assert answer is not None
    assert answer == advertise(lease, CLIENT6)
    assert answer[21] == 255  # RFC 4861: others are dropped
    assert (answer[54], answer[59]) == (134, 0x80)
    assert sum_packet(answer) == 0xFFFF


@pytest.mark.parametrize(("request_kind", "answer_kind"), [(1, 2), (3, 7), (5, 7)])
def test_dhcpv6_gives_the_interfaces_address(lease: Lease, request_kind: int, answer_kind: int) -> None:
    identity, association = struct.pack("!HH2s", 1, 2, b"me"), struct.pack("!HH4sII", 3, 12, b"iaid", 0, 0)
    message = bytes([request_kind]) + b"xyz" + identity + association
    udp = struct.pack("!HHHH", 546, 547, 8 + len(message), 0) + message

    answer = answer_frame(ipv6_frame(17, udp), lease)

    assert answer is not None
    body = answer[62:]
    assert (body[0], body[1:4]) == (answer_kind, b"xyz")
    assert identity in body
    assert struct.pack("!HH", 5, 24) + IPv6Address("2001:db8:1::7").packed in body
    assert sum_packet(answer) == 0xFFFF


def test_an_interface_without_ipv6_is_not_told_of_a_router(lease: Lease) -> None:
    lease = replace(lease, router=None, addresses6=(), router6=None)
    assert answer_frame(ipv6_frame(58, bytes([133, 0, 0, 0, 0, 0, 0, 0])), lease) is None
    answer = answer_frame(dhcp_frame(1), lease)
    assert answer is not None
    assert bytes([3, 4]) not in answer[282:]
