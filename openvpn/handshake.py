"""Client side of OpenVPN's handshake, up to the end of TLS.

It shows whether both ends accept each other and makes no tunnel. A server does not answer a client without a key of its
own (tls-crypt-v2), so any answer shows that the key is right. TLS 1.2 follows: in that version the server finishes only
after it has accepted the client's certificate, in 1.3 it finishes before. The messages after TLS, which would make this
a client, are never sent. So a session under the same certificate goes on, and no address is handed out.

Source: RFC 5246, 7.3; `openvpn.control_channel` has those of the channel.
"""

import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from openvpn.bundle import ca_of, certificate_of, key_of, remote_of, tls_crypt_of
from openvpn.control_channel import ControlChannel
from pki.tls_crypt import ClientKey


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
    """One handshake over a wire, which it waits for."""

    wire: Wire
    key: ClientKey
    channel: ControlChannel = field(init=False)

    def __post_init__(self) -> None:
        self.channel = ControlChannel(self.key, self.wire.send)

    @property
    def answered(self) -> bool:
        """Return whether the server has answered, and so knows the key."""
        return self.channel.answered

    def reset(self, deadline: float) -> bool:
        """Ask for a session; return whether the server opens one by `deadline` (of the monotonic clock)."""
        self.channel.reset()
        self._wait(deadline, lambda content: self.answered)
        return self.answered

    def secure(self, bundle: str, deadline: float) -> bool:
        """Do the TLS handshake with a bundle's certificate; return whether the server accepts it by `deadline`.

        Raises `ServerCertificateError`, and `BundleError` for a bundle without certificates.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = tls_context(bundle, ssl.TLSVersion.TLSv1_2).wrap_bio(incoming, outgoing, server_side=False)
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
            self.channel.send(outgoing.read())
            self.channel.acknowledge()
            if finished:
                check_name(tls, remote_of(bundle).name)
                return True
            if not self._wait(deadline, lambda content: incoming.write(content) > 0):
                return False

    def _wait(self, deadline: float, handle: Callable[[bytes], bool]) -> bool:
        """Read packets until `handle` is true of what one brings of TLS; return whether it was by `deadline`."""
        retransmit_at = time.monotonic() + self.wire.retransmit_after
        while (now := time.monotonic()) < deadline:
            packet = self.wire.receive(min(deadline, retransmit_at) - now) if now < retransmit_at else None
            if packet is not None:
                if handle(b"".join(self.channel.receive(packet))):
                    return True
                self.channel.acknowledge()
            if time.monotonic() >= retransmit_at:
                self.channel.repeat()
                retransmit_at = time.monotonic() + self.wire.retransmit_after
        return False


def check_name(tls: ssl.SSLObject, expected: str) -> None:
    """Raise `ServerCertificateError` unless the server's certificate has this common name."""
    subject = dict(pair for part in (tls.getpeercert() or {}).get("subject", ()) for pair in part)  # type: ignore[misc]
    if (name := subject.get("commonName")) != expected:
        raise ServerCertificateError(f"it is {name}'s, not {expected}'s")


def tls_context(bundle: str, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Return the client's end of TLS in one version, with a bundle's certificates; raises `BundleError`.

    It does not compare the server's name: `check_name` does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The certificate's name is not that of a host.
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version
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
