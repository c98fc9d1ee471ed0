"""OpenVPN's control channel as a client's side of it: far enough to know whether both ends accept each other.

No tunnel comes of it. The server answers nobody without a key of its own (tls-crypt-v2), so an answer says that the key
is right. TLS 1.2 follows, in which the server ends its part only after it has accepted the client's certificate; in 1.3
it ends before. What makes a client of a peer comes after TLS and is never sent: so a session that lives under
the same certificate is not ended, and nothing is handed out.

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

_CONTROL, _ACK, _RESET_SERVER, _RESET_CLIENT, _CONTROL_WITH_KEY = 4, 5, 8, 10, 11
_SESSION = 8
_HEADER = 1 + _SESSION + 8
"""Operation, session, packet number and time."""
_EARLY = 0x0F000000
"""In the first packet's number it says that the client can repeat its wrapped key, and the server may forget it."""
_CHUNK = 1000
"""Bytes of TLS in a packet, so that it fits any path."""


class Wire(Protocol):
    """What carries packets."""

    again: float
    """Seconds after which what nobody has confirmed is sent again."""

    def send(self, packet: bytes) -> None:
        """Raises OSError."""

    def receive(self, seconds: float) -> bytes | None:
        """The next packet, None if none comes in time; raises OSError, EOFError where the other end has hung up."""


class ServerCertificateError(Exception):
    """The server shows a certificate that this end does not accept; the message says why."""


@dataclass
class Handshake:
    """One attempt, and how far it came."""

    wire: Wire
    key: ClientKey
    answered: bool = False
    """Whether the server knows the key."""
    confirmed: bool = False
    """Whether it has received all that was sent to it."""
    _session: bytes = field(default_factory=lambda: secrets.token_bytes(_SESSION))
    _peer: bytes = b""
    _numbers: int = _EARLY
    _sent: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """What is not confirmed yet: operation and content by number."""
    _next: int = 0
    """Number of the server's message that is expected."""
    _early: dict[int, bytes] = field(default_factory=dict)
    """Messages that came before their turn."""
    _owed: list[int] = field(default_factory=list)
    """Numbers of messages to be confirmed."""

    def reset(self, deadline: float) -> bool:
        """Ask for a session until one is opened; whether it was, by `deadline` of the monotonic clock."""
        self._say(_RESET_CLIENT, 0, b"")
        while not self.answered and self._listen(deadline, self._opened):
            pass
        return self.answered

    def secure(self, bundle: str, deadline: float) -> bool:
        """Go through TLS with the bundle's certificate; whether the server has accepted that by `deadline`.

        Raises `RefusedHere`, and `BundleError` for a bundle without certificates.
        """
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = _context(bundle).wrap_bio(received, sent, server_side=False)
        number = 1
        while True:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLCertVerificationError as error:
                raise ServerCertificateError(error.verify_message) from error
            except ssl.SSLError as error:
                raise ServerCertificateError(str(error.reason or error)) from error
            for chunk in iter(lambda: sent.read(_CHUNK), b""):
                self._say(self._first if number == 1 else _CONTROL, number, chunk)
                number += 1
            if done:
                self._expect_name(tls, remote_of(bundle).name)
                return True
            if not self._listen(deadline, received.write):
                return False

    @staticmethod
    def _expect_name(tls: ssl.SSLObject, wanted: str) -> None:
        shown = dict(pair for part in (tls.getpeercert() or {}).get("subject", ()) for pair in part)  # type: ignore[misc]
        if (name := shown.get("commonName")) != wanted:
            raise ServerCertificateError(f"it is {name}'s, not {wanted}'s")

    def _opened(self, content: bytes) -> None:
        """The server's answer to a reset: with it, it may have asked for the key once more."""
        self._first = _CONTROL_WITH_KEY if content.startswith(b"\x00\x01") else _CONTROL
        self.answered = True

    def _say(self, operation: int, number: int, content: bytes) -> None:
        self._sent[number] = operation, content
        self.confirmed = False
        self._transmit(operation, number, content)

    def _transmit(self, operation: int, number: int | None, content: bytes = b"") -> None:
        self._numbers += 1
        stamp = self._numbers.to_bytes(4, "big") + int(time.time()).to_bytes(4, "big")
        header = bytes([operation << 3]) + self._session + stamp
        owed, self._owed = self._owed[:4], self._owed[4:]
        acks = bytes([len(owed)]) + b"".join(one.to_bytes(4, "big") for one in owed) + (self._peer if owed else b"")
        message = b"" if number is None else number.to_bytes(4, "big") + content
        packet = self.key.seal(header, acks + message)
        with_key = operation in (_RESET_CLIENT, _CONTROL_WITH_KEY)
        self.wire.send(packet + (self.key.wrapped if with_key else b""))

    def _listen(self, deadline: float, take: Callable[[bytes], object]) -> bool:
        """Wait for the server's next message and hand it on; whether one came by `deadline`."""
        again = time.monotonic() + self.wire.again
        while (now := time.monotonic()) < deadline:
            packet = self.wire.receive(min(deadline, again) - now) if now < again else None
            if packet is not None and self._take(packet, take):
                return True
            if time.monotonic() >= again:
                for number, (operation, content) in list(self._sent.items()):
                    self._transmit(operation, number, content)
                again = time.monotonic() + self.wire.again
        return False

    def _take(self, packet: bytes, take: Callable[[bytes], object]) -> bool:
        """Read one packet; whether messages came of it."""
        plain = self.key.open(packet, _HEADER)
        if not plain:
            return False
        operation, session = packet[0] >> 3, packet[1 : 1 + _SESSION]
        count, rest = plain[0], plain[1:]
        confirmed = [int.from_bytes(rest[4 * i : 4 * i + 4], "big") for i in range(count)]
        rest = rest[4 * count :]
        if count:
            if rest[:_SESSION] != self._session:
                return False
            rest = rest[_SESSION:]
        if operation == _RESET_SERVER and not self._peer:
            self._peer = session
        if session != self._peer:
            return False
        for number in confirmed:
            self._sent.pop(number, None)
        self.confirmed = not self._sent
        if operation == _ACK or len(rest) < 4:
            return False
        number, content = int.from_bytes(rest[:4], "big"), rest[4:]
        self._owed.append(number)
        if number >= self._next:
            self._early[number] = content
        came = False
        while self._next in self._early:
            take(self._early.pop(self._next))
            self._next, came = self._next + 1, True
        if self._next > 1:
            self._transmit(_ACK, None)
        return came


def _context(bundle: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The server's name is no host's: `_expect_name` looks at it.
    context.check_hostname = False
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_of(bundle))
    # Python reads keys from files alone; this one is nobody else's to read, and gone at once.
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(certificate_of(bundle) + key_of(bundle))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def client_key_of(bundle: str) -> ClientKey:
    """Return a bundle's tls-crypt-v2 key; raises `BundleError` and `PkiError`."""
    return ClientKey.read(tls_crypt_of(bundle))
