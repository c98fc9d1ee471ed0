"""Ways to take a link away from a bonded host, and to give it back."""

from collections.abc import Callable
from dataclasses import dataclass

from drawbridge.trial.hosts import run_checked
from lab.linux import nft
from lab.region import Host

#: Seconds of silence after which a link leaves the bond.
KEEPALIVE = 5.0

_TABLE = "inet cut"


@dataclass(frozen=True, slots=True)
class LinkFault:
    """One way to lose a link."""

    name: str
    """What a check says of the link, such as `stops`."""
    start: Callable[[], object]
    end: Callable[[], object]
    max_outage: float
    """Seconds without an answer that it may cost."""


def stopped_unit(host: Host, tap: str) -> LinkFault:
    """Return the fault that a link's OpenVPN is stopped, as a reboot or an update does."""
    unit = f"drawbridge-link@{tap}"
    return LinkFault(
        "stops",
        start=lambda: run_checked(host, "systemctl", "stop", unit),
        end=lambda: run_checked(host, "systemctl", "start", unit),
        max_outage=1.0,
    )


def silent_uplink(router: str, port: int | None = None) -> LinkFault:
    """Return the fault that a router's namespace drops a link's packets: those of a UDP port, or all."""
    return LinkFault(
        "its uplink is silent",
        start=lambda: silence(router, port),
        end=lambda: end_silence(router),
        max_outage=KEEPALIVE + 1,
    )


def silence(router: str, port: int | None = None) -> None:
    """Have a router's namespace forward nothing, or nothing to and from a UDP port."""
    policy = "drop" if port is None else "accept"
    rules = "" if port is None else f"  udp dport {port} drop\n  udp sport {port} drop\n"
    nft(
        router,
        f"table {_TABLE} {{\n chain c {{\n  type filter hook forward priority -300; policy {policy};\n{rules} }}\n}}\n",
    )


def end_silence(router: str) -> None:
    """Have a router's namespace forward again."""
    nft(router, f"delete table {_TABLE}\n")
