"""Remember which stacks a region has, from which files, and which machines were started for each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from lab.region import Region

_SUFFIX = ".record"

#: Machines that the stacks of a region share: one outside of every stack, and one on the IPv6 Internet.
SharedMachine = Literal["stranger", "six"]


@dataclass(kw_only=True, slots=True)
class StackRecord:
    """One stack of a region on this machine."""

    stack: str
    file: str = ""
    """Path of the stack file; empty where it was deployed without one."""
    aws_region: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The configuration as it was deployed."""
    machines: dict[str, str] = field(default_factory=dict)
    """Machines in the lab by the names that they have in the stack, such as a client's or `private-host`."""
    clients: dict[str, list[str]] = field(default_factory=dict)
    """Clients that were started, each with the stack's names of its own machine and of those in its LAN."""
    bundles: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the bundle that each started client runs."""
    adopted: dict[str, dict[str, str]] = field(default_factory=dict)
    """IDs of what the region got because the file names it, by section."""

    def machine(self, name: str) -> str:
        """Return the lab's name of a machine: the stack's own unless another stack has a machine of that name."""
        return self.machines.get(name, name)


def load_record(region: Region, stack: str) -> StackRecord | None:
    """Return the record of a stack that a region has, or None."""
    try:
        record = StackRecord(**json.loads(_path(region, stack).read_text()))
    except FileNotFoundError:
        return None
    # The engine removes its state when it has destroyed a stack.
    return record if record.adopted or _state(region, stack).exists() else None


def save_record(region: Region, record: StackRecord) -> None:
    """Write a stack's record, readable by root alone."""
    path = _path(region, record.stack)
    draft = path.with_name(f"{path.name}.new")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as out:
        json.dump(asdict(record), out, default=str)
    draft.replace(path)


def remove_record(region: Region, stack: str) -> None:
    """Remove a stack's record, if there is one."""
    _path(region, stack).unlink(missing_ok=True)


def list_records(region: Region) -> list[StackRecord]:
    """Return the records of the stacks that a region has, by name."""
    names = sorted(path.name.removesuffix(_SUFFIX) for path in region.stacks.glob(f"*{_SUFFIX}"))
    return [record for name in names if (record := load_record(region, name))]


def name_machine(region: Region, record: StackRecord, name: str) -> str:
    """Return the lab's name for a stack's machine, and record it: `NAME-STACK` if NAME is another machine's already."""
    if name not in record.machines:
        used = {*get_args(SharedMachine), *_list_foreign_machines(region, record)}
        record.machines[name] = f"{name}-{record.stack}" if name in used else name
        save_record(region, record)
    return record.machines[name]


def is_shared(region: Region, record: StackRecord, machine: str) -> bool:
    """Return whether another stack uses a machine too."""
    return machine in set(_list_foreign_machines(region, record))


def _list_foreign_machines(region: Region, record: StackRecord) -> Iterator[str]:
    for foreign in list_records(region):
        if foreign.stack != record.stack:
            yield from foreign.machines.values()


def _path(region: Region, stack: str) -> Path:
    return region.stacks / f"{stack}{_SUFFIX}"


def _state(region: Region, stack: str) -> Path:
    """Return the path of the engine's state of a stack."""
    return region.stacks / f"{stack}.json"
