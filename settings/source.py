"""Where a stack's configuration comes from: a stack file, or the running Pulumi program."""

import os
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.runtime.config import CONFIG, get_config_env

from endpoint import endpoint_of
from settings.model import Settings
from settings.parse import parse
from settings.problems import Problem, SettingsError


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


def load() -> Settings:
    """Return the settings of the running Pulumi program; raises `SettingsError`."""
    raw = get_config_env() | CONFIG.get()
    return parse(raw, stack=pulumi.get_stack(), endpoint=endpoint_of(os.environ, raw))
