#!/usr/bin/env python3
"""Writes the gateway's connection log: who connected from where, how long, how many bytes, who was refused and why.

Every ten seconds it reads OpenVPN's journal, and the bytes of each session in the status files that OpenVPN writes as
often; OpenVPN does nothing for it. Events wait in the state directory and go to CloudWatch Logs at most once a
minute. A child process sends them, so that boto3 takes memory (50 MB) for a moment only. The journal's cursor, the open
sessions and the waiting events are one file, which is replaced as a whole: after a crash an event may be sent twice,
with the same `id`, and none is lost. Beside the clients' events there are lines of the journal that say why a gateway
fails: the agent's, systemd's warnings about our units, and errors of OpenVPN itself, of which an hour has a limited
number of bytes. Nothing in an event is secret. Only Python's standard library, and boto3 in the child.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ENVIRONMENT = Path("/etc/drawbridge/env")
#: `on` or `off`, of this script's release.
SWITCH = Path(__file__).with_name("connection-log")
#: Exists where OpenVPN's processes share a port: a client has one session with all of them.
SHARING = Path(__file__).with_name("client-routes.json")
#: Leads to the release that runs now.
CURRENT = Path("/opt/drawbridge/current")
INSTANCE_ID = Path("/var/lib/cloud/data/instance-id")
RUNTIME = Path("/run")
#: A file for each revoked serial, with the client's name.
REVOKED = Path("/etc/openvpn/server/revoked")

#: Seconds between two looks at the status files, and the least between two requests to CloudWatch Logs.
TICK, SEND_INTERVAL, MAX_SEND_INTERVAL = 10.0, 60.0, 900.0
#: Seconds in which further events join the first one's request.
SEND_DELAY = 5.0
#: Seconds for the child that sends; an instance without CPU credits takes 20 times as long to load boto3.
SEND_TIMEOUT = 240
#: Seconds after which the state is saved without an event, so that a crash costs no more of the bytes.
SAVE_INTERVAL = 300.0
#: Events that wait while CloudWatch Logs cannot be reached; the oldest ones are dropped and counted.
MAX_WAITING = 2000
#: Seconds in which equal refusals of one address are one event, and how many different ones are kept.
REFUSAL_WINDOW, MAX_REFUSALS = 600.0, 256
#: Handshakes and ended sessions that are remembered.
MAX_REMEMBERED = 1000
#: Characters of a text that a client chose, and of a line of the journal.
MAX_TEXT, MAX_LINE = 128, 1000
#: Seconds, and the bytes of lines of the journal that are sent in that time.
LINES_PERIOD, LINES_BYTES = 3600, 32 << 10

#: Events and bytes of a request (AWS takes 10,000 and 1 MiB), and bytes that AWS adds to each event.
BATCH_EVENTS, BATCH_BYTES, EVENT_BYTES = 1000, 900_000, 26
#: Milliseconds: AWS takes events from 14 days ago to in 2 hours, and at most 24 hours in one request.
MAX_AGE, MAX_AHEAD, MAX_SPAN = 13 * 86_400_000, 3_600_000, 23 * 3_600_000

SERVERS, LINKS = "openvpn-server@", "drawbridge-link@"
AGENT, OWN_UNITS = "drawbridge-agent", "drawbridge-"

_PEER = r"(?:\[AF_INET6?\])?\[?(?:::ffff:)?(?P<address>[0-9A-Fa-f.:]+?)\]?:(?P<port>\d{1,5})"
_PREFIX = re.compile(rf"(?:(?P<name>[A-Za-z0-9._-]{{1,64}})/)?{_PEER} (?P<text>.*)", re.DOTALL)
_INITIATED = re.compile(rf"\[(?P<name>[A-Za-z0-9._-]{{1,64}})\] Peer Connection Initiated with {_PEER}")
_ESTABLISHED = re.compile(r"SENT CONTROL \[(?P<name>[A-Za-z0-9._-]{1,64})\]: 'PUSH_REPLY")
_DISPLACES = re.compile(r"MULTI: new connection by client '(?P<name>[^']+)' will cause previous active sessions")
_ENDED = re.compile(r"SIG[A-Z0-9]+\[\w+,(?P<why>[^\]]*)\] received, client-instance (?:exiting|restarting)")
_STOPPED = re.compile(r"SIG[A-Z0-9]+\[\w+,[^\]]*\] received, process (?:exiting|restarting)")
_HALTED = re.compile(r"SENT CONTROL \[[^\]]*\]: 'HALT")
_FLOATED = re.compile(rf"peer \d+ \([^)]*\) floated from (?P<before>\S+) to {_PEER}")
_UNKNOWN_KEY = re.compile(rf"TLS Error: can not extract tls-crypt-v2 client key from {_PEER}")
_REVOKED_SERIAL = re.compile(r"revoked serial (?P<serial>\d+)")
#: What OpenVPN says of itself. Lines with an address or of tls-crypt are about packets, of which a stranger sends as
#: many as they like.
_OWN_ERROR = re.compile(r"(?!Note:|.*(?:\[AF_INET|tls.crypt)).*(?:error|fail|cannot|fatal|exiting)", re.IGNORECASE)
_COMMON_NAME = re.compile(r"(?:^|, )CN=([^,]+)")

#: Words for OpenVPN's own of why a session ended.
END_REASONS = {
    "remote-exit": "exit",
    "delayed-exit": "exit",
    "ping-restart": "timeout",
    "ping-exit": "timeout",
    "connection-reset": "connection reset",
    "tls-error": "TLS error",
}

#: OpenVPN's lines of a refusal, behind the client's address; why it was refused; and whether OpenVPN had verified the
#: certificate's signature before, so that its name is the client's. Other names are what a stranger claims.
KEY_REFUSAL = re.compile(r"TLS CRYPT V2 VERIFY SCRIPT ERROR")
REFUSALS = (
    (re.compile(r"VERIFY CRL: depth=0, (?P<subject>.*), serial=\d+ is revoked"), "revoked", True),
    # The key's metadata, which the gateway itself has encrypted, holds the serial.
    (KEY_REFUSAL, "revoked", True),
    (re.compile(r"VERIFY ERROR: depth=0, error=certificate has expired: (?P<subject>.*)"), "expired", True),
    (
        re.compile(
            r"VERIFY ERROR: depth=\d+, error=(?:unable to get (?:local )?issuer certificate"
            r"|self[- ]signed certificate[^:]*|certificate signature failure): (?P<subject>.*?)(?:, serial=\d+)?$"
        ),
        "unknown authority",
        False,
    ),
    (
        re.compile(r"VERIFY ERROR: depth=\d+, error=[^:]*(?:: (?P<subject>.*?)(?:, serial=\d+)?$)?"),
        "invalid certificate",
        False,
    ),
    (re.compile(r"VERIFY SCRIPT ERROR: depth=0, (?P<subject>.*)"), "suspended", True),
    (
        re.compile(r"TLS Auth Error: --client-config-dir authentication failed for common name '(?P<subject>[^']*)'"),
        "not a client",
        True,
    ),
    (re.compile(r"MULTI: new incoming connection would exceed maximum number of clients"), "max-clients", False),
    (re.compile(r"MULTI: no (?:free --ifconfig-pool|dynamic or static remote)"), "no free address", False),
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time by the wall clock (seconds since 1970), and by the clock of one boot, which never jumps."""

    time: float
    monotonic: float = 0.0
    boot: str = ""

    def seconds_since(self, start: "Moment") -> float:
        """Return the seconds from `start` to this moment; never negative."""
        if self.boot and self.boot == start.boot:
            return max(0.0, self.monotonic - start.monotonic)
        return max(0.0, self.time - start.time)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal of OpenVPN, of the agent, or of systemd about a unit."""

    unit: str
    pid: str
    """OpenVPN's process; empty for a line of a script that it runs."""
    moment: Moment
    cursor: str
    message: str
    is_own: bool = False
    """Whether it is the agent's, or systemd's about a unit."""


@dataclass(slots=True)
class Session:
    """A connected client."""

    unit: str
    client: str
    address: str
    port: int
    start: Moment
    received: int = 0
    """Bytes from the client, of the last status file that has it."""
    sent: int = 0
    missing: int = 0
    """Status files in a row that do not have it."""
    ending: str = ""
    """Why it is about to end, if OpenVPN has said so."""


@dataclass(slots=True)
class Repeats:
    """Equal refusals since the event about the first one."""

    event: dict[str, Any]
    start: float
    count: int = 0


@dataclass(frozen=True, slots=True)
class StatusRow:
    """A client in a status file."""

    client: str
    address: str
    port: int
    received: int
    sent: int
    since: int


def show_time(seconds: float) -> str:
    """Return seconds since 1970 in ISO 8601, UTC.

    >>> show_time(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def escape(text: str, length: int = MAX_TEXT) -> str:
    r"""Return a foreign text with each character that is not printable ASCII escaped, and not too long.

    >>> print(escape("CN=a\x1b[2J\u202e"))
    CN=a\x1b[2J\u202e
    """
    shown = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text[:length])
    return shown[:length]


def read_entry(line: bytes) -> Entry | None:
    """Return the entry that a line of `journalctl --output=json` holds, or None if no event comes of it."""
    try:
        fields = json.loads(line)
        message = fields.get("MESSAGE") or ""
        if isinstance(message, list):
            # A text that is not UTF-8, or has control characters.
            message = bytes(message).decode(errors="replace")
        is_systemd = str(fields.get("_PID", "")) == "1"
        unit = str(fields.get("UNIT" if is_systemd else "_SYSTEMD_UNIT", "")).removesuffix(".service")
        moment = Moment(
            int(fields["__REALTIME_TIMESTAMP"]) / 1e6,
            int(fields["__MONOTONIC_TIMESTAMP"]) / 1e6,
            str(fields.get("_BOOT_ID", "")),
        )
        cursor = str(fields["__CURSOR"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if unit == AGENT or (is_systemd and unit.startswith((SERVERS, OWN_UNITS))):
        return Entry(unit, "", moment, cursor, str(message), is_own=True)
    if not unit.startswith((SERVERS, LINKS)):
        return None
    pid = str(fields.get("_PID", "")) if fields.get("_COMM") == "openvpn" else ""
    return Entry(unit, pid, moment, cursor, str(message))


def read_revoked_name(serial: str) -> str:
    """Return the client whose certificate had a serial that is revoked; empty if that is not known."""
    try:
        return (REVOKED / serial).read_text().partition("\n")[0]
    except (OSError, ValueError):
        return ""


def read_status(text: str) -> tuple[str, list[StatusRow]]:
    """Return when a status file of version 3 says that it was written, and its clients.

    Source: openvpn(8), `--status-version`.
    """
    written, columns, rows = "", list[str](), []
    for line in text.splitlines():
        kind, *fields = line.split("\t")
        if kind == "TIME":
            written = fields[-1]
        elif kind == "HEADER" and fields[:1] == ["CLIENT_LIST"]:
            columns = fields[1:]
        elif kind == "CLIENT_LIST":
            row = dict(zip(columns, fields, strict=False))
            peer = re.fullmatch(_PEER, row.get("Real Address", ""))
            if peer is None or row["Common Name"] == "UNDEF":
                continue
            with contextlib.suppress(KeyError, ValueError):
                rows.append(
                    StatusRow(
                        client=row["Common Name"],
                        address=peer["address"],
                        port=int(peer["port"]),
                        received=int(row["Bytes Received"]),
                        sent=int(row["Bytes Sent"]),
                        since=int(row["Connected Since (time_t)"]),
                    )
                )
    return written, rows


def read_link_status(text: str) -> tuple[int, int] | None:
    """Return the bytes that a pair's link has received and sent, from a status file of a process with one peer.

    >>> read_link_status("OpenVPN STATISTICS\\nTCP/UDP read bytes,12\\nTCP/UDP write bytes,34\\nEND\\n")
    (12, 34)
    """
    counts = dict(re.findall(r"^TCP/UDP (read|write) bytes,(\d+)$", text, re.MULTILINE))
    return (int(counts["read"]), int(counts["write"])) if len(counts) == 2 else None


def _remember(memory: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at the end of a dictionary of limited size."""
    memory.pop(key, None)
    memory[key] = value
    while len(memory) > MAX_REMEMBERED:
        del memory[next(iter(memory))]


@dataclass
class ConnectionLog:
    """Derives events from OpenVPN's journal and status files, and keeps those that wait to be sent."""

    gateway: str
    cursor: str = ""
    pids: dict[str, str] = field(default_factory=dict)
    """Process of each unit."""
    sessions: dict[str, Session] = field(default_factory=dict)
    """Connected clients, by unit, address and port."""
    handshakes: dict[str, tuple[str, Moment]] = field(default_factory=dict)
    """Clients whose keys are accepted, and who are not connected yet."""
    refused: dict[str, float] = field(default_factory=dict)
    """When an address and port was refused."""
    ended: dict[str, float] = field(default_factory=dict)
    """When the last session that has ended of an address and port had begun: a status file may still have it."""
    repeats: dict[str, Repeats] = field(default_factory=dict)
    revoked: dict[str, str] = field(default_factory=dict)
    """Client whose revoked key each unit refuses now."""
    written: dict[str, str] = field(default_factory=dict)
    """When each unit's last status file was written."""
    waiting: list[dict[str, Any]] = field(default_factory=list)
    dropped: int = 0
    lines_hour: int = 0
    """The hour, since 1970, of the last line of the journal that was added."""
    lines_bytes: int = 0
    """Bytes of that hour's lines."""
    shares: bool = False
    """Whether the processes share a port."""

    def handle(self, entry: Entry) -> None:
        """Take one line of the journal into account."""
        self.cursor = entry.cursor
        if entry.is_own:
            self._add_line(entry)
            return
        if not entry.pid:
            # OpenVPN waits for the script, so its own line about the refusal is the next one that matters.
            if revoked := _REVOKED_SERIAL.fullmatch(entry.message):
                self.revoked[entry.unit] = read_revoked_name(revoked["serial"])
            return
        if self.pids.setdefault(entry.unit, entry.pid) != entry.pid:
            self._end_unit(entry.unit, entry.moment, "gateway restarted")
            self.pids[entry.unit] = entry.pid
        prefix = _PREFIX.match(entry.message)
        text = prefix["text"] if prefix else entry.message
        if initiated := _INITIATED.match(text):
            self._handle_handshake(entry, initiated)
        elif displaces := _DISPLACES.match(text):
            self._handle_displacement(entry, displaces["name"])
        elif floated := _FLOATED.match(text):
            self._handle_float(entry, floated)
        elif _STOPPED.match(text):
            self._end_unit(entry.unit, entry.moment, "gateway stopped")
        elif unknown := _UNKNOWN_KEY.match(entry.message):
            self._refuse(entry, unknown["address"], int(unknown["port"]), "unknown key")
        elif prefix:
            self._handle_client_line(entry, prefix, text)
        elif established := _ESTABLISHED.match(text):
            # Behind the line about a displaced session, OpenVPN leaves the client's name and address out.
            self._connect_last(entry.unit, established["name"])
        elif _OWN_ERROR.match(text):
            self._add_line(entry)

    def _key(self, unit: str, address: str, port: int | str) -> str:
        return f"{unit} {address} {port}"

    def _handle_handshake(self, entry: Entry, initiated: re.Match[str]) -> None:
        name, address, port = initiated["name"], initiated["address"], initiated["port"]
        key = self._key(entry.unit, address, port)
        if self.refused.pop(key, None) is not None:
            return
        if entry.unit.startswith(LINKS):
            # A process with one peer: this is the start of the session.
            self._end_unit(entry.unit, entry.moment, "reconnected")
            self.handshakes[key] = (name, entry.moment)
            self._connect(entry.unit, key)
            return
        _remember(self.handshakes, key, (name, entry.moment))

    def _handle_client_line(self, entry: Entry, prefix: re.Match[str], text: str) -> None:
        address, port = prefix["address"], int(prefix["port"])
        key = self._key(entry.unit, address, port)
        if prefix["name"] and key in self.handshakes:
            self._connect(entry.unit, key)
        if ended := _ENDED.match(text):
            self.handshakes.pop(key, None)
            self.refused.pop(key, None)
            if session := self.sessions.get(key):
                why = ended["why"]
                self._end(key, entry.moment, session.ending or END_REASONS.get(why, escape(why) or "unknown"))
        elif _HALTED.match(text):
            if session := self.sessions.get(key):
                session.ending = "ended by the gateway"
        else:
            for pattern, reason, verified in REFUSALS:
                if match := pattern.match(text):
                    subject = match.groupdict().get("subject") or ""
                    if pattern is KEY_REFUSAL:
                        subject = self.revoked.pop(entry.unit, "")
                    self._refuse(entry, address, port, reason, subject=subject, verified=verified)
                    break

    def _handle_displacement(self, entry: Entry, name: str) -> None:
        """End the client's former session; the new one's handshake is the last one of that name."""
        news = self._find_handshakes(entry.unit, name)
        for key, session in list(self.sessions.items()):
            if session.unit == entry.unit and session.client == name and key not in news:
                peer = news[-1].split(" ")[1:] if news else ["", "0"]
                self._end(key, entry.moment, "", by={"byAddress": peer[0], "byPort": int(peer[1])})
        self._connect_last(entry.unit, name)

    def _find_handshakes(self, unit: str, name: str) -> list[str]:
        """Return the keys of a client's handshakes with one process, the last one at the end."""
        handshakes = self.handshakes.items()
        return [key for key, (client, _) in handshakes if client == name and key.startswith(f"{unit} ")]

    def _connect_last(self, unit: str, name: str) -> None:
        for key in self._find_handshakes(unit, name)[-1:]:
            self._connect(unit, key)

    def _handle_float(self, entry: Entry, floated: re.Match[str]) -> None:
        """Follow a client whose address or port changes within its session."""
        before = re.fullmatch(_PEER, floated["before"])
        if before is None:
            return
        if session := self.sessions.pop(self._key(entry.unit, before["address"], before["port"]), None):
            session.address, session.port = floated["address"], int(floated["port"])
            self.sessions[self._key(entry.unit, session.address, session.port)] = session

    def _connect(self, unit: str, key: str) -> None:
        """Note that a handshake has become a session."""
        name, moment = self.handshakes.pop(key)
        session = self.sessions.get(key)
        if session and session.client == name:
            return
        _, address, port = key.split(" ")
        self._start(Session(unit, name, address, int(port), moment))

    def _start(self, session: Session) -> None:
        by = {"byAddress": session.address, "byPort": session.port}
        for key, former in list(self.sessions.items()):
            if self.shares and former.client == session.client and former.unit != session.unit:
                self._end(key, session.start, "", by=by)
        self.sessions[self._key(session.unit, session.address, session.port)] = session
        self._add(session.start, "connected", session)

    def _end(self, key: str, moment: Moment, reason: str, by: Mapping[str, object] | None = None) -> None:
        session = self.sessions.pop(key)
        _remember(self.ended, key, session.start.time)
        totals = {
            "since": show_time(session.start.time),
            "seconds": round(moment.seconds_since(session.start), 1),
            "received": session.received,
            "sent": session.sent,
        }
        if by is None:
            self._add(moment, "disconnected", session, **totals, reason=reason)
        else:
            self._add(moment, "displaced", session, **totals, **by)

    def _end_unit(self, unit: str, moment: Moment, reason: str) -> None:
        for key in [key for key, session in self.sessions.items() if session.unit == unit]:
            self._end(key, moment, reason)

    def _add(self, moment: Moment, event: str, session: Session, **more: object) -> None:
        self._wait(
            {
                "event": event,
                "time": show_time(moment.time),
                "gateway": self.gateway,
                "process": session.unit.partition("@")[2],
                "client": escape(session.client),
                "address": session.address,
                "port": session.port,
                **more,
            },
            # Also when the time was read from a status file, whose seconds are whole, the session is the same.
            f"{int(session.start.time)} {session.unit}",
        )

    def _add_line(self, entry: Entry) -> None:
        """Add a line of the journal, unless this hour's bytes are used up."""
        hour = int(entry.moment.time // LINES_PERIOD)
        if hour != self.lines_hour:
            self.lines_hour, self.lines_bytes = hour, 0
        event = {
            "event": "journal",
            "time": show_time(entry.moment.time),
            "gateway": self.gateway,
            "unit": entry.unit,
            "message": escape(entry.message, MAX_LINE),
        }
        size = len(json.dumps(event)) + EVENT_BYTES
        if self.lines_bytes + size > LINES_BYTES:
            self.dropped += 1
            return
        self.lines_bytes += size
        self._wait(event, entry.cursor)

    def _wait(self, event: dict[str, Any], identity: str) -> None:
        """Add an event to those that wait; its `id` is the same if it is derived again."""
        text = json.dumps([identity, {key: event[key] for key in event if key not in ("received", "sent")}])
        self.waiting.append({**event, "id": hashlib.sha256(text.encode()).hexdigest()[:16]})
        if (excess := len(self.waiting) - MAX_WAITING) > 0:
            del self.waiting[:excess]
            self.dropped += excess

    def _refuse(
        self, entry: Entry, address: str, port: int, reason: str, *, subject: str = "", verified: bool = False
    ) -> None:
        _remember(self.refused, self._key(entry.unit, address, port), entry.moment.time)
        name = _COMMON_NAME.search(subject)
        claim = {"client": escape(name[1] if name else subject)} if verified else {"claims": escape(subject)}
        event = {
            "event": "refused",
            "time": show_time(entry.moment.time),
            "gateway": self.gateway,
            "process": entry.unit.partition("@")[2],
            **(claim if subject else {}),
            "address": address,
            "port": port,
            "reason": reason,
        }
        key = json.dumps([entry.unit, address, reason, subject])
        if key in self.repeats:
            repeats = self.repeats[key]
            repeats.count += 1
            repeats.event = event
        elif len(self.repeats) < MAX_REFUSALS:
            self.repeats[key] = Repeats(event, entry.moment.time)
            self._wait({**event, "count": 1}, entry.cursor)
        else:
            self.dropped += 1

    def flush_refusals(self, now: float) -> None:
        """Add an event for the refusals that followed an equal one, once their window is over."""
        for key, repeats in list(self.repeats.items()):
            # A clock that was put back ends the window too.
            if not 0 <= now - repeats.start < REFUSAL_WINDOW:
                del self.repeats[key]
                if repeats.count:
                    since = show_time(repeats.start)
                    self._wait({**repeats.event, "count": repeats.count, "since": since}, "repeats")

    def update_bytes(self, unit: str, text: str) -> list[StatusRow]:
        """Take the bytes of connected clients from a status file and return its clients; none if it is not new."""
        if unit.startswith(LINKS):
            counts = read_link_status(text)
            for link in self.sessions.values():
                if link.unit == unit and counts:
                    link.received, link.sent = counts
            return []
        _, rows = read_status(text)
        for row in rows:
            session = self.sessions.get(self._key(unit, row.address, row.port))
            if session and session.client == row.client:
                session.received, session.sent = row.received, row.sent
        return rows

    def compare_status(self, unit: str, text: str, now: Moment) -> None:
        """Add sessions that a status file has and the journal has not shown; end those that it no longer has."""
        rows = self.update_bytes(unit, text)
        if unit.startswith(LINKS) or read_status(text)[0] == self.written.get(unit):
            return
        self.written[unit] = read_status(text)[0]
        keys = {self._key(unit, row.address, row.port): row for row in rows}
        for key, row in keys.items():
            # The journal and the status file may differ by a second in when a session began.
            has_ended = row.since <= self.ended.get(key, -2.0) + 1
            if key not in self.sessions and not has_ended and key not in self.handshakes:
                start = Moment(float(row.since))
                self._start(Session(unit, row.client, row.address, row.port, start, row.received, row.sent))
        for key, session in list(self.sessions.items()):
            if session.unit == unit:
                session.missing = 0 if key in keys else session.missing + 1
                # The first status file may be older than the session.
                if session.missing > 1:
                    self._end(key, now, session.ending or "unknown")

    def note_dropped(self, now: float) -> None:
        """Add an event that says how many events were dropped, if any were."""
        if self.dropped:
            event = {"event": "dropped", "time": show_time(now), "gateway": self.gateway, "count": self.dropped}
            self.dropped = 0
            self._wait(event, "dropped")

    def dump(self) -> dict[str, Any]:
        """Return the state that a restart needs, ready for JSON."""
        return {
            "cursor": self.cursor,
            "pids": self.pids,
            "sessions": [asdict(session) for session in self.sessions.values()],
            "ended": self.ended,
            "waiting": self.waiting,
            "dropped": self.dropped,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `dump` has returned; raises KeyError, TypeError or ValueError for anything else."""
        sessions = [Session(**{**entry, "start": Moment(**entry["start"])}) for entry in state["sessions"]]
        self.sessions = {self._key(session.unit, session.address, session.port): session for session in sessions}
        self.cursor, self.pids, self.ended = str(state["cursor"]), dict(state["pids"]), dict(state["ended"])
        self.waiting, self.dropped = list(state["waiting"]), int(state["dropped"])


def read_journal(cursor: str) -> Iterator[Entry]:
    """Yield lines behind a cursor, or of the last minutes without one or if journalctl does not take it."""
    where = f"--after-cursor={cursor}" if cursor else "--since=-5min"
    command = ["journalctl", "--quiet", "--no-pager", "--output=json", where]
    command += ["--output-fields=MESSAGE,_PID,_COMM,_SYSTEMD_UNIT,UNIT", "_COMM=openvpn", "_COMM=sh"]
    command += ["+", f"_SYSTEMD_UNIT={AGENT}.service"]
    # systemd's own lines from warnings on.
    command += ["+", "_PID=1", *(f"PRIORITY={priority}" for priority in range(5))]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield from filter(None, map(read_entry, process.stdout))
    if process.returncode and cursor:
        yield from read_journal("")


def save(path: Path, log: ConnectionLog) -> None:
    """Replace the state file."""
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.write_text(json.dumps(log.dump(), separators=(",", ":")))
        temporary.replace(path)
    except OSError as error:
        print(f"the state could not be written: {error}", file=sys.stderr)


def start_log(path: Path, gateway: str) -> ConnectionLog:
    """Return the log as the state file has it, or an empty one."""
    log = ConnectionLog(gateway, shares=SHARING.exists())
    try:
        log.load(json.loads(path.read_text()))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"the state could not be read, and starts anew: {error!r}", file=sys.stderr)
        return ConnectionLog(gateway, shares=SHARING.exists())
    return log


def find_status_files(log: ConnectionLog) -> Iterator[tuple[str, str]]:
    """Yield unit and text of each status file."""
    for path in sorted(RUNTIME.glob("openvpn-*/status")):
        instance = path.parent.name.removeprefix("openvpn-")
        links = [unit for unit in log.pids if unit == f"{LINKS}{instance}"]
        with contextlib.suppress(OSError, ValueError):
            yield (links[0] if links else f"{SERVERS}{instance}"), path.read_text()


class Delivery:
    """Decides when waiting events are sent: soon after the first one, not more often than once a minute."""

    def __init__(self) -> None:
        self._next, self._interval, self._first = 0.0, SEND_INTERVAL, 0.0

    def is_due(self, log: ConnectionLog, now: float) -> bool:
        """Return whether events are to be sent; `now` is a time that never jumps."""
        if not log.waiting and not log.dropped:
            self._first = 0.0
            return False
        self._first = self._first or now
        return now >= max(self._next, self._first + SEND_DELAY)

    def finish(self, succeeded: bool, now: float) -> None:
        """Plan the next request: after a failure with growing pauses."""
        self._next = now + (SEND_INTERVAL if succeeded else self._interval)
        self._interval = SEND_INTERVAL if succeeded else min(2 * self._interval, MAX_SEND_INTERVAL)
        self._first = 0.0


def send_waiting(log: ConnectionLog, region: str, group: str, stream: str) -> bool:
    """Have a child send the waiting events, and forget those that CloudWatch Logs has; return whether it has all."""
    log.note_dropped(time.time())
    request = json.dumps({"region": region, "group": group, "stream": stream, "events": log.waiting})
    command = [sys.executable, "-I", __file__, "send"]
    try:
        result = subprocess.run(
            command, input=request, stdout=subprocess.PIPE, text=True, timeout=SEND_TIMEOUT, check=False
        )
        answer = json.loads(result.stdout)
        sent, rejected = set(answer["sent"]), int(answer["rejected"])
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        print(f"the events could not be sent: {error!r}", file=sys.stderr)
        return False
    log.waiting = [event for event in log.waiting if event["id"] not in sent]
    log.dropped += rejected
    return result.returncode == 0


def split_batches(events: Sequence[Mapping[str, Any]], now: float) -> Iterator[list[tuple[int, Mapping[str, Any]]]]:
    """Yield events with their times for CloudWatch Logs in milliseconds, in the order and the portions that it takes.

    An event whose own time it would refuse, because a clock was wrong or the event has waited for long, is of now.
    Source: Amazon CloudWatch Logs API Reference, "PutLogEvents".
    """
    now_ms = int(now * 1000)

    def ingestion_time(event: Mapping[str, Any]) -> int:
        moment = int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
        return moment if now_ms - MAX_AGE <= moment <= now_ms + MAX_AHEAD else now_ms

    batch: list[tuple[int, Mapping[str, Any]]] = []
    size = 0
    for moment, event in sorted(((ingestion_time(event), event) for event in events), key=lambda pair: pair[0]):
        length = len(json.dumps(event)) + EVENT_BYTES
        is_full = len(batch) == BATCH_EVENTS or size + length > BATCH_BYTES
        if batch and (is_full or moment - batch[0][0] > MAX_SPAN):
            yield batch
            batch, size = [], 0
        batch.append((moment, event))
        size += length
    if batch:
        yield batch


def count_rejected(info: Mapping[str, int], events: int) -> int:
    """Return how many events of a batch CloudWatch Logs did not take, by `rejectedLogEventsInfo`."""
    too_old = max(info.get("tooOldLogEventEndIndex", 0), info.get("expiredLogEventEndIndex", 0))
    return min(events, too_old + (events - info.get("tooNewLogEventStartIndex", events)))


def send(request: Mapping[str, Any]) -> tuple[list[str], int, str]:
    """Send events; return the ids of those that CloudWatch Logs has received, how many it rejected, and the error."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    sent: list[str] = []
    rejected = 0
    place = {"logGroupName": request["group"], "logStreamName": request["stream"]}
    try:
        config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})
        logs = boto3.client("logs", region_name=request["region"], config=config)
        for batch in split_batches(request["events"], time.time()):
            messages = [{"timestamp": moment, "message": json.dumps(event)} for moment, event in batch]
            try:
                answer = logs.put_log_events(**place, logEvents=messages)
            except logs.exceptions.ResourceNotFoundException:
                # Each instance has a stream of its own.
                with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
                    logs.create_log_stream(**place)
                answer = logs.put_log_events(**place, logEvents=messages)
            rejected += count_rejected(answer.get("rejectedLogEventsInfo") or {}, len(batch))
            sent += [event["id"] for _, event in batch]
    except (BotoCoreError, ClientError) as error:
        return sent, rejected, str(error)
    return sent, rejected, ""


def run_sender() -> int:
    """Send the events on standard input, write which were sent to standard output, and return the exit status."""
    sent, rejected, error = send(json.load(sys.stdin))
    print(json.dumps({"sent": sent, "rejected": rejected}))
    if error:
        print(f"the events could not be sent to CloudWatch Logs: {error}", file=sys.stderr)
    return 1 if error else 0


def read_moment() -> Moment:
    """Return now; the boot's clock is the one of the journal."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    return Moment(time.time(), time.clock_gettime(time.CLOCK_MONOTONIC), boot)


def follow(log: ConnectionLog, state: Path, region: str, group: str, stream: str) -> None:
    """Write the log until the gateway runs another release."""
    delivery, release, next_save = Delivery(), CURRENT.resolve(), time.monotonic() + SAVE_INTERVAL
    try:
        while CURRENT.resolve() == release:
            waiting, statuses = len(log.waiting), list(find_status_files(log))
            for unit, text in statuses:
                # Before the lines that may end a session.
                log.update_bytes(unit, text)
            for entry in read_journal(log.cursor):
                log.handle(entry)
            now = read_moment()
            for unit, text in statuses:
                log.compare_status(unit, text, now)
            log.flush_refusals(now.time)
            if len(log.waiting) != waiting or now.monotonic >= next_save:
                save(state, log)
                next_save = now.monotonic + SAVE_INTERVAL
            if delivery.is_due(log, now.monotonic):
                delivery.finish(send_waiting(log, region, group, stream), time.monotonic())
                save(state, log)
            time.sleep(TICK)
    finally:
        save(state, log)


def main() -> int:
    """Write the log, or send its events, and return the exit status."""
    if sys.argv[1:] == ["send"]:
        return run_sender()
    state = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/drawbridge-connections")) / "state.json"
    if SWITCH.read_text().strip() != "on":
        # What was not sent is personal data too.
        state.unlink(missing_ok=True)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lines = (line.partition("=") for line in ENVIRONMENT.read_text().splitlines())
    env = {key: value for key, _, value in lines}
    log = start_log(state, env["STACK"])
    follow(log, state, env["REGION"], f"/drawbridge/{env['STACK']}/connections", INSTANCE_ID.read_text().strip())
    script = str(CURRENT / "connections.py")
    os.execv(sys.executable, [sys.executable, "-I", script])


if __name__ == "__main__":
    sys.exit(main())
