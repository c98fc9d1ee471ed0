"""Times what a person waits for: python -m bench, as root, with no lab running."""

import json
import subprocess
import sys
import time

DRAWBRIDGE = (sys.executable, "-m", "drawbridge")

#: What is timed, in this order.
STEPS = (
    ("drawbridge --help", ("--help",)),
    ("lab up, from nothing but the image", ("lab", "up")),
    ("lab up, again", ("lab", "up")),
    ("client list", ("client", "list")),
    ("lab down", ("lab", "down")),
)


def run(arguments: tuple[str, ...]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds that a command took, and what came of it."""
    start = time.monotonic()
    done = subprocess.run([*DRAWBRIDGE, *arguments], capture_output=True, text=True, check=False)
    return time.monotonic() - start, done


def main() -> int:
    """Prints one line a step; 1 if one failed, 2 if a lab is in the way."""
    _, status = run(("lab", "status", "--json"))
    if status.returncode or json.loads(status.stdout):
        print(status.stderr or "a lab is running; take it down first: drawbridge lab down", file=sys.stderr)
        return 2
    failed = False
    for what, arguments in STEPS:
        seconds, done = run(arguments)
        print(f"{seconds:8.2f} s  {what}" + (f"  (exit {done.returncode})" if done.returncode else ""), flush=True)
        if done.returncode:
            failed = True
            print(done.stderr, file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
