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
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise SettingsError([Problem(path.name, f"line {line}", "is no YAML", "mend the syntax there")]) from None
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise SettingsError([Problem(path.name, "it", "has no mapping `config`", "start from stacks/Pulumi.lab.yaml")])
    return {str(key): value for key, value in config.items()}
