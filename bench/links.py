"""Figures of bonded links: what a link's end costs in each mode, what one line and two carry, how soon a host is back.

Two hosts outside of AWS, as the tests have them: each is server of one link and client of the other, on lines of one
rate.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import get_args

from drawbridge.trial.bond_measure import measure_loss, measure_throughput
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.link_faults import end_silence, silence
from lab.linux import run
from lab.region import disposable_region
from openvpn.topology import BondMode
from tests.support import pair as pairs
from tests.support.pair import Pair, wait_bonded, wait_links

#: All but the one that two separate links do not bear.
MODES: tuple[BondMode, ...] = tuple(mode for mode in get_args(BondMode) if mode != "balance-alb")
FAR = "10.0.0.2"
KEEPALIVE = 5.0
#: Of each line: little, so that the machine that all of this shares is not what limits it.
RATE = "4mbit"
#: Seconds that a fault is watched for, and times that each is made.
WATCHED, TIMES = 12.0, 2


def measure_links() -> Iterator[str]:
    """Yield a line for each figure."""
    with disposable_region(boots=True) as running:
        pair = pairs.build_pair(running, MODES[0], rate=RATE)
        wait_bonded(pair)
        for mode in MODES:
            if mode != MODES[0]:
                pairs.change_mode(pair, mode)
            for figure in _measure_mode(pair):
                yield f"pair, {mode}: {figure}"
        yield f"pair: {_measure_power_on(pair):.0f} s from power-on to bonded, with a kernel that is emulated"


def _measure_mode(pair: Pair) -> Iterator[str]:
    output = run_checked(pair.left, "ping", "-n", "-q", "-i", "0.02", "-c", "1000", FAR, timeout=120)
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    assert counts, output
    yield f"{int(counts[1]) - int(counts[2])} of {counts[1]} pings lost while nothing happens (goal: 0)"
    for fault, goal, fail, repair in _link_faults(pair):
        for tap in (0, 1):
            losses = []
            for _ in range(TIMES):
                losses.append(measure_loss(pair.left, FAR, WATCHED, meanwhile=lambda f=fail, t=tap: f(t)))  # type: ignore[misc]
                repair(tap)
                wait_bonded(pair)
            gaps = "; ".join(f"{loss.gap:.1f} s, {loss.lost} of {loss.sent} pings lost" for loss in losses)
            yield f"ovn{tap} {fault}: longest gap {gaps} (goal: {goal:g} s at most)"
    with_two = {n: measure_throughput(pair.left, pair.right, FAR, n, seconds=10) for n in (1, 8)}
    run_checked(pair.left, "systemctl", "stop", _link_unit(1))
    for host in pair.hosts:
        wait_links(host, "ovn0")
    with_one = {n: measure_throughput(pair.left, pair.right, FAR, n, seconds=10) for n in (1, 8)}
    run_checked(pair.left, "systemctl", "start", _link_unit(1))
    wait_bonded(pair)
    for n in (1, 8):
        yield (
            f"{n} streams over lines of {RATE}: two carry {with_two[n]:.1f} Mbit/s, one {with_one[n]:.1f}: "
            f"{with_two[n] / with_one[n]:.2f} x"
        )


def _link_unit(tap: int) -> str:
    return f"drawbridge-link@ovn{tap}"


def _link_faults(pair: Pair) -> Iterator[tuple[str, float, Callable[[int], object], Callable[[int], object]]]:
    """Yield each fault of a link: its words, the seconds it may cost, how to cause and how to repair it."""
    left, lab = pair.left, pair.region.name

    def router(tap: int) -> str:
        return f"{lab}-left{tap}-gw"

    def cable(way: str) -> Callable[[int], object]:
        return lambda tap: run("ip", "-n", left.namespace, "link", "set", f"eth{tap}", way)

    def unit(verb: str) -> Callable[[int], object]:
        return lambda tap: run_checked(left, "systemctl", verb, _link_unit(tap))

    kill = "kill -KILL $(systemctl show --property MainPID --value {})"
    yield "is stopped", 1, unit("stop"), unit("start")
    yield (
        "is killed",
        KEEPALIVE + 1,
        lambda tap: run_checked(left, "sh", "-c", kill.format(_link_unit(tap))),
        lambda tap: None,
    )
    yield "loses its cable", KEEPALIVE + 1, cable("down"), cable("up")
    yield (
        "hears nothing any more",
        KEEPALIVE + 1,
        lambda tap: silence(router(tap)),
        lambda tap: end_silence(router(tap)),
    )


def _measure_power_on(pair: Pair) -> float:
    pair.region.cut_power("right")
    start = time.monotonic()
    pair.region.power_on("right").wait_booted(120)
    wait_bonded(pair, 120)
    return time.monotonic() - start
