"""Read a stack's configuration from its file, wherever that file is."""

from pathlib import Path
from typing import Any

import yaml

from settings.problems import Problem, SettingsError


def stack_name(path: Path) -> str:
    """Return the name of the stack that a file configures: `dev` for `Pulumi.dev.yaml`.

    The name is not checked; `settings.parse.parse` refuses one that cannot be a stack's.
    """
    return path.stem.removeprefix("Pulumi.")


def read_stack_file(path: Path) -> dict[str, Any]:
    """Return the configuration of a stack file, keys with their namespace; raises OSError and `SettingsError`."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise SettingsError([Problem(path.name, "it", "is not UTF-8 text", "save it as UTF-8")]) from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "it"
        raise SettingsError([Problem(path.name, place, "is not valid YAML", "correct the syntax there")]) from None
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        reason, remedy = "is missing or has no keys", "start from a copy of stacks/Pulumi.lab.yaml"
        raise SettingsError([Problem(path.name, "`config`", reason, remedy)])
    return {str(key): value for key, value in config.items()}
