"""The gateway's verbs against an SSH server on loopback and AWS's API in this process.

Does not prove that a real gateway has these units, files and sudo rights: tests/lab does.
"""

import json
import socket
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import contract
from drawbridge import errors
from drawbridge.commands.root import cli
from drawbridge.operate import gateway_status as verbs
from drawbridge.operate import ssh_login
from drawbridge.operate.account import Account
from lab.api.moto_patches import patched, serve_console_output
from pki.ssh import HostKey, host_key
from userdata.files.agent import GatewayMachine

from .conftest import STACK, SshServer

# As OpenVPN 2.6 writes it: one client in its handshake, one connected.
STATUS_FILE = "\n".join(
    "\t".join(fields)
    for fields in (
        ("TITLE", "OpenVPN 2.6.14 x86_64-pc-linux-gnu"),
        ("TIME", "2026-03-01 12:00:00", "1772366400"),
        (
            *("HEADER", "CLIENT_LIST", "Common Name", "Real Address", "Virtual Address", "Virtual IPv6 Address"),
            *("Bytes Received", "Bytes Sent", "Connected Since", "Connected Since (time_t)", "Username", "Client ID"),
        ),
        (
            "CLIENT_LIST",
            "UNDEF",
            "203.0.113.9:4711",
            "",
            "",
            "14",
            "0",
            "2026-03-01 11:59:59",
            "1772366399",
            "UNDEF",
            "2",
        ),
        (
            *("CLIENT_LIST", "alice", "203.0.113.7:40001", "10.8.0.10", "", "5120", "4096"),
            *("2026-03-01 11:00:00", "1772362800", "UNDEF", "1"),
        ),
        ("HEADER", "ROUTING_TABLE", "Virtual Address", "Common Name", "Real Address", "Last Ref", "Last Ref (time_t)"),
        ("ROUTING_TABLE", "10.8.0.10", "alice", "203.0.113.7:40001", "2026-03-01 11:59:58", "1772366398"),
        ("GLOBAL_STATS", "Max bcast/mcast queue length", "0"),
        ("END",),
    )
)

ALICE = verbs.ClientSession(
    client="alice",
    real="203.0.113.7:40001",
    address="10.8.0.10",
    received=5120,
    sent=4096,
    since=datetime(2026, 3, 1, 11, tzinfo=UTC),
)

RELEASE = "ab" * 32


@pytest.fixture
def identity(user_key: HostKey, tmp_path: Path) -> Path:
    """The operator's private key, as a file."""
    path = tmp_path / "id"
    path.touch(mode=0o600)
    path.write_text(user_key.private)
    return path


@pytest.fixture
def instance(account: Account) -> str:
    """The gateway's instance, after one that it has replaced."""
    ec2 = account.client("ec2")
    tags = [{"Key": key, "Value": value} for key, value in account.names.tags("gateway").items()]
    for is_replaced in (True, False):
        (launched,) = ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )["Instances"]
        if is_replaced:
            ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    return str(launched["InstanceId"])


@pytest.fixture
def deployed(
    account: Account, gateway: SshServer, elastic_ip: str, instance: str, monkeypatch: pytest.MonkeyPatch
) -> SshServer:
    """A healthy gateway: in SSM, at its Elastic IP, running."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    report = {"state": "ready", "release": RELEASE, "reason": None, "instance": instance, "time": now}
    for name, value in {
        account.names.ssh_host_key: gateway.host_key.public,
        account.names.release: json.dumps({"bucket": "b", "key": "k", "sha256": RELEASE}),
        account.names.report: json.dumps(report),
    }.items():
        account.client("ssm").put_parameter(Name=name, Value=value, Type="String")
    gateway.answers = {
        **listed("openvpn-server@server.service"),
        "systemctl show": (0, "Id=openvpn-server@server.service\nActiveState=active\nSubState=running\n", ""),
        "sudo -n sh -c": (0, STATUS_FILE, ""),
        "sudo -n journalctl": (0, "line one\nline two\n", ""),
    }
    connect = socket.create_connection

    def only_there(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address == (elastic_ip, 22)
        return connect(("127.0.0.1", gateway.port), timeout=timeout)

    monkeypatch.setattr(socket, "create_connection", only_there)
    return gateway


def run(*arguments: str, identity: Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["gateway", *arguments, "--stack", STACK, "--identity", str(identity)])
    return result.exit_code, result.stdout, result.stderr


def reach(server: SshServer, identity: Path, **changes: object) -> ssh_login.SshTarget:
    where = ssh_login.SshTarget(host="192.0.2.1", host_key=server.host_key.public, identity=identity, dial=server.dial)
    return replace(where, **changes)  # type: ignore[arg-type]


def test_known_host_key_is_accepted(gateway: SshServer, identity: Path) -> None:
    gateway.answers = {"uptime": (0, "up\n", "")}
    with ssh_login.connect(reach(gateway, identity)) as shell:
        assert shell.run("uptime") == "up\n"
    assert gateway.logins[-1] == "admin"


def test_a_host_key_with_a_comment_and_another_port_is_accepted(gateway: SshServer, identity: Path) -> None:
    gateway.answers = {"uptime": (0, "up\n", "")}
    key = f"{' '.join(gateway.host_key.public.split()[:2])} root@gateway\n"
    with ssh_login.connect(reach(gateway, identity, host_key=key, port=2222)) as shell:
        assert shell.run("uptime") == "up\n"


@pytest.mark.parametrize("port", [22, 2222])
def test_unknown_host_key_is_refused_before_any_login(gateway: SshServer, identity: Path, port: int) -> None:
    where = reach(gateway, identity, host_key=host_key().public, port=port)
    with pytest.raises(errors.HostKeyError, match="not the one SSM holds"), ssh_login.connect(where):
        pytest.fail("it logged in")
    assert gateway.logins == []


def test_known_hosts_of_the_user_count_for_nothing(
    gateway: SshServer, identity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"192.0.2.1 {gateway.host_key.public}\n")
    with pytest.raises(errors.HostKeyError), ssh_login.connect(reach(gateway, identity, host_key=host_key().public)):
        pytest.fail("it logged in")


def test_a_host_key_that_is_none_is_refused(gateway: SshServer, identity: Path) -> None:
    with (
        pytest.raises(errors.HostKeyError, match="cannot be read"),
        ssh_login.connect(reach(gateway, identity, host_key="x")),
    ):
        pytest.fail("it logged in")


def test_a_user_key_the_gateway_does_not_know(gateway: SshServer, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.write_text(host_key().private)
    with pytest.raises(errors.LoginError, match="does not let admin in"), ssh_login.connect(reach(gateway, stranger)):
        pytest.fail("it logged in")


def test_nobody_listens(gateway: SshServer, identity: Path) -> None:
    def refused(host: str, port: int, timeout: float) -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    with (
        pytest.raises(errors.UnreachableError, match=r"192\.0\.2\.1:22"),
        ssh_login.connect(reach(gateway, identity, dial=refused)),
    ):
        pytest.fail("it logged in")


def test_a_listener_that_is_no_ssh_server(identity: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hangs_up(host: str, port: int, timeout: float) -> socket.socket:
            client = socket.create_connection(listener.getsockname())
            listener.accept()[0].close()
            return client

        where = ssh_login.SshTarget(host="192.0.2.1", host_key=host_key().public, identity=identity, dial=hangs_up)
        with pytest.raises(errors.UnreachableError), ssh_login.connect(where):
            pytest.fail("it logged in")


def test_a_command_that_fails_says_what_it_complained_of(gateway: SshServer, identity: Path) -> None:
    gateway.answers = {"false": (3, "", "no such thing\n")}
    with (
        ssh_login.connect(reach(gateway, identity)) as shell,
        pytest.raises(errors.RemoteError, match=r"\(3\): no such thing"),
    ):
        shell.run("false")


def test_sessions_are_read_by_the_headers_of_the_file() -> None:
    assert verbs.parse_sessions(STATUS_FILE) == (ALICE,)
    swapped = STATUS_FILE.replace("Bytes Received\tBytes Sent", "Bytes Sent\tBytes Received")
    assert verbs.parse_sessions(swapped) == (replace(ALICE, received=4096, sent=5120),)
    assert verbs.parse_sessions("") == ()


def test_status_of_a_healthy_gateway(deployed: SshServer, elastic_ip: str, identity: Path) -> None:
    code, out, _ = run("status", identity=identity)
    assert code == 0
    assert elastic_ip in out
    assert "active running" in out
    assert "alice" in out
    assert "UNDEF" not in out
    code, out, _ = run("status", "--json", identity=identity)
    assert code == 0
    found = json.loads(out)
    assert found["address"] == elastic_ip
    assert found["report"]["state"] == "ready"
    assert found["services"] == {"openvpn-server@server.service": {"ActiveState": "active", "SubState": "running"}}
    assert [s["client"] for s in found["sessions"]] == ["alice"]


@pytest.mark.parametrize(
    ("report", "service"),
    [
        ({"state": "refused", "release": RELEASE, "reason": "nft -c: syntax error"}, "ActiveState=active"),
        ({"state": "ready", "release": "cd" * 32}, "ActiveState=active"),
        ({"state": "ready", "release": RELEASE}, "ActiveState=failed"),
    ],
)
def test_status_of_an_unwell_gateway_exits_1_and_says_why(
    deployed: SshServer, account: Account, identity: Path, report: dict[str, str], service: str
) -> None:
    account.client("ssm").put_parameter(
        Name=account.names.report, Value=json.dumps(report), Type="String", Overwrite=True
    )
    deployed.answers["systemctl show"] = (0, f"Id=openvpn-server@server.service\n{service}\n", "")
    code, out, _ = run("status", identity=identity)
    assert code == 1
    assert report.get("reason", "") in out


def test_status_says_which_versions_run_and_what_waits(deployed: SshServer, account: Account, identity: Path) -> None:
    since = datetime.now(UTC) - timedelta(days=2.5)
    software = {
        "openvpn": {"running": "2.6.14-1", "installed": "2.6.14-2"},
        "kernel": {"running": "6.12.57-1", "installed": "6.12.57-1"},
        "waiting": {"openvpn-server@server.service": since.isoformat()},
        "window": "sun:03:00-sun:04:00",
        "failure": "",
    }
    report = json.loads(account.parameter(account.names.report))

    def status(*options: str) -> str:
        text = json.dumps({**report, "software": software})
        account.client("ssm").put_parameter(Name=account.names.report, Value=text, Type="String", Overwrite=True)
        code, out, _ = run("status", *options, identity=identity)
        assert code == 0
        return out

    lines = [" ".join(line.split()) for line in status().splitlines()]
    assert "openvpn 2.6.14-1 runs, 2.6.14-2 is installed" in lines
    assert "kernel 6.12.57-1" in lines
    assert "fixes openvpn-server@server.service for 2.5 days, until sun:03:00-sun:04:00 UTC" in lines
    assert json.loads(status("--json"))["report"]["software"] == software

    software |= {"waiting": {}, "failure": "ssh.service does not restart"}
    out = status()
    assert "fixes" not in out and "ssh.service does not restart" in out


@pytest.mark.parametrize(
    ("offloaded", "row"),
    [
        (None, None),
        (["server"], "data channel carried by the kernel"),
        ([], "data channel carried by OpenVPN: it is not 2.7, or the kernel has no ovpn"),
    ],
)
def test_status_says_what_carries_the_data_where_it_should_be_the_kernel(
    deployed: SshServer, account: Account, identity: Path, offloaded: list[str] | None, row: str | None
) -> None:
    text = json.dumps({**json.loads(account.parameter(account.names.report)), "offloaded": offloaded})
    account.client("ssm").put_parameter(Name=account.names.report, Value=text, Type="String", Overwrite=True)
    code, out, _ = run("status", identity=identity)
    assert code == 0
    rows = [line for line in (" ".join(line.split()) for line in out.splitlines()) if line.startswith("data channel")]
    assert rows == ([row] if row else [])


@pytest.mark.parametrize(
    "software", [[], "x", {"openvpn": 1, "kernel": [], "waiting": 3}, {"waiting": {"kernel": "yesterday"}}]
)
def test_a_report_of_strange_software_is_still_read(software: object) -> None:
    report = verbs.parse_report({"state": "ready", "software": software})
    assert report.software is None or verbs.days_waiting(report.software, datetime.now(UTC)) == 0


#: As OpenVPN 2.6 logs it: alice in two places at once, bob as usual.
CONNECTIONS = """\
203.0.113.7:40001 [alice] Peer Connection Initiated with [AF_INET]203.0.113.7:40001
203.0.113.8:40002 [bob] Peer Connection Initiated with [AF_INET]203.0.113.8:40002
198.51.100.9:4711 [alice] Peer Connection Initiated with [AF_INET]198.51.100.9:4711
MULTI: new connection by client 'alice' will cause previous active sessions by this client to be dropped.  Remember to
203.0.113.7:40003 [alice] Peer Connection Initiated with [AF_INET6]::ffff:203.0.113.7:40003
MULTI: new connection by client 'alice' will cause previous active sessions by this client to be dropped.  Remember to
"""


def test_status_counts_sessions_that_another_one_of_the_same_client_ended(deployed: SshServer, identity: Path) -> None:
    deployed.answers = {"sudo -n sh -c 'journalctl": (0, CONNECTIONS, ""), **deployed.answers}
    code, out, _ = run("status", identity=identity)
    assert code == 0
    assert out.splitlines()[-5:] == [
        "",
        "bundles that connected again while they were connected, in the last 24 hours:",
        "client  sessions ended  addresses",
        "alice   2               198.51.100.9 203.0.113.7",
        "A bundle that is in use twice does so, and a client that changes networks: see docs/stolen.md.",
    ]
    code, out, _ = run("status", "--json", identity=identity)
    (displaced,) = json.loads(out)["displaced"]
    assert displaced == {"name": "alice", "sessions": 2, "addresses": ["198.51.100.9", "203.0.113.7"]}


def test_a_gateway_that_never_reported(deployed: SshServer, account: Account, identity: Path) -> None:
    account.client("ssm").delete_parameter(Name=account.names.report)
    code, out, _ = run("status", identity=identity)
    assert code == 1
    assert "missing" in out and "has not reported yet" in " ".join(out.split())


def test_no_gateway_at_all(account: Account, identity: Path) -> None:
    code, _, err = run("status", identity=identity)
    assert (code, err) == (
        1,
        f"Error: stack {STACK} has no gateway here\n  -> deploy it: pulumi up --stack {STACK}\n",
    )


def listed(*units: str) -> dict[str, tuple[int, str, str]]:
    """Answer of `systemctl list-units` of a gateway that has these units."""
    lines = (f"{unit} loaded active running OpenVPN service\n" for unit in (*units, "openvpn-server@a;reboot.service"))
    return {"systemctl list-units": (0, "".join(lines), "")}


def shown(units: Sequence[str], *states: str) -> str:
    """Output of `systemctl show` for several units."""
    return "\n\n".join(
        f"Id={unit}\nActiveState={state}\nSubState=running" for unit, state in zip(units, states, strict=True)
    )


LINKS = ("drawbridge-link@ovn0.service", "drawbridge-link@ovn1.service")
PROCESSES = ("openvpn-server@server.service", "openvpn-server@server1.service")


@pytest.mark.fault("4.7")
@pytest.mark.parametrize(("minutes", "state"), [(14, "ready"), (16, "stale")])
def test_a_report_without_a_sign_of_life_is_stale(
    deployed: SshServer, account: Account, identity: Path, minutes: int, state: str
) -> None:
    time = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="seconds")
    report = {"state": "ready", "release": RELEASE, "reason": "", "time": time}
    account.client("ssm").put_parameter(
        Name=account.names.report, Value=json.dumps(report), Type="String", Overwrite=True
    )
    code, out, _ = run("status", "--json", identity=identity)
    shown_report = json.loads(out)["report"]
    assert (code, shown_report["state"]) == (int(state == "stale"), state)
    assert (f"the last report is of {time}: ready" == shown_report["reason"]) == (state == "stale")


@pytest.mark.fault("4.7")
def test_a_report_of_a_replaced_instance_is_stale(
    deployed: SshServer, account: Account, instance: str, identity: Path
) -> None:
    """A new instance that cannot even install its packages leaves the report of the one before."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    report = {"state": "ready", "release": RELEASE, "reason": "", "instance": "i-0123", "time": now}
    account.client("ssm").put_parameter(
        Name=account.names.report, Value=json.dumps(report), Type="String", Overwrite=True
    )
    code, out, _ = run("status", "--json", identity=identity)
    shown_report = json.loads(out)["report"]
    reason = f"the last report is of instance i-0123, the gateway's is {instance}: ready"
    assert (code, shown_report["state"], shown_report["reason"]) == (1, "stale", reason)


#: As journald writes to a console; the agent's lines are of a gateway that somebody may have taken over.
CONSOLE = (
    "[    4.711] cloud-init[69]: Cloud-init v. 25.1.4 running 'modules:final'\r\n"
    "[   30.001] drawbridge-agent[412]: failed: no agent: E: Unable to locate package \x1b[2J\r\n"
    "[   30.002] systemd[1]: Startup finished\r\n"
)


@pytest.mark.attack("9.4")
def test_a_gateway_that_does_not_report_is_described_by_its_console(
    deployed: SshServer, account: Account, instance: str, identity: Path
) -> None:
    report = {"state": "ready", "release": RELEASE, "reason": "", "instance": "i-0123", "time": ""}
    account.client("ssm").put_parameter(
        Name=account.names.report, Value=json.dumps(report), Type="String", Overwrite=True
    )
    consoles = {instance: CONSOLE.encode()}
    with patched(serve_console_output(lambda name, size: consoles[name][-size:])):
        code, out, _ = run("status", identity=identity)
    line = r"failed: no agent: E: Unable to locate package \x1b[2J"
    assert code == 1
    assert f"\nthe agent's last lines on the instance's console:\n  {line}\n" in out
    assert "cloud-init" not in out


def test_a_gateway_that_reports_well_is_not_described_by_its_console(deployed: SshServer, identity: Path) -> None:
    code, out, _ = run("status", "--json", identity=identity)
    assert (code, json.loads(out)["console"]) == (0, [])


def test_a_gateway_that_lets_nobody_in_shows_what_aws_has_of_it(
    deployed: SshServer, account: Account, identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a new instance whose agent has not run: its host key is not the one in SSM yet."""

    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    report = {"state": "failed", "release": RELEASE, "reason": "no agent: no route", "instance": "", "time": ""}
    account.client("ssm").put_parameter(
        Name=account.names.report, Value=json.dumps(report), Type="String", Overwrite=True
    )
    with patched(serve_console_output(lambda name, size: CONSOLE.encode())):
        code, out, _ = run("status", "--json", identity=identity)
        assert run("status", identity=identity)[:1] == (1,)
    shown_status = json.loads(out)
    assert (code, shown_status["report"]["reason"]) == (1, "no agent: no route")
    assert "Connection refused" in shown_status["login_error"]
    assert len(shown_status["console"]) == 1


@pytest.mark.parametrize("time", ["", "yesterday", "9999"])
def test_a_report_without_a_time_stays_as_it_is(time: str) -> None:
    report = verbs.AgentReport(state="pending", release="", reason="", time=time)
    assert verbs.mark_stale(report, datetime.now(UTC), ()) == report


#: Status file of an OpenVPN that is no server of many clients.
STATISTICS = "OpenVPN STATISTICS\nUpdated,2026-03-01 12:00:00\nTCP/UDP read bytes,5120\nEND\n"


@pytest.fixture
def bonded(deployed: SshServer, account: Account) -> SshServer:
    """The same with two processes, which the agent reports; bob is connected to the second one."""
    report = {"state": "ready", "release": RELEASE, "reason": "", "time": "", "units": PROCESSES}
    account.client("ssm").put_parameter(
        Name=account.names.report, Value=json.dumps(report), Type="String", Overwrite=True
    )
    deployed.answers["systemctl show"] = (0, shown(PROCESSES, "active", "active"), "")
    deployed.answers["sudo -n sh -c"] = (0, STATUS_FILE + "\n" + STATUS_FILE.replace("alice", "bob"), "")
    return deployed


def test_status_is_of_every_process_that_the_agent_reports(bonded: SshServer, identity: Path) -> None:
    code, out, _ = run("status", identity=identity)
    assert code == 0
    assert "openvpn-server@server " in out and "openvpn-server@server1 " in out
    assert "alice" in out and "bob" in out
    assert bonded.asked[0].endswith(" ".join(PROCESSES))
    assert bonded.asked[1].endswith("/run/openvpn-server/status /run/openvpn-server1/status")


def test_a_bonded_gateway_without_its_second_process_is_not_healthy(bonded: SshServer, identity: Path) -> None:
    bonded.answers["systemctl show"] = (0, shown(PROCESSES, "active", "failed"), "")
    code, out, _ = run("status", identity=identity)
    assert code == 1
    assert "failed" in out


def test_units_are_those_that_the_gateway_has_if_the_agent_reports_none(deployed: SshServer, identity: Path) -> None:
    """The processes of `processes: auto` follow from the instance type, which no stack file says."""
    units = tuple(f"openvpn-server@server{number or ''}.service" for number in range(4))
    deployed.answers |= listed(*units) | {"systemctl show": (0, shown(units, *["active"] * 4), "")}
    code, out, _ = run("status", identity=identity)
    assert code == 0 and "openvpn-server@server3 " in out
    assert deployed.asked[1].endswith(" ".join(units))
    assert deployed.asked[2].endswith("/run/openvpn-server3/status")


def test_a_gateway_that_has_not_started_openvpn_yet_is_not_healthy(deployed: SshServer, identity: Path) -> None:
    deployed.answers |= listed()
    code, _, _ = run("status", identity=identity)
    assert code == 1
    assert [asked.split()[1] for asked in deployed.asked] == ["list-units"], (
        "without units it shows the manager's state"
    )


def test_a_unit_with_a_shells_words_is_refused_and_nothing_is_run(
    deployed: SshServer, account: Account, identity: Path
) -> None:
    report = {"state": "ready", "release": RELEASE, "units": ["openvpn-server@a;reboot.service"]}
    account.client("ssm").put_parameter(
        Name=account.names.report, Value=json.dumps(report), Type="String", Overwrite=True
    )
    code, _, err = run("status", identity=identity)
    assert (code, deployed.asked) == (1, [])
    assert "the gateway's report does not name OpenVPN's units" in err


@pytest.mark.attack("9.4")
def test_logs_do_not_reach_the_terminals_controls(deployed: SshServer, identity: Path) -> None:
    deployed.answers["sudo -n journalctl"] = (0, "\x1b]52;c;cHduZWQ=\x07\x1b[2Jall is well\n", "")
    assert run("logs", identity=identity) == (0, "\\x1b]52;c;cHduZWQ=\\x07\\x1b[2Jall is well\n", "")


@pytest.fixture
def paired(deployed: SshServer, account: Account) -> SshServer:
    """The same as a pair's first gateway; of the second only its release is known."""
    second = contract.Names(account.stack, contract.GATEWAYS[1])
    account.client("ssm").put_parameter(Name=second.release, Value="{}", Type="String")
    deployed.answers = {
        **listed(*LINKS),
        "systemctl show": (0, shown(LINKS, "active", "active"), ""),
        "cat /proc/net/bonding/bond0": (0, BOND, ""),
        "sudo -n sh -c": (0, STATISTICS, ""),
    }
    return deployed


BOND = "MII Status: up\n\nSlave Interface: ovn0\nMII Status: up\nSlave Interface: ovn1\nMII Status: up\n"


def test_status_of_a_pairs_gateway_is_that_of_its_links(paired: SshServer, identity: Path) -> None:
    code, out, _ = run("status", identity=identity)
    assert code == 0
    assert "link ovn0" in out and "link ovn1" in out and "client" not in out
    assert "drawbridge-link@ovn0.service drawbridge-link@ovn1.service" in paired.asked[1]
    assert paired.asked[2].endswith("/run/openvpn-ovn0/status /run/openvpn-ovn1/status")


@pytest.mark.parametrize(
    ("states", "bond"),
    [
        (("active", "activating"), BOND),
        (("active", "active"), BOND.replace("ovn1\nMII Status: up", "ovn1\nMII Status: down")),
    ],
)
def test_a_pairs_gateway_without_one_of_its_links_is_unwell(
    paired: SshServer, identity: Path, states: tuple[str, str], bond: str
) -> None:
    paired.answers |= {"systemctl show": (0, shown(LINKS, *states), ""), "cat /proc/net/bonding/bond0": (0, bond, "")}
    code, out, _ = run("status", identity=identity)
    assert code == 1
    assert "activating" in out or "down" in out


def test_the_second_gateway_of_a_stack_that_has_one_gateway(deployed: SshServer, identity: Path) -> None:
    code, _, err = run("status", "--second", identity=identity)
    assert code == 1
    assert f"stack {STACK} has no gateway here" in err


def test_logs_are_of_openvpn_and_the_agent(deployed: SshServer, identity: Path) -> None:
    assert run("logs", "--lines", "7", identity=identity) == (0, "line one\nline two\n", "")
    (asked,) = deployed.asked
    assert "--lines=350" in asked
    assert "--unit=openvpn-server@*.service" in asked
    assert "--unit=drawbridge-client-routes.service" in asked
    assert "--unit=drawbridge-agent.service" in asked
    assert "--follow" not in asked
    assert run("logs", "--follow", identity=identity)[0] == 0
    assert "--follow" in deployed.asked[-1]


def test_the_command_refuses_an_impostor(deployed: SshServer, account: Account, identity: Path) -> None:
    account.client("ssm").put_parameter(
        Name=account.names.ssh_host_key, Value=host_key().public, Type="String", Overwrite=True
    )
    code, out, err = run("logs", identity=identity)
    assert (code, out) == (1, "")
    assert "do not log in" in err
    assert deployed.logins == []


def test_a_retry_is_ordered_of_the_agent_which_runs_at_once(deployed: SshServer, identity: Path) -> None:
    deployed.answers |= {"sudo -n touch": (0, "", ""), "sudo -n systemctl": (0, "", "")}
    code, shown, _ = run("retry", identity=identity)
    assert (code, shown) == (0, f"the gateway tries again; see `drawbridge gateway status --stack {STACK}`\n")
    assert deployed.asked[-2:] == [
        f"sudo -n touch {GatewayMachine().retry_file}",
        "sudo -n systemctl start --no-block drawbridge-agent.service",
    ]


def test_a_retry_that_the_gateway_does_not_take_is_an_error(deployed: SshServer, identity: Path) -> None:
    deployed.answers["sudo -n touch"] = (1, "", "no room")
    code, _, complaint = run("retry", identity=identity)
    assert code == 1
    assert "no room" in complaint


def test_a_gateway_is_waited_for_without_ssh(
    deployed: SshServer, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = account.json_parameter(account.names.report)
    states = iter(("pending", "failed", "ready"))

    def report_next(_: float) -> None:
        value = json.dumps({**report, "state": next(states), "time": datetime.now(UTC).isoformat()})
        account.client("ssm").put_parameter(Name=account.names.report, Value=value, Type="String", Overwrite=True)

    account.client("ssm").delete_parameter(Name=account.names.report)
    monkeypatch.setattr("time.sleep", report_next)
    status = CliRunner().invoke(cli, ["gateway", "status", "--stack", STACK, "--wait", "10m", "--no-login"])
    assert status.exit_code == 0, status.output
    assert [state in status.stderr for state in ("has not reported yet", "pending", "failed")] == [True] * 3
    assert "ready" in status.stdout and "client" not in status.stdout
    assert deployed.logins == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": "pending", "reason": "no agent"}, "is not ready after 0 s: pending no agent"),
        ({"release": "cd" * 32}, "ready on release cdcdcdcdcdcd, not yet on abababababab"),
        ({"state": "refused", "reason": "nft -c"}, "is not ready: refused nft -c"),
    ],
)
def test_waiting_ends_with_the_last_state(
    change: dict[str, str], message: str, deployed: SshServer, account: Account
) -> None:
    report = account.json_parameter(account.names.report)
    account.client("ssm").put_parameter(Name=account.names.report, Value=json.dumps(report | change), Overwrite=True)
    with pytest.raises(errors.UnreachableError, match=message):
        verbs.wait_ready(account, 0.0, lambda _: None)


def test_without_a_login_an_unwell_gateway_exits_1(deployed: SshServer, account: Account) -> None:
    report = account.json_parameter(account.names.report) | {"state": "degraded", "reason": "forwarding is off"}
    account.client("ssm").put_parameter(Name=account.names.report, Value=json.dumps(report), Overwrite=True)
    status = CliRunner().invoke(cli, ["gateway", "status", "--stack", STACK, "--no-login"])
    assert (status.exit_code, "degraded forwarding is off" in status.stdout, deployed.logins) == (1, True, [])


def test_logs_leave_out_what_is_logged_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    at = "2026-11-29T02:12:03+00:00 gateway"
    routine = [
        f"{at} systemd[1]: Starting drawbridge-agent.service - Runs the stack's release...\n",
        f"{at} systemd[1]: drawbridge-agent.service: Deactivated successfully.\n",
        f"{at} systemd[1]: Finished drawbridge-agent.service - Runs the stack's release.\n",
        f"{at} openvpn[5]: MANAGEMENT: Client connected from /run/openvpn/server.sock\n",
        f"{at} openvpn[5]: MANAGEMENT: Client disconnected\n",
    ]
    events = [
        f"{at} openvpn[5]: alice/203.0.113.7:1194 peer info: IV_VER=2.6.3\n",
        f"{at} systemd[1]: drawbridge-agent.service: Failed with result 'exit-code'.\n",
        f"{at} openvpn[5]: bob/203.0.113.8:1194 TLS handshake failed\n",
    ]
    commands = list[str]()

    def lines(command: str, timeout: float | None) -> list[str]:
        commands.append(command)
        return [line for event in events for line in (event, *routine)]

    monkeypatch.setattr(ssh_login, "connect", lambda target: nullcontext(SimpleNamespace(lines=lines)))
    target = ssh_login.SshTarget(host="192.0.2.1", host_key="")
    assert list(verbs.read_logs(target, lines=2)) == events[1:]
    assert list(verbs.read_logs(target, lines=2, follow=True)) == events
    assert "--lines=100 " in commands[0] and "--lines=2 " in commands[1] and "--follow" in commands[1]
