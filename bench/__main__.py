"""Times what a person waits for, and measures the lab: python -m bench, as root, with no lab running."""

import itertools
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

from bench import boots, clients, gaps, growth, lab, links, scaling, throughput, waits
from bench.programs import OF_TUNNELS, require_programs

ROOT = Path(__file__).resolve().parents[1]
DRAWBRIDGE = (sys.executable, "-m", "drawbridge")

#: What is timed, in this order.
STEPS = (
    ("drawbridge --help", ("--help",)),
    ("lab up, from nothing but the image", ("lab", "up")),
    ("lab up, again", ("lab", "up")),
    ("client list", ("client", "list")),
    ("lab down", ("lab", "down")),
)

#: Stacks whose trial measures: its lines are printed. The first is of two bonded hosts, with each mode in turn.
TRIALS: tuple[tuple[str, Path, Mapping[str, str]], ...] = (
    ("bonded, balance-alb", ROOT / "stacks/Pulumi.bonded.yaml", {}),
    ("bonded, active-backup", ROOT / "stacks/Pulumi.bonded.yaml", {"bond: balance-alb": "bond: active-backup"}),
)


def run(arguments: tuple[str, ...]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds that a command took, and what came of it."""
    start = time.monotonic()
    done = subprocess.run([*DRAWBRIDGE, *arguments], capture_output=True, text=True, check=False)
    return time.monotonic() - start, done


def main() -> int:
    """Print one line a step; return 1 if a step failed, 2 if a lab runs already."""
    require_programs(*OF_TUNNELS)
    _, status = run(("lab", "status"))
    if status.returncode == 0:
        print("a lab is running; take it down first: drawbridge lab down", file=sys.stderr)
        return 2
    failed = False
    for title, arguments in STEPS:
        seconds, done = run(arguments)
        print(f"{seconds:8.2f} s  {title}" + (f"  (exit {done.returncode})" if done.returncode else ""), flush=True)
        if done.returncode:
            failed = True
            print(done.stderr, file=sys.stderr)
    for figure in itertools.chain(
        throughput.measure_throughput(),
        clients.measure_clients(),
        scaling.render_scaling(scaling.measure_scaling()),
        waits.report_waits(),
        growth.measure_growth(),
        lab.measure_lab(),
        boots.measure_boots(),
        gaps.measure_gaps(),
        links.measure_links(),
    ):
        print(figure, flush=True)
    for title, stack, changes in TRIALS:
        failed |= not trial(title, stack, changes)
    return int(failed)


def trial(title: str, stack: Path, changes: Mapping[str, str]) -> bool:
    """Print the figures of a trial of a stack file with changes; return whether all checks hold."""
    text = stack.read_text()
    for old, new in changes.items():
        assert old in text, f"{stack.name} has no {old!r}"
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as directory:
        changed = Path(directory, stack.name)
        changed.write_text(text)
        seconds, done = run(("lab", "try", str(changed)))
    print(f"{seconds:8.2f} s  {title}\n{textwrap.indent(done.stdout, ' ' * 12)}", flush=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
