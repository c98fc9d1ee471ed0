"""Write files that only their owner can read."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_private_file(target: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file completely or not at all, mode 0600 from the moment it exists.

    Raises `FileExistsError` if it exists and `replace` is not set, else `OSError`.
    """
    write_private_files({target: content}, replace=replace)


def write_private_files(contents: Mapping[Path, bytes], *, replace: bool = False) -> None:
    """Write files, all of them or none, each completely and mode 0600 from the moment it exists.

    Raises `FileExistsError`, whose `filename` is the first that exists, if `replace` is not set, else `OSError`.
    """
    temporaries: dict[Path, Path] = {}
    created: list[Path] = []
    try:
        for target, content in contents.items():
            # mkstemp creates it with mode 0600, so that no other user can ever read it.
            descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            temporaries[target] = Path(name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        for target, temporary in temporaries.items():
            if replace:
                temporary.replace(target)
            else:
                _link(temporary, target)
                created.append(target)
    except BaseException:
        for target in created:
            target.unlink(missing_ok=True)
        raise
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def _link(temporary: Path, target: Path) -> None:
    try:
        target.hardlink_to(temporary)
    except FileExistsError as error:
        raise FileExistsError(error.errno, error.strerror, str(target)) from None
