"""Read a stack's connection log from CloudWatch Logs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import contract
from drawbridge import errors
from drawbridge.operate import bundles
from drawbridge.operate.account import Account, translate_aws_errors


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionEvent:
    """One event of a client; what does not belong to its kind is None."""

    event: str
    """`connected`, `disconnected`, `displaced` or `refused`."""
    time: datetime
    gateway: str
    """The gateway's stack, with `/b` for the second one of a pair."""
    process: str
    """Instance of OpenVPN's unit."""
    client: str
    address: str
    port: int
    reason: str | None = None
    """Why it was refused, or has ended."""
    count: int | None = None
    """Equal refusals that this event stands for."""
    since: datetime | None = None
    """When the session began."""
    seconds: float | None = None
    """How long it was."""
    received: int | None = None
    """Bytes from the client."""
    sent: int | None = None
    """Bytes to the client."""
    by_address: str | None = None
    """Where the session comes from that has displaced this one."""
    by_port: int | None = None


def read_history(account: Account, client: str, since: timedelta) -> list[ConnectionEvent]:
    """Return the events of a client within `since`, the oldest first, of every gateway of the stack.

    Raises:
        NotDeployedError: the stack has no connection log, or neither events nor a bundle of such a client.
        AwsError: AWS refused, or cannot be reached.
    """
    start = datetime.now(UTC) - since
    groups = (_read_group(account, names, client, start) for names in account.all_names)
    logs = [events for events in groups if events is not None]
    if not logs:
        account.parameter(account.names.release)  # Raises where the stack is not deployed at all.
        raise errors.NotDeployedError(
            f"stack {account.stack} has no connection log",
            "switch it on in the stack file (drawbridge:log: {retention: 90}), "
            f"then: pulumi up --stack {account.stack}",
        )
    # An event that was sent twice has one id.
    history = {id: event for log in logs for id, event in log}
    if not history and client not in {enrolled.name for enrolled in bundles.list_clients(account)}:
        raise errors.NotDeployedError(
            f"stack {account.stack} has no client {client}, and its connection log of this time has none either",
            f"list its clients: drawbridge client list --stack {account.stack}; or look further back: --since 90d",
        )
    return sorted(history.values(), key=lambda event: event.time)


def _read_group(
    account: Account, names: contract.Names, client: str, start: datetime
) -> list[tuple[str, ConnectionEvent]] | None:
    """Return a client's events with their ids from one gateway's log; None if there is no such log."""
    logs = account.client("logs")
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=names.connections,
        startTime=int(start.timestamp() * 1000),
        filterPattern=f"{{ $.client = {json.dumps(client)} }}",
    )
    with translate_aws_errors(account.stack):
        try:
            messages = [event["message"] for page in pages for event in page["events"]]
        except logs.exceptions.ResourceNotFoundException:
            return None
    return [(id, event) for id, event in parse_events(messages) if event.client == client]


def parse_events(messages: list[str]) -> Iterator[tuple[str, ConnectionEvent]]:
    """Yield id and event of each message that is a client's; others may write to the log group too."""
    for number, message in enumerate(messages):
        try:
            fields = json.loads(message)
            yield str(fields.get("id") or number), _parse_event(fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue


def _parse_event(fields: Mapping[str, Any]) -> ConnectionEvent:
    def optional(key: str, kind: type[Any]) -> Any:
        return kind(fields[key]) if fields.get(key) is not None else None

    return ConnectionEvent(
        event=str(fields["event"]),
        time=_parse_time(fields["time"]),
        gateway=str(fields["gateway"]),
        process=str(fields["process"]),
        client=str(fields["client"]),
        address=str(fields["address"]),
        port=int(fields["port"]),
        reason=optional("reason", str),
        count=optional("count", int),
        since=_parse_time(fields["since"]) if fields.get("since") else None,
        seconds=optional("seconds", float),
        received=optional("received", int),
        sent=optional("sent", int),
        by_address=optional("byAddress", str),
        by_port=optional("byPort", int),
    )


def _parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
