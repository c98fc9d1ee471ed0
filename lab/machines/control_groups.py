"""Give each machine control groups of its own, of version 2 or 1, whichever this machine uses, and limit its memory.

A machine's systemd keeps its units in the groups that it was started in, and removes a unit's group when the unit ends.
Machines that were started in one group would remove each other's.

Sources: cgroups(7); the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; systemd's
"Control Group APIs and Delegation".
"""

import contextlib
import time
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_NAME = "aws-lab"
_UNIFIED = (_MOUNT / "cgroup.controllers").exists()
_MEMORY_HIERARCHY = _MOUNT if _UNIFIED else _MOUNT / "memory"
#: Those whose groups limit memory, and those that systemd keeps its units in. Each holds a group for each lab, and that
#: one a group for each machine.
_HIERARCHIES = (_MEMORY_HIERARCHY,) if _UNIFIED else (_MEMORY_HIERARCHY, _MOUNT / "systemd", _MOUNT / "unified")
#: Limits by file: of memory in bytes, and of what may be swapped out, which on an instance is nothing.
_MEMORY, _SWAP = ("memory.max", "memory.swap.max") if _UNIFIED else ("memory.limit_in_bytes", "memory.swappiness")
_REMOVE_SECONDS = 5.0


def create_groups(lab: str, machine: str, mebibytes: int | None) -> list[Path]:
    """Create a machine's groups unless they exist, and return them; `mebibytes` limits its memory, None does not."""
    groups = _find_groups(lab, machine)
    for group in groups:
        # Again while a lab that ends removes the group of all labs, which it finds empty.
        while not group.is_dir():
            with contextlib.suppress(FileNotFoundError):
                group.mkdir(parents=True, exist_ok=True)
    if mebibytes is not None:
        _limit_memory(_MEMORY_HIERARCHY / _NAME / lab / machine, mebibytes)
    return groups


def _limit_memory(group: Path, mebibytes: int) -> None:
    if _UNIFIED:
        for parent in (_MOUNT, _MOUNT / _NAME, group.parent):
            (parent / "cgroup.subtree_control").write_text("+memory")
    (group / _MEMORY).write_text(str(mebibytes << 20))
    if (group / _SWAP).exists():
        (group / _SWAP).write_text("0")


def remove_groups(lab: str, machine: str = "") -> bool:
    """Remove a machine's groups, by default those of each machine of a lab; return whether there were any.

    Their processes must have been killed.
    """
    groups = [group for group in _find_groups(lab, machine) if group.exists()]
    for group in groups:
        _remove_group(group)
    if not machine:
        for hierarchy in _HIERARCHIES:
            with contextlib.suppress(OSError):
                (hierarchy / _NAME).rmdir()  # only the last lab's leaving empties it
    return bool(groups)


def _find_groups(lab: str, machine: str) -> list[Path]:
    return [hierarchy / _NAME / lab / machine for hierarchy in _HIERARCHIES if hierarchy.is_dir()]


def _remove_group(group: Path) -> None:
    """Remove a group and those in it."""
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


def find_memory_group(process: int) -> Path | None:
    """Return the group that limits the memory of a machine, by one of its processes; None if there is none."""
    hierarchy = "" if _UNIFIED else "memory"
    try:
        lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == hierarchy and path.startswith(f"/{_NAME}/"):
            return _MEMORY_HIERARCHY / path.lstrip("/")
    return None


def run_in_groups(*groups: Path) -> list[str]:
    """Return the words to put before a command that is to run in these groups; none for no group."""
    if not groups:
        return []
    join = " && ".join(f'echo 0 >"${{{number}}}/cgroup.procs"' for number in range(len(groups)))
    return ["sh", "-c", f'{join} && shift {len(groups) - 1} && exec "$@"', *map(str, groups)]
