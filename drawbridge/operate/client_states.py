"""Join what is known of a stack's clients: certificates, sessions on the gateway, the connection log, revocations."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import contract
from drawbridge import errors
from drawbridge.operate import connection_log, gateway_status
from drawbridge.operate.account import Account
from drawbridge.operate.bundles import EnrolledClient, list_clients
from drawbridge.operate.connection_log import ConnectionEvent
from drawbridge.operate.gateway_status import ClientSession
from drawbridge.operate.ssh_login import SshTarget
from drawbridge.operate.stack_files import configured_clients

#: Seconds for the connection to a gateway that is asked for its sessions: without an answer, the log has to do.
LOGIN_TIMEOUT = 5.0

#: The log's times of one session's start differ by less.
SAME_SESSION = timedelta(seconds=5)

#: A bundle that is in use twice is reported for this time.
RECENT = timedelta(days=1)

State = Literal["connected", "offline", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionState:
    """The session that a client has now, or the last one that is known."""

    state: State = "unknown"
    """`unknown` if neither the gateway nor the log says."""
    connected_since: datetime | None = None
    """Only of a client that is connected."""
    last_seen: datetime | None = None
    """The last time that the gateway or the log has of it."""
    origins: tuple[str, ...] = ()
    """Public addresses that it comes from; with two links there can be two."""
    received: int | None = None
    """Bytes from the client; None if they are not known."""
    sent: int | None = None
    """Bytes to the client."""
    alternates: tuple[str, ...] = ()
    """Two public addresses whose sessions displaced each other within the last day."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientState(EnrolledClient):
    """A client that may connect, and its session."""

    session: SessionState

    kind: str
    """`site`, `bridge` or `gateway`; of all others, what they run."""


@dataclass(frozen=True, slots=True)
class SessionSources:
    """The sessions of clients, as the gateway and the connection log report them."""

    live: tuple[ClientSession, ...] | None
    """The sessions of the gateway; None if it was not asked or did not answer."""
    events: tuple[ConnectionEvent, ...] | None
    """The connection log's events, the oldest first; None if it cannot be read."""
    is_pair: bool
    """Whether the clients are the gateways of a pair."""
    notes: tuple[str, ...] = ()
    """Why the gateway or the log could not be read, and what to do."""


def read_sources(
    account: Account, since: timedelta, find_target: Callable[[], SshTarget] | None, client: str | None = None
) -> SessionSources:
    """Return what the gateway and the connection log say of a client's sessions, or of all clients'.

    `since` is how far the log is read back. Without `find_target`, which says how to log in, the gateway is not asked.
    Where the log or the gateway cannot be read, a note says why. Raises `CredentialsError`.
    """
    live, events, notes = None, None, list[str]()
    is_pair = gateway_status.is_pair(account)
    try:
        events = tuple(connection_log.read_events(account, since, client))
    except errors.CredentialsError:
        raise
    except errors.AwsError as error:
        notes.append(_describe("the connection log is not read", error))
    # The status files of a pair's links name no client.
    if find_target is not None and not is_pair:
        try:
            target = find_target()
            quick = replace(target, dial=lambda host, port, limit: target.dial(host, port, min(limit, LOGIN_TIMEOUT)))
            live = gateway_status.read_sessions(account, quick)
        except errors.CredentialsError:
            raise
        except (errors.AwsError, errors.GatewayError) as error:
            notes.append(_describe("the gateway is not asked, so the connection log has to do", error))
    return SessionSources(live, events, is_pair, tuple(notes))


def _describe(consequence: str, error: errors.DrawbridgeError) -> str:
    return "; ".join(filter(None, (f"{consequence}: {error}", error.remedy)))


def list_client_states(account: Account, sources: SessionSources) -> list[ClientState]:
    """Return every client that may connect with its session, by name, of every gateway of the stack.

    Raises as `bundles.list_clients`, and `StackError` for a stack file that is wrong.
    """
    return describe_clients(account, list_clients(account), sources)


def describe_clients(account: Account, clients: Iterable[EnrolledClient], sources: SessionSources) -> list[ClientState]:
    """Return clients with their sessions; raises `StackError` for a stack file that is wrong."""
    configured = configured_clients(account.stack)
    now = datetime.now(UTC)
    states = []
    for client in clients:
        gateway = "/".join((account.stack, *([client.gateway] if client.gateway != contract.GATEWAYS[0] else [])))
        session = describe_session(client.name, gateway, sources, now)
        # The one that the gateway has given it counts.
        addresses = [live.address for live in sources.live or () if live.client == client.name]
        fields = {**asdict(client), "address": next(filter(None, addresses), client.address)}
        kind = _kind_of(client, configured.get(client.name, {}), sources)
        states.append(ClientState(**fields, session=session, kind=kind))
    return states


def _kind_of(client: EnrolledClient, entry: Mapping[str, object], sources: SessionSources) -> str:
    """Return what a client is; `entry` is its own in the stack file."""
    if sources.is_pair:
        return "gateway"
    if entry.get("bridge") is not None:
        return "bridge"
    return "site" if entry.get("lan") else client.system


def describe_session(client: str, gateway: str, sources: SessionSources, now: datetime) -> SessionState:
    """Return the session of a client with a gateway, as the log names it (`prod`, or `prod/b`)."""
    events = [event for event in sources.events or () if (event.client, event.gateway) == (client, gateway)]
    state = _read_events(events)
    state = replace(
        state,
        alternates=connection_log.find_alternation(event for event in events if now - event.time <= RECENT),
    )
    if sources.live is None:
        return state
    sessions = [session for session in sources.live if session.client == client]
    if not sessions:
        # The session that the log has as open has ended since, or with a gateway that could not say so.
        return replace(state, state="offline", connected_since=None)
    return replace(
        state,
        state="connected",
        connected_since=min(session.since for session in sessions),
        last_seen=now,
        origins=tuple(dict.fromkeys(_host_of(session.real) for session in sessions)),
        received=sum(session.received for session in sessions),
        sent=sum(session.sent for session in sessions),
    )


def _read_events(events: Iterable[ConnectionEvent]) -> SessionState:
    """Return the session that one client's events show, the oldest of which comes first."""
    # Each process has one session of a client.
    opened: dict[str, ConnectionEvent] = {}
    last: ConnectionEvent | None = None
    for event in events:
        if event.event == "connected":
            opened[event.process] = last = event
        elif event.event in ("disconnected", "displaced"):
            former = opened.get(event.process)
            # The end of a former session may come after the next one's start, and an address may have changed.
            if former and (event.since is None or former.time <= event.since + SAME_SESSION):
                del opened[event.process]
            last = event
    if last is None:
        return SessionState()
    if opened:
        return SessionState(
            state="connected",
            connected_since=min(event.time for event in opened.values()),
            last_seen=last.time,
            origins=tuple(dict.fromkeys(event.address for event in opened.values())),
        )
    return SessionState(
        state="offline", last_seen=last.time, origins=(last.address,), received=last.received, sent=last.sent
    )


def _host_of(real: str) -> str:
    """Return the address of OpenVPN's address and port.

    >>> _host_of("203.0.113.7:40001"), _host_of("[::ffff:203.0.113.7]:40001")
    ('203.0.113.7', '203.0.113.7')
    """
    return real.rpartition(":")[0].strip("[]").removeprefix("::ffff:") or real
