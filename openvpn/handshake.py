"""Client side of OpenVPN's control channel, up to the end of the TLS handshake.

It shows whether both ends accept each other and makes no tunnel. A server does not answer a client without a key of its
own (tls-crypt-v2), so any answer shows that the key is right. TLS 1.2 follows: in that version the server finishes only
after it has accepted the client's certificate, in 1.3 it finishes before. The messages after TLS, which would make this
a client, are never sent. So a session under the same certificate goes on, and no address is handed out.

Sources: OpenVPN's doc/openvpn-wire-protocol (draft-openvpn), sections on P_CONTROL_HARD_RESET_CLIENT_V3 and the
reliability layer; doc/tls-crypt-v2.txt, "Wrapping"; RFC 5246, 7.3.
"""

import secrets
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from openvpn.bundle import ca_of, certificate_of, key_of, remote_of, tls_crypt_of
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


class Wire(Protocol):
    """A transport for packets."""

    retransmit_after: float
    """Seconds after which unacknowledged messages are sent again."""

    def send(self, packet: bytes) -> None:
        """Send a packet; raises OSError."""

    def receive(self, seconds: float) -> bytes | None:
        """Return the next packet, None if none comes in time; raises OSError, and EOFError at the end of a stream."""


class ServerCertificateError(Exception):
    """The client does not accept the server's certificate; the message says why."""


@dataclass
class Handshake:
    """One handshake, and how far it got."""

    wire: Wire
    key: ClientKey
    answered: bool = False
    """Whether the server has answered, and so knows the key."""
    confirmed: bool = False
    """Whether the server has acknowledged every message."""
    _session: bytes = field(default_factory=lambda: secrets.token_bytes(_SESSION))
    _peer: bytes = b""
    _packet_number: int = _EARLY_NEGOTIATION
    _unacknowledged: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """Operation and content of each message that the server has not acknowledged, by message number."""
    _expected: int = 0
    """Number of the server's next message."""
    _out_of_order: dict[int, bytes] = field(default_factory=dict)
    """Messages that came before their turn, by number."""
    _pending_acks: list[int] = field(default_factory=list)
    """Numbers of the server's messages that are to be acknowledged."""

    def reset(self, deadline: float) -> bool:
        """Ask for a session; return whether the server opens one by `deadline` (of the monotonic clock)."""
        self._send(_RESET_CLIENT, 0, b"")
        while not self.answered and self._wait_message(deadline, self._on_reset_answer):
            pass
        return self.answered

    def secure(self, bundle: str, deadline: float) -> bool:
        """Do the TLS handshake with a bundle's certificate; return whether the server accepts it by `deadline`.

        Raises `ServerCertificateError`, and `BundleError` for a bundle without certificates.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = _tls_context(bundle).wrap_bio(incoming, outgoing, server_side=False)
        number = 1
        while True:
            try:
                tls.do_handshake()
                finished = True
            except ssl.SSLWantReadError:
                finished = False
            except ssl.SSLCertVerificationError as error:
                raise ServerCertificateError(error.verify_message) from error
            except ssl.SSLError as error:
                raise ServerCertificateError(str(error.reason or error)) from error
            for chunk in iter(lambda: outgoing.read(_CHUNK), b""):
                self._send(self._first_operation if number == 1 else _CONTROL, number, chunk)
                number += 1
            if finished:
                _check_name(tls, remote_of(bundle).name)
                return True
            if not self._wait_message(deadline, incoming.write):
                return False

    def _on_reset_answer(self, content: bytes) -> None:
        """Read the server's answer to a reset, in which it may ask for the wrapped key once more."""
        self._first_operation = _CONTROL_WITH_KEY if content.startswith(b"\x00\x01") else _CONTROL
        self.answered = True

    def _send(self, operation: int, number: int, content: bytes) -> None:
        self._unacknowledged[number] = operation, content
        self.confirmed = False
        self._transmit(operation, number, content)

    def _transmit(self, operation: int, message_number: int | None, content: bytes = b"") -> None:
        self._packet_number += 1
        stamp = self._packet_number.to_bytes(4, "big") + int(time.time()).to_bytes(4, "big")
        header = bytes([operation << 3]) + self._session + stamp
        numbers, self._pending_acks = self._pending_acks[:_MAX_ACKS], self._pending_acks[_MAX_ACKS:]
        acks = bytes([len(numbers)]) + b"".join(number.to_bytes(4, "big") for number in numbers)
        acks += self._peer if numbers else b""
        message = b"" if message_number is None else message_number.to_bytes(4, "big") + content
        packet = self.key.seal(header, acks + message)
        with_key = operation in (_RESET_CLIENT, _CONTROL_WITH_KEY)
        self.wire.send(packet + (self.key.wrapped if with_key else b""))

    def _wait_message(self, deadline: float, handle: Callable[[bytes], object]) -> bool:
        """Wait for the server's next message and call `handle` with it; return whether one came by `deadline`."""
        retransmit_at = time.monotonic() + self.wire.retransmit_after
        while (now := time.monotonic()) < deadline:
            packet = self.wire.receive(min(deadline, retransmit_at) - now) if now < retransmit_at else None
            if packet is not None and self._receive(packet, handle):
                return True
            if time.monotonic() >= retransmit_at:
                for number, (operation, content) in list(self._unacknowledged.items()):
                    self._transmit(operation, number, content)
                retransmit_at = time.monotonic() + self.wire.retransmit_after
        return False

    def _receive(self, packet: bytes, handle: Callable[[bytes], object]) -> bool:
        """Read one packet and call `handle` with each message that is next in order; return whether there was one."""
        plain = self.key.open(packet, _HEADER)
        if not plain:
            return False
        operation, session = packet[0] >> 3, packet[1 : 1 + _SESSION]
        count, rest = plain[0], plain[1:]
        acknowledged = [int.from_bytes(rest[4 * i : 4 * i + 4], "big") for i in range(count)]
        rest = rest[4 * count :]
        if count:
            if rest[:_SESSION] != self._session:
                return False
            rest = rest[_SESSION:]
        if operation == _RESET_SERVER and not self._peer:
            self._peer = session
        if session != self._peer:
            return False
        for number in acknowledged:
            self._unacknowledged.pop(number, None)
        self.confirmed = not self._unacknowledged
        if operation == _ACK or len(rest) < 4:
            return False
        number, content = int.from_bytes(rest[:4], "big"), rest[4:]
        self._pending_acks.append(number)
        if number >= self._expected:
            self._out_of_order[number] = content
        has_message = False
        while self._expected in self._out_of_order:
            handle(self._out_of_order.pop(self._expected))
            self._expected, has_message = self._expected + 1, True
        if self._expected > 1:
            self._transmit(_ACK, None)
        return has_message


def _check_name(tls: ssl.SSLObject, expected: str) -> None:
    """Raise `ServerCertificateError` unless the server's certificate has this common name."""
    subject = dict(pair for part in (tls.getpeercert() or {}).get("subject", ()) for pair in part)  # type: ignore[misc]
    if (name := subject.get("commonName")) != expected:
        raise ServerCertificateError(f"it is {name}'s, not {expected}'s")


def _tls_context(bundle: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The certificate's name is not that of a host; `_check_name` compares it.
    context.check_hostname = False
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_of(bundle))
    # Python's ssl reads keys only from files. No other user may read this one, and it is removed at once.
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(certificate_of(bundle) + key_of(bundle))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def client_key_of(bundle: str) -> ClientKey:
    """Return a bundle's tls-crypt-v2 key; raises `BundleError` and `PkiError`."""
    return ClientKey.read(tls_crypt_of(bundle))
