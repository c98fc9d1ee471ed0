"""The control channel's reliability layer over a wire in memory.

Does not prove that OpenVPN speaks so: tests/unit/drawbridge/test_bundle_probe.py talks to the real one.
"""

import time
from dataclasses import dataclass, field

import pytest

from openvpn.handshake import Handshake
from pki.tls_crypt import ClientKey, client_key, server_key

#: Operations in the first byte of a packet, and lengths of what is before the encrypted part.
ACK, RESET_SERVER, RESET_CLIENT, CONTROL = 5, 8, 10, 4
SERVER = b"server's"
HEADER = 17


@dataclass
class MemoryWire:
    """Records what is sent; hands out what a test has put in."""

    retransmit_after: float = 0.05
    sent: list[bytes] = field(default_factory=list)
    incoming: list[bytes] = field(default_factory=list)

    def send(self, packet: bytes) -> None:
        self.sent.append(packet)

    def receive(self, seconds: float) -> bytes | None:
        if self.incoming:
            return self.incoming.pop(0)
        time.sleep(seconds)
        return None

    @property
    def operations(self) -> list[int]:
        return [packet[0] >> 3 for packet in self.sent]


@pytest.fixture
def key() -> ClientKey:
    return ClientKey.read(client_key(server_key()))


class Server:
    """The other end: seals packets with the same key, in the direction from the server."""

    def __init__(self, handshake: Handshake, monkeypatch: pytest.MonkeyPatch) -> None:
        # Both directions are readable here: what is tested is the order of messages, not the cryptography.
        monkeypatch.setattr(ClientKey, "seal", lambda key, header, plain: header + plain)
        monkeypatch.setattr(ClientKey, "open", lambda key, packet, header: packet[header:])
        self.handshake = handshake

    def packet(self, operation: int, number: int | None, content: bytes = b"", acks: tuple[int, ...] = ()) -> bytes:
        header = bytes([operation << 3]) + SERVER + bytes(8)
        plain = bytes([len(acks)]) + b"".join(ack.to_bytes(4, "big") for ack in acks)
        plain += self.handshake.channel.session if acks else b""
        return header + plain + (b"" if number is None else number.to_bytes(4, "big") + content)


@pytest.fixture
def wire() -> MemoryWire:
    return MemoryWire()


@pytest.fixture
def handshake(wire: MemoryWire, key: ClientKey) -> Handshake:
    return Handshake(wire, key)


@pytest.fixture
def server(handshake: Handshake, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(handshake, monkeypatch)


def soon() -> float:
    return time.monotonic() + 5


def test_a_reset_is_repeated_until_the_deadline(handshake: Handshake, wire: MemoryWire) -> None:
    assert not handshake.reset(time.monotonic() + 0.3)
    assert len(wire.sent) > 1 and set(wire.operations) == {RESET_CLIENT}
    assert not handshake.answered and not handshake.channel.confirmed


def test_a_reset_that_is_answered_is_acknowledged(handshake: Handshake, wire: MemoryWire, server: Server) -> None:
    wire.incoming.append(server.packet(RESET_SERVER, 0, acks=(0,)))
    assert handshake.reset(soon())
    assert handshake.answered and handshake.channel.confirmed


def test_messages_come_in_order_and_are_acknowledged(handshake: Handshake, wire: MemoryWire, server: Server) -> None:
    wire.incoming.append(server.packet(RESET_SERVER, 0, acks=(0,)))
    handshake.reset(soon())
    channel = handshake.channel
    assert channel.receive(server.packet(CONTROL, 2, b"second")) == []
    assert channel.receive(server.packet(CONTROL, 1, b"first")) == [b"first", b"second"]
    channel.acknowledge()
    assert wire.operations[-1] == ACK
    acknowledged = wire.sent[-1][HEADER:]
    assert acknowledged == b"\x03" + b"".join(n.to_bytes(4, "big") for n in (0, 2, 1)) + SERVER


def test_a_message_acknowledges_those_before_it(handshake: Handshake, wire: MemoryWire, server: Server) -> None:
    wire.incoming.append(server.packet(RESET_SERVER, 0, acks=(0,)))
    handshake.reset(soon())
    handshake.channel.receive(server.packet(CONTROL, 1, b"first"))
    handshake.channel.send(b"answer")
    acks = b"".join(n.to_bytes(4, "big") for n in (0, 1))
    assert wire.sent[-1][HEADER:].startswith(b"\x02" + acks + SERVER + (1).to_bytes(4, "big") + b"answer")
    before = len(wire.sent)
    handshake.channel.acknowledge()
    assert len(wire.sent) == before


def test_a_message_that_comes_twice_is_handled_once(handshake: Handshake, wire: MemoryWire, server: Server) -> None:
    wire.incoming += [server.packet(RESET_SERVER, 0, acks=(0,))]
    handshake.reset(soon())
    assert handshake.channel.receive(server.packet(CONTROL, 1, b"first")) == [b"first"]
    assert handshake.channel.receive(server.packet(CONTROL, 1, b"first")) == []


def test_a_repeated_message_is_acknowledged_again(handshake: Handshake, wire: MemoryWire, server: Server) -> None:
    wire.incoming += [server.packet(RESET_SERVER, 0, acks=(0,))]
    handshake.reset(soon())
    for _ in range(2):
        handshake.channel.receive(server.packet(CONTROL, 1, b"first"))
        handshake.channel.acknowledge()
    assert wire.operations[-2:] == [ACK, ACK]


def test_packets_of_another_session_are_ignored(handshake: Handshake, wire: MemoryWire, server: Server) -> None:
    wire.incoming.append(server.packet(RESET_SERVER, 0, acks=(0,)))
    handshake.reset(soon())
    stranger = server.packet(CONTROL, 1, b"x").replace(SERVER, b"stranger")
    assert handshake.channel.receive(stranger) == []
