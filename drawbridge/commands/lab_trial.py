"""drawbridge lab up, try and destroy: deploy stacks into a region on this machine, check them, and remove them."""

import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any, NoReturn

import click

from drawbridge import errors
from drawbridge.commands import options, output
from drawbridge.operate.stack_files import LAB, find_stack_file
from drawbridge.trial import removal, replacement, run
from drawbridge.trial.checks import Check, all_hold
from drawbridge.trial.deployment import DEFAULT_CLIENTS
from lab import region as labs
from lab.errors import LabError, NotInstalled, NotUp
from lab.linux import require_privileges
from lab.paths import DEFAULT_LAB
from settings.problems import SettingsError

_clients = click.option(
    "--clients",
    type=click.IntRange(min=1),
    default=DEFAULT_CLIENTS,
    show_default=True,
    help="Clients of a stack that are started, at most: one of each kind first.",
)


@click.command()
@click.argument("stacks", nargs=-1, metavar="[STACK]...", callback=options.stack_paths)
@_clients
@options.lab
@options.json
def up(stacks: tuple[Path, ...], clients: int, lab: str, wants_json: bool) -> None:
    """Deploy stacks into the region on this machine, and leave them running.

    Each STACK is a name (Pulumi.NAME.yaml) or a path; without any it is lab. The region starts if none runs. The
    stacks' clients start as well, and the command shows who reaches whom. With AWS's quota of five VPCs, the
    default one among them, four stacks fit into the region. Exits 1 if a check fails.
    """
    require_privileges()
    with _reported_work(f"to remove what was started: drawbridge lab down{_lab_option(lab)}") as progress:
        files = run.read_stacks(stacks or [find_stack_file(LAB)])
        region = labs.connect(lab) or labs.start(lab, progress)
        with _removal_noticed(region):
            checks = {file.stack: run.deploy_and_check(region, file, progress, clients=clients) for file in files}
    _print_checks(checks, wants_json)


@click.command("try")
@click.argument("stack", callback=options.stack_path)
@_clients
@click.option("--keep", is_flag=True, help="Leave the region running, and print how to look at it.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the checks to this file."
)
def try_(stack: Path, clients: int, keep: bool, json_file: Path | None) -> None:
    """Deploy STACK into a region of its own, check it, take it down.

    STACK is a name (Pulumi.NAME.yaml) or a path. Everything that its settings promise is checked. Exits 1 if a check
    fails.
    """
    require_privileges()
    with _reported_work("its region is removed") as progress:
        (file,) = run.read_stacks([stack])
        with (
            labs.disposable_region(progress, keep=keep) as region,
            _hints(region.name, file.stack) if keep else _removed_region(stack),
        ):
            checks = {file.stack: run.deploy_and_check(region, file, progress, clients=clients)}
    if not keep:
        # What to look at is gone with the region.
        checks = {name: [replace_fields(check, look="") for check in results] for name, results in checks.items()}
    if json_file is not None:
        json_file.write_text(_as_json(checks) + "\n")
    if not keep and not all(map(all_hold, checks.values())):
        output.print_line(f"look at it: {_keeping(stack)}", err=True)
    _print_checks(checks, wants_json=False)


@click.command()
@click.argument("stack", default=LAB)
@options.lab
@options.json
def replace(stack: str, lab: str, wants_json: bool) -> None:
    """Replace the instance of a stack's gateway, and show how long a client had no answer.

    STACK is the name of a stack of the region, lab if it is not given. The instance is replaced as by other user data,
    such as after an upgrade, and the command waits until the new one is ready. Of a pair it is gateway a. Exits 1 if a
    check fails.
    """
    require_privileges()
    region = _connect(lab)
    with _reported_work(f"the gateway may be gone; deploy it: drawbridge lab up{_lab_option(lab)} {stack}") as progress:
        checks = []
        with _removal_noticed(region):
            for check in replacement.replace_gateway(region, stack, progress):
                progress(f"{'ok  ' if check.ok else 'FAIL'} {check.promise}: {check.figure}")
                checks.append(check)
    _print_checks({stack: checks}, wants_json)


@click.command()
@click.argument("stack")
@options.lab
def destroy(stack: str, lab: str) -> None:
    """Destroy a stack of the region on this machine, and list what is left of it.

    Its clients' machines, the private hosts and all its resources go; other stacks of the region stay. Exits 1 if
    anything of it is left.
    """
    require_privileges()
    region = _connect(lab)
    unfinished = f"to destroy the rest: drawbridge lab destroy {stack}{_lab_option(lab)}"
    with _reported_work(unfinished) as progress, _removal_noticed(region):
        left = removal.destroy_stack(region, stack, progress)
    if left:
        output.table(("left", "name"), [(resource.kind, resource.name) for resource in left])
        raise SystemExit(1)
    output.print_line(f"nothing of stack {stack} is left")


def _connect(lab: str) -> labs.Region:
    """Return a running lab; raises `NotUp` if there is none of that name."""
    region = labs.connect(lab)
    if region is None:
        raise NotUp("no lab runs on this machine" if lab == DEFAULT_LAB else f"no lab {lab} runs on this machine")
    return region


@contextmanager
def _removal_noticed(region: labs.Region) -> Iterator[None]:
    """Raise `DeploymentError` for whatever fails because somebody takes the region down meanwhile."""
    try:
        yield
    except Exception as error:
        if labs.is_going(region):
            raise errors.DeploymentError(
                "the lab was taken down meanwhile", "start it again: drawbridge lab up" + _lab_option(region.name)
            ) from error
        raise


@contextmanager
def _reported_work(interrupted: str) -> Iterator[Callable[[str], None]]:
    """Show the progress of long work; an interrupt and wrong settings end it with one message.

    `interrupted` says what an interrupt leaves.
    """
    former = signal.signal(signal.SIGTERM, _raise_termination)
    try:
        with output.progress() as progress:
            yield progress
    except SettingsError as error:
        raise errors.StackError(str(error)) from error
    except (KeyboardInterrupt, _Terminated) as error:
        output.print_line(f"interrupted; {interrupted}", err=True)
        raise SystemExit(128 + (signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT)) from None
    finally:
        signal.signal(signal.SIGTERM, former)


class _Terminated(BaseException):
    """The process was asked to end by SIGTERM."""


def _raise_termination(number: int, frame: object) -> NoReturn:
    raise _Terminated


def _lab_option(lab: str) -> str:
    """Return the option that names a lab, with a space before it; nothing for the default one."""
    return "" if lab == DEFAULT_LAB else f" --lab {lab}"


def _keeping(stack: Path) -> str:
    """Return the command that tries a stack and leaves its region running."""
    return shlex.join(["drawbridge", "lab", "try", str(stack), "--keep"])


@contextmanager
def _removed_region(stack: Path) -> Iterator[None]:
    """Have errors of the block say how to keep the region: what else they would say to look at is removed with it."""
    try:
        yield
    except NotInstalled:
        raise
    except (LabError, errors.DeploymentError) as error:
        raise errors.DeploymentError(
            str(error), f"its region is removed; keep one to look at: {_keeping(stack)}"
        ) from error


@contextmanager
def _hints(lab: str, stack: str) -> Iterator[None]:
    """Print after the block, also after an error, how to look at a kept region and how to take it down."""
    try:
        yield
    except Exception:
        _print_hints(lab, stack)
        raise
    _print_hints(lab, stack)


def _print_hints(lab: str, stack: str) -> None:
    option = _lab_option(lab)
    lines = (
        f"lab {lab} stays; look at it, and take it down:",
        f"  drawbridge lab status{option}",
        f'  eval "$(drawbridge lab env{option})"; drawbridge gateway status --stack {stack}',
        f"  drawbridge lab down{option}",
    )
    output.print_line("\n".join(lines), err=True)


def _as_json(checks: Mapping[str, Sequence[Check]]) -> str:
    rows: list[dict[str, Any]] = [
        {"stack": stack, **asdict(check)} for stack, stack_checks in checks.items() for check in stack_checks
    ]
    return output.as_json(rows)


def _print_checks(checks: Mapping[str, Sequence[Check]], wants_json: bool) -> None:
    """Print the checks by stack; exit 1 unless all hold."""
    if wants_json:
        output.print_line(_as_json(checks))
    for stack, stack_checks in checks.items() if not wants_json else ():
        if len(checks) > 1:
            output.print_line(f"stack {stack}")
        output.check_lines(stack_checks)
    if not all(map(all_hold, checks.values())):
        raise SystemExit(1)
