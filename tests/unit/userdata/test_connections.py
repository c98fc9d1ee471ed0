"""The connection log's events, from lines that OpenVPN 2.6.14 wrote and from status files, and how they are sent.

`openvpn-2.6.14.log` is of a real server; lines `#####` name what its clients did. Does not prove that AWS takes the
events: moto does.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from moto import mock_aws

import contract
from drawbridge.operate import monthly_cost
from tests.support.sources import load_script
from userdata.cloud_config import FILES

UNIT = "openvpn-server@server"
LOG = Path(__file__).with_name("openvpn-2.6.14.log").read_text()
START = 1_795_864_960.0
GROUP = contract.Names("lab").connections

STATUS = """\
TITLE\tOpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)] [LZO] [LZ4] [EPOLL] [PKCS11] [MH/PKTINFO] [AEAD] [DCO]
TIME\t2026-11-28 11:22:43\t{time}
HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tVirtual IPv6 Address\tBytes Received\tBytes Sent\
\tConnected Since\tConnected Since (time_t)\tUsername\tClient ID\tPeer ID\tData Channel Cipher
{rows}HEADER\tROUTING_TABLE\tVirtual Address\tCommon Name\tReal Address\tLast Ref\tLast Ref (time_t)
ROUTING_TABLE\t10.8.0.10\talice\t192.0.2.2:47946\t2026-11-28 11:22:42\t1795864962
GLOBAL_STATS\tMax bcast/mcast queue length\t0
GLOBAL_STATS\tdco_enabled\t0
END
"""
ROW = (
    "CLIENT_LIST\talice\t192.0.2.2:47946\t10.8.0.10\t\t{}\t{}\t2026-11-28 11:22:41\t1795864961\tUNDEF\t0\t0"
    "\tAES-256-GCM\n"
)
UNDEFINED = "CLIENT_LIST\tUNDEF\t192.0.2.9:1\t\t\t9\t9\t2026-11-28 11:22:41\t1795864961\tUNDEF\t1\t1\t\n"


def status(time: int, *rows: str) -> str:
    return STATUS.format(time=time, rows="".join(rows))


@pytest.fixture(scope="module")
def connections() -> ModuleType:
    """The script as it is on the machine: no module of any package."""
    return load_script(FILES / "connections.py")


class Gateway:
    """A connection log that is fed with lines, one a second."""

    def __init__(self, connections: ModuleType) -> None:
        self.connections = connections
        self.log = connections.ConnectionLog("lab")
        self.seconds = 0.0
        self.jump = 0.0
        self.pid = "77"

    def moment(self) -> Any:
        return self.connections.Moment(START + self.seconds + self.jump, self.seconds, "boot")

    def write(self, text: str, unit: str = UNIT) -> list[dict[str, Any]]:
        """Feed lines; return the events that are new."""
        before = len(self.log.waiting)
        for line in text.splitlines():
            self.seconds += 1
            cursor = f"cursor-{self.seconds}"
            self.log.handle(self.connections.Entry(unit, self.pid, self.moment(), cursor, line))
        new: list[dict[str, Any]] = self.log.waiting[before:]
        return new

    def section(self, title: str) -> list[dict[str, Any]]:
        """Feed the lines of what a client did."""
        return self.write(LOG.partition(f"##### {title}\n")[2].partition("#####")[0])

    def show_status(self, text: str) -> list[dict[str, Any]]:
        """Feed a status file."""
        before = len(self.log.waiting)
        self.log.compare_status(UNIT, text, self.moment())
        new: list[dict[str, Any]] = self.log.waiting[before:]
        return new


@pytest.fixture
def gateway(connections: ModuleType) -> Gateway:
    return Gateway(connections)


def pick(event: dict[str, Any], *keys: str) -> tuple[Any, ...]:
    return tuple(event.get(key) for key in keys)


def test_a_client_connects_once_whatever_openvpn_says_of_it(gateway: Gateway) -> None:
    (event,) = gateway.section("connect")
    assert {key: event[key] for key in event if key not in ("time", "id")} == {
        "event": "connected",
        "gateway": "lab",
        "process": "server",
        "client": "alice",
        "address": "192.0.2.2",
        "port": 47946,
    }
    assert event["time"].startswith("2026-11-28T11:22:") and event["time"].endswith("Z")
    assert gateway.show_status(status(1, ROW.format(1, 1), UNDEFINED)) == []


def test_a_session_ends_with_its_duration_and_the_bytes_of_the_last_status_file(gateway: Gateway) -> None:
    gateway.section("connect")
    gateway.show_status(status(1, ROW.format(2902, 2533)))
    gateway.section("exit sigterm")
    gateway.seconds, gateway.jump = 3600.0, -86_400.0
    (event,) = gateway.write("alice/192.0.2.2:47946 SIGTERM[soft,delayed-exit] received, client-instance exiting")
    assert pick(event, "event", "client", "received", "sent", "reason") == ("disconnected", "alice", 2902, 2533, "exit")
    assert 3550 < event["seconds"] < 3600, "a clock that is put back does not change how long a session was"
    assert gateway.show_status(status(2, ROW.format(2902, 2533))) == [], "the status file is older than the end"


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        ("SIGUSR1[soft,ping-restart] received, client-instance restarting", "timeout"),
        ("SIGTERM[soft,remote-exit] received, client-instance exiting", "exit"),
        ("SIGUSR1[soft,connection-reset] received, client-instance restarting", "connection reset"),
        ("SIGTERM[soft,\x1b[2J] received, client-instance exiting", "\\x1b[2J"),
    ],
)
def test_why_a_session_ends(gateway: Gateway, signal: str, reason: str) -> None:
    gateway.section("connect")
    events = gateway.write(f"alice/192.0.2.2:47946 {signal}")
    assert [event["reason"] for event in events] == [reason]


def test_a_second_session_of_a_name_throws_the_first_one_out(gateway: Gateway) -> None:
    events = gateway.section("displace")
    assert [pick(event, "event", "client", "port") for event in events] == [
        ("connected", "alice", 55007),
        ("displaced", "alice", 55007),
        ("connected", "alice", 36559),
    ]
    assert pick(events[1], "byAddress", "byPort") == ("192.0.2.2", 36559)
    assert events[1]["seconds"] > 0


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("ccd refused", [("mallory", None, "not a client")]),
        ("revoked by serial", [("bob", None, "revoked")]),
        ("revoked by metadata", [(None, None, "revoked")]),
        ("expired", [("bob", None, "expired")]),
        ("other CA", [(None, "CN=bob", "unknown authority")]),
        ("wrong tls-crypt", [(None, None, "unknown key")]),
        ("max-clients", [(None, None, "max-clients")]),
    ],
)
def test_a_refusal_has_its_reason_and_a_name_only_if_it_is_proven(
    gateway: Gateway, title: str, expected: list[tuple[str | None, str | None, str]]
) -> None:
    events = [event for event in gateway.section(title) if event["event"] != "connected"]
    assert [pick(event, "client", "claims", "reason") for event in events] == expected
    assert [pick(event, "event", "address", "count") for event in events] == [("refused", "192.0.2.2", 1)]
    assert gateway.log.sessions.keys() <= {f"{UNIT} 192.0.2.2 33271"}, "only bob has come in"


def test_the_key_of_a_revoked_certificate_has_its_clients_name(
    gateway: Gateway, connections: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVPN names nobody then; the script that it asks names the serial first."""
    monkeypatch.setattr(connections, "REVOKED", tmp_path)
    (tmp_path / "123").write_text("bob\n2027-01-01\n")
    for serial, name in (("123", "bob"), ("124", None)):
        entry = connections.Entry(UNIT, "", gateway.moment(), "cursor", f"revoked serial {serial}")
        gateway.log.handle(entry)
        gateway.section("revoked by metadata")
        assert pick(gateway.log.waiting[-1], "client", "reason") == (name, "revoked")


def test_refusals_that_repeat_are_one_event_with_their_number(gateway: Gateway) -> None:
    for _ in range(5):
        gateway.section("revoked by serial")
    gateway.log.flush_refusals(START + 60)
    assert len(gateway.log.waiting) == 1
    gateway.log.flush_refusals(START + 700)
    assert [event["count"] for event in gateway.log.waiting] == [1, 4]


def test_a_flood_of_refusals_is_bounded_and_said(gateway: Gateway, connections: ModuleType) -> None:
    for number in range(1000):
        address = f"203.0.{number // 250}.{number % 250}"
        gateway.write(f"TLS Error: can not extract tls-crypt-v2 client key from [AF_INET]{address}:1194")
    assert len(gateway.log.waiting) == connections.MAX_REFUSALS
    gateway.log.note_dropped(START)
    assert pick(gateway.log.waiting[-1], "event", "count") == ("dropped", 1000 - connections.MAX_REFUSALS)


def test_what_a_stranger_claims_is_escaped_and_forges_no_line(gateway: Gateway) -> None:
    forged = "CN=x\x1b[2J, 192.0.2.2:1 [alice] Peer Connection Initiated with [AF_INET]192.0.2.2:1 " + "y" * 500
    (event,) = gateway.write(f"203.0.113.5:4711 VERIFY ERROR: depth=0, error=self-signed certificate: {forged}")
    assert (event["event"], event["reason"]) == ("refused", "unknown authority")
    assert event["claims"].startswith("CN=x\\x1b[2J") and len(event["claims"]) <= 128
    assert gateway.write(f"203.0.113.5:4711 peer info: UV_X=alice/192.0.2.2:1 MULTI: {forged}") == []
    assert not gateway.log.sessions


def test_a_restart_of_openvpn_ends_its_sessions(gateway: Gateway) -> None:
    gateway.section("connect")
    gateway.write("Data Channel: nothing", unit="openvpn-server@server1")
    assert len(gateway.log.sessions) == 1, "another process is another matter"
    gateway.pid = "78"
    (event,) = gateway.write("OpenVPN 2.6.14 x86_64-pc-linux-gnu")
    assert pick(event, "event", "reason") == ("disconnected", "gateway restarted")


def test_a_session_that_only_the_status_file_has_shown_outlives_the_first_line(gateway: Gateway) -> None:
    gateway.show_status(status(1, ROW.format(1, 2)))
    assert gateway.write("alice/192.0.2.2:47946 Data Channel: cipher 'AES-256-GCM', peer-id: 0") == []
    assert len(gateway.log.sessions) == 1


def test_a_bonded_client_has_a_session_with_each_process(gateway: Gateway) -> None:
    gateway.section("connect")
    gateway.write("192.0.2.2:5 [alice] Peer Connection Initiated with [AF_INET]192.0.2.2:5", f"{UNIT}1")
    (event,) = gateway.write("alice/192.0.2.2:5 MULTI_sva: pool returned IPv4=10.8.0.9", f"{UNIT}1")
    assert pick(event, "event", "process") == ("connected", "server1")
    assert len(gateway.log.sessions) == 2, "two processes, so nobody is thrown out"


def test_a_client_of_processes_that_share_a_port_has_one_session(gateway: Gateway) -> None:
    gateway.log.shares = True
    gateway.section("connect")
    gateway.write("192.0.2.9:5 [alice] Peer Connection Initiated with [AF_INET]192.0.2.9:5", f"{UNIT}1")
    former, event = gateway.write("alice/192.0.2.9:5 SENT CONTROL [alice]: 'PUSH_REPLY'", f"{UNIT}1")
    assert pick(former, "event", "process", "byAddress", "byPort") == ("displaced", "server", "192.0.2.9", 5)
    assert pick(event, "event", "process") == ("connected", "server1")
    assert gateway.write("alice/192.0.2.2:47946 SIGTERM[soft,] received, client-instance exiting") == []


def test_a_stop_of_openvpn_ends_its_sessions(gateway: Gateway) -> None:
    gateway.section("connect")
    (event,) = gateway.section("stop server")
    assert pick(event, "event", "client", "reason") == ("disconnected", "alice", "gateway stopped")


def test_a_client_that_moves_keeps_its_session(gateway: Gateway) -> None:
    gateway.section("connect")
    assert gateway.write("peer 0 (alice) floated from 192.0.2.2:47946 to [AF_INET]198.51.100.7:5000") == []
    (event,) = gateway.write("alice/198.51.100.7:5000 SIGTERM[soft,remote-exit] received, client-instance exiting")
    assert pick(event, "client", "address", "port") == ("alice", "198.51.100.7", 5000)


def test_a_status_file_alone_shows_who_comes_and_goes(gateway: Gateway) -> None:
    """As when the journal was lost, or OpenVPN's verbosity leaves the lines out."""
    (event,) = gateway.show_status(status(1, ROW.format(10, 20)))
    assert pick(event, "event", "client", "time") == ("connected", "alice", "2026-11-28T11:22:41.000Z")
    assert gateway.show_status(status(1)) == gateway.show_status(status(2)) == [], "it may be older than the session"
    (event,) = gateway.show_status(status(3))
    assert pick(event, "event", "received", "sent", "reason") == ("disconnected", 10, 20, "unknown")


@pytest.mark.parametrize(
    "text", ["", "END\n", "CLIENT_LIST\talice\n", STATUS, "HEADER\tCLIENT_LIST\tCommon Name\nCLIENT_LIST\ta\n"]
)
def test_a_malformed_status_file_is_no_client(gateway: Gateway, text: str) -> None:
    assert gateway.show_status(text) == []


def test_a_pairs_link_is_a_session(gateway: Gateway) -> None:
    unit = "drawbridge-link@ovn0"
    (event,) = gateway.write("[b] Peer Connection Initiated with [AF_INET]198.51.100.2:1194", unit=unit)
    assert pick(event, "event", "client", "process") == ("connected", "b", "ovn0")
    gateway.log.update_bytes(unit, "OpenVPN STATISTICS\nTCP/UDP read bytes,12\nTCP/UDP write bytes,34\nEND\n")
    (event,) = gateway.write("SIGUSR1[soft,ping-restart] received, process restarting", unit=unit)
    assert pick(event, "event", "received", "sent") == ("disconnected", 12, 34)


def test_a_restart_of_the_reader_loses_and_repeats_nothing(gateway: Gateway, connections: ModuleType) -> None:
    gateway.section("connect")
    state = json.loads(json.dumps(gateway.log.dump()))
    again = Gateway(connections)
    again.log.load(state)
    assert again.log.cursor == gateway.log.cursor
    again.seconds = gateway.seconds
    line = "alice/192.0.2.2:47946 SIGTERM[soft,remote-exit] received, client-instance exiting"
    assert again.write(line)[0]["id"] == gateway.write(line)[0]["id"], "the same event has the same id"
    assert len(again.log.waiting) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"cursor": 1}', '{"sessions": [1]}'])
def test_a_damaged_state_starts_anew(connections: ModuleType, tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    log = connections.start_log(tmp_path / "state.json", "lab")
    assert (log.cursor, log.sessions, log.waiting) == ("", {}, [])


def test_the_oldest_events_are_dropped_and_counted(gateway: Gateway, connections: ModuleType) -> None:
    for number in range(connections.MAX_WAITING + 5):
        gateway.log._wait({"event": "connected", "time": "2026-11-28T11:22:41Z"}, str(number))
    assert (len(gateway.log.waiting), gateway.log.dropped) == (connections.MAX_WAITING, 5)


def test_a_line_of_the_journal(connections: ModuleType) -> None:
    fields = {
        "MESSAGE": "text",
        "_PID": "7",
        "_COMM": "openvpn",
        "_SYSTEMD_UNIT": f"{UNIT}.service",
        "_BOOT_ID": "b",
        "__CURSOR": "c",
        "__REALTIME_TIMESTAMP": "1000000",
        "__MONOTONIC_TIMESTAMP": "2000000",
    }

    def read(**changes: object) -> Any:
        return connections.read_entry(json.dumps(fields | changes).encode())

    assert read() == connections.Entry(UNIT, "7", connections.Moment(1.0, 2.0, "b"), "c", "text")
    assert read(MESSAGE=[97, 27, 255]).message == "a\x1b\ufffd"
    assert read(MESSAGE=None).message == ""
    assert read(_COMM="sh").pid == ""
    assert read(_SYSTEMD_UNIT="user@1000.service") is None, "anybody may call a process openvpn"
    assert connections.read_entry(b"no JSON") is None


def journal_line(**fields: str) -> bytes:
    return json.dumps(
        {"__CURSOR": "c", "__REALTIME_TIMESTAMP": "1795864960000000", "__MONOTONIC_TIMESTAMP": "1", **fields}
    ).encode()


def test_why_a_gateway_fails_is_in_the_log(gateway: Gateway, connections: ModuleType) -> None:
    """The agent's lines, systemd's about our units, and OpenVPN's errors of itself; nothing of packets."""
    lines = (
        {"_SYSTEMD_UNIT": "drawbridge-agent.service", "_PID": "9", "_COMM": "python3", "MESSAGE": "refused \x1b[2J"},
        {"_SYSTEMD_UNIT": "init.scope", "_PID": "1", "UNIT": "openvpn-server@server.service", "MESSAGE": "Failed."},
        {"_SYSTEMD_UNIT": "init.scope", "_PID": "1", "UNIT": "ssh.service", "MESSAGE": "not ours"},
        {"_SYSTEMD_UNIT": "init.scope", "_PID": "1", "MESSAGE": "of no unit"},
        {"_SYSTEMD_UNIT": "other.service", "_PID": "5", "_COMM": "sh", "MESSAGE": "not ours"},
    )
    entries = [connections.read_entry(journal_line(**line)) for line in lines]
    for entry in filter(None, entries):
        gateway.log.handle(entry)
    gateway.write("Options error: Unrecognized option\nData Channel: cipher 'AES-256-GCM'")
    gateway.write("Note: --cipher is not set. OpenVPN versions before 2.5 defaulted to BF-CBC if negotiation failed.")
    gateway.write("TLS Error: tls-crypt unwrapping failed from [AF_INET]192.0.2.66:4711")
    assert [pick(event, "event", "gateway", "unit", "message") for event in gateway.log.waiting] == [
        ("journal", "lab", "drawbridge-agent", "refused \\x1b[2J"),
        ("journal", "lab", "openvpn-server@server", "Failed."),
        ("journal", "lab", "openvpn-server@server", "Options error: Unrecognized option"),
    ]
    assert gateway.log.waiting[0]["time"] == "2026-11-28T11:22:40.000Z"


def test_an_hours_lines_are_bounded_and_said(gateway: Gateway, connections: ModuleType) -> None:
    def fail(count: int, time: float) -> None:
        for number in range(count):
            moment = connections.Moment(time + number)
            line = f"{number} " + "x" * 2000
            gateway.log.handle(connections.Entry("drawbridge-agent", "", moment, f"{time} {number}", line, True))

    fail(100, START)
    size = sum(len(json.dumps(event)) for event in gateway.log.waiting)
    assert connections.LINES_BYTES - 2000 < size < connections.LINES_BYTES
    assert gateway.log.dropped == 100 - len(gateway.log.waiting) > 0
    before = len(gateway.log.waiting)
    fail(1, START + 3600)
    assert len(gateway.log.waiting) == before + 1


@pytest.mark.allow_subprocess
def test_the_journal_is_read_behind_the_cursor_or_from_the_last_minutes(
    connections: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for journalctl, which fails at a cursor that it does not know."""
    line = {"_COMM": "openvpn", "_SYSTEMD_UNIT": f"{UNIT}.service", "__CURSOR": "c", "__REALTIME_TIMESTAMP": "1"}
    line |= {"__MONOTONIC_TIMESTAMP": "1", "_PID": "7"}
    journalctl = tmp_path / "journalctl"
    journalctl.write_text(
        "#!/bin/sh\ncase $* in\n*--after-cursor=wrong*) exit 1 ;;\n"
        "*--after-cursor=known*) text=new ;;\n*) text=recent ;;\n"
        f"esac\nprintf '%s\\n' '{json.dumps(line)[:-1]}, \"MESSAGE\": \"'$text'\"}}'\n"
    )
    journalctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    expected = {"": "recent", "known": "new", "wrong": "recent"}
    messages = {cursor: [entry.message for entry in connections.read_journal(cursor)] for cursor in expected}
    assert messages == {cursor: [message] for cursor, message in expected.items()}


def test_events_are_sent_soon_and_then_once_a_minute_and_rarely_while_it_fails(
    gateway: Gateway, connections: ModuleType
) -> None:
    delivery = connections.Delivery()
    assert not delivery.is_due(gateway.log, 0.0)
    gateway.section("connect")
    assert [delivery.is_due(gateway.log, now) for now in (100.0, 104.0, 105.0)] == [False, False, True]
    delivery.finish(True, 105.0)
    assert [delivery.is_due(gateway.log, now) for now in (110.0, 164.0, 165.0)] == [False, False, True]
    pauses, now = [], 165.0
    for _ in range(6):
        delivery.finish(False, now)
        start, now = now, next(now + s for s in range(2000) if delivery.is_due(gateway.log, now + s))
        pauses.append(now - start)
    assert pauses == [60, 120, 240, 480, 900, 900]


def test_batches_are_as_logs_takes_them(connections: ModuleType) -> None:
    now = START
    times = [now - 30 * 86_400, now + 5 * 3600, now - 2 * 86_400, now - 10, now - 2 * 86_400 + 5]
    events = [{"event": "x", "time": connections.show_time(time), "id": str(i)} for i, time in enumerate(times)]
    batches = list(connections.split_batches(events, now))
    assert [[event["id"] for _, event in batch] for batch in batches] == [["2", "4"], ["3", "0", "1"]]
    for batch in batches:
        stamps = [stamp for stamp, _ in batch]
        assert stamps == sorted(stamps) and stamps[-1] - stamps[0] < 86_400_000
    many = [{"time": connections.show_time(now), "text": "y" * 2000, "id": str(i)} for i in range(2500)]
    sizes = [sum(len(json.dumps(event)) + 26 for _, event in batch) for batch in connections.split_batches(many, now)]
    assert max(sizes) < 1_048_576 and len(sizes) > 2


def test_rejected_events_are_counted(connections: ModuleType) -> None:
    assert connections.count_rejected({}, 5) == 0
    assert connections.count_rejected({"tooOldLogEventEndIndex": 2, "tooNewLogEventStartIndex": 4}, 5) == 3
    assert connections.count_rejected({"expiredLogEventEndIndex": 5}, 5) == 5


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    with mock_aws():
        yield boto3.client("logs", region_name="eu-west-1")


def run_child_here(connections: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the child's work done in this process, where moto is."""

    def run(command: list[str], *, input: str, **_: Any) -> subprocess.CompletedProcess[str]:
        sent, rejected, error = connections.send(json.loads(input))
        return subprocess.CompletedProcess(command, int(bool(error)), json.dumps({"sent": sent, "rejected": rejected}))

    monkeypatch.setattr(connections.subprocess, "run", run)


def test_events_reach_the_stream_of_the_instance_and_wait_while_they_cannot(
    gateway: Gateway, connections: ModuleType, logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_child_here(connections, monkeypatch)
    arguments = (gateway.log, "eu-west-1", GROUP, "i-0123")
    gateway.section("connect")
    assert not connections.send_waiting(*arguments), "there is no such log group"
    assert len(gateway.log.waiting) == 1
    logs.create_log_group(logGroupName=GROUP)
    assert connections.send_waiting(*arguments)
    assert gateway.log.waiting == []
    gateway.section("revoked by serial")
    assert connections.send_waiting(*arguments)
    events = logs.filter_log_events(logGroupName=GROUP, logStreamNames=["i-0123"])["events"]
    assert [json.loads(event["message"])["event"] for event in events] == ["connected", "refused"]


def test_a_child_that_hangs_or_breaks_costs_no_event(
    gateway: Gateway, connections: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.section("connect")
    for output in ("", "[]", '{"sent": 1}'):
        answer = subprocess.CompletedProcess([], 1, output)
        monkeypatch.setattr(connections.subprocess, "run", lambda *_, answer=answer, **__: answer)
        assert not connections.send_waiting(gateway.log, "r", "g", "s")

    def hang(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("python3", 1)

    monkeypatch.setattr(connections.subprocess, "run", hang)
    assert not connections.send_waiting(gateway.log, "r", "g", "s")
    assert len(gateway.log.waiting) == 1


def test_where_the_log_is_off_nothing_stays(
    connections: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "connection-log").write_text("off\n")
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setattr(connections, "SWITCH", tmp_path / "connection-log")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["connections.py"])
    assert connections.main() == 0
    assert not (tmp_path / "state.json").exists()


def test_the_journals_bytes_are_those_of_the_cost(connections: ModuleType) -> None:
    assert monthly_cost.JOURNAL_BYTES * connections.LINES_PERIOD == connections.LINES_BYTES * 3600


def test_the_group_is_the_one_of_the_contract() -> None:
    """The script derives it from the stack's name, because user data must not change for it."""
    assert "/drawbridge/{env['STACK']}/connections" in (FILES / "connections.py").read_text()
    assert contract.Names("duo", "b").connections == "/drawbridge/duo/b/connections"
