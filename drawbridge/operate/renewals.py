"""Order the renewal of clients' certificates in a stack file."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from drawbridge import errors
from drawbridge.operate.account import Account
from drawbridge.operate.bundles import EnrolledClient, list_clients, read_client
from drawbridge.operate.rotations import next_moment, read_settings, write_value
from drawbridge.operate.stack_files import find_stack_file

KEY = "renewals"

_Client = TypeVar("_Client", bound=EnrolledClient)


@dataclass(frozen=True, slots=True)
class Renewal:
    """A renewal that the next deployment will carry out."""

    stack_file: Path
    moments: dict[str, str]
    """When it was ordered, ISO 8601, by the clients' names; of other clients, when theirs was."""
    clients: tuple[EnrolledClient, ...]
    """Clients that get new certificates; their former ones stay valid until they end."""
    kits: frozenset[str]
    """Names of those whose kit fetches the bundle."""

    def write(self) -> None:
        """Write the renewal into the stack file; raises `StackError`."""
        write_value(self.stack_file, (KEY,), self.moments)


def plan_renewal(account: Account, names: Collection[str], within: timedelta | None, now: datetime) -> Renewal | None:
    """Return the renewal of clients, without names of all; None if no certificate ends `within` that time.

    Raises `StackError` for a name that has nothing to renew, and `AwsError`.
    """
    settings = read_settings(account.stack)
    stack_file = find_stack_file(account.stack)
    declared = {client.name: client for client in settings.clients}
    if settings.pair:
        raise errors.StackError(
            f"{stack_file} is a pair, whose gateways renew each other's certificates",
            f"deploy within a month before they end: pulumi up --stack {account.stack}",
        )
    # Without names all bundles are read; with names, no other client's, which may be damaged.
    clients = [_read_enrolled(account, name) for name in dict.fromkeys(names)] if names else list_clients(account)
    enrolled = {client.name: client for client in clients if client is not None}
    for name in names:
        _check_name(account.stack, stack_file, name, declared, enrolled)
    chosen = [client for name, client in sorted(enrolled.items()) if name in declared]
    if within is not None:
        chosen = select_ending(chosen, within, now)
    if not chosen:
        return None
    former = {name: moment for name, moment in settings.rotations.renewals.items() if name in declared}
    moments = former | {client.name: next_moment(former.get(client.name, ""), now) for client in chosen}
    kits = frozenset(client.name for client in chosen if declared[client.name].needs_kit(settings.tunnel))
    return Renewal(stack_file, moments, tuple(chosen), kits)


def _read_enrolled(account: Account, name: str) -> EnrolledClient | None:
    try:
        return read_client(account, name)
    except errors.NotDeployedError:
        return None


def select_ending(clients: Sequence[_Client], within: timedelta, now: datetime) -> list[_Client]:
    """Return the clients whose certificates have ended or end within a time."""
    return [client for client in clients if client.not_after - now <= within]


def _check_name(stack: str, stack_file: Path, name: str, declared: Collection[str], enrolled: Collection[str]) -> None:
    """Raise `StackError` unless a client is in the stack file and has a certificate."""
    if name not in declared and name in enrolled:
        raise errors.StackError(
            f"{stack_file} has no client {name} any more, and the next deployment revokes its certificate",
            "add it to drawbridge:clients again, or leave it out here",
        )
    if name not in declared:
        names = ", ".join(declared) or "none"
        raise errors.StackError(f"{stack_file} has no client {name}", f"its clients: {names}")
    if name not in enrolled:
        raise errors.StackError(
            f"{name} has no certificate yet, which could be renewed", f"deploy it first: pulumi up --stack {stack}"
        )
