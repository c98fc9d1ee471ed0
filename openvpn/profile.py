"""The client's side: a profile without secrets, and the bundle, one file with everything inline.

Source: the reference manual for OpenVPN 2.6, openvpn(8), section "Inline file support".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from openvpn import windows
from openvpn.model import Tunnel, text


class BundleError(ValueError):
    """A text that is no bundle; the message never repeats any of it."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a bundle says its server is."""

    host: str
    """Address or name."""
    port: int
    protocol: Literal["udp", "tcp"]
    name: str
    """Common name of the server's certificate."""


def render_profile(tunnel: Tunnel, remote: str, server_name: str, client: str = "") -> str:
    """Return a profile without keys, the same for every client of a tunnel that is routed.

    On a segment the client named gets its own hardware address, and on Windows its scripts. `remote` is the server's
    public address or name; `server_name` the common name of its certificate, and no other is accepted.
    """
    return text(f"OpenVPN profile for {server_name}", _profile(tunnel, remote, server_name, client))


def inline(profile: str, ca: str, certificate: str, key: str, tls_crypt_v2: str) -> str:
    """Return the whole .ovpn file; the PEM texts are the CA's certificate, the client's certificate and its two keys.

    With P-256 it stays under 4,096 characters. It holds secrets: keep it out of logs and create its file 0600.
    """
    parts = {"ca": ca, "cert": certificate, "key": key, "tls-crypt-v2": tls_crypt_v2}
    return profile + "".join(f"<{tag}>\n{pem.strip()}\n</{tag}>\n" for tag, pem in parts.items())


def ca_of(bundle: str) -> str:
    """Return the CA's certificate out of a bundle; raises `BundleError`."""
    return _part(bundle, "ca")


def certificate_of(bundle: str) -> str:
    """Return the client's certificate out of a bundle; raises `BundleError`."""
    return _part(bundle, "cert")


def key_of(bundle: str) -> str:
    """Return the client's private key out of a bundle; raises `BundleError`."""
    return _part(bundle, "key")


def tls_crypt_of(bundle: str) -> str:
    """Return the client's tls-crypt-v2 key out of a bundle; raises `BundleError`."""
    return _part(bundle, "tls-crypt-v2")


def remote_of(bundle: str) -> Remote:
    """Return where a bundle leads; raises `BundleError`."""
    words = [line.split() for line in bundle.partition("\n<ca>")[0].splitlines()]
    options = {word[0]: word[1:] for word in words if word}
    match options.get("remote"), options.get("proto"), options.get("verify-x509-name"):
        case [host, port], [protocol], [name, *_] if port.isdigit() and 0 < int(port) < 65536:
            return Remote(host, int(port), "tcp" if protocol.startswith("tcp") else "udp", name)
    raise BundleError("the bundle has no remote, proto and verify-x509-name; fetch it again")


def _part(bundle: str, tag: str) -> str:
    # On Windows lines end otherwise.
    bundle = bundle.replace("\r\n", "\n")
    _, opened, rest = bundle.partition(f"\n<{tag}>\n")
    pem, closed, _ = rest.partition(f"</{tag}>\n")
    if not (opened and closed):
        raise BundleError(f"the bundle has no <{tag}>; fetch it again")
    return pem


def _profile(tunnel: Tunnel, remote: str, server_name: str, client: str) -> Iterator[str]:
    yield "client"
    yield f"dev {tunnel.device}"
    if tunnel.device == "tap" and not any(one.mac or one.bridge for one in tunnel.clients if one.name == client):
        yield f"lladdr {tunnel.macs[client]}"
    yield f"proto {tunnel.listener.protocol}"
    yield f"remote {remote} {tunnel.listener.ports[0]}"
    yield "nobind"
    yield "resolv-retry infinite"
    # By default a client that finds nobody asks at ever longer intervals, up to minutes, and is back long after the
    # gateway is. Seconds, at most: to wait for an answer, and between two attempts.
    yield "server-poll-timeout 10"
    yield "connect-retry 1 10"
    yield "persist-key"
    yield "persist-tun"
    yield "remote-cert-tls server"
    # Without it any server certificate of the same CA would pass.
    yield f"verify-x509-name {server_name} name"
    yield "tls-version-min 1.2"
    # By default a refusal ends the client with exit status 0, and no service manager starts it again.
    yield "auth-retry nointeract"
    yield "auth-nocache"
    if tunnel.listener.protocol == "udp":
        # Over TCP the end of the connection says it.
        yield "explicit-exit-notify 1"
    # The server pushes its MTU to 2.6 and later; older clients have it from here.
    yield f"tun-mtu {tunnel.mtu}"
    yield f"mssfix {tunnel.path_mtu} mtu"
    yield f"verb {tunnel.verb}"
    if any(one.system == "windows" for one in tunnel.clients if one.name == client):
        yield from windows.options(tunnel, client)
