#!/usr/bin/env python3
"""Restarts what still runs old files after an upgrade, in the stack's maintenance window, and notes what waits.

Debian's unattended-upgrades installs fixes every day, but a process keeps the files that it has started with. This
script runs every five minutes by a timer. It looks for processes whose files were replaced, for a newer kernel and for
fixes that were offered and not installed, and writes what waits since when to its state directory: the agent reports
that, and metrics.py sends it. In the window it restarts one process after another, OpenVPN's first, and each only if
all of OpenVPN's processes are up. What cannot restart by itself, the kernel first of all, takes a reboot.

needrestart, Debian's tool for this, looks at the same files; it never restarts OpenVPN, knows no window, and would
have to be installed with Perl libraries at the first boot. Only Python's standard library.
"""

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

DAY, WEEK = 24 * 60, 7 * 24 * 60
"""Minutes."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Minutes before the end of the window after which nothing is restarted: a machine takes some to boot.
MARGIN = 5

#: Time after which a restart or reboot that did not help is tried again, if it is the window then.
RETRY_AFTER = timedelta(hours=12)
#: Age of the package lists from which on they count as a fix that waits: nobody knows what has been published since.
LISTS_MAX_AGE = timedelta(days=3)

#: Time after which a machine that was rebooted surely runs its new kernel.
REBOOT_TIME = timedelta(minutes=20)

#: Seconds.
COMMAND_TIMEOUT = 150.0
#: OpenVPN writes its status file every 10 seconds.
START_TIMEOUT = 90.0
#: Pause between two OpenVPN processes, in which the first one's clients come back.
PAUSE = 30.0

#: Units that cannot restart while the machine runs.
NEED_REBOOT = ("dbus.service", "dbus-broker.service", "systemd-logind.service")
KERNEL = "kernel"
LISTS = "package lists"
MAX_WAITING = 8
"""Entries of the status, which is part of a parameter of 4,096 characters."""


class PatchError(Exception):
    """A process did not come up, or a command failed; nothing else is restarted."""


# Values


@dataclass(frozen=True, slots=True)
class Window:
    """A maintenance window that repeats."""

    start: int
    """Minutes since Monday 00:00 UTC, or since midnight."""
    minutes: int
    """Its length."""
    period: int
    """`WEEK` or `DAY`."""

    def contains(self, now: datetime, margin: int = 0) -> bool:
        """Return whether the window is open at `now`, and still will be in `margin` minutes."""
        now = now.astimezone(UTC)
        minute = now.weekday() * DAY + now.hour * 60 + now.minute
        return (minute - self.start) % self.period < self.minutes - margin


def read_window(text: str) -> Window:
    """Read `ddd:hh:mm-ddd:hh:mm` (every week) or `hh:mm-hh:mm` (every day), in UTC; raises ValueError.

    >>> read_window("sun:23:30-mon:00:30")
    Window(start=10050, minutes=60, period=10080)
    >>> read_window("23:30-00:30")
    Window(start=1410, minutes=60, period=1440)
    """
    moments = [moment.rpartition(":") for moment in text.strip().split("-")]
    (start_day, start), (end_day, end) = [_read_moment(hours, minutes) for hours, _, minutes in moments]
    if (start_day is None) != (end_day is None):
        raise ValueError(f"{text!r} has one day of the week, not two or none")
    period = DAY if start_day is None else WEEK
    first, last = (start_day or 0) * DAY + start, (end_day or 0) * DAY + end
    return Window(first, (last - first) % period, period)


def _read_moment(hours: str, minutes: str) -> tuple[int | None, int]:
    """Return the day of the week, None without one, and the minute of the day."""
    day, _, hour = hours.rpartition(":")
    return DAYS.index(day) if day else None, int(hour) * 60 + int(minutes)


@dataclass(frozen=True, slots=True)
class Versions:
    """The version of a program that runs, and the one that is installed; each may be unknown, that is empty."""

    running: str = ""
    installed: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """The state of the machine's software at one moment."""

    openvpn: Versions
    kernel: Versions
    outdated: tuple[str, ...]
    """Units with a process that runs old files, and `KERNEL`."""
    offered: tuple[str, ...] = ()
    """Packages of which a newer version is published and not installed."""
    lists_since: datetime | None = None
    """When the package lists were last updated, if that is too long ago."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The script's memory between its runs."""

    since: Mapping[str, str] = field(default_factory=dict)
    """When each thing that waits was first seen to wait, ISO 8601."""
    attempts: Mapping[str, str] = field(default_factory=dict)
    """When each unit was last restarted for its old files; a kernel's entry ends in its version."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Version of each OpenVPN process, by `<pid>:<start>`."""
    lists: str = ""
    """Identity of the package lists and the installed packages that `offered` was found with."""
    offered: tuple[str, ...] = ()
    failure: str = ""
    """Why the last restart failed."""


def read_memory(text: str) -> Memory:
    """Read the memory's file; one that is damaged counts as empty."""
    try:
        raw = json.loads(text)
        return Memory(**{**raw, "offered": tuple(raw.get("offered", ()))})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Memory()


def find_replaced_files(maps: str) -> set[str]:
    """Return the program files in /proc/<pid>/maps that were replaced or removed since the process has mapped them.

    >>> find_replaced_files("7f00-7f01 r-xp 00000000 fe:01 77 /usr/lib/libssl.so.3 (deleted)")
    {'/usr/lib/libssl.so.3'}
    """
    return set(re.findall(r"^\S+ \S+ \S+ \S+ \S+ +(/(?:usr|lib\w*|s?bin)/.*) \(deleted\)$", maps, re.MULTILINE))


def find_unit(cgroup: str) -> str:
    """Return the unit in /proc/<pid>/cgroup, systemd's own hierarchy or the unified one; empty for a login's process.

    >>> find_unit("0::/system.slice/system-openvpn.slice/openvpn-server@server.service")
    'openvpn-server@server.service'
    """
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "name=systemd") and "/user.slice/" not in path:
            units = re.findall(r"(?<=/)[^/]+\.(?:service|scope)(?=/|$)", path)
            if units:
                return str(units[-1])
    return ""


def read_kernel_version(version: str) -> str:
    """Return the version of the kernel's Debian package in the answer of uname(2); empty for another kernel.

    >>> read_kernel_version("#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2025-11-05)")
    '6.12.57-1'
    """
    match = re.search(r"\bDebian (\S+) \(", version)
    return match[1] if match else ""


def read_offered(simulation: str) -> tuple[str, ...]:
    """Return the packages that `apt-get --simulate upgrade` would upgrade from Debian's archive.

    >>> read_offered("Inst openvpn [2.6.14-1] (2.6.14-2 Debian-Security:13/stable-security [arm64])")
    ('openvpn',)
    """
    return tuple(sorted(set(re.findall(r"^Inst (\S+) \[[^]]*\] \(\S+ Debian\b", simulation, re.MULTILINE))))


def remember(memory: Memory, findings: Findings, now: datetime) -> Memory:
    """Return the memory with what waits now, each with the time since when it does."""
    names = (*findings.outdated, *(f"package {name}" for name in findings.offered))
    since = {name: memory.since.get(name, _text(now)) for name in names}
    if findings.lists_since:
        since[LISTS] = _text(findings.lists_since)
    waiting = {name.partition(" ")[0] for name in findings.outdated}
    attempts = {name: at for name, at in memory.attempts.items() if name.partition(" ")[0] in waiting}
    return replace(memory, since=since, attempts=attempts, failure=memory.failure if findings.outdated else "")


def may_attempt(memory: Memory, name: str, now: datetime) -> bool:
    """Return whether a restart for `name` is due; a kernel that a reboot did not start is not tried again."""
    if name not in memory.attempts:
        return True
    last = datetime.fromisoformat(memory.attempts[name])
    return not name.startswith(KERNEL) and not timedelta(0) <= now - last < RETRY_AFTER


def make_status(memory: Memory, findings: Findings, window: str, now: datetime) -> dict[str, object]:
    """Return what the operator sees of it (docs/patches.md)."""
    oldest = sorted(memory.since.items(), key=lambda entry: entry[1])[:MAX_WAITING]
    failure, reboot = memory.failure, memory.attempts.get(f"{KERNEL} {findings.kernel.installed}")
    if reboot and now - datetime.fromisoformat(reboot) > REBOOT_TIME:
        failure = f"the machine was rebooted at {reboot} and does not run kernel {findings.kernel.installed}"
    return {
        "openvpn": asdict(findings.openvpn),
        "kernel": asdict(findings.kernel),
        "waiting": {name[:80]: at for name, at in oldest},
        "window": window,
        "failure": failure[:200],
    }


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


# Effects


def run_command(argv: Sequence[str], seconds: float = COMMAND_TIMEOUT) -> "subprocess.CompletedProcess[str]":
    """Run a command and return its result with any exit status; raises `PatchError` if it does not start or end."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PatchError(f"{argv[0]}: {error}") from error


def read_or_empty(path: Path) -> str:
    """Return a file's text; empty if it cannot be read, such as that of a process that has ended."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def replace_file(path: Path, text: str) -> None:
    """Replace a file in one step."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


class PatchedMachine:
    """The gateway's processes and packages; tests replace `root`, `run`, `uname` and `sleep`."""

    def __init__(
        self,
        root: Path = Path("/"),
        run: Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"] = run_command,
        uname: Callable[[], str] = lambda: os.uname().version,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root, self.run, self.uname, self.sleep = root, run, uname, sleep
        manifest = json.loads((root / "opt/drawbridge/current/manifest.json").read_text())
        unit = manifest.get("unit", "openvpn-server")
        self.instances = {f"{unit}@{instance}.service": str(instance) for instance in manifest["instances"]}
        """OpenVPN's units, in the order in which they restart, each with the name of its runtime directory."""

    def inspect(self, memory: Memory, now: datetime) -> tuple[Findings, Memory]:
        """Return the state of the machine's software, and the memory with what was looked up."""
        outdated, versions = set(), {}
        installed = self.installed_version("openvpn")
        running = []
        for pid, unit in self.processes():
            replaced = find_replaced_files(read_or_empty(self.root / f"proc/{pid}/maps"))
            if unit in self.instances and pid == self.main_pid(unit):
                key = f"{pid}:{self.start_time(pid)}"
                program = any(path.endswith("/openvpn") for path in replaced)
                versions[key] = memory.versions.get(key, "") if program else installed
                running.append(versions[key])
            if replaced and unit not in outdated and not self.ends_by_itself(unit):
                outdated.add(unit)
        kernel = Versions(read_kernel_version(self.uname()), self.newest_kernel())
        if kernel.running and self.is_newer(kernel.installed, kernel.running):
            outdated.add(KERNEL)
        memory = self.look_up_offered(replace(memory, versions=versions))
        old = [version for version in running if version != installed]
        openvpn = Versions((old or running or [""])[0], installed)
        names = sorted(outdated, key=lambda name: (name not in self.instances, name))
        return Findings(openvpn, kernel, tuple(names), memory.offered, self.stale_lists(now)), memory

    def processes(self) -> Iterator[tuple[str, str]]:
        """Yield the ID and the unit of each process that a unit of the system has."""
        for directory in sorted(self.root.glob("proc/[0-9]*")):
            if directory.name != str(os.getpid()) and (unit := find_unit(read_or_empty(directory / "cgroup"))):
                yield directory.name, unit

    def main_pid(self, unit: str) -> str:
        """Return the ID of a unit's main process."""
        return self.run(["systemctl", "show", "-P", "MainPID", unit]).stdout.strip()

    def start_time(self, pid: str) -> str:
        """Return when a process started, in clock ticks since boot (proc_pid_stat(5))."""
        return read_or_empty(self.root / f"proc/{pid}/stat").rpartition(")")[2].split()[19]

    def ends_by_itself(self, unit: str) -> bool:
        """Return whether a unit's processes end soon anyway: those of this script, of the agent, of apt."""
        return self.run(["systemctl", "show", "-P", "Type", unit]).stdout.strip() == "oneshot"

    def installed_version(self, package: str) -> str:
        """Return the installed version of a package; empty if it is not installed."""
        result = self.run(["dpkg-query", "--show", "--showformat=${Version}", package])
        return result.stdout.strip() if result.returncode == 0 else ""

    def newest_kernel(self) -> str:
        """Return the newest version of the installed kernels; empty if there is none, as in a container."""
        pattern = "${db:Status-Status} ${Version}\n"
        result = self.run(["dpkg-query", "--show", f"--showformat={pattern}", "linux-image-[0-9]*"])
        rows = (line.partition(" ") for line in result.stdout.splitlines())
        newest = ""
        for version in (version for status, _, version in rows if status == "installed"):
            newest = version if not newest or self.is_newer(version, newest) else newest
        return newest

    def is_newer(self, version: str, base: str) -> bool:
        """Return whether a version is newer than `base`, as dpkg compares them; an empty one is not."""
        return bool(version) and self.run(["dpkg", "--compare-versions", version, "gt", base]).returncode == 0

    def look_up_offered(self, memory: Memory) -> Memory:
        """Return the memory with the packages that apt would upgrade, looked up only if something has changed."""
        paths = [self.root / "var/lib/dpkg/status", *sorted(self.root.glob("var/lib/apt/lists/*_Packages"))]
        lists = " ".join(f"{path.name}:{path.stat().st_mtime_ns}" for path in paths if path.exists())
        if lists == memory.lists:
            return memory
        result = self.run(["apt-get", "--simulate", "--quiet", "--with-new-pkgs", "upgrade"])
        if result.returncode:
            return memory
        return replace(memory, lists=lists, offered=read_offered(result.stdout))

    def stale_lists(self, now: datetime) -> datetime | None:
        """Return when the package lists were last updated, or when the machine was created, if that is long ago."""
        for name in ("var/lib/apt/periodic/update-stamp", "var/lib/cloud/data/instance-id"):
            with contextlib.suppress(OSError):
                updated = datetime.fromtimestamp((self.root / name).stat().st_mtime, UTC)
                return updated if now - updated > LISTS_MAX_AGE else None
        return None

    def is_installing(self) -> bool:
        """Return whether a package manager is at work."""
        try:
            with (self.root / "var/lib/dpkg/lock-frontend").open("rb") as file:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def find_fault(self, since: Mapping[str, float]) -> str:
        """Return which of OpenVPN's processes is not up, or empty; `since` has times, in seconds, of their restarts."""
        for unit, instance in self.instances.items():
            state = self.run(["systemctl", "show", "-P", "ActiveState", unit]).stdout.strip()
            if state != "active":
                return f"{unit} is {state or 'unknown'}"
            try:
                status = (self.root / f"run/openvpn-{instance}/status").stat()
            except OSError:
                return f"{unit} has no status file"
            if status.st_size == 0 or status.st_mtime < since.get(unit, 0.0):
                return f"{unit} has written no status since its restart"
        return ""

    def wait_up(self, since: Mapping[str, float]) -> None:
        """Wait until all of OpenVPN's processes are up; raises `PatchError` after `START_TIMEOUT` seconds."""
        for _ in range(int(START_TIMEOUT)):
            if not (fault := self.find_fault(since)):
                return
            self.sleep(1)
        raise PatchError(fault)

    def restart(self, unit: str) -> None:
        """Restart a unit and wait until it and all of OpenVPN's are up; raises `PatchError`."""
        began = time.time()
        command = ["daemon-reexec"] if unit == "init.scope" else ["try-restart", unit]
        result = self.run(["systemctl", *command])
        if result.returncode:
            raise PatchError(f"{unit} does not restart: {result.stderr.strip() or result.returncode}")
        self.wait_up({unit: began})

    def reboot(self) -> None:
        """Order a reboot; raises `PatchError`."""
        result = self.run(["systemctl", "reboot"])
        if result.returncode:
            raise PatchError(f"the machine does not reboot: {result.stderr.strip() or result.returncode}")


def plan_restarts(findings: Findings, memory: Memory, now: datetime) -> tuple[str, ...]:
    """Return the names to restart for, in their order: a reboot, which is `KERNEL` and a version or a unit, alone."""
    names = [f"{KERNEL} {findings.kernel.installed}" if name == KERNEL else name for name in findings.outdated]
    due = [name for name in names if may_attempt(memory, name, now)]
    if reboots := [name for name in due if needs_reboot(name)]:
        return tuple(reboots[:1])
    return tuple(due)


def needs_reboot(name: str) -> bool:
    """Return whether a reboot is what replaces a unit's files, or the kernel."""
    return name.startswith(f"{KERNEL} ") or name in NEED_REBOOT


def apply_fixes(
    machine: PatchedMachine, names: Iterable[str], memory: Memory, save: Callable[[Memory], None]
) -> Memory:
    """Restart units one after the other, or reboot; return the memory with the attempts, which `save` stores before.

    Raises `PatchError` if a process of OpenVPN is not up: then nothing else is restarted.
    """
    machine.wait_up({})
    previous = ""
    for name in names:
        if previous in machine.instances:
            machine.sleep(PAUSE)
        memory = replace(memory, attempts={**memory.attempts, name: _text(datetime.now(UTC))})
        save(memory)
        print(f"{name} runs old files: {'rebooting' if needs_reboot(name) else 'restarting'}")
        if needs_reboot(name):
            machine.reboot()
        else:
            machine.restart(name)
        previous = name
    return memory


@contextlib.contextmanager
def keep_agent_out(root: Path) -> Iterator[bool]:
    """Keep the agent from starting what is restarted; yield False if it runs now."""
    try:
        with (root / "run/drawbridge.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
    except FileNotFoundError:
        yield True
    except BlockingIOError:
        yield False


def run_once(machine: PatchedMachine, directory: Path, window: str, now: datetime) -> None:
    """Note what waits, and restart what is outdated if it is the window; `directory` keeps memory and status."""

    def save(memory: Memory) -> None:
        replace_file(directory / "memory.json", json.dumps(asdict(memory)))

    def inspect(memory: Memory, moment: datetime) -> tuple[Findings, Memory]:
        findings, memory = machine.inspect(memory, moment)
        memory = remember(memory, findings, moment)
        save(memory)
        replace_file(directory / "status.json", json.dumps(make_status(memory, findings, window, moment)))
        return findings, memory

    findings, memory = inspect(read_memory(read_or_empty(directory / "memory.json")), now)
    names = plan_restarts(findings, memory, now)
    if not names or not read_window(window).contains(now, MARGIN) or machine.is_installing():
        return
    with keep_agent_out(machine.root) as is_out:
        if not is_out:
            return
        try:
            memory = apply_fixes(machine, names, replace(memory, failure=""), save)
        except PatchError as error:
            memory = replace(read_memory(read_or_empty(directory / "memory.json")), failure=str(error))
            print(f"stopped: {error}", file=sys.stderr)
        inspect(memory, datetime.now(UTC))


def main() -> int:
    """Run once and return the exit status."""
    directory = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/drawbridge-patches"))
    window = Path(__file__).with_name("maintenance-window").read_text().strip()
    try:
        run_once(PatchedMachine(), directory, window, datetime.now(UTC))
    except PatchError as error:
        print(f"the state of the software is unknown: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
