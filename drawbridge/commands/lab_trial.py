"""drawbridge lab up and drawbridge lab try: deploy a stack into a region on this machine, and check it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from drawbridge import errors
from drawbridge.commands import options, output
from drawbridge.operate.stack_files import LAB
from drawbridge.trial import run
from drawbridge.trial.checks import Check, all_hold
from lab.linux import require_privileges
from settings.problems import SettingsError


@click.command()
@options.json
def up(wants_json: bool) -> None:
    """Start the region with stack lab, and leave it running.

    Its clients start as well, and the command shows who reaches whom. Exits 1 if a check fails.
    """
    require_privileges()
    with _reported_work() as progress:
        checks = run.deploy_and_check(LAB, progress)
    _print_checks(checks, wants_json)


@click.command("try")
@click.argument("stack", callback=options.stack_path)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the checks to this file."
)
def try_(stack: Path, json_file: Path | None) -> None:
    """Deploy STACK into a region of its own, check it, take it down.

    STACK is a name (Pulumi.NAME.yaml) or a path. Everything that its settings promise is checked. Exits 1 if a check
    fails.
    """
    require_privileges()
    with _reported_work() as progress:
        checks = run.try_stack(stack, progress)
    if json_file is not None:
        json_file.write_text(output.as_json(checks) + "\n")
    _print_checks(checks, wants_json=False)


@contextmanager
def _reported_work() -> Iterator[Callable[[str], None]]:
    """Show the progress of long work; an interrupt and wrong settings end it with one message."""
    try:
        with output.progress() as progress:
            yield progress
    except SettingsError as error:
        raise errors.StackError(str(error)) from error
    except KeyboardInterrupt:
        output.print_line("interrupted; to remove what was started: drawbridge lab down", err=True)
        raise SystemExit(130) from None


def _print_checks(checks: Sequence[Check], wants_json: bool) -> None:
    """Print the checks; exit 1 unless all hold."""
    if wants_json:
        output.print_line(output.as_json(checks))
    else:
        output.check_lines(checks)
    if not all_hold(checks):
        raise SystemExit(1)
