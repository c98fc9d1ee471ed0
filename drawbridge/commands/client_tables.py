"""Print clients, their sessions and their events as tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from contract import GATEWAYS
from drawbridge.commands import output
from drawbridge.operate.client_states import ClientState, SessionState
from drawbridge.operate.connection_log import ConnectionEvent, find_alternation
from drawbridge.operate.revoked_certificates import RevokedCertificate

#: Events of the connection log that `client show` has.
LAST_EVENTS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientDetails:
    """Everything that is known of one client."""

    client: ClientState
    has_kit: bool
    """Whether a kit sets up its machine."""
    import_step: str
    """How its bundle is imported."""
    revoked: Sequence[RevokedCertificate]
    """Its former certificates that have not ended."""
    events: Sequence[ConnectionEvent]
    """Its last events."""


def print_clients(clients: Sequence[ClientState], revoked: Sequence[RevokedCertificate], now: datetime) -> None:
    """Print a line for each client, and for each revoked certificate, and say whose bundle is in use twice."""
    rows: list[tuple[str, ...]] = [
        (
            client.name,
            client.gateway,
            client.kind,
            client.address,
            _describe_state(client.session, now),
            " ".join(client.session.origins),
            _show_count(client.session.received),
            _show_count(client.session.sent),
            str(client.days_left(now)),
        )
        for client in clients
    ]
    rows += [
        (
            certificate.name,
            certificate.gateway,
            "revoked",
            "",
            _describe_age(certificate.revoked, now),
            "",
            "",
            "",
            str((certificate.not_after - now).days),
        )
        for certificate in revoked
    ]
    columns: tuple[str, ...] = ("client", "gateway", "kind", "address", "connected", "from", "in", "out", "days")
    if all(row[1] == GATEWAYS[0] for row in rows):
        # Only a pair has clients of another gateway.
        columns = _without_second(columns)
        rows = [_without_second(row) for row in rows]
    output.table(columns, rows)
    for client in clients:
        _warn_of_alternation(client.name, client.session.alternates)


def _without_second(cells: tuple[str, ...]) -> tuple[str, ...]:
    return cells[:1] + cells[2:]


def print_details(details: ClientDetails, now: datetime) -> None:
    """Print everything about one client."""
    client, session = details.client, details.client.session
    kit = f"; its kit does all of it: drawbridge client kit {client.name}" if details.has_kit else ""
    days = client.days_left(now)
    end = f"{days} days left" if days >= 0 else "ended; the next `pulumi up` issues a new one"
    rows = [
        ("kind", client.kind),
        ("system", client.system),
        ("gateway", client.gateway),
        ("address", client.address or "any that is free"),
        ("connected", _describe_state(session, now)),
        ("from", " ".join(session.origins)),
        ("bytes", _describe_bytes(session)),
        ("certificate", f"until {client.not_after:%Y-%m-%d}, {end}"),
        ("serial", str(client.serial)),
        ("SHA-256", client.fingerprint),
        ("bundle", client.parameter),
        ("import", f"{details.import_step}{kit}"),
        *(("revoked", f"serial {former.serial} on {former.revoked:%Y-%m-%d %H:%M} UTC") for former in details.revoked),
    ]
    output.table(("client", client.name), [row for row in rows if row[1]])
    if details.events:
        output.print_line("\nlast events:")
        print_events(details.events)
    _warn_of_alternation(client.name, session.alternates)


def print_events(events: Sequence[ConnectionEvent]) -> None:
    """Print a client's events, and whether its bundle is in use twice."""
    output.table(
        ("time (UTC)", "from", "event", "lasted", "in", "out"),
        [
            (
                f"{event.time:%Y-%m-%d %H:%M}",
                f"{event.address}:{event.port}",
                _describe_event(event),
                "" if event.seconds is None else output.show_duration(event.seconds),
                _show_count(event.received),
                _show_count(event.sent),
            )
            for event in events
        ],
    )


def warn_of_alternation(events: Sequence[ConnectionEvent]) -> None:
    """Print whether the events of one client show that its bundle is in use twice."""
    for client in dict.fromkeys(event.client for event in events):
        _warn_of_alternation(client, find_alternation(event for event in events if event.client == client))


def _warn_of_alternation(client: str, addresses: Sequence[str]) -> None:
    if addresses:
        output.print_line(
            f"{client}: sessions from {' and '.join(addresses)} end each other: its bundle is in use twice, or it "
            "changes networks again and again; see docs/stolen.md"
        )


def _describe_state(session: SessionState, now: datetime) -> str:
    if session.connected_since:
        return f"for {output.show_duration(max(0.0, (now - session.connected_since).total_seconds()))}"
    if session.last_seen:
        return _describe_age(session.last_seen, now)
    return "no" if session.state == "offline" else "?"


def _describe_age(moment: datetime, now: datetime) -> str:
    return f"{output.show_duration(max(0.0, (now - moment).total_seconds()))} ago"


def _describe_bytes(session: SessionState) -> str:
    if session.received is None or session.sent is None:
        return ""
    return f"{_show_count(session.received)} from the client, {_show_count(session.sent)} to it"


def _show_count(count: int | None) -> str:
    return "" if count is None else output.show_bytes(count)


def _describe_event(event: ConnectionEvent) -> str:
    """Return what happened in a few words."""
    if event.event == "displaced":
        return f"displaced by {event.by_address}:{event.by_port}"
    times = f" {event.count} times" if event.count and event.count > 1 else ""
    return f"{event.event}{times}{f': {event.reason}' if event.reason else ''}"
