"""The embedded engine's memory: one JSON file, written whole and atomically after every step, secrets sealed.

The file survives a kill at any point: it is either the old or the new one. It is not synced to the disk, so a power cut
may lose it; it is for a lab that such a cut ends anyway.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from engine.provider.values import SECRET, SIGNATURE, Props, is_secret

FORMAT = 1


class StateError(Exception):
    """The state cannot be used: locked by another run, damaged, or its key is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One resource as the last run left it."""

    urn: str
    type: str
    custom: bool
    id: str = ""
    inputs: Props = field(default_factory=dict)
    """What the program gave, completed by the provider (wire values)."""
    outputs: Props = field(default_factory=dict)
    parent: str = ""
    dependencies: tuple[str, ...] = ()
    """URNs of what it needs."""
    property_dependencies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The same by input."""
    protect: bool = False
    retain: bool = False
    """Forget it instead of deleting it."""
    doomed: bool = False
    """It was replaced and waits to be deleted."""
    unsure: bool = False
    """It was found after a creation that was cut off; its changeable inputs may not be applied yet."""

    @property
    def name(self) -> str:
        """The resource's name in the program."""
        return self.urn.rsplit("::", 1)[1]


@dataclass(slots=True)
class Snapshot:
    """All that is remembered of a stack."""

    entries: list[Entry] = field(default_factory=list)
    creating: list[Entry] = field(default_factory=list)
    """Creations under way: what they made is unknown until they return."""
    outputs: Props = field(default_factory=dict)


class Store:
    """A snapshot's file, with its lock and its key.

    Args:
        path: the state file; beside it lie PATH.key (the secrets' key, mode 0600) and, while a run lasts, PATH.lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = path.with_name(path.name + ".key")
        self._lock = path.with_name(path.name + ".lock")
        self._fernet: Fernet | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the state for one run; a killed run lets go of it.

        Raises:
            StateError: another run holds it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode() or "?"
                os.close(descriptor)
                raise StateError(f"another run (process {holder}) is using {self.path}; wait for it to end") from None
            # The file may have been unlinked between open and flock: then the lock is on nothing.
            if self._lock.exists() and self._lock.stat().st_ino == os.fstat(descriptor).st_ino:
                break
            os.close(descriptor)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            self._lock.unlink(missing_ok=True)
            os.close(descriptor)

    def load(self) -> Snapshot:
        """Read the snapshot; an absent file is an empty one.

        Raises:
            StateError: the file is damaged or its key is gone.
        """
        try:
            raw = json.loads(self.path.read_text())
            if raw["format"] != FORMAT:
                raise StateError(f"{self.path} has format {raw['format']}, this engine writes {FORMAT}")
            opened = self._open(raw)
            return Snapshot(
                entries=[_entry(row) for row in opened["entries"]],
                creating=[_entry(row) for row in opened["creating"]],
                outputs=opened["outputs"],
            )
        except FileNotFoundError:
            return Snapshot()
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"{self.path} is damaged ({type(error).__name__}); remove it once what it made is gone"
            ) from error

    def save(self, snapshot: Snapshot) -> None:
        """Write the snapshot in one piece, mode 0600."""
        whole = {
            "format": FORMAT,
            "entries": [asdict(entry) for entry in snapshot.entries],
            "creating": [asdict(entry) for entry in snapshot.creating],
            "outputs": snapshot.outputs,
        }
        text = json.dumps(self._seal(whole), indent=1)
        draft = self.path.with_name(self.path.name + ".new")
        _write(draft, text.encode(), os.O_TRUNC)
        draft.replace(self.path)

    def forget(self) -> None:
        """Remove file and key."""
        self.path.unlink(missing_ok=True)
        self._key.unlink(missing_ok=True)

    def _cipher(self, *, make: bool) -> Fernet:
        if self._fernet is None:
            if make and not self._key.exists():
                _write(self._key, Fernet.generate_key(), os.O_EXCL)
            try:
                self._fernet = Fernet(self._key.read_bytes())
            except FileNotFoundError:
                raise StateError(f"{self.path} holds secrets and its key {self._key} is gone") from None
        return self._fernet

    def _seal(self, value: Any) -> Any:
        if is_secret(value):
            token = self._cipher(make=True).encrypt(json.dumps(value["value"]).encode())
            return {SIGNATURE: SECRET, "sealed": token.decode()}
        if isinstance(value, dict):
            return {key: self._seal(item) for key, item in value.items()}
        return [self._seal(item) for item in value] if isinstance(value, list | tuple) else value

    def _open(self, value: Any) -> Any:
        if is_secret(value):
            try:
                return {
                    SIGNATURE: SECRET,
                    "value": json.loads(self._cipher(make=False).decrypt(value["sealed"].encode())),
                }
            except InvalidToken:
                raise StateError(f"{self.path} was not sealed with the key {self._key}") from None
        if isinstance(value, dict):
            return {key: self._open(item) for key, item in value.items()}
        return [self._open(item) for item in value] if isinstance(value, list) else value


def _entry(row: dict[str, Any]) -> Entry:
    by_input = {key: tuple(urns) for key, urns in row["property_dependencies"].items()}
    return Entry(**{**row, "dependencies": tuple(row["dependencies"]), "property_dependencies": by_input})


def _write(path: Path, content: bytes, flag: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def deletion_order(entries: Sequence[Entry]) -> list[Entry]:
    """Sort so that nothing goes before what needs it."""
    by_urn: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        by_urn.setdefault(entry.urn, []).append(index)
    graph: dict[int, list[int]] = {}
    for index, entry in enumerate(entries):
        needs: list[int] = []
        for urn in (*entry.dependencies, *([entry.parent] if entry.parent else ())):
            found = by_urn.get(urn, [])
            # Of a replaced resource the old one needs the old ones, the new one the new.
            alike = [other for other in found if entries[other].doomed == entry.doomed]
            needs += [other for other in alike or found if other != index]
        graph[index] = needs
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError:  # dependencies that turned round between two runs: what came last goes first
        order = list(range(len(entries)))
    return [entries[index] for index in reversed(order)]


def doom(entry: Entry) -> Entry:
    """Mark an entry as replaced."""
    return replace(entry, doomed=True)
