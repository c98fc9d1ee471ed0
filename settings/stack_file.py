"""Read a stack's configuration from its file as Pulumi's CLI reads it, wherever that file is."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from settings.problems import NAMESPACE, Problem, SettingsError, show
from settings.stack_yaml import StackYamlError, load_yaml


def stack_name(path: Path) -> str:
    """Return the name of the stack that a file configures: `dev` for `Pulumi.dev.yaml`.

    The name is not checked; `settings.parse.parse` refuses one that cannot be a stack's.
    """
    return path.stem.removeprefix("Pulumi.")


def read_stack_file(path: Path) -> dict[str, Any]:
    """Return the configuration of a stack file, keys with their namespace; raises OSError and `SettingsError`.

    The CLI gives a key without a namespace that of the project, and takes `drawbridge:config:clients` for
    `drawbridge:clients` (Pulumi's documentation, "Configuration"). Keys that are then the same are refused.
    """
    try:
        document = load_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise SettingsError([Problem(path.name, "it", "is not UTF-8 text", "save it as UTF-8")]) from None
    except StackYamlError as error:
        problem = error.problem
        raise SettingsError([Problem(path.name, f"line {problem.line}", problem.reason, problem.remedy)]) from None
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(config, dict):
        reason, remedy = "is missing or has no keys", "start from a copy of stacks/Pulumi.lab.yaml"
        raise SettingsError([Problem(path.name, "`config`", reason, remedy)])
    if problems := [*_check_document(path.name, document), *_check_keys(path.name, config)]:
        raise SettingsError(problems)
    return {qualify(str(key)): value for key, value in config.items()}


def qualify(key: str) -> str:
    """Return a configuration key with its namespace; a key that cannot be one is returned as it is.

    >>> qualify("clients"), qualify("drawbridge:config:clients"), qualify("aws:region")
    ('drawbridge:clients', 'drawbridge:clients', 'aws:region')
    """
    match key.split(":"):
        case [name]:
            return f"{NAMESPACE}:{name}"
        case [namespace, "config", name]:
            return f"{namespace}:{name}"
    return key


#: Keys beside `config` that Pulumi's CLI writes or reads.
_CLI_KEYS = ("config", "secretsprovider", "encryptedkey", "encryptionsalt", "environment")


def _check_document(file: str, document: Mapping[object, object]) -> Iterator[Problem]:
    for key in document:
        if key not in _CLI_KEYS:
            yield Problem(
                file, f"`{show(key)}`", "is outside of `config`, so nothing reads it", "indent it by two spaces"
            )


def _check_keys(file: str, config: Mapping[object, object]) -> Iterator[Problem]:
    first: dict[str, object] = {}
    for key in config:
        qualified = qualify(str(key))
        if qualified.count(":") != 1 or not all(qualified.split(":")):
            reason = "is not a valid configuration key"
            yield Problem(
                file, f"`{show(key)}`", reason, f"write it as {NAMESPACE}:name, a colon, a space and its value"
            )
        elif (spelled := first.setdefault(qualified, key)) is not key:
            yield Problem(file, f"`{show(key)}`", f"is the same key as `{show(spelled)}`", "keep only one of them")
