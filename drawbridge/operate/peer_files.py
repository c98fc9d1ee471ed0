"""Write the configuration files of two hosts that are joined without an authority and without AWS."""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from drawbridge import errors
from openvpn.peer import PeerHost, render_peer
from pki.authority import PkiError, self_signed

#: The hosts' addresses in the tunnel, which no other host uses.
TUNNEL_ADDRESSES = (IPv4Address("10.255.255.1"), IPv4Address("10.255.255.2"))
LIFETIME = timedelta(days=3650)


def write_peer_files(directory: Path, names: tuple[str, str], remote: str, port: int = 1194) -> tuple[Path, Path]:
    """Write a file for each of two ends, mode 0600 from the moment it exists, and return where.

    The first one listens on UDP `port`, the second one calls it at `remote`. Raises `BundleFileError` if a
    file exists or cannot be written, or a name is not valid.
    """
    if names[0] == names[1]:
        raise errors.BundleFileError(f"{names[0]} is already the name of the other host", "choose two different names")
    try:
        server, caller = (_create_host(name, address) for name, address in zip(names, TUNNEL_ADDRESSES, strict=True))
        texts = {f"{server.name}.ovpn": render_peer(server, caller, port=port, remote=None)}
        texts[f"{caller.name}.ovpn"] = render_peer(caller, server, port=port, remote=remote)
        for name, text in texts.items():
            path = directory / name
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(text)
    except PkiError as error:
        raise errors.BundleFileError(str(error), "choose another name") from error
    except FileExistsError as error:
        raise errors.BundleFileError(f"{error.filename} already exists", "name another directory") from None
    except OSError as error:
        raise errors.BundleFileError(f"{error.filename}: {error.strerror}", "name a directory of yours") from error
    first, second = (directory / name for name in texts)
    return first, second


def _create_host(name: str, address: IPv4Address) -> PeerHost:
    leaf = self_signed(name, LIFETIME, datetime.now(UTC))
    return PeerHost(
        name=name, address=address, certificate=leaf.certificate, key=leaf.key, fingerprint=leaf.fingerprint
    )
