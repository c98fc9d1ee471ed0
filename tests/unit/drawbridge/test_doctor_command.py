"""`drawbridge gateway doctor` as a person and a script see it, for results that are given.

Does not prove how a path is judged: see test_path_checks.py.
"""

import json
import shutil
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from drawbridge.commands.root import cli
from drawbridge.doctor import path_checks, path_reader
from drawbridge.doctor.path_checks import HopResult
from drawbridge.doctor.path_hops import PathHop
from drawbridge.doctor.path_reader import PathQuery

OK = HopResult(hop=PathHop.ELASTIC_IP, state="ok")
BROKEN = HopResult(
    hop=PathHop.HOST,
    state="broken",
    breakage="host-stopped",
    code="BAD_STATE",
    finding="i-host is stopped",
    remedy="start the host",
)
DENIED = HopResult(
    hop=PathHop.NETWORK_ACL, state="unknown", finding="AWS refused", permission="ec2:DescribeNetworkAcls"
)


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[PathQuery]:
    """What the command has asked for; nothing is read."""
    queries: list[PathQuery] = []
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setattr(path_reader, "read_snapshot", lambda account, query: queries.append(query))
    return queries


def run(monkeypatch: pytest.MonkeyPatch, results: tuple[HopResult, ...], *arguments: str) -> Result:
    monkeypatch.setattr(path_checks, "judge_path", lambda snapshot: results)
    return CliRunner().invoke(cli, ["gateway", "doctor", *arguments, "--stack", "team"])


def test_the_first_broken_hop_ends_the_table(monkeypatch: pytest.MonkeyPatch, queries: list[PathQuery]) -> None:
    result = run(monkeypatch, (OK, BROKEN), "alice", "--to", "10.1.1.9", "--port", "53/udp", "--from", "192.0.2.7")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1:] == [
        "Elastic IP  ok",
        "host        BROKEN  host-stopped: i-host is stopped",
        "",
        "first broken hop: host: host-stopped (BAD_STATE)",
        "  i-host is stopped",
        "  -> start the host",
    ]
    (query,) = queries
    assert (query.client, query.target, query.source) == ("alice", IPv4Address("10.1.1.9"), IPv4Address("192.0.2.7"))
    assert (query.target_protocol, query.target_port, query.probes) == ("udp", 53, True)


def test_a_hop_that_is_not_judged_names_the_permission(
    monkeypatch: pytest.MonkeyPatch, queries: list[PathQuery]
) -> None:
    result = run(monkeypatch, (OK, DENIED), "--no-probe")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == [
        "no hop is broken, as far as they could be judged",
        "not judged for want of ec2:DescribeNetworkAcls: network ACL",
    ]
    assert [query.probes for query in queries] == [False]


def test_a_whole_path_exits_0(monkeypatch: pytest.MonkeyPatch, queries: list[PathQuery]) -> None:
    result = run(monkeypatch, (OK,))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "no hop is broken")


def test_json_has_every_hop(monkeypatch: pytest.MonkeyPatch, queries: list[PathQuery]) -> None:
    result = run(monkeypatch, (OK, BROKEN), "--json")
    assert result.exit_code == 1
    assert [(hop["hop"], hop["state"], hop["code"]) for hop in json.loads(result.stdout)] == [
        ("Elastic IP", "ok", ""),
        ("host", "broken", "BAD_STATE"),
    ]


def test_a_machine_that_has_described_itself_in_a_file(
    monkeypatch: pytest.MonkeyPatch, queries: list[PathQuery], tmp_path: Path
) -> None:
    path = tmp_path / "machine.txt"
    path.write_text('[{"ifname": "tun0", "mtu": 1420}] [{"dst": "default", "dev": "tun0"}]\nnameserver 10.1.0.2\n')
    assert run(monkeypatch, (OK,), "alice", "--machine", str(path)).exit_code == 0
    (query,) = queries
    assert query.machine is not None
    assert query.machine.devices["tun0"].mtu == 1420
    path.write_text("nothing of the kind")
    result = run(monkeypatch, (OK,), "alice", "--machine", str(path))
    assert result.exit_code == 1
    assert "on a client with Linux, run: (ip -json -details address" in result.output


@pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip on PATH")
@pytest.mark.allow_subprocess  # iproute2 describes this machine.
def test_this_machine_is_the_client_s(monkeypatch: pytest.MonkeyPatch, queries: list[PathQuery]) -> None:
    result = run(monkeypatch, (OK,), "alice", "--here")
    assert result.exit_code == 0, result.output
    (query,) = queries
    assert query.machine is not None
    assert "lo" in query.machine.devices


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "10.1.1.300"), "10.1.1.300 is not a valid IPv4 or IPv6 address"),
        (("--to", "10.1.1.9", "--port", "0"), "0 is not a valid port; use one such as 443 or 53/udp"),
        (("--to", "10.1.1.9", "--port", "443/sctp"), "443/sctp is not a valid port"),
        (("--port", "443"), "--port is of a host: name it with --to"),
        (("--here", "--machine", __file__), "use --here or --machine, not both"),
        (("--bundle", __file__), "--bundle is a client's: name the client"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, queries: list[PathQuery]
) -> None:
    result = run(monkeypatch, (OK,), *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert queries == []
