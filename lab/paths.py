"""Say where labs keep their files on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path

_NAME = "aws-lab"
#: Environment variable that names the cache directory.
CACHE_VARIABLE = "AWS_LAB_CACHE"


@dataclass(frozen=True, slots=True)
class LabPaths:
    """Directories of all labs on a machine."""

    root: Path = Path("/var/tmp", _NAME)
    """Holds a directory for each lab."""
    locks: Path = Path("/run/lock")

    def directory(self, lab: str) -> Path:
        """Return the directory where a lab keeps all that it writes, except for the image."""
        return self.root / lab

    def lock(self, lab: str) -> Path:
        """Return the file that is locked while a lab is brought up or down."""
        return self.locks / f"{_NAME}-{lab}.lock"

    @property
    def cache(self) -> Path:
        """The directory of the machines' image: ``$AWS_LAB_CACHE``, else in the XDG cache directory."""
        if named := os.environ.get(CACHE_VARIABLE):
            return Path(named)
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _NAME


PATHS = LabPaths()
