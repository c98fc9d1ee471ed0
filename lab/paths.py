"""Say where labs keep their files on this machine, and see to it that nobody else can write there."""

import contextlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab.errors import InvalidName, LabError

_T = TypeVar("_T")

_NAME = "aws-lab"
#: Name of the lab that is meant where none is named.
DEFAULT_LAB = "lab"
NOTE_SUFFIX = ".netns"
#: Names of labs: each becomes a directory of its own, which is removed with the lab, and begins names of machines.
_LAB_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,19}")
#: Environment variable that names the cache directory.
CACHE_VARIABLE = "AWS_LAB_CACHE"


@dataclass(frozen=True, slots=True)
class LabPaths:
    """Directories of all labs on a machine. Only root can create or rename anything in those above them."""

    root: Path = Path("/var/lib", _NAME)
    """Holds a directory for each lab."""
    run: Path = Path("/run", _NAME)
    """Holds what ends with this machine's boot: locks, and notes about namespaces."""

    def directory(self, lab: str) -> Path:
        """Return the directory where a lab keeps all that it writes, except for the image; raises `InvalidName`."""
        return self.root / _check_name(lab)

    def lock(self, lab: str) -> Path:
        """Return the file that is locked while a lab is brought up or down; raises `InvalidName`."""
        return self.run / f"{_check_name(lab)}.lock"

    def namespace_note(self, namespace: str) -> Path:
        """Return the file that notes which lab created a network namespace."""
        return self.run / f"{namespace}{NOTE_SUFFIX}"

    @property
    def cache(self) -> Path:
        """The directory of the machines' image: ``$AWS_LAB_CACHE``, else in the XDG cache directory."""
        if named := os.environ.get(CACHE_VARIABLE):
            return Path(named)
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _NAME


PATHS = LabPaths()


def _check_name(lab: str) -> str:
    if not _LAB_NAME.fullmatch(lab):
        raise InvalidName(f"{lab!r} is not a valid name of a lab")
    return lab


def check_private(directory: Path) -> None:
    """Check that only root, or this user, can write into a directory.

    Raises:
        LabError: it is a link or not a directory, it belongs to somebody else, or others may write into it.
    """
    status = directory.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid not in (0, os.geteuid())
        or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        raise LabError(f"{directory} must be a directory that belongs to root and that nobody else may write into")


def create_private(directory: Path) -> None:
    """Create a directory with mode 0700 unless it exists, and check it as `check_private` does.

    Its parent must exist.
    """
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    check_private(directory)


def create_in_private(directory: Path, create: Callable[[], _T]) -> _T:
    """Create a directory as `create_private` does and something in it; return what `create` returns.

    Again, as long as `create` raises FileNotFoundError: a lab that ends removes a directory that it finds empty, and
    it may do so between the two.
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            create_private(directory)
            return create()
