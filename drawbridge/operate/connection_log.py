"""Read a stack's connection log from CloudWatch Logs."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import contract
from drawbridge import errors
from drawbridge.operate import bundles
from drawbridge.operate.account import Account, translate_aws_errors

#: Two machines with one bundle displace each other every few seconds. A person who comes home and leaves again takes
#: longer.
ALTERNATION = timedelta(minutes=10)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalLine:
    """A line of a gateway's journal that says how the gateway is."""

    time: datetime
    unit: str
    message: str


def read_journal(account: Account, lines: int, since: timedelta) -> list[JournalLine]:
    """Return the last lines of a gateway's journal that its connection log has, the oldest first.

    Raises `NotDeployedError` if the stack has no connection log, else `AwsError`.
    """
    messages = _read_messages(account, account.names, '{ $.event = "journal" }', datetime.now(UTC) - since)
    if messages is None:
        raise _missing_log(account)
    # A line may have been sent twice.
    journal = sorted(dict.fromkeys(_parse_journal(messages)), key=lambda line: line.time)
    return journal[max(0, len(journal) - lines) :]


def _parse_journal(messages: Iterable[str]) -> Iterator[JournalLine]:
    for message in messages:
        try:
            fields = json.loads(message)
            if fields["event"] == "journal":
                yield JournalLine(
                    time=_parse_time(fields["time"]), unit=str(fields["unit"]), message=str(fields["message"])
                )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue


def read_history(account: Account, client: str, since: timedelta) -> list[ConnectionEvent]:
    """Return the events of a client within `since`, the oldest first, of every gateway of the stack.

    Raises:
        NotDeployedError: the stack has no connection log, or neither events nor a bundle of such a client.
        AwsError: AWS refused, or cannot be reached.
    """
    history = read_events(account, since, client)
    if not history:
        try:
            bundles.require_client(account, client)
        except errors.NotDeployedError as error:
            raise errors.NotDeployedError(
                f"{error}, and its connection log of this time has no such client",
                f"{error.remedy}; or look further back: --since 90d",
            ) from error
    return history


def read_events(account: Account, since: timedelta, client: str | None = None) -> list[ConnectionEvent]:
    """Return the events within `since`, the oldest first, of every gateway of the stack: a client's, or all clients'.

    Raises `NotDeployedError` if the stack has no connection log, else `AwsError`.
    """
    start = datetime.now(UTC) - since
    groups = (_read_group(account, names, client, start) for names in account.all_names)
    logs = [events for events in groups if events is not None]
    if not logs:
        raise _missing_log(account)
    # An event that was sent twice has one id.
    events = {id: event for log in logs for id, event in log}
    return sorted(events.values(), key=lambda event: event.time)


def find_alternation(events: Iterable[ConnectionEvent]) -> tuple[str, ...]:
    """Return two public addresses whose sessions of one client displaced each other; none if that did not happen.

    `events` are one client's, the oldest first. A client that has moved displaces its former session once. Two
    machines with one bundle displace each other again and again.
    """
    former: dict[tuple[str, str], ConnectionEvent] = {}
    for event in events:
        if event.event != "displaced":
            continue
        process = event.gateway, event.process
        last = former.get(process)
        former[process] = event
        has_returned = last is not None and (last.address, last.by_address) == (event.by_address, event.address)
        if last and has_returned and last.address != event.address and event.time - last.time <= ALTERNATION:
            return tuple(sorted((last.address, event.address)))
    return ()


def _read_group(
    account: Account, names: contract.Names, client: str | None, start: datetime
) -> list[tuple[str, ConnectionEvent]] | None:
    """Return a client's events, or all, with their ids from one gateway's log; None if there is no such log."""
    pattern = None if client is None else f"{{ $.client = {json.dumps(client)} }}"
    messages = _read_messages(account, names, pattern, start)
    if messages is None:
        return None
    return [(id, event) for id, event in parse_events(messages) if client in (None, event.client)]


def _read_messages(account: Account, names: contract.Names, pattern: str | None, start: datetime) -> list[str] | None:
    """Return what one gateway's log has since `start`; None if there is no such log. Raises `AwsError`."""
    logs = account.client("logs")
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=names.connections,
        startTime=int(start.timestamp() * 1000),
        **({} if pattern is None else {"filterPattern": pattern}),
    )
    with translate_aws_errors(account.stack):
        try:
            return [event["message"] for page in pages for event in page["events"]]
        except logs.exceptions.ResourceNotFoundException:
            return None


def _missing_log(account: Account) -> errors.NotDeployedError:
    """Return the error of a stack without a log; raises another where the stack is not deployed at all."""
    account.parameter(account.names.release)
    return errors.NotDeployedError(
        f"stack {account.stack} has no connection log",
        f"switch it on in the stack file (drawbridge:log: {{retention: 90}}), then: pulumi up --stack {account.stack}",
    )


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
