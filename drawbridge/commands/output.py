"""Print results as tables for people or JSON for programs, and progress.

Results go to standard output, progress to standard error.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from drawbridge.printable import escape_controls
from drawbridge.trial.checks import Check


def print_line(text: str = "", *, nl: bool = True, err: bool = False) -> None:
    """Print a text, with its control characters escaped except line breaks and tabs.

    Names, reports and logs come from machines that somebody else may have taken over.
    """
    click.echo(escape_controls(text, keep="\n\t"), nl=nl, err=err)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings; text that does not fit the terminal is wrapped, never cut."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(escape_controls(cell)) for cell in row))
    _print_grid(grid)


def show_duration(seconds: float) -> str:
    """Return a duration in its two largest units.

    >>> show_duration(59), show_duration(3720), show_duration(200_000)
    ('59s', '1h 2m', '2d 7h')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def show_bytes(count: int) -> str:
    """Return a number of bytes in the largest unit of which it has at least one.

    >>> show_bytes(999), show_bytes(2902), show_bytes(5 * 10**9)
    ('999 B', '2.9 kB', '5.0 GB')
    """
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.95 or unit == "TB":
            break
        size /= 1000
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def as_json(value: object) -> str:
    """Return dataclasses, paths and times as indented JSON."""
    return json.dumps(value, default=_encode_value, indent=2)


def check_lines(checks: Sequence[Check]) -> None:
    """Print one line a check: `ok` or `FAIL`, the promise, the figure; then what to look at if one failed."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(min_width=4)
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for check in checks:
        verdict = Text("ok", "green") if check.ok else Text("FAIL", "bold red")
        grid.add_row(verdict, Text(escape_controls(check.promise)), Text(escape_controls(check.figure)))
    _print_grid(grid)
    # Below the table, because a command in it would be folded, and could not be copied.
    for check in checks:
        if check.look and not check.ok:
            print_line(f"{check.promise} failed; look: {check.look}")


def _print_grid(grid: Table) -> None:
    # Created at each use, because sys.stdout may have been replaced. Without a terminal, lines are as wide as they
    # need to be.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    with console.capture() as captured:
        console.print(grid)
    for row in captured.get().splitlines():
        click.echo(row.rstrip())


def _encode_value(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


#: Seconds without a message after which a line says that the work goes on.
SILENCE = 5.0


@contextmanager
def progress(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield the function that long work calls with a message before each step.

    Each message is a line with the seconds since the start. After each five seconds without one, a line says that the
    work goes on.
    """
    start = time.monotonic()
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield lambda message: None
        return
    if not console.is_terminal:
        with _repeated(lambda message: print_line(f"{time.monotonic() - start:6.1f} s  {message}", err=True)) as show:
            yield show
        return
    with console.status("") as spinner:

        def show_both(message: str) -> None:
            message = escape_controls(message)
            console.print(Text(f"{time.monotonic() - start:6.1f} s  {message}"))
            spinner.update(Text(message, "dim"))

        with _repeated(show_both) as show:
            yield show


@contextmanager
def _repeated(show: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a message; during the block, a line is shown after each silence as well."""
    lock, ended = threading.Lock(), threading.Event()
    last = shown = time.monotonic()

    def show_message(message: str) -> None:
        nonlocal last, shown
        with lock:
            last = shown = time.monotonic()
            show(message)

    def watch() -> None:
        nonlocal shown
        while not ended.wait(max(0.1, shown + SILENCE - time.monotonic())):
            with lock:
                now = time.monotonic()
                if now - shown >= SILENCE:
                    shown = now
                    show(f"… still at it, for {now - last:.0f} s")

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield show_message
    finally:
        ended.set()
        thread.join()
