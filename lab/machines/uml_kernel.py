"""Fetch the kernel of machines that have one of their own: Debian's User-Mode Linux, newer than Debian stable's.

It comes from Debian's next release, is fetched once into the user's cache, like `lab.machines.image`, and nothing of it
is installed: with AMX the registers of a process have a size that kernels before 6.13 have no room for, and they panic
before their first process runs. Its program is linked against a newer C library than this machine may have, so that
library lies beside it.

Sources: mmdebstrap(1), ld.so(8), elf(5) for the interpreter.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.errors import ImageError
from lab.linux import run
from lab.machines.image import IN_OWN_PID_NAMESPACE, build_once, find_debian_mirror
from lab.paths import PATHS

SUITE = "forky"
_PACKAGE = "user-mode-linux"
_PROGRAM = "linux.uml"
_LIBRARIES = ("ld-linux-x86-64.so.2", "libc.so.6")
#: Interpreter of a program for x86-64 (its ABI's path), and the one of this program: a file of its working directory.
#: Run by hand, the interpreter would move the program break to where this kernel maps its memory.
_INTERPRETER, _INTERPRETER_BESIDE = b"/lib64/ld-linux-x86-64.so.2", b"./ld-linux-x86-64.so.2"


@dataclass(frozen=True, slots=True)
class UmlKernel:
    """A fetched kernel."""

    directory: Path
    """Holds the program, its libraries and the modules."""

    @property
    def modules(self) -> Path:
        """The directory of its modules; its name is the kernel's release."""
        return next((self.directory / "modules").iterdir())

    @property
    def command(self) -> list[str]:
        """Words that start it; its options follow. It runs in `directory`."""
        return ["env", f"--chdir={self.directory}", f"LD_LIBRARY_PATH={self.directory}", f"./{_PROGRAM}"]


def find() -> UmlKernel:
    """Return the kernel; raise `ImageError` where the cache has none."""
    kernel = UmlKernel(PATHS.cache / f"uml-{recipe_digest()}")
    if not kernel.directory.is_dir():
        raise ImageError("the kernel of machines with one of their own is not in the cache")
    return kernel


def recipe_digest() -> str:
    """Twelve hex digits that change whenever the recipe does."""
    recipe = [1, SUITE, _PACKAGE, _LIBRARIES, _INTERPRETER.decode(), _INTERPRETER_BESIDE.decode()]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]


def ensure(progress: Callable[[str], None]) -> UmlKernel:
    """Return the kernel; fetch it first where the cache has none (some seconds, 60 MB of downloads).

    Args:
        progress: called with a short text before it is fetched.

    Raises:
        ImageError: it could not be fetched; the text ends with what the failing tool printed.
    """
    build_once(f"uml-{recipe_digest()}", "the kernel of machines with one of their own", _build, progress)
    return find()


def use_interpreter_beside(program: bytes) -> bytes:
    """Return a program that takes its interpreter from its working directory.

    Raises:
        ImageError: the program names its interpreter elsewhere, or more than once.
    """
    if program.count(_INTERPRETER) != 1:
        raise ImageError(
            f"{_PROGRAM} does not name {_INTERPRETER.decode()} once; lab/machines/uml_kernel.py must be adapted"
        )
    return program.replace(_INTERPRETER, _INTERPRETER_BESIDE.ljust(len(_INTERPRETER), b"\0"))


def _build(target: Path, progress: Callable[[str], None]) -> None:
    progress("fetching User-Mode Linux for machines with a kernel of their own (once; some seconds)")
    tree = target / "tree"
    run(
        *IN_OWN_PID_NAMESPACE,
        "env",
        f"TMPDIR={target}",
        "mmdebstrap",
        "--variant=extract",
        "--format=directory",
        f"--include={_PACKAGE}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        # A mirror may be weeks behind, and the lists of a release to come are valid for one.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        "--dpkgopt=path-exclude=/usr/share/*",
        SUITE,
        str(tree),
        *find_debian_mirror(),
        timeout=600,
    )
    program = target / _PROGRAM
    program.write_bytes(use_interpreter_beside((tree / "usr/bin" / _PROGRAM).read_bytes()))
    program.chmod(0o755)
    for library in _LIBRARIES:
        shutil.copy(tree / "usr/lib/x86_64-linux-gnu" / library, target / library)
    (tree / "usr/lib/uml/modules").rename(target / "modules")
    shutil.rmtree(tree)
