"""SSH host keys, so that whoever logs in for the first time can know the machine already.

Source: openssh-key-v1 (PROTOCOL.key of OpenSSH) as `cryptography` writes it.
"""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True, slots=True)
class HostKey:
    """An Ed25519 key pair of a machine."""

    private: str = field(repr=False)
    """OpenSSH private key, PEM, not encrypted: the file `ssh_host_ed25519_key`, to be created 0600."""
    public: str
    """`ssh-ed25519 AAAA…`, with neither comment nor newline."""


def host_key() -> HostKey:
    """Return a new host key."""
    key = Ed25519PrivateKey.generate()
    return HostKey(
        private=key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
        public=key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
    )
