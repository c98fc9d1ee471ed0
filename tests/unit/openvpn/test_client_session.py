"""The messages of key method 2 and of PUSH_REPLY.

Does not prove that OpenVPN speaks so: tests/unit/test_bench_clients.py has clients meet the real one.
"""

import pytest

from openvpn.client_session import ProtocolError, decode_options, encode_keys, is_last_reply
from openvpn.control_channel import ControlChannel


class PlainKey:
    """A key that leaves packets as they are."""

    wrapped = b""

    def seal(self, header: bytes, plain: bytes) -> bytes:
        return header + plain

    def open(self, packet: bytes, header: int) -> bytes:
        return packet[header:]


def test_a_repeated_message_names_the_server_s_session_again() -> None:
    """Without it the server does not take the first message, and the client waits until its session has ended."""
    sent, server = list[bytes](), b"\x53" * 8
    channel = ControlChannel(PlainKey(), sent.append)  # type: ignore[arg-type]  # all that the channel asks of a key
    channel.reset()
    acknowledgement = b"\x01" + bytes(4) + channel.session
    channel.receive(bytes([8 << 3]) + server + bytes(8) + acknowledgement + bytes(4) + b"\x00\x01\x00\x02\x00\x01")
    channel.send(b"hello")
    channel.repeat()
    assert [server in packet and packet.endswith(b"hello") for packet in sent[-2:]] == [True, True]


def test_the_client_s_keys_have_no_user_and_say_what_it_can_do() -> None:
    message = encode_keys(bytes(112))
    assert message.startswith(b"\x00\x00\x00\x00\x02" + bytes(112))
    options, user, password, info = [], b"", b"", b""
    rest = message[117:]
    for _ in range(4):
        length = int.from_bytes(rest[:2], "big")
        options.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    first, user, password, info = options
    assert first.startswith(b"V4,") and first.endswith(b"tls-client\x00")
    assert (user, password, rest) == (b"", b"", b"")
    assert b"IV_PROTO=6\n" in info and info.endswith(b"\x00")


def test_the_server_s_options_are_read() -> None:
    assert decode_options(b"\x00\x00\x00\x00\x02" + bytes(64) + b"\x00\x03V4\x00" + bytes(6)) == "V4"


@pytest.mark.parametrize("message", [b"", b"\x00\x00\x00\x00\x02" + bytes(66), b"\x00\x00\x00\x00\x01" + bytes(80)])
def test_another_message_is_not_taken_for_keys(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_options(message)


def test_a_reply_in_parts_is_complete_with_its_last_part() -> None:
    assert is_last_reply("PUSH_REPLY,topology subnet")
    assert not is_last_reply("PUSH_REPLY,topology subnet,push-continuation 2")
    assert is_last_reply("PUSH_REPLY,peer-id 0,push-continuation 1")
    assert not is_last_reply("AUTH_FAILED")
