"""Find stack files: by path, in the Pulumi project of the working directory, or in this checkout."""

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drawbridge import errors
from endpoint import decode
from images import Architecture, find_architecture
from settings.model import Gateway
from settings.problems import SettingsError
from settings.stack_file import read_stack_file
from settings.stack_yaml import StackYamlError, load_yaml

LAB = "lab"
#: Names that a stack may have to be looked for.
STACK_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
STACK_NAME_REMEDY = "use at most 63 of a-z 0-9 . _ -"
"""The stack of the region on this machine."""

CHECKOUT = Path(__file__).resolve().parents[2]
"""The directory of the Pulumi program."""


def find_stack_file(stack: str) -> Path:
    """Return the path of a stack's file: of the working directory's project if it is there, else in the checkout.

    The file need not exist. Raises `StackError` for a project file that cannot be read.
    """
    paths = [directory / f"Pulumi.{stack}.yaml" for directory in _list_directories()]
    return next((path for path in paths if _is_file(path)), paths[-1])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def new_stack_file(stack: str) -> Path:
    """Return the path for a new stack's file: in the working directory's project if there is one, else in the checkout.

    Raises `StackError` as `find_stack_file`.
    """
    return _list_directories()[0] / f"Pulumi.{stack}.yaml"


def list_stacks() -> list[str]:
    """Return the names of all stacks that have a file; raises `StackError` as `find_stack_file`."""
    files = (path for directory in _list_directories() for path in directory.glob("Pulumi.*.yaml"))
    return sorted({path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in files})


def configured_region(stack: str) -> str | None:
    """Return the AWS region that a stack's file names, None where there is no file or no region in it.

    Raises `StackError` for a file that is wrong.
    """
    return _read_configuration(stack).get("aws:region")


def configured_clients(stack: str) -> dict[str, Mapping[str, Any]]:
    """Return the clients in a stack's file by their names, as they are written there; none where there is no file.

    Raises `StackError` for a file that is wrong.
    """
    entries = decode(_read_configuration(stack).get("drawbridge:clients"))
    clients = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {str(client.get("name")): client for client in clients}


def configured_architecture(stack: str) -> Architecture:
    """Return the processor architecture of a stack's gateway by its file, the default type's where it names none.

    Raises `StackError` for a file that is wrong.
    """
    gateway = _read_configuration(stack).get("drawbridge:gateway")
    configured = gateway.get("instanceType") if isinstance(gateway, dict) else None
    return find_architecture(str(configured or Gateway().instance_type))


def _read_configuration(stack: str) -> dict[str, Any]:
    path = find_stack_file(stack)
    try:
        return read_stack_file(path)
    except FileNotFoundError:
        return {}
    except SettingsError as error:
        raise errors.StackError(str(error), f"correct {path}") from error


def _list_directories() -> list[Path]:
    """Return the directories that hold stack files, the first to be searched first."""
    directory = Path.cwd()
    projects = [path for path in (directory, *directory.parents) if (path / "Pulumi.yaml").is_file()]
    return [_config_directory(project) for project in [*projects[:1], CHECKOUT]]


def _config_directory(project: Path) -> Path:
    """Return where a project has its stack files.

    Source: Pulumi's documentation of the project file, `stackConfigDir`: relative to that file, and its own directory
    by default.
    """
    path = project / "Pulumi.yaml"
    try:
        document = load_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, StackYamlError) as error:
        raise errors.StackError(f"{path} cannot be read: {error}", "correct it, or change directory: -C DIR") from error
    configured = document.get("stackConfigDir") if isinstance(document, dict) else None
    return project / str(configured) if configured else project
