"""Render the configuration of two hosts without an authority: each accepts the other's certificate by its fingerprint.

This replaces a static key (`--secret`): OpenVPN 2.7 no longer starts with one, and whoever gets hold of it can read all
past traffic. Source: openvpn-examples(5), "Small OpenVPN setup with peer-fingerprint".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from openvpn.syntax import render_lines


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerHost:
    """One of the two hosts."""

    name: str
    address: IPv4Address
    """Its address in the tunnel."""
    certificate: str
    """Self-signed; PEM."""
    key: str = field(repr=False)
    fingerprint: str
    """SHA-256 of the certificate, in hexadecimal."""


def render_peer(host: PeerHost, peer: PeerHost, *, port: int, remote: str | None) -> str:
    """Return the whole file of `host`; `remote` is the address that `peer` listens on, None if `host` listens.

    It holds the host's key: create its file 0600.
    """
    profile = render_lines(f"{host.name}, a peer of {peer.name}", _options(host, peer, port, remote))
    return profile + f"<cert>\n{host.certificate.strip()}\n</cert>\n<key>\n{host.key.strip()}\n</key>\n"


def _options(host: PeerHost, peer: PeerHost, port: int, remote: str | None) -> Iterator[str]:
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
    yield f"ifconfig {host.address} {peer.address}"
    yield f"peer-fingerprint {':'.join(peer.fingerprint[i : i + 2] for i in range(0, 64, 2))}"
    yield "tls-version-min 1.2"
    yield "data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"
    yield "disable-dco"
    yield "keepalive 10 60"
    yield "persist-key"
    yield "persist-tun"
    yield "verb 3"
