"""Load the settings of the running Pulumi program. The only module of the settings that imports Pulumi."""

import os

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env

from endpoint import endpoint_of
from settings.model import Settings
from settings.parse import parse


def load() -> Settings:
    """Return the settings of the running Pulumi program; raises `SettingsError`."""
    raw = get_config_env() | CONFIG.get()
    return parse(raw, stack=pulumi.get_stack(), endpoint=endpoint_of(os.environ, raw))
