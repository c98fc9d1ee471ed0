"""The agent's runs on a directory in place of a machine and AWS's API in this process (moto).

Does not prove that systemd, nft and OpenVPN do as `gateway.ServicesStub`, their stand-in, does.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from contract import GATEWAY_SECRETS, Names
from openvpn.listener import Listener
from openvpn.model import Tunnel, TunnelClient
from openvpn.topology import BondedSegment, Segment
from tests.support import gateway
from userdata import cloud_config
from userdata.files import agent
from userdata.release import Release

NAMES = Names("test")
ENV = agent.read_env(cloud_config.env(names=NAMES, region="eu-west-1"))
BUCKET = "releases-of-test"
OPENVPN = "openvpn-server@server.service"


@dataclass
class World:
    """A gateway and what AWS names for it."""

    root: Path
    services: gateway.ServicesStub
    machine: agent.GatewayMachine
    ssm: Any
    s3: Any
    cloud: agent.Cloud

    def put_secrets(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            self.ssm.put_parameter(Name=NAMES.secret(name), Type="SecureString", Value=value, Overwrite=True)

    def publish(self, release: Release, archive: bytes | None = None) -> str:
        key = NAMES.release_key(release.sha256)
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=release.archive if archive is None else archive)
        self.point({"bucket": BUCKET, "key": key, "sha256": release.sha256})
        return release.sha256

    def point(self, pointer: object) -> None:
        self.ssm.put_parameter(Name=NAMES.release, Type="String", Value=json.dumps(pointer), Overwrite=True)

    def run(self, digest: str = "agent") -> agent.Report:
        """Run the agent once and publish its report."""
        report = agent.converge(self.machine, self.cloud, digest)
        agent.publish_report(self.machine, self.cloud, report)
        return report

    def published_report(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.ssm.get_parameter(Name=NAMES.report)["Parameter"]["Value"])
        return value

    def running(self) -> str:
        """The release OpenVPN runs by the links it was started with."""
        started = self.machine.started_generation("server")
        return started.release if started and OPENVPN in self.services.active else ""

    def serials(self) -> set[str]:
        return {path.name for path in (self.root / "etc/openvpn/server/revoked").iterdir()}


class Clock:
    """The agent's clock, which tests set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        monkeypatch.setattr(agent, "time", self)
        monkeypatch.setattr(agent.GatewayMachine, "is_fresh", lambda *_: True)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def world(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(agent, "wait_until", gateway.check_once)
    (disk / "etc/ssh").mkdir(parents=True)
    instance = disk / "var/lib/cloud/data/instance-id"
    instance.parent.mkdir(parents=True)
    instance.write_text("i-1\n")
    services = gateway.ServicesStub(disk)
    monkeypatch.setattr(agent, "send_management_commands", services.answer)
    machine = agent.GatewayMachine(disk, services, gateway.USER)
    with mock_aws():
        ssm, s3 = (boto3.client(name, region_name="eu-west-1") for name in ("ssm", "s3"))
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        world = World(disk, services, machine, ssm, s3, agent.Cloud(ENV))
        world.put_secrets(gateway.gateway_secrets())
        yield world


def test_a_segment_s_devices_are_networkd_s_before_openvpn_starts(world: World) -> None:
    sha = world.publish(gateway.build_release(Tunnel(pool=gateway.TUNNEL.pool, topology=Segment())))
    assert world.run().state == "ready"
    order = ["systemctl start systemd-networkd.service", "networkctl reload", f"systemctl restart {OPENVPN}"]
    assert [command for command in world.services.commands if command in order] == order
    assert (world.root / "etc/systemd/network/10-drawbridge-br0.netdev").is_symlink()
    assert world.running() == sha


def test_networkd_is_left_alone_where_no_release_has_a_device(world: World) -> None:
    files = gateway.release_contents(gateway.build_release())
    world.publish(gateway.pack_release({path: text for path, text in files.items() if "systemd/network" not in path}))
    world.run()
    touched = ("systemctl start systemd-networkd", "networkctl ")
    assert [command for command in world.services.commands if command.startswith(touched)] == []


@pytest.mark.fault("2.14")
def test_with_a_device_that_networkd_does_not_take_the_last_good_release_stays(world: World) -> None:
    good = world.publish(gateway.build_release())
    world.run()
    bad = world.publish(gateway.build_release(Tunnel(pool=gateway.TUNNEL.pool, topology=Segment())))
    world.services.rejects = "10-drawbridge-br0.netdev"
    report = world.run()
    assert (report.state, report.release) == ("degraded", bad)
    assert report.reason.startswith("networkctl: 10-drawbridge-br0.netdev:3: no such kind (tried 1 times, next at 20")
    assert world.running() == good
    # What only the refused release had is gone from where networkd looks.
    names = {path.name for path in (world.root / "etc/systemd/network").glob("*drawbridge*")}
    assert names == {"10-drawbridge-tun0.netdev", "10-drawbridge-tun0.network"}


def test_first_run_makes_the_gateway_ready(world: World) -> None:
    sha = world.publish(gateway.build_release())
    report = world.run()
    assert report == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))
    assert world.published_report() | {"time": ""} == {**asdict(report), "units": [OPENVPN], "repaired": [], "time": ""}
    assert json.loads(world.machine.report_file.read_text()) == world.published_report()
    started = {agent.FIREWALL, "systemd-networkd.service", OPENVPN, "drawbridge-patches.timer"}
    assert world.services.active == started
    assert world.running() == sha
    links = {
        "etc/openvpn/server/server.conf",
        "etc/drawbridge/nftables.conf",
        "etc/sysctl.d/90-drawbridge.conf",
        "etc/systemd/system/drawbridge-agent.timer",
        "etc/systemd/system/openvpn-server@.service.d/drawbridge.conf",
    }
    for path in links:
        assert str((world.root / path).readlink()) == f"/opt/drawbridge/current/root/{path}"
        assert (world.root / "opt/drawbridge/current/root" / path).is_file()


def test_filter_comes_before_forwarding_and_forwarding_before_the_tunnel(world: World) -> None:
    world.publish(gateway.build_release())
    world.run()
    order = [
        next(i for i, command in enumerate(world.services.commands) if command.startswith(beginning))
        for beginning in (
            "nft --check",
            f"systemctl reload-or-restart {agent.FIREWALL}",
            "/usr/lib/systemd/systemd-sysctl",
            f"systemctl restart {OPENVPN}",
        )
    ]
    assert order == sorted(order)


def test_secrets_are_read_by_their_owners_only(world: World) -> None:
    world.publish(gateway.build_release())
    world.run()
    target = world.machine.vault / (world.root / "etc/openvpn/server/secrets").readlink().name
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in target.iterdir()} == dict.fromkeys(
        GATEWAY_SECRETS, "0o400"
    )
    assert (target / "server.key").read_text() == gateway.gateway_secrets()["server.key"]
    assert [oct(d.stat().st_mode & 0o777) for d in (target, world.machine.openvpn)] == ["0o750", "0o750"]
    assert world.machine.ssh_key.read_text() == gateway.gateway_secrets()["ssh_host_ed25519_key"]
    assert oct(world.machine.ssh_key.stat().st_mode & 0o777) == "0o600"
    assert world.machine.ssh_key.with_suffix(".pub").read_text().startswith("ssh-ed25519 ")


def test_nothing_secret_is_said(world: World) -> None:
    world.publish(gateway.build_release())
    world.run()
    report, state = json.dumps(world.published_report()), world.machine.state_file.read_text()
    output = "\n".join([*world.services.commands, state, report])
    for value in gateway.gateway_secrets().values():
        assert value.splitlines()[1 if "\n" in value.strip() else 0] not in output


def test_a_run_with_nothing_new_is_one_call_and_two_questions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(gateway.build_release())
    world.run()
    world.services.commands.clear()
    calls: list[str] = []
    call = agent.Cloud._call

    def count(resource: str, action: Callable[[], Any]) -> Any:
        calls.append(resource)
        return call(resource, action)

    monkeypatch.setattr(agent.Cloud, "_call", staticmethod(count))
    assert world.run().state == "ready"
    assert calls == [NAMES.release]
    assert [command.split()[:3] for command in world.services.commands] == [
        ["systemctl", "show", "--property=Id,ActiveState,SubState"],
        ["nft", "--stateless", "list"],
    ]


@pytest.mark.parametrize("case", ["ccd", "revoked", "firewall"])
def test_clients_and_rules_change_without_a_restart(world: World, case: str) -> None:
    world.publish(gateway.build_release())
    world.run()
    changed = {
        "ccd": gateway.build_release(gateway.tunnel_without(("bob",))),
        "revoked": gateway.build_release(revoked=[7]),
        "firewall": gateway.pack_release(
            gateway.release_contents(gateway.build_release())
            | {"root/etc/drawbridge/nftables.conf": b"table inet drawbridge {\n}\n"}
        ),
    }[case]
    sha = world.publish(changed)
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))
    assert world.services.starts == 1
    # What it was started with stays, to be compared with what comes later; only then may it go.
    assert len(list(world.machine.releases.iterdir())) == 2
    assert world.run("another agent").state == "ready"
    assert world.services.starts == 1


@pytest.mark.parametrize(
    "path", ["etc/openvpn/server/server.conf", "etc/systemd/system/openvpn-server@.service.d/x.conf"]
)
def test_what_openvpn_reads_at_its_start_restarts_it(world: World, path: str) -> None:
    world.publish(gateway.build_release())
    world.run()
    sha = world.publish(
        gateway.pack_release(gateway.release_contents(gateway.build_release()) | {f"root/{path}": b"# new\n"})
    )
    assert world.run().running == sha == world.running()
    assert world.services.starts == 2
    assert [path.name for path in world.machine.releases.iterdir()] == [sha], "the old one is gone"


def test_renewed_secrets_arrive_without_a_new_release(world: World) -> None:
    sha = world.publish(gateway.build_release())
    world.run()
    world.put_secrets({"tls-crypt-v2.key": "another"})
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))
    assert world.services.starts == 2
    secrets = world.machine.vault / (world.root / "etc/openvpn/server/secrets").readlink().name
    assert (secrets / "tls-crypt-v2.key").read_text() == "another"
    assert [path.name for path in world.machine.vault.iterdir()] == [secrets.name]


def test_files_that_only_the_old_release_had_are_taken_away(world: World) -> None:
    extra = "etc/systemd/network/50-extra.netdev"
    world.publish(
        gateway.pack_release(
            gateway.release_contents(gateway.build_release()) | {f"root/{extra}": b"[NetDev]\nName=extra\nKind=dummy\n"}
        )
    )
    world.run()
    assert (world.root / extra).is_symlink()
    world.publish(gateway.build_release())
    world.run()
    assert not (world.root / extra).is_symlink()
    assert (world.root / "etc/sysctl.d/90-drawbridge.conf").is_symlink()


def test_a_new_agent_goes_over_what_the_old_one_applied(world: World) -> None:
    world.publish(gateway.build_release())
    world.run("old")
    world.services.commands.clear()
    assert world.run("new").state == "ready"
    assert f"systemctl reload-or-restart {agent.FIREWALL}" in world.services.commands
    assert world.services.starts == 1
    world.services.commands.clear()
    world.run("new")
    assert len(world.services.commands) == 2


def test_the_report_names_the_units_of_every_process_that_runs(world: World) -> None:
    bonded = Tunnel(pool=gateway.TUNNEL.pool, topology=BondedSegment(), listener=Listener.consecutive("udp", 1194, 2))
    world.publish(gateway.build_release(bonded))
    units = [OPENVPN, "openvpn-server@server1.service"]
    assert world.run().state == "ready"
    assert world.published_report()["units"] == units
    # A refused release does not change what runs.
    world.publish(gateway.pack_release(gateway.release_contents(gateway.build_release()) | {"new": b""}))
    world.services.fails = {"nft --check": "syntax error"}
    assert world.run().state == "refused"
    assert world.published_report()["units"] == units


@dataclass(frozen=True)
class Bad:
    """A release that must not run: what is wrong with it, and what the report says."""

    says: str
    files: dict[str, bytes]
    fails: dict[str, str]
    refuses: str = ""


BAD = {
    "rules": Bad("nft: syntax error", {}, {"nft --check": "syntax error"}),
    "options": Bad("openvpn: Options error", {}, {"openvpn --config": "Options error"}),
    "agent": Bad("SyntaxError", {"agent.py": b"def ("}, {"/": "SyntaxError"}),
    "start": Bad("the last words", {"root/etc/openvpn/server/server.conf": b"WRONG"}, {}, "WRONG"),
    "format": Bad("format 9", {"manifest.json": b'{"format": 9, "instances": [], "secrets": []}'}, {}),
}


@pytest.mark.fault("2.5")
@pytest.mark.parametrize("case", BAD)
def test_a_bad_release_is_refused_and_the_last_good_one_stays(world: World, case: str) -> None:
    good = world.publish(gateway.build_release())
    world.run()
    bad = BAD[case]
    sha = world.publish(
        gateway.pack_release(gateway.release_contents(gateway.build_release()) | {"new": b""} | bad.files)
    )
    world.services.fails, world.services.refuses = bad.fails, bad.refuses
    report = world.run()
    world.services.fails = {}
    # What shows only at the start may be the machine's fault.
    state = "degraded" if bad.refuses else "refused"
    assert (report.state, report.release, report.running) == (state, sha, good)
    assert bad.says in report.reason
    assert world.running() == good
    started = {agent.FIREWALL, "systemd-networkd.service", OPENVPN, "drawbridge-patches.timer"}
    assert world.services.active == started
    linked = world.machine.linked_generation()
    assert linked and linked.release == good
    # It is not tried again and again ...
    starts = world.services.starts
    assert world.run() == report
    assert world.services.starts == starts
    # ... and the next good one is taken.
    better = world.publish(gateway.build_release(revoked=[1]))
    assert world.run() == agent.Report("ready", better, better, "", "i-1", (OPENVPN,))


@pytest.mark.fault("2.12")
def test_keys_that_do_not_fit_are_refused(world: World) -> None:
    good = world.publish(gateway.build_release())
    world.run()
    gateway.gateway_secrets.cache_clear()
    world.put_secrets({"server.key": gateway.gateway_secrets()["server.key"]})
    report = world.run()
    assert (report.state, report.running) == ("refused", good)
    assert "do not match" in report.reason
    assert "PRIVATE" not in report.reason
    assert world.services.starts == 1


@pytest.mark.fault("2.4")
@pytest.mark.parametrize("archive", [b"", b"half", gateway.build_release().archive[:-1]])
def test_an_archive_with_another_digest_is_never_unpacked(world: World, archive: bytes) -> None:
    good = world.publish(gateway.build_release(revoked=[1]))
    world.run()
    release = gateway.build_release()
    sha = world.publish(release, archive)
    report = world.run()
    assert (report.state, report.release, report.running) == ("refused", sha, good)
    assert "SHA-256" in report.reason
    assert [path.name for path in world.machine.releases.iterdir()] == [good]
    # Put right, it is taken.
    world.publish(release)
    assert world.run().running == sha


def test_an_archive_that_climbs_is_refused_and_leaves_nothing(world: World) -> None:
    good = world.publish(gateway.build_release())
    world.run()
    world.publish(gateway.pack_release({"a": b"", "../../../etc/cron.d/x": b"* * * * * root true\n"}))
    assert world.run().state == "refused"
    assert [path.name for path in world.machine.releases.iterdir()] == [good]
    assert not list(world.root.rglob("cron.d"))


def test_revocations_hold_even_if_their_release_is_refused(world: World) -> None:
    world.publish(gateway.build_release(revoked=[1]))
    world.run()
    inode = world.machine.openvpn.joinpath("revoked").stat().st_ino
    world.services.fails = {"nft --check": "syntax error"}
    world.publish(gateway.build_release(revoked=[1, 2]))
    assert world.run().state == "refused"
    assert world.serials() == {"1", "2"}
    world.services.fails = {}
    world.publish(gateway.build_release(revoked=[3]))
    assert world.run().state == "ready"
    assert world.serials() == {"1", "2", "3"}, "none is ever taken back"
    assert world.machine.openvpn.joinpath("revoked").stat().st_ino == inode, "the directory itself is never replaced"


@pytest.mark.fault("5.6")
def test_a_revocation_leaves_when_release_and_clock_agree_that_its_certificate_has_ended(world: World) -> None:
    past, future = "2026-01-01T00:00:00+00:00", "2199-01-01T00:00:00+00:00"
    world.publish(gateway.build_release(revoked={1: "alice", 2: ""}, not_after=past))
    world.run()
    assert world.serials() == {"1", "2"}, "as long as the release has it, it stays"
    world.publish(gateway.build_release(revoked={3: "bob"}, not_after=future))
    world.run()
    assert world.serials() == {"3"}
    world.publish(gateway.build_release())
    world.run()
    assert world.serials() == {"3"}, "its certificate has not ended"


@pytest.mark.fault("8.1")
def test_ten_thousand_clients_of_which_two_thousand_are_left(world: World) -> None:
    clients = tuple(TunnelClient(name=f"client{number:04}") for number in range(2_000))
    tunnel = Tunnel(pool=IPv4Network("10.8.0.0/16"), clients=clients)
    revoked = {10**47 + number: f"client{number:05}" for number in range(8_000)}
    built = gateway.build_release(tunnel, revoked, "2199-01-01T00:00:00+00:00")
    assert len(built.archive) < agent.MAX_ARCHIVE / 2
    world.publish(built)
    assert world.run().state == "ready"
    assert len(world.serials()) == 8_000


@pytest.mark.fault("2.7")
@pytest.mark.parametrize("command", ["nft --check", "systemctl daemon-reload", "systemctl reload-or-restart"])
def test_a_release_on_a_machine_that_is_too_slow_is_tried_again(world: World, command: str) -> None:
    """An instance without CPU credits is as slow; that says nothing of the release."""
    good = world.publish(gateway.build_release())
    world.run()
    sha = world.publish(gateway.build_release(revoked=[1]))
    world.services.hangs = command
    report = world.run()
    # The checks come before the release is in use; the other commands are needed to go back as well.
    assert report.state == ("degraded" if "check" in command else "failed")
    assert (report.release, report.running) == (sha, good)
    assert "did not end within 60 s" in report.reason
    world.services.hangs = ""
    if report.state == "failed":
        assert world.run().running == good, "it is tried again after a pause"
        world.machine.retry_file.touch()
    assert world.run().running == sha


def test_the_resolver_reads_its_settings_once(world: World) -> None:
    """Until it restarts, it answers clients that ask by multicast for the gateway's names."""
    restart = "systemctl try-restart systemd-resolved.service"
    world.publish(gateway.build_release())
    world.run()
    assert world.services.commands.count(restart) == 1
    world.publish(gateway.build_release(revoked=[1]))
    world.run()
    assert world.services.commands.count(restart) == 1


def test_first_release_refused_is_tried_again(world: World) -> None:
    sha = world.publish(gateway.build_release())
    world.services.fails = {"nft --check": "no such table"}
    report = world.run()
    assert (report.state, report.release, report.running) == ("failed", sha, ""), "nothing runs"
    assert OPENVPN not in world.services.active
    world.services.fails = {}
    assert world.run().running == sha


@pytest.mark.fault("4.6")
def test_without_aws_the_last_good_release_is_kept_running(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    good = world.publish(gateway.build_release())
    world.run()
    world.services.active.clear()

    class Down:
        """Stand-in for an API that does not answer."""

        def look_up(self, _: object) -> None:
            raise agent.FailedError("could not connect")

    report = agent.converge(world.machine, Down(), "agent")  # type: ignore[arg-type]
    assert (report.state, report.running, report.reason) == ("degraded", good, "could not connect")
    assert world.running() == good


@pytest.mark.fault("4.6")
def test_an_unreachable_api_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(f"AWS_{key}", value)
    with pytest.raises(agent.FailedError, match="Could not connect"):
        agent.Cloud(ENV).look_up(())


@pytest.mark.fault("2.13")
def test_missing_parameters_are_named(world: World) -> None:
    assert world.run().reason == f"AWS has no parameter {NAMES.release}"
    world.publish(gateway.build_release())
    world.ssm.delete_parameter(Name=NAMES.secret("server.key"))
    report = world.run()
    assert (report.state, report.reason) == ("failed", f"AWS has no parameter {NAMES.secret('server.key')}")
    assert OPENVPN not in world.services.active


@pytest.mark.fault("1.8")
def test_a_service_that_died_is_started_again(world: World) -> None:
    sha = world.publish(gateway.build_release())
    world.run()
    world.services.active.discard(OPENVPN)
    repaired = (f"{OPENVPN} is down: the last words",)
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,), repaired)
    assert OPENVPN in world.services.active


@pytest.mark.fault("1.4")
@pytest.mark.parametrize("written", [True, False], ids=["no more", "never"])
def test_a_process_that_hangs_is_restarted(world: World, written: bool) -> None:
    sha = world.publish(gateway.build_release())
    world.run()
    gateway.make_stale(world.root / "run/openvpn-server/status")
    gateway.make_stale(world.root / "run/openvpn-server/release")
    if not written:
        (world.root / "run/openvpn-server/status").unlink()
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,), (f"{OPENVPN} hung",))
    assert world.services.starts == 2
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))
    assert world.services.starts == 2


@pytest.mark.fault("1.5")
def test_a_process_that_keeps_hanging_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(gateway.build_release())
    world.run()
    monkeypatch.setattr(agent.GatewayMachine, "is_fresh", lambda *_: False)
    gateway.make_stale(world.root / "run/openvpn-server/status")
    report = world.run()
    assert report.state == "failed"
    assert "does not come up" in report.reason


@pytest.mark.fault("3.8")
def test_a_reboot_needs_nothing_but_the_links(world: World) -> None:
    world.publish(gateway.build_release())
    world.run()
    starts = world.services.starts
    world.services.reboot()
    assert world.run().state == "ready"
    assert world.services.starts == starts + 1, "the boot's own start and no other"


class Killed(BaseException):
    """Stand-in for SIGKILL: from here on nothing of the process has any effect."""


def snapshot(world: World) -> tuple[object, ...]:
    return (
        world.running(),
        world.machine.linked_generation(),
        world.machine.load_state().applied,
        world.serials(),
        world.published_report()["state"],
    )


class Mortal:
    """Lets a process live for a number of effects."""

    def __init__(self, lives: int) -> None:
        self.lives = lives
        self.spared = False

    def __call__(self, effect: Callable[..., Any], *, spare: bool = False) -> Callable[..., Any]:
        """The effect, or death before it. What another process does because of it is spared."""

        def step(*arguments: Any, **options: Any) -> Any:
            if not self.spared:
                self.lives -= 1
                if self.lives < 0:
                    raise Killed
            if not spare:
                return effect(*arguments, **options)
            self.spared = True
            try:
                return effect(*arguments, **options)
            finally:
                self.spared = False

        return step


def run_until_killed(world: World, monkeypatch: pytest.MonkeyPatch, lives: int, effects: list[tuple[Any, str]]) -> bool:
    """Run the agent for a number of effects and commands; return whether the run came to its end."""
    mortal = Mortal(lives)
    with monkeypatch.context() as patch:
        for owner, name in effects:
            patch.setattr(owner, name, mortal(getattr(owner, name)))
        patch.setattr(world.machine, "run", mortal(world.services, spare=True))
        try:
            world.run()
        except Killed:
            return False
    return True


def restore(world: World, copy: Path) -> None:
    """Put a machine's disk back to a copy of it, with its services running."""
    shutil.rmtree(world.root)
    shutil.copytree(copy, world.root, symlinks=True)
    world.services.active = {agent.FIREWALL, OPENVPN}


@pytest.mark.fault("2.1")
def test_killed_at_any_point_the_next_run_ends_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of the disk and each command is once what a run did not come to any more."""
    old = world.publish(gateway.build_release())
    world.run()
    before = world.root.with_name(f"{world.root.name}-before")
    shutil.copytree(world.root, before, symlinks=True)
    tunnel = Tunnel(pool=gateway.TUNNEL.pool, listener=Listener("udp", (1195,)), clients=gateway.TUNNEL.clients)
    new = world.publish(gateway.build_release(tunnel, revoked=[9]))
    effects: list[tuple[Any, str]] = [(agent, "create_file"), (shutil, "rmtree"), (os, "chown"), (os, "fsync")]
    effects += [(Path, name) for name in ("rename", "unlink", "mkdir", "symlink_to")]
    for lives in range(1_000):
        alive = run_until_killed(world, monkeypatch, lives, effects)
        if lives % 3 == 0:
            world.services.reboot()
        assert world.running() in {old, new}, f"after {lives} effects"
        assert world.run().state == "ready", f"after {lives} effects"
        assert world.running() == new
        assert world.machine.linked_generation() == world.machine.load_state().applied
        assert world.serials() == {"9"}
        assert world.published_report()["release"] == new
        assert not list((world.root / "opt").rglob(".*.new"))
        if alive:
            break
        restore(world, before)
    assert 50 < lives < 999


def list_disk(world: World) -> set[Path]:
    """Return every path on the machine's disk; /run is in memory."""
    paths = {path.relative_to(world.root) for path in world.root.rglob("*")}
    return {path for path in paths if path.parts[0] != "run"}


@pytest.mark.fault("2.2", "2.3")
@pytest.mark.parametrize("nth", [1, 3, 9])
def test_a_full_disk_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """The nth file is cut off half-way, as `write` meets it when the disk is full."""
    good = world.publish(gateway.build_release())
    world.run()
    listing = list_disk(world)
    sha = world.publish(gateway.build_release(revoked=[5]))
    write, count = agent.create_file, [0]

    def full(path: Path, content: bytes, *rest: Any, **more: Any) -> None:
        count[0] += 1
        if count[0] >= nth and "run/" not in str(path.relative_to(world.root)):
            write(path, content[: len(content) // 2], *rest, **more)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(agent, "create_file", full)
        report = agent.converge(world.machine, agent.Cloud(ENV), "agent")
    assert (report.state, report.release, report.running) == ("degraded", sha, good)
    assert "No space left" in report.reason
    assert world.running() == good
    # But the revocation holds.
    assert list_disk(world) == {*listing, Path("etc/openvpn/server/revoked/5")}
    assert world.run().running == sha


def test_a_process_that_a_release_no_longer_has_is_stopped_and_its_device_deleted(world: World) -> None:
    world.publish(gateway.build_release(replace(gateway.TUNNEL, listener=Listener(sharing=2))))
    assert world.run().state == "ready"
    assert f"systemctl restart {OPENVPN.replace('.', '1.')}" in world.services.commands
    world.services.commands.clear()
    world.publish(gateway.build_release())
    assert world.run().state == "ready"

    disabled = [command for command in world.services.commands if command.startswith("systemctl disable")]
    assert disabled == ["systemctl disable --now --quiet openvpn-server@server1.service"]
    deleted = [command for command in world.services.commands if command.startswith("ip link delete")]
    assert deleted == ["ip link delete tun1"]
