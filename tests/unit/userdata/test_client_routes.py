"""The script that leads packets to the process which has their client: what it reads, sets and ends.

Does not prove that packets arrive: tests/lab/worlds/test_tenant.py has two processes.
"""

import json
import os
import subprocess
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from drawbridge.operate.deployed_release import parse_release
from openvpn.listener import Listener
from openvpn.paths import Paths
from openvpn.topology import Segment
from tests.support import gateway
from tests.support.sources import load_script
from userdata.cloud_config import FILES

NOTE_SESSION = FILES / "sharing/etc/drawbridge/note-session"
HOME = ip_network("192.168.1.0/24")
ALICE, BOB = ip_network("10.8.0.10"), ip_network("10.8.0.11")
ROUTES4 = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t0101010A\t0003\t0\t0\t1024\t00000000\t0\t0\t0\n"
    "tun0\t0001A8C0\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\n"
    "tun1\t0A00080A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
    "tun1\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
)
ROUTES6 = (
    "fd000000000000000000000000000010 80 00000000000000000000000000000000 00 "
    "00000000000000000000000000000000 00000400 00000001 00000000 00000001     tun1\n"
)


@pytest.fixture(scope="module")
def client_routes() -> ModuleType:
    """The script as it is on the machine: no module of any package."""
    return load_script(FILES / "client_routes.py")


@pytest.fixture
def settings(client_routes: ModuleType) -> Any:
    text = json.dumps(
        {
            "source": "10.8.0.1",
            "devices": {"server": "tun0", "server1": "tun1"},
            "clients": {"alice": ["10.8.0.10", "192.168.1.0/24"], "bob": ["10.8.0.11"]},
        }
    )
    return client_routes.read_settings(text)


def test_routes_lead_to_clients_of_all_processes_but_the_first(client_routes: ModuleType, settings: Any) -> None:
    session = client_routes.Session
    sessions = [session(2, "server1", "alice"), session(1, "server", "alice"), session(3, "server", "bob")]
    latest = client_routes.latest_sessions(sessions)

    assert client_routes.routes_to(settings, latest) == {(ALICE, "tun1"), (HOME, "tun1")}
    moved = client_routes.latest_sessions([*sessions, session(4, "server", "alice"), session(5, "server1", "bob")])
    assert client_routes.routes_to(settings, moved) == {(BOB, "tun1")}


def test_the_kernels_tables_are_read(client_routes: ModuleType) -> None:
    routes = set(client_routes.read_routes(ROUTES4, ROUTES6))
    assert routes == {(ALICE, "tun1"), (HOME, "tun1"), (ip_network("fd00::10"), "tun1")}


def test_only_what_differs_is_set_and_strangers_routes_stay(
    client_routes: ModuleType, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "route").write_text(ROUTES4 + "tun1\t0A090909\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n")
    monkeypatch.setattr(client_routes, "ROUTES", tmp_path)
    runs: list[list[str]] = []
    monkeypatch.setattr(client_routes, "run_ip", lambda commands: runs.append([*commands]))
    latest = client_routes.latest_sessions([client_routes.Session(1, "server1", "bob")])
    client_routes.set_routes(settings, latest)

    added, deleted = runs
    assert added == ["route replace 10.8.0.11/32 dev tun1 src 10.8.0.1"]
    assert sorted(deleted) == ["route delete 10.8.0.10/32 dev tun1", "route delete 192.168.1.0/24 dev tun1"]


def test_a_former_session_is_ended_once_and_again_if_nobody_answered(client_routes: ModuleType) -> None:
    asked: list[tuple[str, str]] = []
    silent = {"server"}

    def end(client: str, instance: str) -> bool:
        asked.append((client, instance))
        if instance in silent:
            raise TimeoutError("no answer")
        return True

    former = client_routes.FormerSessions(end)
    sessions = [client_routes.Session(1, "server", "alice"), client_routes.Session(2, "server1", "alice")]
    latest = client_routes.latest_sessions(sessions)
    with pytest.raises(OSError, match="server: no answer"):
        former.end_all(sessions, latest)
    silent.clear()
    for _ in range(2):
        former.end_all(sessions, latest)
    assert asked == [("alice", "server")] * 2

    back = [client_routes.Session(3, "server", "alice"), sessions[1]]
    former.end_all(back, client_routes.latest_sessions(back))
    assert asked[2:] == [("alice", "server1")]


@pytest.mark.allow_subprocess
def test_a_process_notes_its_clients_and_not_the_end_of_a_displaced_session(tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir()

    def note(kind: str, number: str) -> str:
        variables = {"script_type": kind, "common_name": "alice", "time_unix": number, "trusted_port": "1"}
        subprocess.run(["sh", NOTE_SESSION, tmp_path, "/tmp/x"], env={**os.environ, **variables}, check=True)
        return (tmp_path / "sessions/alice").read_text()

    assert note("client-connect", "1") and note("client-connect", "2")
    assert note("client-disconnect", "1") == "2 1\n"
    assert note("client-disconnect", "2") == ""
    assert note("client-disconnect", "1") == "", "a displaced session that ends last"


def test_a_release_with_a_shared_port_says_whose_addresses_are_whose() -> None:
    tunnel = replace(gateway.TUNNEL, listener=Listener(sharing=2))
    shared = {
        path: content.decode() for path, content in gateway.release_contents(gateway.build_release(tunnel)).items()
    }
    settings = json.loads(shared["client-routes.json"])
    assert settings["devices"] == {"server": "tun0", "server1": "tun1"}
    for name, networks in settings["clients"].items():
        assert f"ifconfig-push {networks[0]} " in shared[f"ccd/{name}"]
    second = shared[f"root{Paths('server1').config}"]
    assert "port 1195\n" in second and "dev tun1\n" in second and "ifconfig-pool" not in second
    built = gateway.build_release(tunnel)
    assert parse_release(built.archive, built.sha256).ports == (1194,), "the doctor asks for no other"

    segment = gateway.release_contents(gateway.build_release(replace(tunnel, topology=Segment())))
    settings = json.loads(segment["client-routes.json"])
    assert settings["devices"] == {"server": "tap0", "server1": "tap1"}
    assert settings["clients"] and not any(settings["clients"].values()), "the bridge finds them"
    unit = segment["root/etc/systemd/system/openvpn-server@.service.d/segment.conf"].decode()
    assert "Wants=drawbridge-suspend@%i.path drawbridge-client-routes.service\n" in unit
    assert "openvpn-%i/sessions" in unit

    single = gateway.release_contents(gateway.build_release())
    assert "client-routes.json" not in single and not any("note-session" in name for name in single)
