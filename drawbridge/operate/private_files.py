"""Write files that only their owner can read."""

import os
import tempfile
from pathlib import Path


def write_private_file(target: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file completely or not at all, mode 0600 from the moment it exists.

    Raises `FileExistsError` if it exists and `replace` is not set, else `OSError`.
    """
    # mkstemp creates it with mode 0600, so that no other user can ever read it.
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if replace:
            temporary.replace(target)
        else:
            target.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
