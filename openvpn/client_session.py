"""A client's session of OpenVPN up to the answer that makes it a client: PUSH_REPLY. It carries no data.

Sources: OpenVPN's doc/openvpn-wire-protocol (draft-openvpn), "Key method 2" and "Push request"; the comments of
ssl_common.h and ssl.c in OpenVPN 2.6 for the values of IV_PROTO and the order of fields.
"""

import os
import ssl
from collections.abc import Callable

from openvpn.bundle import remote_of
from openvpn.control_channel import ControlChannel
from openvpn.handshake import check_name
from pki.tls_crypt import ClientKey

#: What 2.6 says of itself; IV_PROTO: data packets of version 2, and a reply that nobody has to ask for.
_PEER_INFO = "IV_VER=2.6.14\nIV_PLAT=linux\nIV_NCP=2\nIV_PROTO=6\nIV_CIPHERS=AES-256-GCM:AES-128-GCM\n"
_OPTIONS = "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,keydir 1,key-method 2,tls-client"
_KEY_METHOD = b"\x00\x00\x00\x00\x02"
#: Bytes of random numbers: the client's are two of 32 and the premaster secret of 48, the server's only the two.
_RANDOM_OF_CLIENT, _RANDOM_OF_SERVER = 48 + 32 + 32, 32 + 32


class ProtocolError(Exception):
    """The server said what no server of OpenVPN 2.6 says."""


def encode_keys(random: bytes) -> bytes:
    """Return the client's message of key method 2: no user name, no password."""
    texts = (_OPTIONS, None, None, _PEER_INFO)
    return _KEY_METHOD + random + b"".join(map(_encode_text, texts))


def _encode_text(text: str | None) -> bytes:
    if text is None:
        return b"\x00\x00"
    content = text.encode() + b"\x00"
    return len(content).to_bytes(2, "big") + content


def decode_options(message: bytes) -> str:
    """Return the options in the server's message of key method 2; raises `ProtocolError`."""
    start = len(_KEY_METHOD) + _RANDOM_OF_SERVER
    length = int.from_bytes(message[start : start + 2], "big")
    content = message[start + 2 : start + 2 + length]
    if not message.startswith(_KEY_METHOD) or not length or len(content) != length:
        raise ProtocolError("the server's keys are not of key method 2")
    return content[:-1].decode()


def is_last_reply(message: str) -> bool:
    """Return whether a control message is the last part of the server's PUSH_REPLY."""
    return message.startswith("PUSH_REPLY") and not message.endswith(",push-continuation 2")


class ClientSession:
    """One session; packets are handed in. `pushed` and `refusal` say what came of it."""

    def __init__(
        self, bundle: str, key: ClientKey, context: ssl.SSLContext, transmit: Callable[[bytes], object]
    ) -> None:
        self.channel = ControlChannel(key, transmit)
        self.pushed = False
        """Whether all of PUSH_REPLY has come."""
        self.refusal = ""
        """The server's reason, such as AUTH_FAILED."""
        self._server_name = remote_of(bundle).name
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=False)
        self._secure = self._has_keys = False

    def receive(self, packet: bytes) -> None:
        """Read a packet and answer it; raises `ProtocolError`, ssl.SSLError and `ServerCertificateError`."""
        answered = self.channel.answered
        content = b"".join(self.channel.receive(packet))
        if content:
            self._incoming.write(content)
        if content or self.channel.answered != answered:
            self._advance()
        self.channel.acknowledge()

    def request_push(self) -> None:
        """Ask for PUSH_REPLY, as clients do while it does not come; nothing before both ends have keys."""
        if self._has_keys:
            self._tls.write(b"PUSH_REQUEST\x00")
            self.channel.send(self._outgoing.read())

    def _advance(self) -> None:
        if not self._secure:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.channel.send(self._outgoing.read())
                return
            check_name(self._tls, self._server_name)
            self._secure = True
            self._tls.write(encode_keys(os.urandom(_RANDOM_OF_CLIENT)))
            self.channel.send(self._outgoing.read())
        while True:
            try:
                self._handle(self._tls.read(1 << 16))
            except ssl.SSLWantReadError:
                return

    def _handle(self, message: bytes) -> None:
        if not self._has_keys:
            decode_options(message)
            self._has_keys = True
            return
        text = message.rstrip(b"\x00").decode()
        if text.startswith("AUTH_FAILED"):
            self.refusal = text
        self.pushed = self.pushed or is_last_reply(text)
