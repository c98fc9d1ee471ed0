"""Entry point of `drawbridge` and of `python -m drawbridge`."""

import errno
import io
import os
import sys
from pathlib import Path
from typing import NoReturn, TextIO

from drawbridge.commands.root import cli


def _discard() -> TextIO:
    return Path(os.devnull).open("w")


class _ClosedOutput(io.TextIOBase):
    """Standard output that is closed: a command that writes there fails, as on a full disk."""

    def write(self, text: str) -> NoReturn:
        raise OSError(errno.EBADF, "standard output is closed")


def main() -> None:
    """Run the command and exit; where standard output is closed, with an error as soon as the command writes to it."""
    # Python has None for a stream that is closed.
    sys.stdout = sys.stdout or _ClosedOutput()
    sys.stderr = sys.stderr or _discard()
    cli(prog_name="drawbridge")


if __name__ == "__main__":
    main()
