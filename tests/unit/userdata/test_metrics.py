"""The metrics that the gateway sends to CloudWatch. Does not prove that AWS takes them: nothing is sent here."""

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
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from tests.support.sources import load_script
from userdata.cloud_config import FILES


@pytest.fixture(scope="module")
def metrics() -> ModuleType:
    """The script as it is on the machine: no module of any package."""
    return load_script(FILES / "metrics.py")


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
    shared = metrics.gateway_metrics(loads, before, shares=True)
    assert shared[0]["Value"] == sum(load["nclients"] for load in loads.values()), "each is connected to one of them"
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
    monkeypatch.setattr(metrics, "ALARMS", tmp_path / "alarms.json")
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


def test_certificates_that_take_too_long_cost_nothing_else(
    metrics: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(metrics.subprocess, "run", run)
    assert metrics.certificate_metrics(datetime(2030, 1, 1, tzinfo=UTC)) == []
    assert "the certificates could not be read: " in capsys.readouterr().err


def test_certificates_that_could_not_be_read_are_read_by_the_next_run(
    metrics: ModuleType, sent: Callable[[str], list[list[tuple[str, float]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [[], metrics.certificate_metrics(datetime(2030, 1, 1, tzinfo=UTC))]
    monkeypatch.setattr(metrics, "certificate_metrics", lambda _: answers.pop(0))
    assert sent("basic") == [
        [("ConnectedClients", 2), ("Bytes", 40)],
        [("ConnectedClients", 2), ("Bytes", 0), ("DaysLeft", 825.0)],
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


@pytest.fixture
def kernel(metrics: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets what alarms are for: the agent's report, the connection table, the filter's counters."""
    monkeypatch.setattr(metrics, "REPORT", tmp_path / "report.json")
    monkeypatch.setattr(metrics, "CONNTRACK", tmp_path)
    drops = 0

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        counters = [{"table": "drawbridge", "name": "spoofed", "packets": drops}, {"table": "else", "packets": 10**9}]
        listing = {"nftables": [{"metainfo": {}}, *({"counter": counter} for counter in counters)]}
        return subprocess.CompletedProcess(command, 0, json.dumps(listing), "")

    def set_state(state: str = "ready", connections: int = 10, dropped: int = 0, age: timedelta = timedelta()) -> None:
        nonlocal drops
        drops = dropped
        time = (datetime.now(UTC) - age).isoformat(timespec="seconds")
        (tmp_path / "report.json").write_text(json.dumps({"state": state, "time": time}))
        (tmp_path / "nf_conntrack_count").write_text(f"{connections}\n")
        (tmp_path / "nf_conntrack_max").write_text("65536\n")

    monkeypatch.setattr(metrics.subprocess, "run", run)
    (tmp_path / "alarms.json").write_text('{"clientsEnd": ""}')
    set_state()
    return set_state


Sent = Callable[[str], list[list[tuple[str, float]]]]


def test_a_stack_with_alarms_sends_whether_it_is_ready(sent: Sent, kernel: Callable[..., None]) -> None:
    kernel()
    assert [dict(request)["Ready"] for request in sent("basic")] == [1, 1]


@pytest.mark.parametrize(
    "values", [{"state": "degraded"}, {"state": "refused"}, {"age": timedelta(minutes=16)}], ids=str
)
def test_a_gateway_is_not_ready_by_an_old_report_or_another_state(
    values: dict[str, Any], sent: Sent, kernel: Callable[..., None]
) -> None:
    kernel(**values)
    assert [dict(request)["Ready"] for request in sent("basic")] == [0, 0]


@pytest.mark.parametrize("report", ["", "{", "[]", "{}", '{"state": "ready", "time": "yesterday"}', "null"])
def test_a_report_that_cannot_be_read_is_not_ready(metrics: ModuleType, report: str) -> None:
    assert metrics.is_ready(report, datetime.now(UTC)) is False


def test_a_healthy_gateway_pays_for_one_metric_more(sent: Sent, kernel: Callable[..., None]) -> None:
    kernel(connections=32000, dropped=1000)
    names = [[name for name, _ in request] for request in sent("basic")]
    assert names == [["Ready", "ConnectedClients", "Bytes", "DaysLeft"], ["Ready", "ConnectedClients", "Bytes"]]


def test_a_full_connection_table_is_sent(sent: Sent, kernel: Callable[..., None]) -> None:
    kernel(connections=53740)
    (value,) = {dict(request)["ConnectionTable"] for request in sent("basic")}
    assert 82 <= value < 82.1


def test_many_drops_are_sent_and_counted_from_the_last_run(metrics: ModuleType) -> None:
    assert metrics.drop_metrics(40_000, 1_000, 300) == [
        {"MetricName": "DroppedPackets", "Value": 39_000, "Unit": "Count"}
    ]
    assert metrics.drop_metrics(3_999, 1_000, 300) == []
    (entry,) = metrics.drop_metrics(5_000, 40_000, 300)
    assert entry["Value"] == 5_000, "a new filter counts from zero"


@pytest.mark.parametrize("level", ["basic", "full"])
def test_the_first_certificate_to_end_may_be_a_clients(
    metrics: ModuleType, sent: Sent, kernel: Callable[..., None], level: str
) -> None:
    end = datetime.now(UTC) + timedelta(days=20)
    metrics.ALARMS.write_text(json.dumps({"clientsEnd": end.isoformat()}))
    first, second = sent(level)
    assert 19.9 < min(value for name, value in first if name == "DaysLeft") < 20
    assert sum(name == "DaysLeft" for name, _ in second) == (3 if level == "full" else 0)


def test_counters_that_cannot_be_read_keep_no_other_metric_away(
    metrics: ModuleType, sent: Sent, kernel: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(metrics.subprocess, "run", run)
    assert [dict(request)["Ready"] for request in sent("basic")] == [1, 1]


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


@pytest.mark.parametrize("missing", ["metrics-level", "env"])
def test_a_run_before_there_is_a_release_ends_well(
    metrics: ModuleType, tmp_path: Path, sent: Sent, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    sent("off")
    (tmp_path / "metrics-level").write_text("full\n")
    (tmp_path / missing).unlink()
    assert metrics.main() == 0
    assert "nothing says which metrics to send" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError(), FileNotFoundError(), TimeoutError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")],
    ids=repr,
)
def test_a_process_that_does_not_answer_yet_costs_only_its_own_metrics(
    metrics: ModuleType, sent: Sent, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def query(_: Path) -> None:
        raise error

    monkeypatch.setattr(metrics, "query_load", query)
    days = [("DaysLeft", 825.0), ("DaysLeft", 3650.0)]
    assert sent("full") == [days, days]


def test_a_process_that_has_no_figures_yet_costs_only_its_own_metrics(
    metrics: ModuleType, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "query_load", lambda _: {})
    assert sent("basic") == [[("DaysLeft", 825.0)]]


def test_a_machine_whose_kernel_tracks_nothing_yet_sends_the_rest(
    metrics: ModuleType, tmp_path: Path, sent: Sent, kernel: Callable[..., None]
) -> None:
    """The keys of the connection table come with its module, and the agent's report with its first run."""
    for name in ("nf_conntrack_count", "nf_conntrack_max", "report.json"):
        (tmp_path / name).unlink()
    assert [dict(request)["Ready"] for request in sent("basic")] == [0, 0]
    assert "drops" in json.loads((tmp_path / "load.json").read_text()), "the filter's counters are there"


def test_a_certificate_whose_end_cannot_be_read_costs_nothing_else(
    metrics: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "", ""))
    assert metrics.certificate_metrics(datetime(2030, 1, 1, tzinfo=UTC)) == []


@pytest.mark.parametrize("text", ["", "\0\0\0", "[]", "null", '{"server": 7}', '{"until": "today"}', '{"drops": null}'])
def test_a_memory_that_a_power_cut_has_damaged_is_forgotten(
    metrics: ModuleType, tmp_path: Path, sent: Sent, text: str
) -> None:
    (tmp_path / "load.json").write_text(text)
    assert sent("basic")[0] == [("ConnectedClients", 2), ("Bytes", 40), ("DaysLeft", 825.0)]


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        EndpointConnectionError(endpoint_url="https://monitoring.eu-west-1.amazonaws.com"),
        ClientError({"Error": {"Code": "SignatureDoesNotMatch", "Message": "not yet current"}}, "PutMetricData"),
    ],
    ids=["metadata service", "network", "clock"],
)
def test_what_cannot_be_sent_yet_is_sent_by_the_next_run(
    metrics: ModuleType,
    sent: Sent,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    create = boto3.client

    class Unreachable:
        def put_metric_data(self, **_: object) -> None:
            monkeypatch.setattr(boto3, "client", create)
            raise error

    monkeypatch.setattr(boto3, "client", lambda *_, **__: Unreachable())
    assert sent("basic") == [[("ConnectedClients", 2), ("Bytes", 40), ("DaysLeft", 825.0)]]
    assert "the metrics could not be sent to CloudWatch: " in capsys.readouterr().err


def test_a_disk_that_is_full_does_not_fail_the_run(metrics: ModuleType, tmp_path: Path, sent: Sent) -> None:
    (tmp_path / "load.json").mkdir()
    assert [("ConnectedClients", 2), ("Bytes", 40), ("DaysLeft", 825.0)] in sent("basic")
