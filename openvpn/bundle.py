"""A client's bundle: its profile with all key material inline, put together and read again.

Source: the reference manual for OpenVPN 2.6, openvpn(8), section "Inline file support".
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from openvpn.model import System


class BundleError(ValueError):
    """A text is not a bundle; the message never repeats any of it."""


_PORT = re.compile("[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Remote:
    """The server that a bundle names."""

    host: str
    """Address or name."""
    port: int
    protocol: Literal["udp", "tcp"]
    name: str
    """Common name of the server's certificate."""


def profile_title(server_name: str, system: System) -> str:
    """Return the comment at the top of a profile; `system_of` reads it."""
    return f"OpenVPN profile for {server_name}" + (f" on {system}" if system != "linux" else "")


def system_of(bundle: str) -> System:
    """Return what a bundle's client runs."""
    title = bundle.partition("\n")[0].strip()
    return next((system for system in get_args(System) if title.endswith(f" on {system}")), "linux")


def render_bundle(profile: str, ca: str, certificate: str, key: str | None, tls_crypt_v2: str) -> str:
    """Return the whole .ovpn file; the PEM texts are the CA's certificate, the client's certificate and its two keys.

    Without the client's private key, which its owner has, the profile names the key's file (`render_key_file`). With
    P-256 the bundle stays under 4,096 characters. It holds secrets: keep it out of logs and create its file 0600.
    """
    parts = {"ca": ca, "cert": certificate, "key": key, "tls-crypt-v2": tls_crypt_v2}
    return profile + "".join(f"<{tag}>\n{pem.strip()}\n</{tag}>\n" for tag, pem in parts.items() if pem is not None)


def render_key_file(client: str) -> str:
    """Return the lines of a profile that name the file of the client's private key."""
    return (
        "# Your key is not in here: put it beside this file, or replace the next line by <key>, the key and </key>.\n"
        f"key {client}.key\n"
    )


def ca_of(bundle: str) -> str:
    """Return the CA's certificate out of a bundle; raises `BundleError`."""
    return _read_part(bundle, "ca")


def certificate_of(bundle: str) -> str:
    """Return the client's certificate out of a bundle; raises `BundleError`."""
    return _read_part(bundle, "cert")


def key_of(bundle: str) -> str:
    """Return the client's private key out of a bundle; raises `BundleError`, also where it is in a file of its own."""
    if has_key_file(bundle):
        raise BundleError("the bundle names its key's file; put the key into it, between <key> and </key>")
    return _read_part(bundle, "key")


def has_key_file(bundle: str) -> bool:
    """Return whether a bundle has no private key, but names the file that its owner has it in."""
    profile = bundle.replace("\r\n", "\n").partition("\n<ca>\n")[0]
    return any(line.split()[:1] == ["key"] for line in profile.splitlines())


def tls_crypt_of(bundle: str) -> str:
    """Return the client's tls-crypt-v2 key out of a bundle; raises `BundleError`."""
    return _read_part(bundle, "tls-crypt-v2")


def check_complete(bundle: str) -> None:
    """Raise `BundleError` for a bundle that lacks a part, such as one of which only the beginning was written."""
    for tag in ("ca", "cert", *(() if has_key_file(bundle) else ("key",)), "tls-crypt-v2"):
        _read_part(bundle, tag)


def has_same_keys(bundle: str, reference: str) -> bool:
    """Return whether two bundles have the same certificate and tls-crypt-v2 key; False if one of them is damaged."""
    try:
        return (certificate_of(bundle), tls_crypt_of(bundle)) == (certificate_of(reference), tls_crypt_of(reference))
    except BundleError:
        return False


def remote_of(bundle: str) -> Remote:
    """Return the server that a bundle names, of several the first; raises `BundleError`."""
    words = [line.split() for line in bundle.partition("\n<ca>")[0].splitlines()]
    options = {word[0]: word[1:] for word in reversed(words) if word}
    match options.get("remote"), options.get("proto"), options.get("verify-x509-name"):
        case [host, port], [protocol], [name, *_] if _PORT.fullmatch(port) and 0 < int(port) < 65536:
            return Remote(host, int(port), "tcp" if protocol.startswith("tcp") else "udp", name)
    raise BundleError("the bundle has no remote, proto and verify-x509-name; fetch it again")


def with_port(bundle: str, port: int) -> str:
    """Return a bundle that leads to another port of the same server."""
    profile, opening, parts = bundle.partition("\n<ca>")
    return re.sub(r"^(remote \S+) \d+", rf"\g<1> {port}", profile, flags=re.MULTILINE) + opening + parts


def _read_part(bundle: str, tag: str) -> str:
    # Windows ends lines with \r\n.
    bundle = bundle.replace("\r\n", "\n")
    _, opening, rest = bundle.partition(f"\n<{tag}>\n")
    pem, closing, _ = rest.partition(f"</{tag}>\n")
    if not (opening and closing):
        raise BundleError(f"the bundle has no <{tag}>; fetch it again")
    return pem
