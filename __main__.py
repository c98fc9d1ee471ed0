"""The program: loads the stack's settings and declares its resources."""

import pulumi

from program import pair, single
from settings.notices import find_notices
from settings.problems import SettingsError
from settings.source import load
from userdata.cloud_config import UserDataError

try:
    config = load()
    for notice in find_notices(config):
        pulumi.log.warn(str(notice))
    (pair if config.pair else single).deploy(config)
except (SettingsError, UserDataError) as error:
    raise pulumi.RunError(str(error)) from None
