"""Options that several commands share, and the one way from an error to an exit code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from drawbridge import errors
from drawbridge.operate import account
from lab.errors import LabError, NotPermitted

F = TypeVar("F", bound=Callable[..., Any])

stack = click.option(
    "--stack", default=account.LAB, envvar="DRAWBRIDGE_STACK", show_default=True, help="Stack to look at."
)
region = click.option("--region", help="AWS region; otherwise the environment's or the stack file's.")
json = click.option("--json", "wants_json", is_flag=True, help="Print JSON.")


def of_account(command: F) -> F:
    """--stack and --region."""
    return stack(region(command))


def stack_path(ctx: click.Context, parameter: click.Parameter, value: str) -> Path:
    """STACK as a path: a file as it is, a name as the stack file of that name."""
    path = Path(value)
    found = path if path.suffix in {".yaml", ".yml"} or "/" in value else account.stack_file(value)
    if not found.is_file():
        known = sorted(p.name.split(".")[1] for p in (account.CHECKOUT / "stacks").glob("Pulumi.*.yaml"))
        raise click.BadParameter(f"{found} is no file; stacks here: {', '.join(known) or 'none'}", ctx, parameter)
    return found


class Failure(click.ClickException):
    """An error of ours as click shows it: what went wrong, then what to do."""

    def format_message(self) -> str:
        cause = self.__cause__
        remedy = cause.remedy if isinstance(cause, errors.DrawbridgeError) else ""
        return f"{self.message}\n  -> {remedy}" if remedy else self.message


class Group(click.Group):
    """Turns our errors, and the lab's, into one message and exit code 1, with no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except errors.DrawbridgeError as error:
            raise Failure(str(error)) from error
        except NotPermitted as error:
            told: errors.DrawbridgeError = errors.NotPermittedError(str(error))
            raise Failure(str(error)) from told
        except LabError as error:
            told = errors.LabError(
                str(error), "see what is there: drawbridge lab status; clean up: drawbridge lab down"
            )
            raise Failure(str(error)) from told
