"""The command `drawbridge` itself: its options, its subcommands, and how errors become messages and exit codes."""

import errno
import logging
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from drawbridge import errors
from drawbridge.commands.lazy import LazyCommand, LazyGroup
from drawbridge.printable import escape_controls, shorten
from lab.errors import (
    AlreadyUp,
    CommandFailed,
    InTransition,
    InvalidName,
    LabError,
    MachineDown,
    NotInstalled,
    NotPermitted,
    NotUp,
    PortInUse,
)
from lab.system import require_linux

#: What to do about an error of the lab's. The first class that fits counts.
LAB_REMEDIES: tuple[tuple[type[LabError], str], ...] = (
    (InvalidName, "use 1 to 20 of a-z, 0-9, '-' and '_', starting with a letter or digit"),
    (NotPermitted, "run it as root on a machine with /dev/net/tun; without the lab: make test-unit"),
    (AlreadyUp, "see what runs: drawbridge lab status; take it down: drawbridge lab down"),
    (InTransition, "wait until the other command has ended"),
    (PortInUse, "stop what listens on that port: ss -ltnp names it"),
    (NotUp, "start one: make lab; clean up after one that was killed: drawbridge lab down"),
    (MachineDown, "wait until it is up again: drawbridge lab status"),
    (NotInstalled, "install what the lab needs: make setup"),
    (CommandFailed, "clean up: drawbridge lab down"),
    (LabError, "see what runs: drawbridge lab status; clean up: drawbridge lab down"),
)


class LabCommand(LazyCommand):
    """The lab's subcommand, whose modules only Linux can import."""

    def load(self) -> click.Command:
        """Import the command; raises `NotPermitted` on another system."""
        require_linux()
        return super().load()


COMMANDS = {
    "access": LazyCommand("drawbridge.commands.access", "access", "Let in an address that changes."),
    "client": LazyCommand("drawbridge.commands.client", "client", "Clients of a stack, and their bundles."),
    "gateway": LazyCommand("drawbridge.commands.gateway", "gateway", "Look at a gateway: status, logs, reachability."),
    "image": LazyCommand("drawbridge.commands.image", "image", "Prepared images: Debian with a gateway's packages."),
    "lab": LabCommand("drawbridge.commands.lab", "lab", "An AWS region on this machine, with real packets."),
    "map": LazyCommand(
        "drawbridge.commands.stack_map",
        "map_stack",
        "Draw STACK as SVG: networks, addresses, and who reaches whom.",
    ),
    "peer": LazyCommand("drawbridge.commands.peer", "peer", "Two hosts with a tunnel between them, without AWS."),
    "stack": LazyCommand("drawbridge.commands.stacks", "stacks", "A stack as a whole: its cost, backup and leftovers."),
}


class Failure(click.ClickException):
    """An error as click shows it: what went wrong, then what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        message, remedy = (escape_controls(text, keep="\n\t") for text in (message, remedy))
        super().__init__(f"{message}\n  -> {remedy}" if remedy else message)


class RootGroup(LazyGroup):
    """Turns errors of the command, the lab and the system into one message and exit code 1, without a traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _failures():  # --help and --version print from here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _failures():
            return super().invoke(ctx)


@contextmanager
def _failures() -> Iterator[None]:
    """Raise each error of the block as one of click's, with its control characters escaped."""
    try:
        yield
    except errors.DrawbridgeError as error:
        raise Failure(str(error), error.remedy) from error
    except LabError as error:
        remedy = next(remedy for kind, remedy in LAB_REMEDIES if isinstance(error, kind))
        raise Failure(str(error), remedy) from error
    except click.FileError as error:  # click opens files only to write them: options.InputFile is for reading
        raise Failure(
            f"{error.ui_filename} cannot be written: {error.message}", "name a file in a directory that exists"
        ) from error
    except click.UsageError as error:
        if not isinstance(error, NoArgsIsHelpError):  # whose message is a help of many lines
            error.message = escape_controls(error.message)  # type: ignore[misc]  # a copy would lose the error's class
        raise
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # click ends the command where nobody reads its output any more
        raise _explain_system_error(error) from error


def _explain_system_error(error: OSError) -> Failure:
    """Return an error that no command has expected, as a message."""
    reason = error.strerror or str(error)
    try:
        Path.cwd()
    except FileNotFoundError:
        return Failure("the working directory does not exist any more", "change to another one, and run it again")
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
        if (stdout := sys.__stdout__) is not None and sys.stdout is stdout:
            # Python tries once more when it ends, and would print a traceback.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return Failure(f"the output cannot be written: {reason}", "write it to another place")
    where = f"{shorten(str(error.filename))}: " if error.filename is not None else ""
    return Failure(f"{where}{reason}", "see to it that this works, and run it again; --verbose says what was tried")


def installed_version() -> str:
    """Return Drawbridge's version: of the installed package, or of the checkout where none is installed."""
    try:
        return version("drawbridge")
    except PackageNotFoundError:
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def _print_version(ctx: click.Context, option: click.Parameter, is_set: bool) -> None:
    if is_set and not ctx.resilient_parsing:
        click.echo(f"drawbridge {installed_version()}")
        ctx.exit()


def _change_directory(ctx: click.Context, option: click.Parameter, directory: Path | None) -> None:
    if directory is not None and not ctx.resilient_parsing:
        os.chdir(directory)


@click.group(cls=RootGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Log what the libraries do, to standard error.")
@click.option(
    "-C",
    "--cwd",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar=["DRAWBRIDGE_CWD", "PULUMI_OPTION_CWD"],
    expose_value=False,
    is_eager=True,
    callback=_change_directory,
    help="Run as if started in DIR: stack files of the Pulumi project there are found by name.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli(verbose: bool) -> None:
    """Deploy and operate an OpenVPN gateway in AWS, or in an AWS region on this machine."""
    # Without a handler of its own, paramiko logs its tracebacks to standard error beside our one message.
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL)
