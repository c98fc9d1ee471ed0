"""`drawbridge client list` and `show`: certificates, sessions, revocations, on moto and an SSH server on loopback.

Does not prove that a real gateway has such sessions: tests/lab does.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from contract import Names
from drawbridge import errors
from drawbridge.commands.root import cli
from drawbridge.operate import client_states, connection_log, gateway_status
from drawbridge.operate.account import Account
from drawbridge.operate.client_states import SessionSources, read_sources
from drawbridge.operate.connection_log import ConnectionEvent
from drawbridge.operate.gateway_status import ClientSession
from drawbridge.operate.revoked_certificates import list_revoked
from drawbridge.operate.ssh_login import SshTarget
from openvpn.bundle import render_bundle
from openvpn.model import Tunnel, TunnelClient
from openvpn.paths import Paths
from openvpn.profile import render_profile
from pki.authority import CertificateAuthority
from pki.ssh import HostKey
from tests.support.issuing import create_certificates, order_certificates, update_certificates

from .conftest import STACK, Enrol, SshServer, Write, entry

NOW = datetime.now(UTC)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["client", *arguments, "--stack", STACK])


def live(client: str, *, minutes: int = 1500, real: str = "203.0.113.7:40001", address: str = "10.8.0.7") -> Any:
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    return ClientSession(client=client, real=real, address=address, received=5120, sent=5_000_000, since=since)


@dataclass
class Gateway:
    """Stands for the gateway that is asked for its sessions."""

    sessions: tuple[ClientSession, ...] = ()
    error: errors.DrawbridgeError | None = None
    asked: int = 0

    def read(self, account: Account, target: object) -> tuple[ClientSession, ...]:
        self.asked += 1
        if self.error:
            raise self.error
        return self.sessions


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, deployed: Account) -> Gateway:
    """The deployed stack's gateway, without EC2, which takes seconds to begin."""
    gateway = Gateway()
    monkeypatch.setattr(gateway_status, "read_sessions", gateway.read)
    monkeypatch.setattr(
        gateway_status, "ssh_target", lambda account, **login: SshTarget(host="192.0.2.1", host_key="", **login)
    )
    return gateway


def put_stack_file(directory: Path, clients: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the stack's file into a project of its own, and go there."""
    (directory / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    (directory / f"Pulumi.{STACK}.yaml").write_text(f"config:\n  drawbridge:clients: {clients}\n")
    monkeypatch.chdir(directory)


def test_the_list_has_who_is_connected_and_from_where_in_80_columns(
    asked: Gateway, write: Write, enrol: Enrol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alice", "bob", "carol-on-the-road", "office"):
        enrol(name)
    put_stack_file(tmp_path, "[{name: office, lan: [192.168.50.0/24]}, {name: alice}]", monkeypatch)
    asked.sessions = (live("alice", minutes=4445), live("office", real="198.51.100.254:1194", address="10.8.0.20"))
    write(
        entry("connected", 3000, client="bob"),
        entry("disconnected", 2950, client="bob", seconds=3000, received=2902, sent=17, reason="exit"),
        # The gateway's instance has ended without a word, and the client has not come back.
        entry("connected", 1830, client="carol-on-the-road"),
    )
    result = run("list")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [[cell for cell in line.split("  ") if cell] for line in result.stdout.splitlines()]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["client", "kind", "address", "connected", "from", "in", "out", "days"],
        ["alice", "linux", "10.8.0.7", "for 3d 2h", "203.0.113.7", "5.1 kB", "5.0 MB", "364"],
        ["bob", "linux", "2d 1h ago", "203.0.113.7", "2.9 kB", "17 B", "364"],
        ["carol-on-the-road", "linux", "1d 6h ago", "203.0.113.7", "364"],
        ["office", "site", "10.8.0.20", "for 1d 1h", "198.51.100.254", "5.1 kB", "5.0 MB", "364"],
    ]
    assert max(map(len, result.stdout.splitlines())) <= 90
    # A row of usual names fits 80 columns.
    assert len(result.stdout.splitlines()[1]) - len("carol-on-the-road") + len("alice") <= 80


def test_json_has_every_figure_and_the_former_keys(asked: Gateway, write: Write, enrol: Enrol) -> None:
    alice = enrol("alice")
    write()
    asked.sessions = (live("alice"),)
    (client,) = json.loads(run("list", "--json").stdout)
    assert client["serial"] == alice.leaf.serial and client["address"] == "10.8.0.7"
    session = client["session"]
    assert (session["state"], session["origins"], session["received"]) == ("connected", ["203.0.113.7"], 5120)
    assert (client["kind"], client["system"], session["alternates"]) == ("linux", "linux", [])


def test_a_gateway_that_cannot_be_asked_leaves_the_log(asked: Gateway, write: Write, enrol: Enrol) -> None:
    enrol("alice")
    write(entry("connected", 1530))
    asked.error = errors.UnreachableError("no connection to 192.0.2.1:22: timed out", "is your address in adminFrom?")
    result = run("list")
    assert result.exit_code == 0
    assert "for 1d 1h" in result.stdout
    assert "the gateway is not asked" in result.stderr and "is your address in adminFrom?" in result.stderr
    assert asked.asked == 1
    quiet = run("list", "--no-login")
    assert (quiet.stdout, quiet.stderr, asked.asked) == (result.stdout, "", 1)


def test_without_a_log_and_a_gateway_the_certificates_are_listed(deployed: Account, enrol: Enrol) -> None:
    enrol("alice")
    result = run("list", "--no-login")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split() == ["alice", "linux", "?", "364"]
    assert "drawbridge:log: {retention: 90}" in result.stderr


def test_a_session_that_is_displaced_and_floats_is_over_with_its_end(deployed: Account) -> None:
    def event(kind: str, minute: int, **fields: Any) -> ConnectionEvent:
        values = {"gateway": STACK, "process": "server", "client": "alice", "address": "203.0.113.7", "port": 1}
        return ConnectionEvent(event=kind, time=NOW + timedelta(minutes=minute), **{**values, **fields})

    start = event("connected", 0)
    moved = {"address": "198.51.100.9", "port": 2}
    ended = event("disconnected", 5, since=start.time, received=1, sent=2, **moved)
    late_end = event("displaced", 6, since=start.time, by_address="198.51.100.9", by_port=2)
    new = event("connected", 5, **moved)
    for events, state, origins in (
        ([start], "connected", ("203.0.113.7",)),
        ([start, ended], "offline", ("198.51.100.9",)),
        ([start, new, late_end], "connected", ("198.51.100.9",)),
        ([start, event("connected", 1, process="server1", port=9)], "connected", ("203.0.113.7",)),
        ([event("refused", 1, reason="revoked")], "unknown", ()),
        ([], "unknown", ()),
    ):
        session = client_states.describe_session("alice", STACK, SessionSources(None, tuple(events), False), NOW)
        assert (session.state, session.origins) == (state, origins)
    # Whoever asked the gateway knows better.
    asked = client_states.describe_session("alice", STACK, SessionSources((), (start,), False), NOW)
    assert (asked.state, asked.connected_since, asked.last_seen) == ("offline", None, start.time)


def test_two_links_are_one_client(deployed: Account) -> None:
    sessions = (live("robot", minutes=5), live("robot", minutes=9, real="[::ffff:198.51.100.9]:5"))
    session = client_states.describe_session("robot", STACK, SessionSources(sessions, None, False), datetime.now(UTC))
    assert session.origins == ("203.0.113.7", "198.51.100.9")
    assert (session.received, session.sent) == (10240, 10_000_000)
    assert session.connected_since == sessions[1].since


HOME, CAFE = "203.0.113.7", "198.51.100.9"


@pytest.mark.parametrize(
    ("ends", "reported"),
    [
        ([(30, HOME, CAFE), (29.9, CAFE, HOME), (29.8, HOME, CAFE)], True),
        # A phone that leaves home, and comes back in the evening.
        ([(600, HOME, CAFE), (60, CAFE, HOME)], False),
        # A bad line: the client comes back from where it was.
        ([(30, HOME, HOME), (29.9, HOME, HOME)], False),
        ([(30, HOME, CAFE)], False),
        # Long ago.
        ([(1600, HOME, CAFE), (1599, CAFE, HOME)], False),
    ],
)
def test_a_bundle_is_in_use_twice_if_two_addresses_take_turns(
    ends: list[tuple[float, str, str]], reported: bool
) -> None:
    log = [entry("displaced", minutes, address=address, byAddress=by, byPort=9) for minutes, address, by in ends]
    log.append(entry("displaced", 29.95, address=CAFE, byAddress=HOME, byPort=9, client="bob"))
    events = tuple(event for _, event in connection_log.parse_events([json.dumps(fields) for fields in log]))
    session = client_states.describe_session("alice", STACK, SessionSources(None, events, False), datetime.now(UTC))
    assert session.alternates == ((CAFE, HOME) if reported else ())


def test_a_bundle_that_is_in_use_twice_is_named_in_list_show_and_history(
    asked: Gateway, write: Write, enrol: Enrol
) -> None:
    enrol("alice")
    turns = ((30, HOME, CAFE), (29.9, CAFE, HOME))
    write(*(entry("displaced", ago, address=address, byAddress=by, byPort=9) for ago, address, by in turns))
    warning = f"alice: sessions from {CAFE} and {HOME} end each other: its bundle is in use twice"
    for arguments in (("list",), ("show", "alice"), ("history", "alice")):
        assert warning in run(*arguments).stdout


@pytest.fixture
def issued(account: Account) -> Callable[[str], None]:
    """A function that deploys the stack's certificates for some clients, and revokes those of all others."""
    outs: dict[str, Any] = {}

    def issue(*clients: str) -> None:
        inputs = {**order_certificates(dict.fromkeys(clients, "client\n")), "stack": STACK}
        outs.update(update_certificates(account.names.root, outs, inputs) if outs else create_certificates(inputs))

    return issue


def test_revoked_clients_are_listed_on_request(account: Account, issued: Callable[..., None]) -> None:
    issued("alice", "bob", "carol")
    issued("alice")
    plain = run("list", "--no-login")
    assert [line.split()[0] for line in plain.stdout.splitlines()] == ["client", "alice"]
    rows = [line.split() for line in run("list", "--no-login", "--revoked").stdout.splitlines()]
    assert [row[:2] for row in rows[2:]] == [["bob", "revoked"], ["carol", "revoked"]]
    assert rows[2][-1] == "364"
    entries = json.loads(run("list", "--no-login", "--revoked", "--json").stdout)
    assert [(entry["name"], "revoked" in entry) for entry in entries] == [
        ("alice", False),
        ("bob", True),
        ("carol", True),
    ]


def test_the_register_of_an_earlier_version_is_read(account: Account) -> None:
    ssm, path = account.client("ssm"), account.names.issued
    revoked = {"client": "alice", "notAfter": "2027-01-01T00:00:00+00:00", "revoked": "2026-11-01T00:00:00+00:00"}
    ssm.put_parameter(Name=f"{path}/17", Value=json.dumps(revoked), Type="String")
    valid = {"18": {**revoked, "revoked": None}, "17": {**revoked, "client": "alicia"}}
    ssm.put_parameter(Name=f"{path}/page-1", Value=json.dumps(valid), Type="String")
    assert [(entry.name, entry.serial) for entry in list_revoked(account)] == [("alicia", 17)]


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"1": 7}', '{"1": {"client": "a"}}', '{"x": {"revoked": "now"}}'])
def test_a_register_that_is_damaged_is_named(account: Account, enrol: Enrol, text: str) -> None:
    enrol("alice")
    account.client("ssm").put_parameter(Name=f"{account.names.issued}/page-1", Value=text, Type="String")
    result = run("list", "--no-login", "--revoked")
    assert result.exit_code == 1
    assert f"{account.names.issued}" in result.stderr and "CloudTrail" in result.stderr


def test_show_has_everything_about_a_client(
    asked: Gateway, write: Write, account: Account, issued: Callable[..., None]
) -> None:
    issued("alice", "bob")
    issued("bob")
    former = list_revoked(account)[0]
    issued("alice", "bob")
    write(*(entry("connected", minutes) for minutes in range(90, 0, -10)), entry("connected", 5, client="bob"))
    asked.sessions = (live("alice"), live("bob"))
    result = run("show", "alice")
    assert (result.exit_code, result.stderr) == (0, "")
    shown = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in result.stdout.splitlines()}
    assert (shown["client"], shown["kind"], shown["address"]) == ("alice", "linux", "10.8.0.7")
    assert (shown["connected"], shown["from"]) == ("for 1d 1h", "203.0.113.7")
    assert shown["bytes"] == "5.1 kB from the client, 5.0 MB to it"
    assert shown["bundle"] == f"/drawbridge/{STACK}/clients/alice/bundle"
    assert shown["import"] == "sudo openvpn --config alice.ovpn"
    assert shown["revoked"].startswith(f"serial {former.serial} on {former.revoked:%Y-%m-%d}")
    assert result.stdout.partition("last events:")[2].count("203.0.113.7:40001") == 5
    details = json.loads(run("show", "alice", "--json").stdout)
    assert details["client"]["name"] == "alice" and len(details["events"]) == 5
    assert details["revoked"][0]["serial"] == former.serial
    assert "PRIVATE" not in result.stdout + json.dumps(details)


def test_show_has_the_address_that_a_bundle_accepts(deployed: Account, enrol: Enrol) -> None:
    client = TunnelClient(name="office", address=IPv4Address("10.8.0.20"), system="macos")
    profile = render_profile(
        Tunnel(pool=IPv4Network("10.8.0.0/24"), clients=(client,)), "203.0.113.7", "gateway.lab", "office"
    )
    bundle = profile + enrol("office").bundle.removeprefix("client\n")
    deployed.client("ssm").put_parameter(Name=deployed.names.bundle("office"), Value=bundle, Overwrite=True)
    deployed.client("ssm").put_parameter(Name=deployed.names.kit_digest("office"), Value="ab", Type="String")
    shown = run("show", "office", "--no-login").stdout
    assert "10.8.0.20" in shown and "macos" in shown
    assert "on office, open it with Tunnelblick; its kit does all of it: drawbridge client kit office" in shown


def test_a_pair_is_not_logged_in_to(asked: Gateway, account: Account, enrol: Enrol, write: Write) -> None:
    enrol("b")
    account.client("ssm").put_parameter(Name=Names(STACK, "b").release, Value="{}", Type="String")
    write(entry("connected", 10, client="b", process="link@ovn0"))
    assert [line.split()[:2] for line in run("list").stdout.splitlines()[1:]] == [["b", "gateway"]]
    assert asked.asked == 0


VERBS = [("fetch",), ("show",)]


@pytest.mark.parametrize("verb", VERBS)
def test_a_client_that_waits_for_a_deployment(
    verb: tuple[str, ...], deployed: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_stack_file(tmp_path, "[{name: bob}]", monkeypatch)
    result = run(*verb, "bob")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"client bob is in Pulumi.{STACK}.yaml, but stack {STACK} has no bundle of it" in result.stderr
    assert f"pulumi up --stack {STACK}" in result.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_client_that_was_revoked(verb: tuple[str, ...], issued: Callable[..., None]) -> None:
    issued("alice", "bob")
    issued("alice")
    result = run(*verb, "bob")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"client bob of stack {STACK} was revoked on {datetime.now(UTC):%Y-%m-%d}" in result.stderr


def test_a_bundle_whose_certificate_has_ended_is_shown_and_not_fetched(
    deployed: Account, authority: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    leaf = authority.issue_client("alice", timedelta(hours=1), datetime.now(UTC) - timedelta(hours=2))
    bundle = render_bundle("client\n", authority.certificate, leaf.certificate, leaf.key, "tls-crypt\n")
    deployed.client("ssm").put_parameter(Name=deployed.names.bundle("alice"), Value=bundle, Type="SecureString")
    assert "ended; the next `pulumi up` issues a new one" in run("show", "alice", "--no-login").stdout
    result = run("fetch", "alice")
    assert result.exit_code == 1 and not [*tmp_path.iterdir()]
    assert f"the certificate of alice ended on {leaf.not_after:%Y-%m-%d}" in result.stderr


def test_events_are_read_for_one_client_or_all(deployed: Account, write: Write) -> None:
    write(entry("connected", 2), entry("connected", 1, client="bob"))
    day = timedelta(days=1)
    assert [event.client for event in connection_log.read_events(deployed, day)] == ["alice", "bob"]
    assert [event.client for event in connection_log.read_events(deployed, day, "bob")] == ["bob"]
    assert read_sources(deployed, day, None, "bob").events == tuple(connection_log.read_events(deployed, day, "bob"))


def test_sessions_are_read_over_ssh(deployed: Account, gateway: SshServer, user_key: HostKey, tmp_path: Path) -> None:
    ssm = deployed.client("ssm")
    report = {"state": "ready", "units": ["openvpn-server@server.service"]}
    ssm.put_parameter(Name=deployed.names.report, Value=json.dumps(report), Type="String")
    identity = tmp_path / "id"
    identity.touch(mode=0o600)
    identity.write_text(user_key.private)
    columns = "Common Name\tReal Address\tVirtual Address\tBytes Received\tBytes Sent\tConnected Since (time_t)"
    status = f"HEADER\tCLIENT_LIST\t{columns}\nCLIENT_LIST\talice\t203.0.113.7:4\t10.8.0.10\t1\t2\t1772362800\n"
    gateway.answers = {"sudo -n sh -c": (0, status, "")}
    host_key = gateway.host_key.public
    target = SshTarget(host="192.0.2.1", host_key=host_key, identity=identity, dial=gateway.dial)
    (session,) = gateway_status.read_sessions(deployed, target)
    assert (session.client, session.address, session.received, session.sent) == ("alice", "10.8.0.10", 1, 2)
    assert Paths("server").status in gateway.asked[0]
