"""Keys for OpenVPN's `--tls-crypt-v2`: each client has its own, and only the server can unwrap what it sends of it.

Source: OpenVPN's doc/tls-crypt-v2.txt. Strangers without a key get no answer from the server at all.
"""

import base64
import hashlib
import hmac
import secrets
import textwrap
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pki.authority import PkiError

_SERVER = "OpenVPN tls-crypt-v2 server key"
_CLIENT = "OpenVPN tls-crypt-v2 client key"
_SERVER_BYTES = 128  # two keys of 512 bits, of which the first 256 bits of each are used
_CLIENT_BYTES = 256
_TAG_BYTES = 32
_USER_DATA = b"\x00"  # metadata type: free-form, against 0x01 for a time stamp

#: A wrapped key is at most 1,024 bytes long; this is what remains for metadata, in bytes.
METADATA_LIMIT = 1024 - _TAG_BYTES - _CLIENT_BYTES - len(_USER_DATA) - 2


def server_key() -> str:
    """Return a new server key, PEM; whoever has it can unwrap every client's key."""
    return _armour(_SERVER, secrets.token_bytes(_SERVER_BYTES))


def client_key(server_key: str, metadata: bytes = b"") -> str:
    """Return a new client key, PEM, wrapped for the owner of `server_key`.

    `metadata`, at most `METADATA_LIMIT` bytes, is for the server's `--tls-crypt-v2-verify` script; the client can
    neither read nor change it. Raises `PkiError` for a text that is not a server key and for too much metadata.
    """
    if len(metadata) > METADATA_LIMIT:
        raise PkiError(f"a tls-crypt-v2 key has room for {METADATA_LIMIT} bytes of metadata, not for {len(metadata)}")
    server = _read(_SERVER, server_key, range(_SERVER_BYTES, _SERVER_BYTES + 1))
    encrypt_key, sign_key = server[:32], server[64:96]

    key = secrets.token_bytes(_CLIENT_BYTES)
    plain = key + _USER_DATA + metadata
    length = (_TAG_BYTES + len(plain) + 2).to_bytes(2, "big")
    tag = hmac.digest(sign_key, length + plain, hashlib.sha256)
    # The tag is the nonce as well, so that two keys wrapped alike could only be the same key.
    encryptor = Cipher(algorithms.AES(encrypt_key), modes.CTR(tag[:16])).encryptor()
    return _armour(_CLIENT, key + tag + encryptor.update(plain) + encryptor.finalize() + length)


def read_metadata(server_key: str, client_key: str) -> bytes | None:
    """Return the metadata of a client's key; None if it is not wrapped for this server. Raises `PkiError`."""
    server = _read(_SERVER, server_key, range(_SERVER_BYTES, _SERVER_BYTES + 1))
    wrapped = ClientKey.read(client_key).wrapped
    tag, hidden, length = wrapped[:_TAG_BYTES], wrapped[_TAG_BYTES:-2], wrapped[-2:]
    decryptor = Cipher(algorithms.AES(server[:32]), modes.CTR(tag[:16])).decryptor()
    plain = decryptor.update(hidden) + decryptor.finalize()
    if not hmac.compare_digest(tag, hmac.digest(server[64:96], length + plain, hashlib.sha256)):
        return None
    return plain[_CLIENT_BYTES + len(_USER_DATA) :]


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A client's key as it uses it: to hide what it sends from everybody but the server, and to read the answers."""

    wrapped: bytes = field(repr=False)
    """The key as only the server can read it; it goes along with a client's first packet."""
    _keys: bytes = field(repr=False)

    @classmethod
    def read(cls, pem: str) -> "ClientKey":
        """Return the key that a PEM text holds; raises `PkiError`."""
        content = _read(_CLIENT, pem, range(_CLIENT_BYTES + _TAG_BYTES + 2, _CLIENT_BYTES + 1024 + 1))
        return cls(content[_CLIENT_BYTES:], content[:_CLIENT_BYTES])

    def seal(self, header: bytes, plain: bytes) -> bytes:
        """Return a packet of the control channel; `header` is what stays legible of it."""
        encrypt_key, sign_key = self._keys[128:160], self._keys[192:224]
        tag = hmac.digest(sign_key, header + plain, hashlib.sha256)
        encryptor = Cipher(algorithms.AES(encrypt_key), modes.CTR(tag[:16])).encryptor()
        return header + tag + encryptor.update(plain) + encryptor.finalize()

    def open(self, packet: bytes, header: int) -> bytes | None:
        """Return what a packet of the server's holds behind its `header` bytes; None if it is not for this key."""
        encrypt_key, sign_key = self._keys[:32], self._keys[64:96]
        tag, hidden = packet[header : header + _TAG_BYTES], packet[header + _TAG_BYTES :]
        if len(tag) < _TAG_BYTES:
            return None
        decryptor = Cipher(algorithms.AES(encrypt_key), modes.CTR(tag[:16])).decryptor()
        plain = decryptor.update(hidden) + decryptor.finalize()
        signed = hmac.digest(sign_key, packet[:header] + plain, hashlib.sha256)
        return plain if hmac.compare_digest(tag, signed) else None


def _armour(label: str, content: bytes) -> str:
    body = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


def _read(label: str, pem: str, size: range) -> bytes:
    body = pem.strip().removeprefix(f"-----BEGIN {label}-----").removesuffix(f"-----END {label}-----")
    try:
        content = base64.b64decode("".join(body.split()), validate=True)
    except ValueError:
        content = b""
    if len(content) not in size:
        raise PkiError(f"the text is not a valid {label}")
    return content
