"""Client side of OpenVPN's control channel: packets out and in, their order, acknowledgements and repetition.

It does not wait: whoever drives it hands packets in and says when to repeat what is not acknowledged. TLS, which it
carries, is the driver's: `openvpn.handshake` drives one channel, the bench thousands.

Sources: OpenVPN's doc/openvpn-wire-protocol (draft-openvpn), sections on P_CONTROL_HARD_RESET_CLIENT_V3 and the
reliability layer; doc/tls-crypt-v2.txt, "Wrapping".
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pki.tls_crypt import ClientKey

#: Operations: P_CONTROL_V1, P_ACK_V1, P_CONTROL_HARD_RESET_SERVER_V2, P_CONTROL_HARD_RESET_CLIENT_V3,
#: P_CONTROL_WKC_V1.
_CONTROL, _ACK, _RESET_SERVER, _RESET_CLIENT, _CONTROL_WITH_KEY = 4, 5, 8, 10, 11
_SESSION = 8
"""Bytes of a session's id."""
_HEADER = 1 + _SESSION + 8
"""Operation, session, packet number and time."""
_EARLY_NEGOTIATION = 0x0F000000
"""In the first packet's number: the client can repeat its wrapped key, so the server need not remember it."""
_CHUNK = 1000
"""Bytes of TLS in a packet; small enough for every path."""
_MAX_ACKS = 4
"""Acknowledgements in a packet."""


@dataclass
class ControlChannel:
    """One session's channel, and how far it got."""

    key: ClientKey
    transmit: Callable[[bytes], object] = field(repr=False)
    """Sends a packet to the server."""
    answered: bool = False
    """Whether the server has answered, and so knows the key."""
    confirmed: bool = False
    """Whether the server has acknowledged every message."""
    session: bytes = field(default_factory=lambda: secrets.token_bytes(_SESSION))
    early_negotiation: bool = True
    """Whether the first packet says that the client can repeat its wrapped key; a forged source could not."""
    _peer: bytes = b""
    _packet_number: int = 0
    _next: int = 0
    """Number of this end's next message."""
    _unacknowledged: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """Operation and content of each message that the server has not acknowledged, by message number."""
    _expected: int = 0
    """Number of the server's next message."""
    _out_of_order: dict[int, bytes] = field(default_factory=dict)
    """Messages that came before their turn, by number."""
    _pending_acks: list[int] = field(default_factory=list)
    """Numbers of the server's messages that are to be acknowledged."""
    _last_acks: list[int] = field(default_factory=list)
    """Numbers that were acknowledged last, the newest first. Every packet has them again, as OpenVPN's has: an earlier
    one may be lost, and with none it would not name the server's session, as the message with the wrapped key must."""
    _first_operation: int = _CONTROL
    """Operation of the first message after the reset: the server may ask for the wrapped key once more."""

    def __post_init__(self) -> None:
        self._packet_number = _EARLY_NEGOTIATION if self.early_negotiation else 0

    def reset(self) -> None:
        """Ask for a session."""
        self._send(_RESET_CLIENT, b"")

    def send(self, content: bytes) -> None:
        """Send bytes of TLS, in as many messages as they need. They acknowledge what came before."""
        for start in range(0, len(content), _CHUNK):
            operation = self._first_operation if self._next == 1 else _CONTROL
            self._send(operation, content[start : start + _CHUNK])

    def receive(self, packet: bytes) -> list[bytes]:
        """Read one packet; return the contents of the messages that are next in order, without the reset's answer."""
        plain = self.key.open(packet, _HEADER)
        if not plain:
            return []
        operation, session = packet[0] >> 3, packet[1 : 1 + _SESSION]
        count, rest = plain[0], plain[1:]
        acknowledged = [int.from_bytes(rest[4 * i : 4 * i + 4], "big") for i in range(count)]
        rest = rest[4 * count :]
        if count:
            if rest[:_SESSION] != self.session:
                return []
            rest = rest[_SESSION:]
        if operation == _RESET_SERVER and not self._peer:
            self._peer = session
        if session != self._peer:
            return []
        for number in acknowledged:
            self._unacknowledged.pop(number, None)
        self.confirmed = not self._unacknowledged
        if operation == _ACK or len(rest) < 4:
            return []
        number, content = int.from_bytes(rest[:4], "big"), rest[4:]
        self._pending_acks.append(number)
        if number >= self._expected:
            self._out_of_order[number] = content
        messages = []
        while self._expected in self._out_of_order:
            content = self._out_of_order.pop(self._expected)
            if self._expected == 0:
                self._first_operation = _CONTROL_WITH_KEY if content.startswith(b"\x00\x01") else _CONTROL
                self.answered = True
            else:
                messages.append(content)
            self._expected += 1
        return messages

    def acknowledge(self) -> None:
        """Acknowledge what no message has acknowledged; the answer to a reset waits for the next message."""
        while self._pending_acks and self._expected > 1:
            self._transmit(_ACK, None)

    def repeat(self) -> None:
        """Send once more what the server has not acknowledged."""
        for number, (operation, content) in list(self._unacknowledged.items()):
            self._transmit(operation, number, content)

    def keep_alive(self) -> None:
        """Send a packet that acknowledges nothing new: the server hears that the client is there."""
        self._transmit(_ACK, None)

    def _send(self, operation: int, content: bytes) -> None:
        number, self._next = self._next, self._next + 1
        self._unacknowledged[number] = operation, content
        self.confirmed = False
        self._transmit(operation, number, content)

    def _transmit(self, operation: int, message_number: int | None, content: bytes = b"") -> None:
        self._packet_number += 1
        stamp = self._packet_number.to_bytes(4, "big") + int(time.time()).to_bytes(4, "big")
        header = bytes([operation << 3]) + self.session + stamp
        due, self._pending_acks = self._pending_acks[:_MAX_ACKS], self._pending_acks[_MAX_ACKS:]
        self._last_acks = numbers = list(dict.fromkeys([*due, *self._last_acks]))[:_MAX_ACKS]
        acks = bytes([len(numbers)]) + b"".join(number.to_bytes(4, "big") for number in numbers)
        acks += self._peer if numbers else b""
        message = b"" if message_number is None else message_number.to_bytes(4, "big") + content
        packet = self.key.seal(header, acks + message)
        with_key = operation in (_RESET_CLIENT, _CONTROL_WITH_KEY)
        self.transmit(packet + (self.key.wrapped if with_key else b""))
