"""Wait for a condition within a bound, and measure what the machine itself was late."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Literal, Self, TypeVar

from lab.errors import MachineDown
from lab.region import Host

T = TypeVar("T")

_STEP = 0.05


def until(condition: Callable[[], T | None], seconds: float) -> T:
    """Return the first true value of `condition`; raise AssertionError if there is none within `seconds`.

    A machine of the lab that goes down while it is asked is asked again in its next boot. Each pause is as long as the
    question took: what is waited for may need the processor that the question takes.
    """
    deadline = time.monotonic() + seconds
    while (begin := time.monotonic()) < deadline:
        with contextlib.suppress(MachineDown):
            if result := condition():
                return result
        time.sleep(max(0.1, time.monotonic() - begin))
    raise AssertionError(f"not within {seconds:.0f} s: {getattr(condition, '__name__', condition)}")


def wait_lossless(host: Host, address: str, count: int) -> None:
    """Wait until `count` pings in a row all come back: a machine that is kept from running may lose one by itself."""
    ping = ["ping", "-n", "-q", "-i", "0.05", "-c", str(count), address]
    until(lambda: f"{count} packets transmitted, {count} received" in host.run(ping, timeout=60).stdout, 60)


def take_down(host: Host, verb: Literal["poweroff", "reboot"]) -> None:
    """Have a machine's own systemd take it down; it may be down before the command has ended."""
    with contextlib.suppress(MachineDown):
        host.run(["systemctl", "--no-block", verb])


class Lateness:
    """Seconds for which a busy machine kept this process waiting while the block ran.

    A limit in seconds that is part of a behaviour (a keepalive time) is judged without them: on an idle machine they
    come to some milliseconds.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _measure(self) -> None:
        begin = time.monotonic()
        while not self._ended.wait(_STEP):
            now = time.monotonic()
            self.seconds += max(0.0, now - begin - _STEP)
            begin = now
