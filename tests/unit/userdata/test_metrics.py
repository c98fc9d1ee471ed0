"""The metrics that the gateway sends to CloudWatch. Does not prove that AWS takes them: nothing is sent here."""

import importlib.util
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

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
