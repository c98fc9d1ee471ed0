"""Check an OpenSSH public key (RFC 4253, 6.6; RFC 5656, 3.1; RFC 8709, 4)."""

import base64
import binascii

#: Bytes of the fields after the type, where the type has them fixed.
_FIELDS = {
    "ssh-ed25519": (32,),
    "ecdsa-sha2-nistp256": (8, 65),
    "ecdsa-sha2-nistp384": (8, 97),
    "ecdsa-sha2-nistp521": (8, 133),
    # The exponent and the modulus have any length.
    "ssh-rsa": (None, None),
}


def is_complete(line: str) -> bool:
    """Return whether the line of a public key holds the whole key that its type says.

    >>> is_complete("ssh-ed25519 AAAAC3Nz")
    False
    """
    kind, encoded, *_ = line.split(" ", 2)
    try:
        fields = _split_fields(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return False
    sizes = _FIELDS.get(kind)
    if sizes is None or not fields or fields[0] != kind.encode() or len(fields) != len(sizes) + 1:
        return False
    return all(len(field) == size if size else field for field, size in zip(fields[1:], sizes, strict=True))


def _split_fields(blob: bytes) -> list[bytes]:
    """Return the fields of a key, each of which has its length before it; raises ValueError."""
    fields = []
    while blob:
        end = 4 + int.from_bytes(blob[:4])
        if len(blob) < end:
            raise ValueError
        fields.append(blob[4:end])
        blob = blob[end:]
    return fields
