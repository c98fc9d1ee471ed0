"""Write values the way configuration files spell them."""

from collections.abc import Iterable
from ipaddress import IPv4Network


def spell_network(network: IPv4Network) -> str:
    """Return a network as OpenVPN's options spell it: its address and its netmask.

    >>> spell_network(IPv4Network("10.8.0.0/24"))
    '10.8.0.0 255.255.255.0'
    """
    return f"{network.network_address} {network.netmask}"


def render_lines(title: str, lines: Iterable[str]) -> str:
    """Return a file of `lines` under a comment with its title."""
    return "".join(f"{line}\n" for line in (f"# {title}", *lines))
