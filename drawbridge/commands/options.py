"""Options and arguments that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from drawbridge.operate.stack_files import LAB, find_stack_file, list_stacks

F = TypeVar("F", bound=Callable[..., Any])

stack = click.option("--stack", default=LAB, envvar="DRAWBRIDGE_STACK", show_default=True, help="Name of the stack.")
region = click.option("--region", help="AWS region; otherwise the stack file's or the environment's.")
preview = click.option("--preview", is_flag=True, help="Print the steps, and leave the stack file as it is.")
json = click.option("--json", "wants_json", is_flag=True, help="Print JSON.")


def of_account(command: F) -> F:
    """Add --stack and --region to a command."""
    return stack(region(command))


def stack_path(ctx: click.Context, parameter: click.Parameter, value: str) -> Path:
    """Return the path of the stack file that STACK names: a path as it is, or the file of a stack of that name."""
    path = Path(value)
    path = path if path.suffix in {".yaml", ".yml"} or "/" in value else find_stack_file(value)
    if not path.is_file():
        names = ", ".join(list_stacks()) or "none"
        raise click.BadParameter(f"{path} does not exist; stacks that have a file: {names}", ctx, parameter)
    return path
