"""Options and arguments that several commands share."""

import errno
import re
import stat
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, TypeVar

import click

from drawbridge.operate.stack_files import LAB, STACK_NAME, STACK_NAME_REMEDY, find_stack_file, list_stacks
from drawbridge.printable import shorten
from images import DEFAULT_IMAGE, IMAGES
from lab.paths import DEFAULT_LAB
from settings.stack_file import stack_name

F = TypeVar("F", bound=Callable[..., Any])

stack = click.option("--stack", default=LAB, envvar="DRAWBRIDGE_STACK", show_default=True, help="Name of the stack.")
region = click.option("--region", help="AWS region; otherwise the stack file's or the environment's.")
preview = click.option("--preview", is_flag=True, help="Print the steps, and leave the stack file as it is.")
lab = click.option("--lab", default=DEFAULT_LAB, envvar="DRAWBRIDGE_LAB", show_default=True, help="Name of the lab.")
json = click.option("--json", "wants_json", is_flag=True, help="Print JSON.")


class Address(click.ParamType[IPv4Address]):
    """An IPv4 address."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> IPv4Address:
        try:
            return IPv4Address(str(value))
        except ValueError:
            self.fail(f"{value} is not a valid IPv4 address", param, ctx)


class HostAddress(click.ParamType[IPv4Address | IPv6Address]):
    """An IPv4 or IPv6 address."""

    name = "address"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> IPv4Address | IPv6Address:
        try:
            return ip_address(str(value))
        except ValueError:
            self.fail(f"{value} is not a valid IPv4 or IPv6 address", param, ctx)


_NOT_REGULAR = "is not a regular file"


class InputFile(click.ParamType[Path]):
    """A file to read: a regular one, since reading a pipe waits for who may never write, and a device may not end."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(str(value))
        if reason := explain_unreadable(path):
            self.fail(f"{shorten(str(path))} {reason}", param, ctx)
        return path


def explain_unreadable(path: Path) -> str:
    """Return why a file cannot be read, such as `does not exist`; empty if it can."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return "does not exist" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
    return "" if stat.S_ISREG(mode) else _NOT_REGULAR


def of_account(command: F) -> F:
    """Add --stack and --region to a command."""
    return stack(region(command))


def login(command: F) -> F:
    """Add the options by which a command logs in to a gateway."""
    identity = click.option(
        "-i",
        "--identity",
        type=InputFile(),
        help="Private SSH key; otherwise the lab's own, the SSH agent's or the usual files.",
    )
    user = click.option(
        "--user", default=IMAGES[DEFAULT_IMAGE].login_user, show_default=True, help="User to log in as."
    )
    return identity(user(command))


#: Units of a period, by their letter.
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def period(ctx: click.Context, parameter: click.Parameter, value: str) -> timedelta:
    """Return the time that a text such as `7d` stands for."""
    match = re.fullmatch(r"([1-9]\d{0,4})([mhdw])", value)
    if match is None:
        raise click.BadParameter(f"{value} is not a period; use one such as 30m, 12h, 7d or 4w", ctx, parameter)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def optional_period(ctx: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    """Return the time that a text such as `7d` stands for; None without a text."""
    return None if value is None else period(ctx, parameter, value)


def service(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Return protocol and port of a text such as `443` or `53/udp`; None without a text."""
    if value is None:
        return None
    number, _, protocol = value.partition("/")
    protocol = protocol or "tcp"
    if not number.isascii() or not number.isdecimal() or not 0 < int(number) < 65536 or protocol not in ("tcp", "udp"):
        raise click.BadParameter(f"{value} is not a valid port; use one such as 443 or 53/udp", ctx, parameter)
    return protocol, int(number)


def stack_paths(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the paths of the stack files that several STACKs name; a stack may be named once."""
    paths = tuple(stack_path(ctx, parameter, value) for value in values)
    names = [stack_name(path) for path in paths]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise click.BadParameter(f"stack {repeated} is named twice", ctx, parameter)
    return paths


def stack_path(ctx: click.Context, parameter: click.Parameter, value: str) -> Path:
    """Return the path of the stack file that STACK names: a path as it is, or the file of a stack of that name."""
    path = Path(value)
    if path.suffix not in {".yaml", ".yml"} and "/" not in value:
        if not STACK_NAME.fullmatch(value):
            message = f"{shorten(value)!r} is not a valid stack name; {STACK_NAME_REMEDY}"
            raise click.BadParameter(message, ctx, parameter)
        path = find_stack_file(value)
    reason = explain_unreadable(path)
    if reason == _NOT_REGULAR:
        raise click.BadParameter(f"{path} {reason}; name a stack file, or a stack", ctx, parameter)
    if reason:
        names = ", ".join(list_stacks()) or "none"
        raise click.BadParameter(f"{shorten(str(path))} {reason}; stacks that have a file: {names}", ctx, parameter)
    return path
