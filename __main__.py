"""The program: loads the stack's settings and declares its resources."""

import pulumi

from program import pair, single
from settings.problems import SettingsError
from settings.source import load
from userdata.cloud_config import UserDataError

try:
    config = load()
    (pair if config.pair else single).deploy(config)
except (SettingsError, UserDataError) as error:
    raise pulumi.RunError(str(error)) from None
