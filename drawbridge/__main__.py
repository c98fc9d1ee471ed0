"""Entry point of `drawbridge` and of `python -m drawbridge`."""

import os
import sys
from pathlib import Path
from typing import TextIO

from drawbridge.commands.root import cli


def _discard() -> TextIO:
    return Path(os.devnull).open("w")


def main() -> None:
    """Run the command and exit; it runs as usual where standard output or standard error is closed."""
    sys.stdout = sys.stdout or _discard()
    sys.stderr = sys.stderr or _discard()
    cli(prog_name="drawbridge")


if __name__ == "__main__":
    main()
