"""Have one command at a time change a stack file, so that no operator's change is lost.

The file itself is locked, except on Windows, where no file can be replaced while it is open: there it is one in the
user's temporary directory. Sources: flock(2); Microsoft's reference of the C runtime, `_locking`.
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drawbridge import errors

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Seconds to wait for another command, which may read every bundle of a large stack before it writes.
WAIT = 60.0
_POLL = 0.1


@contextmanager
def lock_stack_file(path: Path, wait: float = WAIT) -> Iterator[None]:
    """Keep other commands from changing a stack file; waits at most `wait` seconds, and then raises `StackError`.

    Readers are not kept out: a file is replaced at once, so they see it before or after a change. A file that does not
    exist is not locked.
    """
    descriptor = _lock(path, time.monotonic() + wait)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(path: Path, deadline: float) -> int | None:
    """Return the descriptor that has the lock until it is closed; None if nothing can be locked."""
    while True:
        try:
            descriptor = _open(path)
        except OSError:
            return None  # Whoever reads or writes it says why.
        is_locked = False
        try:
            is_locked = _try_lock(descriptor) and (sys.platform == "win32" or _is_same_file(descriptor, path))
        finally:
            if not is_locked:
                os.close(descriptor)
        if is_locked:
            return descriptor
        if time.monotonic() >= deadline:
            raise errors.StackError(
                f"another drawbridge command is changing {path}", "wait until it has ended, then run this again"
            )
        time.sleep(_POLL)


def _open(path: Path) -> int:
    """Return the descriptor of the file that is locked for a stack file; raises `OSError`."""
    if sys.platform == "win32":
        name = hashlib.sha256(os.fsencode(path.resolve(strict=True))).hexdigest()
        return os.open(Path(tempfile.gettempdir(), f"drawbridge-{name}.lock"), os.O_RDWR | os.O_CREAT)
    # A network file system locks only files that are open for writing. No process that is started inherits it.
    return os.open(path, os.O_RDWR)


def _try_lock(descriptor: int) -> bool:
    """Return whether this process has the lock now; also where the file system has no locks."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether the file that is locked is still the one at the path, and nobody has replaced it meanwhile."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
