"""Read and write files below a machine's root as the machine would, whatever links it has put there.

A path that the host follows by itself would leave the root through a link, and write the host's own files.

Source: openat2(2), RESOLVE_IN_ROOT.
"""

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

_OPENAT2 = 437  # of every architecture (asm-generic/unistd.h)
_RESOLVE_IN_ROOT = 0x10
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def write_file(root: Path, path: str, content: str, mode: int = 0o644) -> None:
    """Write a file at an absolute path of a machine, with its directories; one of the same content stays as it is.

    A link, or anything else that is not a regular file, is replaced.
    """
    with _open_parent(root, path, create=True) as (parent, name):
        if _read(parent, name) == content.encode():
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=parent)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content.encode())


def read_file(root: Path, path: str) -> bytes | None:
    """Return the content of a regular file at an absolute path of a machine, None if there is none."""
    try:
        with _open_parent(root, path) as (parent, name):
            return _read(parent, name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def remove_file(root: Path, path: str) -> bool:
    """Remove a file at an absolute path of a machine; return whether there was one."""
    try:
        with _open_parent(root, path) as (parent, name):
            os.unlink(name, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def rename_file(root: Path, path: str, name: str) -> None:
    """Give a file at an absolute path of a machine another name in the same directory."""
    with _open_parent(root, path) as (parent, former):
        os.rename(former, name, src_dir_fd=parent, dst_dir_fd=parent)


@contextmanager
def _open_parent(root: Path, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the descriptor of a path's directory and the path's last part."""
    pure = PurePosixPath(path)
    base = os.open(root, _DIRECTORY)
    try:
        parent = _open_directory(base, pure.parent, create)
    finally:
        os.close(base)
    try:
        yield parent, pure.name
    finally:
        os.close(parent)


def _open_directory(root: int, path: PurePosixPath, create: bool) -> int:
    """Return the descriptor of a directory below a root's descriptor; create those that are missing."""
    try:
        return _open_in_root(root, path)
    except FileNotFoundError:
        if not create or path == path.parent:
            raise
    parent = _open_directory(root, path.parent, create)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path.name, dir_fd=parent)
    finally:
        os.close(parent)
    return _open_in_root(root, path)


def _open_in_root(root: int, path: PurePosixPath) -> int:
    how = _OpenHow(flags=_DIRECTORY, mode=0, resolve=_RESOLVE_IN_ROOT)
    descriptor = _libc.syscall(_OPENAT2, root, os.fsencode(str(path)), ctypes.byref(how), ctypes.sizeof(how))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return int(descriptor)


def _read(parent: int, name: str) -> bytes | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=parent)
    except OSError:
        return None  # there is none, or it is a link
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)
