"""Kernel settings of a host that forwards for a tunnel.

Source: the kernel's Documentation/networking/ip-sysctl.rst.
"""

from collections.abc import Iterator

from openvpn.model import Tunnel, text


def render(tunnel: Tunnel) -> str:
    """Return a file for /etc/sysctl.d, so that it is in force from boot on."""
    return text(f"forwarding for {tunnel.interface}", (f"{key} = {value}" for key, value in _settings(tunnel)))


def _settings(tunnel: Tunnel) -> Iterator[tuple[str, int]]:
    yield from _SETTINGS
    if tunnel.pool6:
        yield "net.ipv6.conf.all.forwarding", 1
    if tunnel.device == "tap":
        # Where something brings br_netfilter along, frames between a bridge's ports would be judged as packets that are
        # routed; the dash lets the keys be missing. udev applies them again when the module comes.
        yield from ((f"-net.bridge.bridge-nf-call-{family}", 0) for family in ("iptables", "ip6tables", "arptables"))


#: `all` and `default`, because a setting counts if either says so, and interfaces come later than this file.
_EVERY = ("all", "default")
_SETTINGS = (
    ("net.ipv4.ip_forward", 1),
    # A source must lie where its packet came from.
    *((f"net.ipv4.conf.{which}.rp_filter", 1) for which in _EVERY),
    # Clients meet through one interface of the gateway: it would tell each of them to talk past it.
    *((f"net.ipv4.conf.{which}.send_redirects", 0) for which in _EVERY),
    *((f"net.ipv4.conf.{which}.accept_redirects", 0) for which in _EVERY),
    *((f"net.ipv4.conf.{which}.accept_source_route", 0) for which in _EVERY),
)
