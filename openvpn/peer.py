"""Two hosts and no authority: each knows the other's certificate by its fingerprint, so the keys are all there is.

It takes the place of a static key (`--secret`), which OpenVPN 2.7 no longer starts with, and which lays all traffic of
the past open to whoever gets hold of it. Source: openvpn-examples(5), "Small OpenVPN setup with peer-fingerprint".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from openvpn.model import text


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """One of the two."""

    name: str
    address: IPv4Address
    """Its address in the tunnel."""
    certificate: str
    """Signed by itself; PEM."""
    key: str = field(repr=False)
    fingerprint: str
    """Of the certificate, SHA-256 in hexadecimal."""


def render(here: End, there: End, *, port: int, remote: str | None) -> str:
    """Return the whole file of one end; `remote` is where the other one listens, None for the one that does.

    It holds this end's key: create its file 0600.
    """
    profile = text(f"{here.name}, a peer of {there.name}", _options(here, there, port, remote))
    return profile + f"<cert>\n{here.certificate.strip()}\n</cert>\n<key>\n{here.key.strip()}\n</key>\n"


def _options(here: End, there: End, port: int, remote: str | None) -> Iterator[str]:
    yield "dev tun"
    yield "proto udp"
    if remote is None:
        yield f"port {port}"
        yield "tls-server"
        yield "dh none"
    else:
        yield f"remote {remote} {port}"
        yield "nobind"
        yield "tls-client"
        yield "resolv-retry infinite"
    yield f"ifconfig {here.address} {there.address}"
    yield f"peer-fingerprint {':'.join(there.fingerprint[i : i + 2] for i in range(0, 64, 2))}"
    yield "tls-version-min 1.2"
    yield "data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"
    yield "disable-dco"
    yield "keepalive 10 60"
    yield "persist-key"
    yield "persist-tun"
    yield "verb 3"
