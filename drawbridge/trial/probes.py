"""What is measured from a machine of the lab: with packets, and waited for, never slept for."""

import time
from ipaddress import IPv4Address

from lab import region as labs


def ping(host: labs.Host, address: str | IPv4Address, timeout: float) -> float | None:
    """Round-trip time of a ping, milliseconds, tried again until one is answered; None after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done = host.run(["ping", "-n", "-c", "1", "-W", "1", str(address)])
        for word in done.stdout.split():
            if word.startswith("time="):
                return float(word.removeprefix("time="))
    return None


def figure(milliseconds: float | None) -> str:
    """A round-trip time for people."""
    return "no answer" if milliseconds is None else f"{milliseconds:.1f} ms"
