"""Render the kernel settings of a host that forwards for a tunnel.

Source: the kernel's Documentation/networking/ip-sysctl.rst.
"""

from collections.abc import Iterator

from openvpn.model import Tunnel
from openvpn.syntax import render_lines


def render_sysctl(tunnel: Tunnel) -> str:
    """Return a file for /etc/sysctl.d, so that the settings are in force from boot on."""
    return render_lines(
        f"forwarding for {tunnel.layout.interface}", (f"{key} = {value}" for key, value in _settings(tunnel))
    )


def _settings(tunnel: Tunnel) -> Iterator[tuple[str, int]]:
    yield from _SETTINGS
    if tunnel.receive_buffer:
        # The largest buffer that OpenVPN may have for packets that arrive. A network namespace has no such key.
        yield "-net.core.rmem_max", tunnel.receive_buffer
    if tunnel.ipv6:
        yield "net.ipv6.conf.all.forwarding", 1
    if tunnel.layout.is_segment:
        # Where something loads br_netfilter, frames between a bridge's ports would be filtered as if they were routed.
        # The dash ignores missing keys; udev applies them when the module is loaded.
        yield from ((f"-net.bridge.bridge-nf-call-{family}", 0) for family in ("iptables", "ip6tables", "arptables"))


#: The kernel combines `all` with an interface's own value, and interfaces that come later start with `default`.
_EVERY = ("all", "default")
_SETTINGS = (
    ("net.ipv4.ip_forward", 1),
    # A packet is dropped if its source is not reached through the interface that it came in by.
    # Debian's package linux-sysctl-defaults, which AWS's image has, writes 2 (loose) to every interface, and the kernel
    # takes the larger value. A glob replaces that line, for interfaces that come later too (sysctl.d(5)).
    *((f"net.ipv4.conf.{which}.rp_filter", 1) for which in (*_EVERY, "*")),
    # Clients reach each other through one interface of the gateway, which would advise them to bypass it.
    *((f"net.ipv4.conf.{which}.send_redirects", 0) for which in _EVERY),
    *((f"net.ipv4.conf.{which}.accept_redirects", 0) for which in _EVERY),
    *((f"net.ipv4.conf.{which}.accept_source_route", 0) for which in _EVERY),
)
