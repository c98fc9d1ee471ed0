"""Limit the memory of machines with control groups, of version 2 or 1, whichever this machine uses.

Sources: cgroups(7); the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

import contextlib
import time
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_NAME = "aws-lab"
_UNIFIED = (_MOUNT / "cgroup.controllers").exists()
#: Holds a group for each lab, and that one a group for each machine.
_ROOT = _MOUNT / _NAME if _UNIFIED else _MOUNT / "memory" / _NAME
#: Limits by file: of memory in bytes, and of what may be swapped out, which on an instance is nothing.
_MEMORY, _SWAP = ("memory.max", "memory.swap.max") if _UNIFIED else ("memory.limit_in_bytes", "memory.swappiness")
_REMOVE_SECONDS = 5.0


def memory_group(lab: str, machine: str) -> Path:
    """Return the directory of a machine's group, whether or not it exists."""
    return _ROOT / lab / machine


def create_memory_group(group: Path, mebibytes: int) -> None:
    """Create the group of a machine with this much memory, or set the limit of the one that exists."""
    group.mkdir(parents=True, exist_ok=True)
    if _UNIFIED:
        for parent in (_MOUNT, _ROOT, group.parent):
            (parent / "cgroup.subtree_control").write_text("+memory")
    (group / _MEMORY).write_text(str(mebibytes << 20))
    if (group / _SWAP).exists():
        (group / _SWAP).write_text("0")


def remove_memory_group(group: Path) -> None:
    """Remove a group and those in it, if there is one; its processes must have been killed."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while group.exists():
        for inner in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                inner.rmdir()
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # a killed process leaves its group only when the kernel has taken it apart
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def remove_memory_groups(lab: str) -> bool:
    """Remove the groups of a lab's machines, none of which runs; return whether there were any."""
    existed = (_ROOT / lab).exists()
    remove_memory_group(_ROOT / lab)
    with contextlib.suppress(OSError):
        _ROOT.rmdir()  # only the last lab's leaving empties it
    return existed


def find_memory_group(process: int) -> Path | None:
    """Return the group of a machine that a process is in, or None where it has ended or is in none."""
    hierarchy = "" if _UNIFIED else "memory"
    try:
        lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == hierarchy and path.startswith(f"/{_NAME}/"):
            return _ROOT.parent / path.lstrip("/")
    return None


def run_in_group(group: Path | None) -> list[str]:
    """Return the words to put before a command that is to run in a group; none for no group."""
    return ["sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', str(group)] if group else []
