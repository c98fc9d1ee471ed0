"""Measure a bond: pings lost while a link fails, and the throughput of several streams."""

import json
import re
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, sleep

from drawbridge.operate.gateway_status import parse_links
from lab.errors import LabError
from lab.region import Host

#: One stream may happen to be on the link that nothing happens to: several are not, however the mode spreads them.
STREAMS = 6
_INTERVAL = 0.1

_PINGS = """
for n in $(seq {streams}); do
    ping -n -i {interval} -c {count} -W 1 {address} >/tmp/pings.$n 2>&1 &
done
wait
for n in $(seq {streams}); do echo "stream $n"; cat /tmp/pings.$n; done
"""


@dataclass(frozen=True, slots=True)
class PingLoss:
    """Lost pings of all streams together."""

    sent: int
    lost: int
    gap: float
    """Longest time that one of the streams was without an answer, seconds."""

    def __str__(self) -> str:
        return f"{self.lost} of {self.sent} pings lost, longest gap {self.gap:.1f} s"


def measure_loss(
    host: Host, address: str, seconds: float, *, meanwhile: Callable[[], object] = lambda: None, after: float = 2.0
) -> PingLoss:
    """Ping for some time over several streams; `meanwhile` is called `after` seconds into it.

    Raises:
        LabError: the host ran no pings.
    """
    count = round(seconds / _INTERVAL)
    # The last ones are not counted: ping waits for no answer that takes longer than those before it.
    script = _PINGS.format(streams=STREAMS, interval=_INTERVAL, count=count + 3, address=address)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(host.run, ["sh", "-c", script], timeout=seconds + 60)
        start = monotonic()
        while monotonic() - start < after and not running.done():
            sleep(0.05)
        meanwhile()
        output = running.result().stdout
    return parse_loss(output, count)


def parse_loss(output: str, count: int) -> PingLoss:
    """Read what several pings of `count` requests each, or more, have printed, each after a line ``stream N``.

    Raises:
        LabError: there is none.
    """
    streams = [
        {number for number in map(int, re.findall(r"icmp_seq=(\d+) ttl=", part)) if number <= count}
        for part in re.split(r"^stream \d+$", output, flags=re.MULTILINE)[1:]
    ]
    if not streams:
        raise LabError(f"no ping was sent: {output[-300:]}")
    longest = 0
    for answered in streams:
        run = 0
        for number in range(1, count + 1):
            run = 0 if number in answered else run + 1
            longest = max(longest, run)
    return PingLoss(count * len(streams), sum(count - len(answered) for answered in streams), longest * _INTERVAL)


def measure_throughput(sender: Host, receiver: Host, address: str, streams: int, seconds: int = 6) -> float:
    """TCP between two hosts, Mbit/s that arrive.

    Raises:
        LabError: iperf3 did not run.
    """
    receiver.run(["systemd-run", "--quiet", "--collect", "iperf3", "--server", "--one-off"])
    argv = ["iperf3", "--client", address, "--parallel", str(streams), "--time", str(seconds), "--json"]
    for _ in range(20):  # until it listens
        done = sender.run(argv, timeout=seconds + 30)
        report = json.loads(done.stdout or "{}")
        if "error" not in report and report:
            return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6
        sleep(0.2)
    raise LabError(f"iperf3: {report.get('error', done.stderr)}")


def link_states(host: Host) -> dict[str, str]:
    """Return the state of each slave in /proc/net/bonding/bond0, ``up`` or ``down``; nothing if there is no bond."""
    return parse_links(host.run(["cat", "/proc/net/bonding/bond0"]).stdout)


def wait_links(host: Host, up: Collection[str], seconds: float) -> dict[str, str]:
    """Wait until exactly these links of a host are up, at most `seconds`; return the last states of all links."""
    deadline = monotonic() + seconds
    while True:
        begin = monotonic()
        states = link_states(host)
        if not states or {tap for tap, state in states.items() if state == "up"} == set(up) or begin > deadline:
            return states
        # A host of its own kernel needs for its links the processor that each question takes.
        sleep(max(0.1, monotonic() - begin))
