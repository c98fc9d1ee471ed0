"""Deploy and destroy stacks with Pulumi's CLI, through its Automation API.

Source: https://www.pulumi.com/docs/iac/automation-api/
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from drawbridge import errors
from drawbridge.operate.claims import MOMENT
from drawbridge.operate.stack_creation import read_end
from drawbridge.operate.stack_files import CHECKOUT, LAB
from settings.problems import SettingsError
from settings.stack_file import read_stack_file

Print = Callable[[str], object]

_INSTALL = "install it and log in to a backend: https://www.pulumi.com/docs/install/, then pulumi login"


def deploy_stack(stack: str, stack_file: Path, print_line: Print) -> None:
    """Deploy a stack as its file says; `print_line` gets each line that the CLI prints.

    Raises `StackError` for a file that is wrong or past its end, and `PulumiError` if the CLI is missing or fails.
    """
    from pulumi import automation

    _check_file(stack, stack_file)
    with _translate_cli_errors(stack):
        deployed = automation.create_or_select_stack(stack, work_dir=str(CHECKOUT))
        deployed.up(on_output=print_line, color="never", config_file=_config_option(stack, stack_file))


def destroy_stack(stack: str, stack_file: Path | None, print_line: Print) -> bool:
    """Destroy a stack by its state, and remove the state but never the stack's file; return whether there was a state.

    `print_line` gets each line that the CLI prints. Raises `PulumiError` if the CLI is missing or fails.
    """
    from pulumi import automation

    with _translate_cli_errors(stack):
        try:
            deployed = automation.select_stack(stack, work_dir=str(CHECKOUT))
        except automation.StackNotFoundError:
            return False
        config_file = _config_option(stack, stack_file) if stack_file else None
        deployed.destroy(on_output=print_line, color="never", config_file=config_file)
        deployed.workspace.remove_stack(stack, preserve_config=True)
        return True


def _check_file(stack: str, stack_file: Path) -> None:
    if stack == LAB:
        raise errors.StackError(f"stack {LAB} is that of the region on this machine", "deploy it: drawbridge lab up")
    try:
        end = read_end(read_stack_file(stack_file))
    except SettingsError as error:
        raise errors.StackError(str(error), f"correct {stack_file}") from error
    if end and end <= datetime.now(UTC):
        raise errors.StackError(
            f"stack {stack} is past its end, {end.strftime(MOMENT)}, and would be destroyed",
            f"write a later DrawbridgeEnd into {stack_file}",
        )


def _config_option(stack: str, stack_file: Path) -> str | None:
    """Return the path of a file that the CLI does not find by itself."""
    path = stack_file.resolve()
    return None if path == CHECKOUT / "stacks" / f"Pulumi.{stack}.yaml" else str(path)


@contextmanager
def _translate_cli_errors(stack: str) -> Iterator[None]:
    """Raise the Automation API's errors as the command's own."""
    from pulumi.automation import CommandError, InvalidVersionError

    if shutil.which("pulumi") is None:
        raise errors.PulumiError("the Pulumi CLI is not on PATH", _INSTALL)
    try:
        yield
    except InvalidVersionError as error:
        raise errors.PulumiError(f"the Pulumi CLI is too old: {error}", _INSTALL) from error
    except CommandError as error:
        raise errors.PulumiError(
            f"Pulumi did not run to its end for stack {stack}: {_last_error(str(error))}",
            "correct what it says, and run the command again",
        ) from error


def _last_error(text: str) -> str:
    """Return the first error in what a command of the CLI printed.

    >>> _last_error(" code: 255\\n stdout: \\n stderr: error: no backend\\n")
    'no backend'
    """
    lines = [line.partition("error: ")[2].strip() for line in text.splitlines() if "error: " in line]
    return next(filter(None, lines), "it printed no error")
