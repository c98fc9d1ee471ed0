"""Measure what a person waits for: python -m bench.waits, as root.

`make lab` runs in a fresh checkout of the last commit, first with neither Python's packages nor an image of the
machines (Debian's packages of tools/setup are there), then again. `drawbridge lab try` runs each shipped world on that
image. The lab has a name of its own, so others may run; they and all else on the machine make the waits longer.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.page import render_figures, replace_report
from drawbridge.operate.stack_files import list_stacks
from lab.paths import CACHE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs/benchmarks-waits.json"
LAB = "bench"
COLD, WARM = "`make lab`, cold", "`make lab`, warm"
#: Seconds that each may take.
GOALS = {COLD: 300.0, WARM: 30.0}
TRY_GOAL = 120.0


@dataclass(frozen=True, slots=True)
class Wait:
    """The seconds that something took, once."""

    name: str
    seconds: float
    goal: float
    """Seconds that it may take."""
    load: float
    """Load of the machine before it."""
    failed: bool = False
    """Whether its checks did not all hold."""
    before: float | None = None
    """Seconds that it took in the run before, if it was in that."""


def measure_waits(worlds: Sequence[str], former: Mapping[str, Wait]) -> Iterator[Wait]:
    """Yield each wait as soon as it is over; `former` has those of the run before by their names."""
    with ExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        checkout, environment = directory / "checkout", {**os.environ, "DRAWBRIDGE_LAB": LAB}
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        environment[CACHE_VARIABLE] = str(directory / "cache")
        drawbridge = str(checkout / ".venv/bin/drawbridge")
        undo.callback(
            subprocess.run, [drawbridge, "lab", "down"], cwd=checkout, env=environment, capture_output=True, check=True
        )
        orders: dict[str, tuple[str, ...]] = {COLD: ("make", "lab"), WARM: ("make", "lab")}
        orders |= {f"`lab try {world}`": (drawbridge, "lab", "try", world) for world in worlds}
        for name, argv in orders.items():
            load, start = os.getloadavg()[0], time.monotonic()
            done = subprocess.run(argv, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
            seconds = round(time.monotonic() - start, 1)
            if done.returncode:
                print(f"{name}:\n{done.stdout}{done.stderr}", file=sys.stderr)
            last = former.get(name)
            goal = GOALS.get(name, TRY_GOAL)
            yield Wait(name, seconds, goal, round(load, 1), bool(done.returncode), last.seconds if last else None)


def render_waits(waits: Sequence[Wait]) -> Iterator[str]:
    """Yield the lines of Markdown that hold the waits; what falls short of its goal is marked."""
    yield "| what | seconds | goal, at most | the run before | load of the machine before |"
    yield "| --- | --- | --- | --- | --- |"
    for wait in waits:
        short = ", **short**" if wait.seconds > wait.goal else ""
        failed = ", **a check fails**" if wait.failed else ""
        before = "-" if wait.before is None else f"{wait.before:.1f}"
        yield f"| {wait.name} | {wait.seconds:.1f}{short}{failed} | {wait.goal:.0f} | {before} | {wait.load:.1f} |"


def report_waits() -> Iterator[str]:
    """Measure all, and yield the lines of the report; the run before is that of the page."""
    yield from render_waits(list(measure_waits(list_stacks(), _read_former(FIGURES))))


def _read_former(path: Path | None) -> dict[str, Wait]:
    """Return the waits of the run before by their names, none if its file does not exist."""
    return {wait.name: wait for wait in read_waits(path.read_text())} if path and path.exists() else {}


def read_waits(content: str) -> list[Wait]:
    """Return the waits in the text of a JSON file."""
    return [Wait(**wait) for wait in json.loads(content)]


def main() -> None:
    """Print the report of a run, or of the figures of a former one."""
    parser = argparse.ArgumentParser(prog="python -m bench.waits")
    parser.add_argument("--worlds", nargs="*", help="names of the stacks that are tried, in place of all")
    parser.add_argument("--json", type=Path, help="file that keeps the figures, and has those of the run before")
    parser.add_argument("--figures", type=Path, help="figures of a former run, in place of a new one")
    parser.add_argument("--page", type=Path, help="page whose report is replaced, between its two comments")
    arguments = parser.parse_args()
    waits: list[Wait] = []
    if arguments.figures:
        waits = read_waits(arguments.figures.read_text())
    else:
        former = _read_former(arguments.json)
        worlds = list_stacks() if arguments.worlds is None else arguments.worlds
        for wait in measure_waits(worlds, former):
            waits.append(wait)
            print(f"{wait.seconds:8.1f} s  {wait.name}", file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(render_figures(map(asdict, waits)))
    report = "\n".join(render_waits(waits)) + "\n"
    print(report, end="")
    if arguments.page:
        arguments.page.write_text(replace_report(arguments.page.read_text(), "waits", report))


if __name__ == "__main__":
    main()
