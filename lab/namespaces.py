"""Create network namespaces, and remember which ones a lab created, so that it removes no other.

A note is written before a namespace is created and completed with the namespace's inode afterwards: a lab that is
killed between the two still finds it. A name that somebody else's namespace has is refused, so a note without an inode
is never about theirs.

Sources: ip-netns(8), namespaces(7).
"""

import json
import os
from pathlib import Path

from lab.errors import LabError
from lab.linux import NETNS, run
from lab.paths import NOTE_SUFFIX, PATHS, create_in_private

#: Environment variable with the region's directory, in all processes that a region starts.
REGION_VARIABLE = "LAB_REGION"


def add_namespace(name: str) -> None:
    """Create a network namespace with its loopback up; keep one that this region created.

    Raises:
        LabError: somebody else created one of that name.
    """
    region, note = os.environ.get(REGION_VARIABLE, ""), PATHS.namespace_note(name)
    if (NETNS / name).exists():
        if not _is_noted(name, region):
            raise LabError(f"the network namespace {name} is not this lab's; delete it: ip netns delete {name}")
        return
    create_in_private(PATHS.run, lambda: _write(note, region, None))
    run("ip", "netns", "add", name)
    _write(note, region, (NETNS / name).stat().st_ino)
    run("ip", "-n", name, "link", "set", "lo", "up")


def delete_namespace(name: str) -> None:
    """Remove a network namespace and the links in it, if a lab created one of that name."""
    if _is_noted(name, None):
        run("ip", "netns", "delete", name)
    PATHS.namespace_note(name).unlink(missing_ok=True)


def list_namespaces(region: Path | str) -> list[str]:
    """Return the names of the network namespaces that a region created, by the region's directory."""
    names = (note.name.removesuffix(NOTE_SUFFIX) for note in PATHS.run.glob(f"*{NOTE_SUFFIX}"))
    return sorted(name for name in names if _is_noted(name, str(region)))


def remove_notes(region: Path | str) -> None:
    """Forget a region's namespaces."""
    for note in PATHS.run.glob(f"*{NOTE_SUFFIX}"):
        if _read(note).get("region") == str(region):
            note.unlink(missing_ok=True)


def _is_noted(namespace: str, region: str | None) -> bool:
    """Return whether a namespace exists and is the one that its note is about, of any region for None."""
    noted = _read(PATHS.namespace_note(namespace))
    try:
        inode = (NETNS / namespace).stat().st_ino
    except FileNotFoundError:
        return False
    return bool(noted) and noted["inode"] in (None, inode) and region in (None, noted["region"])


def _read(note: Path) -> dict[str, object]:
    try:
        noted: dict[str, object] = json.loads(note.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return noted


def _write(note: Path, region: str, inode: int | None) -> None:
    # Replaced in one step: a note that is cut off would leave its namespace behind.
    part = note.with_suffix(".part")
    part.write_text(json.dumps({"region": region, "inode": inode}))
    part.replace(note)
