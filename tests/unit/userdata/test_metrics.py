"""The metrics that the gateway sends to CloudWatch. Does not prove that AWS takes them: nothing is sent here."""

import importlib.util
import json
import socket
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest

from userdata.cloud_config import FILES


@pytest.fixture(scope="module")
def metrics() -> ModuleType:
    """The script as it is on the machine: no module of any package."""
    path = FILES / "metrics.py"
    spec = importlib.util.spec_from_file_location("gateway_metrics", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.seed("4.16")
def test_bytes_are_counted_from_the_last_time_and_clients_as_they_are(metrics: ModuleType) -> None:
    now, before = {"nclients": 2, "bytesin": 150, "bytesout": 90}, {"nclients": 5, "bytesin": 100, "bytesout": 90}
    entries = metrics.process_metrics("server", now, before)
    assert [(m["MetricName"], m["Value"], m["Unit"]) for m in entries] == [
        ("ConnectedClients", 2, "Count"),
        ("BytesReceived", 50, "Bytes"),
        ("BytesSent", 0, "Bytes"),
    ]
    assert {str(m["Dimensions"]) for m in entries} == {"[{'Name': 'Process', 'Value': 'server'}]"}


@pytest.mark.seed("4.16")
def test_the_basic_level_has_a_metric_of_bytes_of_clients_and_of_days(metrics: ModuleType) -> None:
    loads = {
        "server": {"nclients": 2, "bytesin": 150, "bytesout": 90},
        "server1": {"nclients": 3, "bytesin": 10, "bytesout": 20},
    }
    before = {"server": {"nclients": 1, "bytesin": 100, "bytesout": 80}, "day": "2030-01-01"}
    assert metrics.gateway_metrics(loads, before) == [
        {"MetricName": "ConnectedClients", "Value": 3, "Unit": "Count"},
        {"MetricName": "Bytes", "Value": 50 + 10 + 10 + 20, "Unit": "Bytes"},
    ]
    assert metrics.gateway_metrics({}, before) == [], "a pair's gateway serves no clients"
    certificates = [{"MetricName": "DaysLeft", "Value": days} for days in (825.0, 3650.0)]
    assert metrics.earliest_end(certificates) == [{"MetricName": "DaysLeft", "Value": 825.0, "Unit": "None"}]
    assert metrics.earliest_end([]) == []


@pytest.fixture
def sent(
    metrics: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[list[tuple[str, float]]]]:
    """A function that runs the script twice at a level, with a process and two certificates; what each run sends."""
    requests: list[list[tuple[str, float]]] = []

    class CloudWatch:
        def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
            assert Namespace == "Drawbridge/prod"
            requests.append([(metric["MetricName"], metric["Value"]) for metric in MetricData])

    environment = tmp_path / "env"
    environment.write_text("REGION=eu-west-1\nSTACK=prod\n")
    monkeypatch.setattr(boto3, "client", lambda *_, **__: CloudWatch())
    monkeypatch.setattr(metrics, "ENVIRONMENT", environment)
    monkeypatch.setattr(metrics, "LEVEL", tmp_path / "metrics-level")
    monkeypatch.setattr(metrics, "find_sockets", lambda: [Path("/run/openvpn-server/mgmt.sock")])
    monkeypatch.setattr(metrics, "query_load", lambda _: {"nclients": 2, "bytesin": 10, "bytesout": 30})
    days = [{"MetricName": "DaysLeft", "Value": value} for value in (825.0, 3650.0)]
    monkeypatch.setattr(metrics, "certificate_metrics", lambda _: days)
    monkeypatch.setattr(metrics, "displaced_sessions", lambda since, until: [])
    monkeypatch.setattr(metrics, "SOFTWARE", tmp_path / "absent")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))

    def run(level: str) -> list[list[tuple[str, float]]]:
        (tmp_path / "metrics-level").write_text(f"{level}\n")
        assert [metrics.main(), metrics.main()] == [0, 0]
        return requests

    return run


@pytest.mark.seed("4.16")
def test_the_basic_level_sends_the_days_left_once_a_day(sent: Callable[[str], list[list[tuple[str, float]]]]) -> None:
    assert sent("basic") == [
        [("ConnectedClients", 2), ("Bytes", 40), ("DaysLeft", 825.0)],
        [("ConnectedClients", 2), ("Bytes", 0)],
    ]


def test_the_full_level_sends_everything_each_time(sent: Callable[[str], list[list[tuple[str, float]]]]) -> None:
    days = [("DaysLeft", 825.0), ("DaysLeft", 3650.0)]
    assert sent("full") == [
        [("ConnectedClients", 2), ("BytesReceived", 10), ("BytesSent", 30), *days],
        [("ConnectedClients", 2), ("BytesReceived", 0), ("BytesSent", 0), *days],
    ]


def test_the_days_of_the_fix_that_has_waited_longest(
    metrics: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, status = datetime.now(UTC), tmp_path / "status.json"
    monkeypatch.setattr(metrics, "SOFTWARE", status)
    assert metrics.waiting_fixes(now) == [], "patches.py has not run yet"

    status.write_text(json.dumps({"waiting": {}}))
    assert metrics.waiting_fixes(now) == [{"MetricName": "DaysFixWaiting", "Value": 0.0, "Unit": "None"}]

    times = {name: (now - timedelta(days=days)).isoformat() for name, days in (("kernel", 3), ("ssh.service", 8))}
    status.write_text(json.dumps({"waiting": times}))
    assert metrics.waiting_fixes(now)[0]["Value"] == pytest.approx(8)

    status.write_text(json.dumps({"waiting": {}}))
    assert metrics.waiting_fixes(now + timedelta(days=9))[0]["Value"] == pytest.approx(9, abs=0.1), "it runs no more"


def test_displaced_sessions_are_counted_in_the_journal_and_sent_if_there_are_any(
    metrics: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ""
    commands = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, int(not log), log, "")

    monkeypatch.setattr(metrics.subprocess, "run", run)
    assert metrics.displaced_sessions(100, 160) == []
    log = "MULTI: new connection by client 'alice' will cause previous active sessions by this client\n" * 3
    assert metrics.displaced_sessions(160, 220) == [{"MetricName": "DisplacedSessions", "Value": 3, "Unit": "Count"}]
    assert {"--since=@160", "--until=@220", "--unit=openvpn-server@*"} < {*commands[1]}


def test_a_journal_that_cannot_be_read_keeps_no_other_metric_away(
    metrics: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setattr(metrics.subprocess, "run", run)
    assert metrics.displaced_sessions(100, 160) == []


@pytest.mark.parametrize("level", ["basic", "full"])
def test_each_displaced_session_is_sent_once(
    metrics: ModuleType,
    sent: Callable[[str], list[list[tuple[str, float]]]],
    monkeypatch: pytest.MonkeyPatch,
    level: str,
) -> None:
    periods = []

    def count(since: int, until: int) -> list[dict[str, Any]]:
        periods.append((since, until))
        return [{"MetricName": "DisplacedSessions", "Value": len(periods), "Unit": "Count"}]

    monkeypatch.setattr(metrics, "displaced_sessions", count)
    assert [request[-1] for request in sent(level)] == [("DisplacedSessions", 1), ("DisplacedSessions", 2)]
    assert periods[0][1] - periods[0][0] == metrics.FIRST_PERIOD
    assert periods[1][0] == periods[0][1]


def test_the_level_off_sends_nothing(sent: Callable[[str], list[list[tuple[str, float]]]]) -> None:
    assert sent("off") == []


def test_counting_begins_anew_with_openvpn(metrics: ModuleType) -> None:
    assert metrics.count_bytes({"bytesin": 7, "bytesout": 500}, {"bytesin": 100, "bytesout": 90}) == {
        "bytesin": 7,
        "bytesout": 500,
    }
    assert metrics.count_bytes({"bytesin": 7, "bytesout": 5}, {}) == {"bytesin": 7, "bytesout": 5}


@pytest.mark.seed("4.16")
def test_days_left_are_read_as_openssl_prints_them(metrics: ModuleType) -> None:
    assert metrics.days_left("notAfter=Mar  1 12:00:00 2030 GMT\n", datetime(2030, 2, 28, tzinfo=UTC)) == 1.5
    assert metrics.days_left("notAfter=Mar  1 12:00:00 2030 GMT\n", datetime(2030, 3, 2, 12, tzinfo=UTC)) == -1


def test_the_management_socket_is_asked(metrics: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "mgmt.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rw", newline="\n") as stream:
                stream.write(">INFO:OpenVPN Management Interface\r\n")
                stream.flush()
                assert stream.readline() == "load-stats\n"
                stream.write("SUCCESS: nclients=1,bytesin=10,bytesout=20\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert metrics.query_load(path) == {"nclients": 1, "bytesin": 10, "bytesout": 20}
        thread.join()
