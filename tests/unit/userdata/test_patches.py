"""The script that restarts what runs old files, on a made-up machine and clock.

Does not prove that a kernel marks replaced files so; tests/lab/worlds/test_gateway.py shows that.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userdata.files import patches

#: A Sunday.
SUNDAY = datetime(2026, 11, 29, tzinfo=UTC)
IN_WINDOW = SUNDAY + timedelta(hours=3, minutes=10)
OUTSIDE = SUNDAY + timedelta(days=1)
WINDOW = "sun:03:00-sun:04:00"
OPENVPN, SECOND = "openvpn-server@server.service", "openvpn-server@server1.service"


@pytest.mark.parametrize(
    ("window", "moment", "is_open"),
    [
        (WINDOW, SUNDAY + timedelta(hours=3), True),
        (WINDOW, SUNDAY + timedelta(hours=3, seconds=-1), False),
        (WINDOW, SUNDAY + timedelta(hours=3, minutes=59), True),
        (WINDOW, SUNDAY + timedelta(hours=4), False),
        (WINDOW, SUNDAY + timedelta(days=1, hours=3), False),
        ("sun:23:30-mon:00:30", SUNDAY + timedelta(hours=23, minutes=30), True),
        ("sun:23:30-mon:00:30", SUNDAY + timedelta(days=1, minutes=29), True),
        ("sun:23:30-mon:00:30", SUNDAY + timedelta(days=1, minutes=30), False),
        ("sun:23:30-mon:00:30", SUNDAY, False),
        ("23:30-00:30", SUNDAY, True),
        ("23:30-00:30", SUNDAY + timedelta(days=3, hours=23, minutes=45), True),
        ("23:30-00:30", SUNDAY + timedelta(hours=12), False),
        ("mon:00:00-sun:23:59", SUNDAY + timedelta(hours=12), True),
    ],
)
def test_a_window_is_open_from_its_first_minute_to_before_its_last(
    window: str, moment: datetime, is_open: bool
) -> None:
    assert patches.read_window(window).contains(moment) is is_open


def test_a_window_is_in_utc_and_closes_early_for_what_takes_long() -> None:
    window = patches.read_window(WINDOW)
    elsewhere = datetime.fromisoformat("2026-11-29T05:30:00+02:00")
    assert window.contains(elsewhere)
    assert window.contains(SUNDAY + timedelta(hours=3, minutes=54), margin=5)
    assert not window.contains(SUNDAY + timedelta(hours=3, minutes=55), margin=5)


@given(st.integers(0, patches.WEEK - 1), st.integers(1, patches.WEEK - 1), st.integers(0, patches.WEEK - 1))
def test_a_window_is_open_for_its_length_each_week(start: int, minutes: int, minute: int) -> None:
    moment = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(minutes=minute)
    expected = minute in {(start + passed) % patches.WEEK for passed in range(minutes)}
    assert patches.Window(start, minutes, patches.WEEK).contains(moment) is expected


@pytest.mark.parametrize("text", ["", "sun:03:00", "sun:03:00-04:00", "foo:03:00-sun:04:00", "sun:3-sun:4"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError):
        patches.read_window(text)


def test_only_program_files_that_were_replaced_count() -> None:
    maps = """\
5583c0a00000-5583c0a20000 r--p 00000000 fe:01 1318 /usr/sbin/openvpn (deleted)
7f3c00000000-7f3c00100000 r-xp 00001000 fe:01 2222 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)
7f3c00100000-7f3c00200000 r-xp 00001000 fe:01 2223 /usr/lib/x86_64-linux-gnu/libc.so.6
7f3c00200000-7f3c00300000 rw-s 00000000 00:01 1 /dev/zero (deleted)
7f3c00300000-7f3c00400000 rw-s 00000000 00:05 4 /memfd:systemd (deleted)
7f3c00400000-7f3c00500000 r--s 00000000 fe:01 9 /var/lib/x (deleted)
7f3c00500000-7f3c00600000 rw-p 00000000 00:00 0
"""
    assert patches.find_replaced_files(maps) == {"/usr/sbin/openvpn", "/usr/lib/x86_64-linux-gnu/libssl.so.3"}


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/ssh.service\n", "ssh.service"),
        ("12:pids:/a.service\n1:name=systemd:/system.slice/openvpn-server@server.service\n0::/\n", OPENVPN),
        ("1:name=systemd:/lab.service/payload/system.slice/dbus.service\n", "dbus.service"),
        ("0::/init.scope\n", "init.scope"),
        ("0::/user.slice/user-1000.slice/session-1.scope\n", ""),
        ("0::/\n", ""),
    ],
)
def test_the_unit_of_a_process(cgroup: str, unit: str) -> None:
    assert patches.find_unit(cgroup) == unit


def test_packages_of_other_archives_are_not_debians_fixes() -> None:
    simulation = (
        "Inst libssl3t64 [3.5.1-1] (3.5.4-1~deb13u1 Debian-Security:13/stable-security [arm64]) []\n"
        "Inst tool [1] (2 Vendor:1/stable [arm64])\n"
        "Inst linux-image-6.12.60 (6.12.60-1 Debian:13.2/stable [arm64])\n"
        "Conf libssl3t64 (3.5.4-1~deb13u1 Debian-Security:13/stable-security [arm64])\n"
    )
    assert patches.read_offered(simulation) == ("libssl3t64",)


@dataclass
class FakeMachine:
    """The commands of a machine, whose OpenVPN processes have the files under `root`."""

    root: Path
    installed: str = "2.6.14-1"
    kernels: tuple[str, ...] = ("6.12.57-1",)
    running_kernel: str = "6.12.57-1"
    offered: str = ""
    broken: str = ""
    """A unit that does not come up again."""
    commands: list[str] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)

    def add_process(self, unit: str, *replaced: str) -> None:
        """Start a unit's main process, some of whose files were replaced since."""
        pid = 100 + len(list(self.root.glob("proc/*")))
        directory = self.root / f"proc/{pid}"
        directory.mkdir(parents=True)
        (directory / "cgroup").write_text(f"0::/system.slice/{unit}\n")
        (directory / "stat").write_text(f"{pid} (a b) S {' '.join(map(str, range(4, 23)))} 0\n")
        self.pids[unit] = pid
        self.states[unit] = "active"
        self.replace_files(unit, *replaced)
        self.write_status(unit)

    def replace_files(self, unit: str, *paths: str) -> None:
        """Replace files that a unit's process runs."""
        lines = "".join(f"7f00-7f01 r-xp 00000000 fe:01 7 {path} (deleted)\n" for path in paths)
        (self.root / f"proc/{self.pids[unit]}/maps").write_text(lines)

    def write_status(self, unit: str) -> None:
        directory = self.root / f"run/openvpn-{unit.partition('@')[2].removesuffix('.service')}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "status").write_text("END\n")

    def run(self, argv: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        self.commands.append(" ".join(argv))
        out, status = "", 0
        match list(argv):
            case ["systemctl", "show", "-P", "MainPID", unit]:
                out = str(self.pids.get(unit, 0))
            case ["systemctl", "show", "-P", "Type", unit]:
                out = self.types.get(unit, "notify")
            case ["systemctl", "show", "-P", "ActiveState", unit]:
                out = self.states.get(unit, "inactive")
            case ["systemctl", "try-restart", unit]:
                self.states[unit] = "failed" if unit == self.broken else "active"
                self.replace_files(unit)
                self.write_status(unit)
            case ["dpkg-query", "--show", _, "openvpn"]:
                out = self.installed
            case ["dpkg-query", "--show", _, "linux-image-[0-9]*"]:
                out = "".join(f"installed {version}\n" for version in self.kernels) + "config-files 9.9-1\n"
            case ["dpkg", "--compare-versions", version, "gt", other]:
                status = int(version <= other)
            case ["apt-get", "--simulate", *_]:
                out = self.offered
        return subprocess.CompletedProcess(argv, status, out, "")

    def machine(self) -> patches.PatchedMachine:
        uname = f"#1 SMP Debian {self.running_kernel} (2026-11-01)"
        return patches.PatchedMachine(self.root, self.run, lambda: uname, lambda _: None)

    def at(self, now: datetime, window: str = WINDOW) -> dict[str, object]:
        """Run the script at a time; return its status."""
        directory = self.root / "state"
        directory.mkdir(exist_ok=True)
        self.commands.clear()
        patches.run_once(self.machine(), directory, window, now)
        status = json.loads((directory / "status.json").read_text())
        assert isinstance(status, dict)
        return status

    @property
    def restarts(self) -> list[str]:
        changes = ("try-restart", "reboot", "daemon-reexec")
        return [command.partition(" ")[2] for command in self.commands if command.split()[1] in changes]


@pytest.fixture
def fake(tmp_path: Path) -> FakeMachine:
    """A machine with two OpenVPN processes, the stack's clock moved at will."""
    release = tmp_path / "opt/drawbridge/current"
    release.mkdir(parents=True)
    (release / "manifest.json").write_text(json.dumps({"instances": ["server", "server1"]}))
    made = FakeMachine(tmp_path)
    for unit in (OPENVPN, SECOND):
        made.add_process(unit)
    return made


def test_nothing_waits_on_a_machine_that_runs_what_is_installed(fake: FakeMachine) -> None:
    assert fake.at(IN_WINDOW) == {
        "openvpn": {"running": "2.6.14-1", "installed": "2.6.14-1"},
        "kernel": {"running": "6.12.57-1", "installed": "6.12.57-1"},
        "waiting": {},
        "window": WINDOW,
        "failure": "",
    }
    assert fake.restarts == []


def test_an_upgraded_openvpn_waits_for_the_window_and_then_restarts_one_by_one(fake: FakeMachine) -> None:
    fake.at(OUTSIDE)
    fake.installed = "2.6.14-2"
    for unit in (OPENVPN, SECOND):
        fake.replace_files(unit, "/usr/sbin/openvpn")

    first = fake.at(OUTSIDE)
    later = fake.at(OUTSIDE + timedelta(days=2))

    assert first["openvpn"] == {"running": "2.6.14-1", "installed": "2.6.14-2"}
    assert first["waiting"] == dict.fromkeys((OPENVPN, SECOND), "2026-11-30T00:00:00+00:00") == later["waiting"]
    assert fake.restarts == []

    done = fake.at(IN_WINDOW + timedelta(days=7))
    assert fake.restarts == [f"try-restart {OPENVPN}", f"try-restart {SECOND}"]
    assert (done["openvpn"], done["waiting"]) == ({"running": "2.6.14-2", "installed": "2.6.14-2"}, {})


def test_a_process_that_does_not_come_up_keeps_the_other_from_its_restart(fake: FakeMachine) -> None:
    for unit in (OPENVPN, SECOND):
        fake.replace_files(unit, "/usr/lib/libssl.so.3")
    fake.broken = OPENVPN

    status = fake.at(IN_WINDOW)
    assert fake.restarts == [f"try-restart {OPENVPN}"]
    assert status["failure"] == f"{OPENVPN} is failed"

    fake.at(IN_WINDOW + timedelta(minutes=5))
    assert fake.restarts == [], "the first one is still down"


def test_a_library_concerns_every_service_and_openvpn_comes_first(fake: FakeMachine) -> None:
    fake.replace_files(SECOND, "/usr/lib/libssl.so.3")
    fake.add_process("a.service", "/usr/lib/libssl.so.3")
    fake.add_process("drawbridge-agent.service", "/usr/lib/libssl.so.3")
    fake.types["drawbridge-agent.service"] = "oneshot"
    fake.add_process("b.service")

    fake.at(IN_WINDOW)
    assert fake.restarts == [f"try-restart {SECOND}", "try-restart a.service"]


def test_the_agents_python_takes_nothing_a_long_running_script_a_restart(fake: FakeMachine) -> None:
    fake.add_process("drawbridge-agent.service", "/usr/bin/python3.13")
    fake.types["drawbridge-agent.service"] = "oneshot"
    fake.add_process("unattended-upgrades.service", "/usr/bin/python3.13")
    assert fake.at(IN_WINDOW)["waiting"] == {}
    assert fake.restarts == ["try-restart unattended-upgrades.service"]


def test_a_newer_kernel_takes_one_reboot_and_no_other_restart(fake: FakeMachine) -> None:
    fake.kernels = ("6.12.57-1", "6.12.63-1")
    fake.replace_files(OPENVPN, "/usr/sbin/openvpn")

    status = fake.at(OUTSIDE)
    assert status["kernel"] == {"running": "6.12.57-1", "installed": "6.12.63-1"}
    assert fake.restarts == []

    fake.at(IN_WINDOW + timedelta(days=7))
    assert fake.restarts == ["reboot"]


def test_a_kernel_that_a_reboot_did_not_start_is_reported_and_does_not_reboot_each_week(fake: FakeMachine) -> None:
    fake.kernels = ("6.12.57-1", "6.12.63-1")
    fake.at(datetime.now(UTC), window="00:00-23:59")
    assert fake.restarts == ["reboot"]

    status = fake.at(datetime.now(UTC) + timedelta(days=7), window="00:00-23:59")
    assert fake.restarts == []
    assert "does not run kernel 6.12.63-1" in str(status["failure"])


def test_a_bus_that_cannot_restart_takes_a_reboot(fake: FakeMachine) -> None:
    fake.add_process("dbus.service", "/usr/bin/dbus-daemon")
    fake.at(IN_WINDOW)
    assert fake.restarts == ["reboot"]


def test_a_fix_that_is_offered_and_not_installed_waits_too(fake: FakeMachine) -> None:
    lists = fake.root / "var/lib/apt/lists"
    lists.mkdir(parents=True)
    (lists / "mirror_main_Packages").write_text("")
    fake.offered = "Inst openvpn [2.6.14-1] (2.6.14-2 Debian-Security:13/stable-security [arm64])\n"

    assert fake.at(OUTSIDE)["waiting"] == {"package openvpn": "2026-11-30T00:00:00+00:00"}
    assert fake.at(OUTSIDE + timedelta(days=1))["waiting"] == {"package openvpn": "2026-11-30T00:00:00+00:00"}
    assert not any(command.startswith("apt-get") for command in fake.commands), "nothing has changed"


def test_lists_that_nobody_updates_count_as_a_fix_that_waits(fake: FakeMachine) -> None:
    stamp = fake.root / "var/lib/apt/periodic/update-stamp"
    stamp.parent.mkdir(parents=True)
    stamp.write_text("")
    os.utime(stamp, (SUNDAY.timestamp(), SUNDAY.timestamp()))
    assert fake.at(SUNDAY + timedelta(days=2))["waiting"] == {}
    assert fake.at(SUNDAY + timedelta(days=4))["waiting"] == {"package lists": "2026-11-29T00:00:00+00:00"}


def test_nothing_restarts_while_packages_are_installed(fake: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.replace_files(OPENVPN, "/usr/sbin/openvpn")
    monkeypatch.setattr(patches.PatchedMachine, "is_installing", lambda _: True)
    fake.at(IN_WINDOW)
    assert fake.restarts == []


@pytest.mark.parametrize("text", ["", "[]", "null", '{"since": 1, "unknown": 2}'])
def test_a_damaged_memory_counts_as_empty(text: str) -> None:
    assert patches.read_memory(text) == patches.Memory()
