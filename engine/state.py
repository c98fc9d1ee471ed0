"""Keep the embedded engine's state: one JSON file, replaced atomically after every step, with encrypted secrets.

A process killed at any point leaves the old or the new file. The file is not synced to the disk, so a power failure may
lose it; the AWS API on this machine that it describes does not survive one either.
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

FORMAT = 2
"""Version of the file's layout; it grows when a key is renamed."""


class StateError(Exception):
    """The state cannot be used: locked by another run, damaged, of another format, or without its key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One resource after the last run."""

    urn: str
    type: str
    custom: bool
    id: str = ""
    inputs: Props = field(default_factory=dict)
    """The program's inputs, completed by the provider (wire values)."""
    outputs: Props = field(default_factory=dict)
    parent: str = ""
    dependencies: tuple[str, ...] = ()
    """URNs of the resources it depends on."""
    property_dependencies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The same, by input."""
    protect: bool = False
    retain: bool = False
    """Remove it from the state without deleting it."""
    pending_delete: bool = False
    """It has been replaced and must still be deleted."""
    needs_update: bool = False
    """It was adopted after an interrupted creation; `updatable` inputs may not be applied yet."""

    @property
    def name(self) -> str:
        """The resource's name in the program."""
        return self.urn.rsplit("::", 1)[1]


@dataclass(slots=True)
class Snapshot:
    """The state of a stack."""

    entries: list[Entry] = field(default_factory=list)
    pending_operations: list[Entry] = field(default_factory=list)
    """Creations that have not returned yet; a run that died here may have created the resource."""
    outputs: Props = field(default_factory=dict)


class Store:
    """The file of a snapshot, its lock and its key.

    Args:
        path: the state file; beside it lie PATH.key (the secrets' key, mode 0600) and, while a run lasts, PATH.lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = path.with_name(path.name + ".key")
        self._lock = path.with_name(path.name + ".lock")
        self._fernet: Fernet | None = None
        self._rows: dict[int, tuple[Entry, str]] = {}
        """The entries of the last save, by identity, as the file has them. An entry never changes."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the state for one run; the kernel releases the lock of a killed process.

        Raises:
            StateError: another run has the lock.
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
            # The file may have been unlinked between open and flock; such a lock protects nothing.
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
        """Return the snapshot; an absent file is an empty one.

        Raises:
            StateError: the file is damaged, of another format, or its key is missing.
        """
        try:
            raw = json.loads(self.path.read_text())
            if raw["format"] != FORMAT:
                raise StateError(
                    f"{self.path} has format {raw['format']}, but this engine reads format {FORMAT} only; "
                    "destroy the stack with the version that wrote the file, or remove the file with its AWS endpoint"
                )
            opened = self._open(raw)
            return Snapshot(
                entries=[_parse_entry(row) for row in opened["entries"]],
                pending_operations=[_parse_entry(row) for row in opened["pending_operations"]],
                outputs=opened["outputs"],
            )
        except FileNotFoundError:
            return Snapshot()
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"{self.path} is damaged ({type(error).__name__}); delete its resources, then remove the file"
            ) from error

    def save(self, snapshot: Snapshot) -> None:
        """Replace the file atomically, mode 0600.

        Only entries that the last save did not have are encrypted and encoded: every step of a run saves all of them.
        """
        rows = {
            id(entry): self._rows.get(id(entry)) or (entry, json.dumps(self._seal(asdict(entry))))
            for entry in (*snapshot.entries, *snapshot.pending_operations)
        }
        self._rows = rows

        def encode(entries: Sequence[Entry]) -> str:
            return "[" + ",".join(f"\n{rows[id(entry)][1]}" for entry in entries) + "]"

        text = (
            f'{{"format": {FORMAT},\n"entries": {encode(snapshot.entries)},\n'
            f'"pending_operations": {encode(snapshot.pending_operations)},\n'
            f'"outputs": {json.dumps(self._seal(snapshot.outputs))}}}\n'
        )
        draft = self.path.with_name(self.path.name + ".new")
        _write_file(draft, text.encode(), os.O_TRUNC)
        draft.replace(self.path)

    def remove(self) -> None:
        """Remove the file and its key."""
        self.path.unlink(missing_ok=True)
        self._key.unlink(missing_ok=True)

    def _cipher(self, *, make: bool) -> Fernet:
        if self._fernet is None:
            if make and not self._key.exists():
                _write_file(self._key, Fernet.generate_key(), os.O_EXCL)
            try:
                self._fernet = Fernet(self._key.read_bytes())
            except FileNotFoundError:
                raise StateError(f"{self.path} holds secrets, but its key {self._key} is missing") from None
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
                raise StateError(f"{self.path} was not encrypted with the key {self._key}") from None
        if isinstance(value, dict):
            return {key: self._open(item) for key, item in value.items()}
        return [self._open(item) for item in value] if isinstance(value, list) else value


def _parse_entry(row: dict[str, Any]) -> Entry:
    by_input = {key: tuple(urns) for key, urns in row["property_dependencies"].items()}
    return Entry(**{**row, "dependencies": tuple(row["dependencies"]), "property_dependencies": by_input})


def _write_file(path: Path, content: bytes, flag: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def deletion_order(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries in an order in which dependents come before their dependencies."""
    by_urn: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        by_urn.setdefault(entry.urn, []).append(index)
    graph: dict[int, list[int]] = {}
    for index, entry in enumerate(entries):
        needs: list[int] = []
        for urn in (*entry.dependencies, *([entry.parent] if entry.parent else ())):
            candidates = by_urn.get(urn, [])
            # An entry that is pending deletion depends on others of that kind, a current one on current ones.
            alike = [number for number in candidates if entries[number].pending_delete == entry.pending_delete]
            needs += [number for number in alike or candidates if number != index]
        graph[index] = needs
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError:  # dependencies reversed between two runs: newest first
        order = list(range(len(entries)))
    return [entries[index] for index in reversed(order)]


def mark_pending_delete(entry: Entry) -> Entry:
    """Return the entry, marked as replaced."""
    return replace(entry, pending_delete=True)
