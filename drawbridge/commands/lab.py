"""drawbridge lab …"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from drawbridge import errors
from drawbridge.commands import options, output
from drawbridge.operate import account
from drawbridge.trial.checks import Check, all_hold
from lab.linux import require_privileges

# What runs the lab loads moto and Pulumi, which takes longer than --help should: it is imported where it is used.


@click.group()
def lab() -> None:
    """An AWS region on this machine: the AWS API, real machines, real packets."""


@lab.command()
@options.json
def up(wants_json: bool) -> None:
    """Start the region, deploy stack lab and its clients, show who reaches whom, leave it running."""
    require_privileges()
    from drawbridge.trial import run

    with _at_work() as progress:
        checks = run.deploy_and_check(account.LAB, progress)
    _conclude(checks, wants_json)


@lab.command("try")
@click.argument("stack", callback=options.stack_path)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the checks here."
)
def try_(stack: Path, json_file: Path | None) -> None:
    """Deploy STACK into a region of its own, check all that its settings promise, take it down.

    STACK is a name (stacks/Pulumi.NAME.yaml) or a path. Exits 1 if a check fails.
    """
    require_privileges()
    from drawbridge.trial import run

    with _at_work() as progress:
        checks = run.try_stack(stack, progress)
    if json_file is not None:
        json_file.write_text(output.as_json(checks) + "\n")
    _conclude(checks, wants_json=False)


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--timeout", default=60.0, show_default=True, help="Seconds the command may take.")
def exec_(host: str, command: tuple[str, ...], timeout: float) -> None:
    """Run a command in a machine of the lab: drawbridge lab exec HOST -- CMD.

    What is piped in goes to the command; its output and exit code come back.
    """
    require_privileges()
    from lab import region

    running = region.connect()
    if running is None:
        raise errors.LabError("no lab runs on this machine", "start one: make lab")
    given = None if sys.stdin.isatty() else sys.stdin.read()
    done = running.host(host).run(command, timeout=timeout, stdin=given)
    click.echo(done.stdout, nl=False)
    click.echo(done.stderr, nl=False, err=True)
    raise SystemExit(done.returncode)


@lab.command()
@options.json
def status(wants_json: bool) -> None:
    """Show the region that runs on this machine, and its machines."""
    from lab import region

    running = region.connect()
    found = running.status() if running else {}
    if wants_json:
        click.echo(output.as_json(found))
    elif running is None:
        click.echo("no lab runs on this machine; start one: make lab")
    else:
        click.echo(f"AWS API: {running.endpoint}\n")
        places = {place["name"]: place for place in found["premises"]}
        output.table(
            ("machine", "is", "address", "public"),
            [
                (i["name"], f"{i['type']}, {i['state']}", i["address"] or "", i["public"] or "")
                for i in found["instances"]
            ]
            + [
                (h["name"], f"host at {h['premises']}", h["address"] or "", places[h["premises"]]["public"])
                for h in found["hosts"]
            ],
        )


@lab.command()
def down() -> None:
    """Remove every namespace, mount, process and file of the lab, also after a crash. The image stays in its cache."""
    require_privileges()
    from lab import region

    with output.progress() as progress:
        progress("taking the lab down")
        found = region.down()
    click.echo("nothing of the lab is left" if found else "no lab was here")


@contextmanager
def _at_work() -> Iterator[Callable[[str], None]]:
    """Progress for long work; an interrupt and bad settings are told in one sentence."""
    from settings.problems import SettingsError

    try:
        with output.progress() as progress:
            yield progress
    except SettingsError as error:
        raise errors.StackError(str(error)) from error
    except KeyboardInterrupt:
        click.echo("interrupted; what is there goes away with: drawbridge lab down", err=True)
        raise SystemExit(130) from None


def _conclude(checks: Sequence[Check], wants_json: bool) -> None:
    """Prints the checks; exits 1 unless every one holds."""
    if wants_json:
        click.echo(output.as_json(checks))
    else:
        output.check_lines(checks)
    if not all_hold(checks):
        raise SystemExit(1)
