"""Encrypt bytes with a passphrase in the age format, which the `age` command reads and writes as well.

Source: The age file encryption format (https://age-encryption.org/v1), recipient type scrypt; RFC 7914 for scrypt.
Passphrases and contents are left out of every error.
"""

import base64
import hmac
import re
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_VERSION = b"age-encryption.org/v1"

#: Logarithm of scrypt's cost: a guess of the passphrase takes about a second and 256 MB.
WORK_FACTOR = 18

#: The highest cost that is accepted of a file, 4 GB: a forged file must not use up the machine.
MAX_WORK_FACTOR = 22

_FILE_KEY_BYTES, _SALT_BYTES, _NONCE_BYTES, _TAG_BYTES = 16, 16, 16, 16
_CHUNK_BYTES = 64 * 1024

_HEADER = re.compile(
    re.escape(_VERSION)
    + rb"\n-> scrypt (?P<salt>[A-Za-z0-9+/]{22}) (?P<work>[1-9][0-9]?)\n(?P<body>[A-Za-z0-9+/]{43})\n---"
    rb" (?P<mac>[A-Za-z0-9+/]{43})\n"
)


class AgeError(ValueError):
    """A file cannot be decrypted."""


class PassphraseError(AgeError):
    """The passphrase is not that of the file."""


def encrypt_file(content: bytes, passphrase: str, *, work_factor: int = WORK_FACTOR) -> bytes:
    """Return an age file with `content` that only the passphrase opens.

    `work_factor` is the logarithm to base 2 of scrypt's cost.
    """
    file_key, salt, nonce = (secrets.token_bytes(size) for size in (_FILE_KEY_BYTES, _SALT_BYTES, _NONCE_BYTES))
    wrapped = ChaCha20Poly1305(_stretch(passphrase, salt, work_factor)).encrypt(bytes(12), file_key, None)
    header = b"%s\n-> scrypt %s %d\n%s\n---" % (_VERSION, _encode(salt), work_factor, _encode(wrapped))
    cipher = ChaCha20Poly1305(_derive(file_key, nonce, b"payload"))
    starts = range(0, max(len(content), 1), _CHUNK_BYTES)
    chunks = (
        cipher.encrypt(_chunk_nonce(number, is_last=start == starts[-1]), content[start : start + _CHUNK_BYTES], None)
        for number, start in enumerate(starts)
    )
    return b"%s %s\n%s" % (header, _encode(_sign(file_key, header)), nonce) + b"".join(chunks)


def decrypt_file(file: bytes, passphrase: str) -> bytes:
    """Return the content of an age file that a passphrase opens.

    Raises:
        PassphraseError: it is not the file's passphrase.
        AgeError: it is not an age file, one that no passphrase opens, or one that was cut or changed.
    """
    match = _HEADER.match(file)
    if match is None:
        raise AgeError(_describe_mismatch(file))
    work_factor = int(match["work"])
    if work_factor > MAX_WORK_FACTOR:
        raise AgeError(f"its passphrase has work factor {work_factor}, and at most {MAX_WORK_FACTOR} is accepted")
    key = _stretch(passphrase, _decode(match["salt"]), work_factor)
    try:
        file_key = ChaCha20Poly1305(key).decrypt(bytes(12), _decode(match["body"]), None)
    except InvalidTag:
        raise PassphraseError("the passphrase is wrong, or the file's first lines were changed") from None
    header = file[: match.start("mac") - 1]
    if not hmac.compare_digest(_sign(file_key, header), _decode(match["mac"])):
        raise AgeError("its first lines were changed")
    return _decrypt_payload(file[match.end() :], file_key)


def _decrypt_payload(payload: bytes, file_key: bytes) -> bytes:
    nonce, encrypted = payload[:_NONCE_BYTES], payload[_NONCE_BYTES:]
    cipher, size = ChaCha20Poly1305(_derive(file_key, nonce, b"payload")), _CHUNK_BYTES + _TAG_BYTES
    starts = range(0, max(len(encrypted), 1), size)
    chunks = []
    for number, start in enumerate(starts):
        chunk_nonce = _chunk_nonce(number, is_last=start == starts[-1])
        try:
            chunks.append(cipher.decrypt(chunk_nonce, encrypted[start : start + size], None))
        except InvalidTag:
            raise AgeError("it was cut off or changed") from None
    return b"".join(chunks)


def _describe_mismatch(file: bytes) -> str:
    if not file.startswith(_VERSION):
        return "it is not an age file"
    if b"\n---" in file and b"\n-> scrypt " not in file:
        return "it is encrypted for keys and not with a passphrase"
    return "it was cut off or changed"


def _stretch(passphrase: str, salt: bytes, work_factor: int) -> bytes:
    """Return the key that wraps the file's key; this takes time and memory on purpose."""
    salt = _VERSION + b"/scrypt" + salt
    return Scrypt(salt=salt, length=32, n=1 << work_factor, r=8, p=1).derive(passphrase.encode())


def _derive(file_key: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=purpose).derive(file_key)


def _sign(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_derive(file_key, b"", b"header"), header, "sha256")


def _chunk_nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _encode(content: bytes) -> bytes:
    return base64.b64encode(content).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4))
