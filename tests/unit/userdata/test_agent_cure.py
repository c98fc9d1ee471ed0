"""What the agent does when a release or a revocation fails by circumstance.

Does not prove that the programs fail as `gateway.ServicesStub`, their stand-in, fails.
"""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openvpn.listener import Listener
from openvpn.model import Tunnel
from tests.support import gateway
from tests.unit.userdata.test_agent_machine import OPENVPN, Clock, World, world  # noqa: F401  # a fixture
from userdata import release
from userdata.files import agent

#: A release that OpenVPN must be restarted for.
MOVED = Tunnel(pool=gateway.TUNNEL.pool, listener=Listener("udp", (1195,)), clients=gateway.TUNNEL.clients)


@pytest.mark.fault("1.2", "2.6")
def test_a_release_that_did_not_come_up_is_tried_again_after_growing_pauses(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    good = world.publish(gateway.build_release())
    world.run()
    sha = world.publish(gateway.build_release(MOVED))
    world.services.refuses = "port 1195"
    start = clock.now
    attempts = []
    for seconds in range(0, 4 * 3600, 30):
        clock.now = start + seconds
        starts = world.services.starts
        report = world.run()
        assert (report.state, report.release, report.running) == ("degraded", sha, good)
        assert world.running() == good
        if world.services.starts != starts:
            attempts.append(seconds)
    assert attempts == [0, 60, 360, 2160, 9360]
    assert f"{OPENVPN} does not start: the last words (tried 5 times, next at 20" in report.reason
    world.services.refuses = ""
    clock.now = start + 9360 + agent.RETRY_PAUSES[-1]
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))
    assert world.machine.load_state().failed is None


@pytest.mark.fault("5.5")
def test_a_clock_that_was_set_back_does_not_put_off_an_attempt_for_years(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    world.publish(gateway.build_release())
    world.run()
    sha = world.publish(gateway.build_release(MOVED))
    world.services.refuses = "port 1195"
    world.run()
    world.services.refuses = ""
    clock.now -= 3 * 365 * 86400
    assert world.run().running == sha


@pytest.mark.parametrize("wrong_in_itself", [True, False])
def test_a_retry_that_the_operator_asks_for_forgets_what_was_remembered(
    world: World,  # noqa: F811
    wrong_in_itself: bool,
) -> None:
    world.publish(gateway.build_release())
    world.run()
    sha = world.publish(gateway.build_release(MOVED))
    world.services.fails = (
        {"nft --check": "no memory"} if wrong_in_itself else {f"systemctl restart {OPENVPN}": "killed"}
    )
    first = world.run()
    assert first.state == ("refused" if wrong_in_itself else "degraded")
    world.services.fails = {}
    assert world.run() == first, "it is remembered"
    world.machine.retry_file.touch()
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))
    assert not world.machine.retry_file.exists()


@pytest.mark.fault("2.8")
def test_a_check_that_was_killed_says_nothing_of_the_release(world: World) -> None:  # noqa: F811
    world.publish(gateway.build_release())
    world.run()
    sha = world.publish(gateway.build_release(MOVED))
    run = world.machine.run

    def kill(argv: Any) -> Any:
        result = run(argv)
        result.returncode = -9 if argv[0] == "nft" and argv[1] == "--check" else result.returncode
        return result

    world.machine.run = kill
    report = world.run()
    assert (report.state, report.reason) == ("degraded", "nft was killed by signal 9")
    world.machine.run = run
    assert world.run().running == sha


ARCHIVES = {
    "too many files": {f"ccd/client{number}": b"" for number in range(agent.MAX_FILES)},
    "too large": {"root/etc/large": b"\0" * (agent.MAX_UNPACKED + 1)},
    "climbs": {"../../etc/cron.d/x": b""},
    "no manifest": {"manifest.json": b"{}"},
}


@pytest.mark.fault("2.10")
@pytest.mark.parametrize("case", ARCHIVES)
def test_a_revocation_holds_whatever_is_wrong_with_its_archive(world: World, case: str) -> None:  # noqa: F811
    good = world.publish(gateway.build_release(revoked={1: "bob"}))
    world.run()
    files = gateway.release_contents(gateway.build_release(revoked={1: "bob", 2: "alice"}))
    world.publish(gateway.pack_release(files | ARCHIVES[case]))
    report = world.run()
    assert (report.state, report.running) == ("refused", good)
    assert world.serials() == {"1", "2"}


def test_an_archive_that_cannot_be_read_to_its_end_ends_no_session_but_of_what_it_revokes() -> None:
    """Its list of clients may lack some, whose sessions would end for good."""
    archive = gateway.build_release().archive
    sessions = [agent.Session("alice", 1), agent.Session("carol", 2)]
    assert agent.kill_commands(sessions, agent.read_revocations(archive).allowed, set()) == ["client-kill 2 HALT"]
    damaged = agent.read_revocations(archive[: len(archive) // 2])
    assert agent.kill_commands(sessions, damaged.allowed, {"alice"}) == ["client-kill 1"]


@pytest.mark.fault("2.3")
def test_a_revocation_holds_though_the_disk_has_no_room_for_its_release(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An empty file needs no block of the disk."""
    world.publish(gateway.build_release())
    world.run()
    write = agent.create_file

    def full(path: Path, content: bytes, *rest: Any, **more: Any) -> None:
        if content and "run/" not in str(path.relative_to(world.root)):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content, *rest, **more)

    monkeypatch.setattr(agent, "create_file", full)
    world.publish(gateway.build_release(revoked=[5]))
    report = agent.converge(world.machine, world.cloud, "agent")
    assert report.state == "degraded"
    assert "No space left" in report.reason
    assert world.serials() == {"5"}


UNENDED = f"{OPENVPN} still serves revoked clients"


def publish_revocation_at_silent_process(world: World) -> str:  # noqa: F811
    """Publish a release without bob, who is connected, while OpenVPN does not answer; return its digest."""
    world.publish(gateway.build_release())
    world.run()
    sha = world.publish(gateway.build_release(gateway.tunnel_without(("bob",)), revoked={5: "bob"}))
    (world.root / "run/openvpn-server/mgmt.sock").touch()
    world.services.sessions = {7: "alice", 8: "bob"}
    world.services.silent = True
    return sha


@pytest.mark.fault("1.7")
def test_a_session_that_cannot_be_ended_does_not_stop_the_release(world: World) -> None:  # noqa: F811
    """The release is in force, and each run tries again until OpenVPN answers."""
    sha = publish_revocation_at_silent_process(world)
    report = world.run()
    assert (report.state, report.running) == ("degraded", sha)
    assert "mgmt.sock: timed out" in report.reason
    assert not (world.machine.current / "ccd/bob").exists()
    assert world.serials() == {"5"}
    state, commands = world.machine.load_state(), len(world.services.commands)
    assert state.applied is not None
    assert state.applied.release == sha
    report = world.run()
    assert (report.state, report.reason) == ("degraded", UNENDED)
    assert [c for c in world.services.commands[commands:] if "start" in c or "openvpn --config" in c] == []
    world.services.silent = False
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,), (UNENDED,))
    assert world.services.asked[-1] == "client-kill 8 HALT"
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))
    assert world.services.starts == 1


@pytest.mark.fault("1.7")
def test_a_session_that_cannot_be_ended_is_ended_by_a_restart_after_a_minute(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    sha = publish_revocation_at_silent_process(world)
    restarts = []
    for seconds in range(0, 600, 30):
        clock.now += 30
        starts = world.services.starts
        report = world.run()
        if world.services.starts != starts:
            restarts.append(seconds)
            assert report.repaired == (UNENDED,)
    assert restarts == [60]
    # The socket is still silent, but nobody who was revoked is connected.
    assert report.reason == f"{OPENVPN} does not answer at its management socket: timed out"
    assert (report.state, report.running) == ("degraded", sha)


def test_a_release_that_revokes_nobody_asks_openvpn_for_no_sessions(world: World) -> None:  # noqa: F811
    world.publish(gateway.build_release(revoked={5: "bob"}))
    world.run()
    (world.root / "run/openvpn-server/mgmt.sock").touch()
    world.publish(gateway.build_release(Tunnel(pool=gateway.TUNNEL.pool), revoked={5: "bob"}))
    world.services.silent = True
    assert world.run().state == "ready"
    assert world.services.asked == []


def machine_files(world: World) -> dict[str, object]:  # noqa: F811
    """What is on the machine: each file's content and time, each link's target."""
    return {
        str(path): path.readlink() if path.is_symlink() else (path.read_bytes(), path.stat().st_mtime_ns)
        for path in world.root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("is_new", [False, True])
def test_a_dry_run_gets_to_its_end_and_changes_nothing(world: World, is_new: bool) -> None:  # noqa: F811
    sha = world.publish(gateway.build_release())
    world.run()
    if is_new:
        sha = world.publish(gateway.build_release(gateway.tunnel_without(("bob",)), revoked={5: "bob"}))
    (world.root / "run/drawbridge/retry").touch()
    files, commands = machine_files(world), len(world.services.commands)
    dry = agent.DryMachine(world.root, world.services)
    if is_new:
        # The running agent has put it there before it has the release's agent try it.
        world.machine.unpack_release(sha, world.cloud.fetch_archive(world.cloud.look_up(())[0]))
        files = machine_files(world)
    lines = list(agent.dry_run(dry, world.cloud, sha, "another agent"))
    assert lines[-1] == f"checked {sha}"
    assert ("revoke 1 serials" in lines) == is_new
    assert machine_files(world) == files
    changes = ("start", "restart", "reload", "enable", "mask", "--file", "replace")
    assert [c for c in world.services.commands[commands:] if any(word in c.split() for word in changes)] == []


def test_a_dry_run_without_aws_is_incomplete(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Which an agent that only takes the exit status must not remember."""
    sha = world.publish(gateway.build_release())
    world.run()

    def fail(_: object) -> None:
        raise agent.FailedError("ThrottlingException")

    monkeypatch.setattr(world.cloud, "look_up", fail)
    dry = agent.DryMachine(world.root, world.services)
    assert list(agent.dry_run(dry, world.cloud, sha, "agent"))[-1] == "incomplete: degraded ThrottlingException"


@pytest.mark.parametrize(
    ("printed", "state", "is_remembered"),
    [("", "refused", True), ("checked another\n", "refused", True), ("incomplete: failed no\n", "degraded", False)],
)
def test_an_agent_hands_over_only_after_a_whole_dry_run(
    world: World,  # noqa: F811
    printed: str,
    state: str,
    is_remembered: bool,
) -> None:
    """Nothing in the exit status distinguishes one that ends at its first line."""
    good = world.publish(gateway.build_release())
    world.run()
    world.publish(gateway.build_release(revoked=[1]))
    world.services.checks = printed
    report = world.run()
    assert (report.state, report.running) == (state, good)
    assert "dry run" in report.reason
    world.services.checks = None
    assert (world.run().state == state) == is_remembered


def test_a_release_of_an_older_version_is_accepted_though_its_check_prints_nothing(world: World) -> None:  # noqa: F811
    """Its manifest does not say that its agent can make a dry run."""
    world.publish(gateway.build_release())
    world.run()
    files = gateway.release_contents(gateway.build_release(revoked=[1]))
    manifest = json.loads(files["manifest.json"])
    del manifest["check"]
    sha = world.publish(gateway.pack_release(files | {"manifest.json": json.dumps(manifest).encode()}))
    world.services.checks = ""
    report = world.run()
    assert (report.state, report.running) == ("ready", sha)


def test_the_word_is_the_same_in_the_manifest_and_in_the_agent() -> None:
    assert release.CHECKED == agent.CHECKED


def test_a_release_with_many_serials_is_flushed_as_a_whole(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not each of thousands of files by itself."""
    world.publish(gateway.build_release())
    world.run()
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    world.publish(gateway.build_release(revoked=range(100, 400)))
    assert world.run().state == "ready"
    assert len(world.serials()) == 300
    assert len(flushed) < 50


def test_an_unchanged_report_is_sent_again_as_a_sign_of_life(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world.publish(gateway.build_release())
    world.run()
    sent: list[str] = []
    monkeypatch.setattr(world.cloud, "put_report", sent.append)
    world.run()
    assert sent == []
    state = world.machine.load_state()
    world.machine.save_state(replace(state, reported_at=state.reported_at - agent.HEARTBEAT))
    world.run()
    world.run()
    assert [json.loads(text)["state"] for text in sent] == ["ready"]
