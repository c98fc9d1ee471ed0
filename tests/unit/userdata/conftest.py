"""What the tests of the gateway's programs share: a disk that costs nothing to fill and to empty."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = "/dev/shm"  # only its directory of this process is used


@pytest.fixture
def disk() -> Iterator[Path]:
    """Return the empty root directory of a machine; in memory where the system has a place there.

    A test that kills the agent at every step writes and deletes ten thousands of files.
    """
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="disk-", dir=place) as directory:
        root = Path(directory, "root")
        root.mkdir()
        yield root
