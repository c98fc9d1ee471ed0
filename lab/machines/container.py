"""Machines: systemd-nspawn containers of the image, each in a network namespace of its own.

A machine's root is an overlay on the image; what it writes lies in the machine's directory and stays over stop and
start, until the machine is removed. Machines die with the process that started them, so a killed region leaves none
running.

Sources: systemd-nspawn(1), mount(8) for overlay, nsenter(1), prctl(2) PR_SET_PDEATHSIG.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lab.errors import CommandFailed, LabError, MachineDown
from lab.linux import NETNS, Process, enter_pid_namespace, ip_batch, run, run_while
from lab.machines.control_groups import create_groups, find_memory_group, remove_groups, run_in_groups
from lab.rooted_files import write_file

#: Orderly power-off of a container's systemd (systemd(1), SIGRTMIN+4).
_POWER_OFF = signal.SIGRTMIN + 4
_STOP_SECONDS = 20
#: Between the end of a command and that of the container whose power is cut.
_POWER_CUT_SECONDS = 1.0
#: Flag of a process that is ending (linux/sched.h; field `flags` of proc_pid_stat(5)).
_PF_EXITING = 0x4
#: nspawn's exit code when the container asked for a reboot (systemd's EXIT_FORCE_RESTART).
_REBOOT = 133
#: A container's PID 1 outlives an nspawn that is killed; in a PID namespace of its own nspawn is the init, and takes
#: all along.
IN_OWN_PID_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
#: A thread's children are in the PID namespace that the thread has entered, so one thread starts all machines; the
#: parent-death signal of their init comes when that thread ends.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="spawner")

#: What a boot here need not do. An empty unit is a masked one (systemd.unit(5)).
SKIPPED_UNITS = {
    # uevents for non-network devices reach every container: one boot would wake udev in all 50.
    "/etc/systemd/system/systemd-udev-trigger.service.d/lab.conf": (
        "[Service]\nExecStart=\nExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=net\n"
    ),
    # Newer than /usr: caches of libraries and catalogs are as they were built (ConditionNeedsUpdate=).
    "/etc/.updated": "",
    "/var/.updated": "",
    **{f"/etc/systemd/system/{unit}": "" for unit in ("e2scrub_reap.service", "dpkg-db-backup.timer")},
    # The kernel is this machine's: it takes no module from a container, and its file systems are not for containers.
    **dict.fromkeys(
        (
            "/etc/systemd/system/modprobe@.service",
            "/etc/systemd/system/dev-hugepages.mount",
            "/etc/systemd/system/sys-kernel-debug.mount",
            "/etc/systemd/system/sys-kernel-tracing.mount",
            "/etc/systemd/system/sys-fs-fuse-connections.mount",
        ),
        "",
    ),
    # Nobody in a VPC answers multicasts, and cloud-init would wait 7 s for that.
    "/etc/systemd/resolved.conf.d/lab.conf": "[Resolve]\nLLMNR=no\n",
    # cloud-init's DHCP client asks at once, not after a second on average.
    "/etc/dhcpcd.conf": "nodelay\n",
    # Of the three kinds an RSA key takes as long as all the rest of a boot's last stage.
    "/etc/cloud/cloud.cfg.d/95_lab.cfg": "ssh_genkeytypes: [ecdsa, ed25519]\n",
}


def start_pid_namespace() -> Process:
    """Put all machines this process starts from now on into one PID namespace; its init, with which they all end.

    Nothing else tells when the last of a killed region's machines is gone: a process that is being undone has no
    command line, files or namespaces any more, yet may hold a machine's others for a while. The kernel has a
    namespace's init end after all the others in it (pid_namespaces(7)).
    """

    def start_init() -> Process | None:
        enter_pid_namespace()
        # One that reaps whatever is left to it, and does nothing else.
        keeper = subprocess.Popen(["setpriv", "--pdeathsig=KILL", "env", "--ignore-signal=CHLD", "sleep", "infinity"])
        return Process.of(keeper.pid)

    keeper = _SPAWNER.submit(start_init).result()
    assert keeper is not None
    return keeper


@dataclass
class LabMachine:
    """One machine. `directory` is its own; nothing of it lies elsewhere but mounts inside of it."""

    lab: str
    name: str
    """Begins with the lab's."""
    directory: Path
    namespace: str
    layers: tuple[Path, ...]
    """Read-only image layers, topmost first."""
    memory: int | None = None
    """MiB that its processes may use together, at its next start; None for any."""
    process: subprocess.Popen[bytes] | None = None
    uses_dhcp: ClassVar[bool] = False
    """Whether its system asks for its addresses and its resolver."""
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def root(self) -> Path:
        """Mount point of the machine's file system, while it is prepared or runs."""
        return self.directory / "root"

    def prepare(self, files: Mapping[str, str] | None = None, hostname: str | None = None) -> None:
        """Mount the root and write files into it (path on the machine -> text; mode 0644)."""
        self._mount_root()
        for path, text in {
            **SKIPPED_UNITS,
            **(files or {}),
            **({"/etc/hostname": f"{hostname}\n"} if hostname else {}),
        }.items():
            write_file(self.root, path, text)

    def _mount_root(self) -> None:
        """Mount the root, an overlay on the image's layers, unless it is mounted."""
        for part in ("root", "upper", "work"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        if not self.root.is_mount():
            lower = ":".join(str(layer) for layer in self.layers)
            options = f"lowerdir={lower},upperdir={self.directory / 'upper'},workdir={self.directory / 'work'}"
            run("mount", "-t", "overlay", "overlay", "-o", options, str(self.root))

    def start(self, went_down: Callable[[], None] = lambda: None) -> None:
        """Boot: systemd as PID 1, all capabilities inside, the namespace's interfaces.

        A machine that reboots itself comes back; `went_down` is called when it powers itself off.
        """
        with self._changing:
            if not self.running:
                process = self._boot()
                threading.Thread(target=self._watch, args=(process, went_down), daemon=True).start()

    def _watch(self, process: "subprocess.Popen[bytes]", went_down: Callable[[], None]) -> None:
        while True:
            again = self._asks_to_boot_again(self._wait_down(process))
            with self._changing:
                if self.process is not process:
                    return  # it was stopped
                if not again:
                    self.process = None
                    break
                process = self._boot()
        went_down()

    def _wait_down(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait until the machine is down, and return its exit code."""
        return process.wait()

    def _asks_to_boot_again(self, code: int) -> bool:
        """Return whether a machine that ended with this exit code is to boot again."""
        return code == _REBOOT

    def _boot(self) -> "subprocess.Popen[bytes]":
        with self.console.open("ab") as log:
            self.process = _SPAWNER.submit(
                subprocess.Popen,
                self._command(),
                env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).result()
        return self.process

    def _command(self) -> list[str]:
        return [
            "setpriv",
            "--pdeathsig=KILL",
            *run_in_groups(*create_groups(self.lab, self.name, self.memory)),
            "nsenter",  # from inside, so that the machine's /sys shows its own interfaces
            f"--net={NETNS / self.namespace}",
            *IN_OWN_PID_NAMESPACE,
            "systemd-nspawn",
            "--quiet",
            f"--directory={self.root}",
            f"--machine={self._nspawn_name}",
            "--register=no",
            "--keep-unit",
            f"--network-namespace-path={NETNS / self.namespace}",
            "--capability=all",
            "--bind=/dev/net/tun",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=read-only",  # a terminal, which journald writes to
            "--boot",
            "systemd.show_status=no",
            *([] if _unified_cgroups() else ["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]),
        ]

    @property
    def _nspawn_name(self) -> str:
        return self.name.replace("_", "-")  # a name of a machine is one of a host (RFC 1123)

    @property
    def running(self) -> bool:
        """True while it is on, or between two boots of its own."""
        return self.process is not None

    @property
    def console(self) -> Path:
        """File with what the machine has written to its console since it was created."""
        return self.directory / "console.log"

    @property
    def leader(self) -> int | None:
        """Process id (on this machine) of the container's PID 1, or None."""
        return leader_of(self.process.pid) if self.process is not None else None

    def reboot(self) -> None:
        """Ask the machine's systemd to reboot (SIGINT to PID 1 is ctrl-alt-del, systemd(1))."""
        if leader := self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, signal.SIGINT)

    def stop(self, *, orderly: bool = True) -> None:
        """Power off, by force after 20 s or where not `orderly`; nothing of the machine runs when it returns."""
        with self._changing:
            process, leader = self.process, self.leader
            self.process = None  # the watcher must not take this for the machine's own doing
        if process is None:
            return
        children = _list_children(process.pid)
        if orderly and leader:
            with contextlib.suppress(ProcessLookupError, LabError):
                self._power_off(leader)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        if process.poll() is None:
            if leader:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(leader, signal.SIGKILL)
            process.kill()
            process.wait()
            # It dies with its parent, but only when all in the container have: until then it has the root locked, and
            # the machine could not start again.
            for nspawn in children:
                nspawn.end(signal.SIGKILL, _STOP_SECONDS)

    def _power_off(self, leader: int) -> None:
        os.kill(leader, _POWER_OFF)

    def reset_disk(self) -> None:
        """Remove all that the stopped machine wrote: its next boot is its first."""
        unmount_below(self.directory)
        for part in ("upper", "work"):
            shutil.rmtree(self.directory / part, ignore_errors=True)

    def remove(self) -> None:
        """Stop at once and forget all the machine wrote."""
        self.stop(orderly=False)
        unmount_below(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)
        remove_groups(self.lab, self.name)
        remove_nspawn_leftovers(self._nspawn_name)


class InstanceContainer(LabMachine):
    """Container of an EC2 instance: an interface has no address until the machine's system has asked for one."""

    uses_dhcp = True

    def prepare(self, files: Mapping[str, str] | None = None, hostname: str | None = None) -> None:
        """As `LabMachine.prepare`; its interfaces lose the addresses that a machine that does not boot would use."""
        super().prepare(files, hostname)
        for device in json.loads(run("ip", "-n", self.namespace, "-j", "-d", "address")):
            is_interface = device.get("linkinfo", {}).get("info_kind") == "veth"
            if is_interface and any(address["scope"] == "global" for address in device["addr_info"]):
                name = device["ifname"]
                ip_batch(self.namespace, [f"address flush dev {name}", f"link set {name} down"])


def leader_of(unshare: int) -> int | None:
    """The container's PID 1: nspawn's child with a PID namespace of its own; nspawn is the only child of `unshare`."""
    try:
        for nspawn in _children(unshare):
            namespace = Path(f"/proc/{nspawn}/ns/pid").readlink()
            for child in _children(nspawn):
                if Path(f"/proc/{child}/ns/pid").readlink() != namespace:
                    return child
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass  # it is on its way out
    return None


def _list_children(process: int) -> list[Process]:
    """Return the processes that a process has started; none of one that has ended."""
    try:
        return [child for pid in _children(process) if (child := Process.of(pid))]
    except OSError:
        return []


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def execute(
    leader: int, argv: Sequence[str], *, timeout: float = 60, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command inside a container, as root, with the container's own view of everything.

    Args:
        leader: process id of the container's PID 1, on this machine.

    Raises:
        MachineDown: the container is down, or went down before the command had ended.
        LabError: the command did not end within `timeout` seconds; it is killed.
    """
    group = find_memory_group(leader)
    command = [
        *run_in_groups(*[group] if group else []),
        "nsenter",
        f"--target={leader}",
        "--all",
        "--wdns=/root",
        "env",
        "-i",
        *ENVIRONMENT,
        *argv,
    ]
    try:
        done = run_while(lambda: is_up(leader), command, timeout, stdin)
    except subprocess.TimeoutExpired as late:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout:.0f} s") from late
    if done is None or (done.returncode and not is_up(leader)) or (_is_killed(done) and _ends_soon(leader)):
        raise MachineDown(f"the machine went down before `{' '.join(argv)}` had ended")
    return done


def _is_killed(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether a command was killed; nsenter ends by its child's signal, a shell with 128 more (sh(1))."""
    return done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)


def _ends_soon(leader: int) -> bool:
    """Return whether a container ends within `_POWER_CUT_SECONDS`: a power cut may kill PID 1 last."""
    end = time.monotonic() + _POWER_CUT_SECONDS
    while is_up(leader):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_up(leader: int) -> bool:
    """Return whether a process is the PID 1 of a container that is not in the last stage of going down."""
    try:
        status = Path(f"/proc/{leader}/status").read_text()
        flags = int(Path(f"/proc/{leader}/stat").read_text().rsplit(")", 1)[1].split()[6])
        program = Path(f"/proc/{leader}/cmdline").read_bytes().partition(b"\0")[0]
    except OSError:
        return False
    numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    is_init = len(numbers) > 1 and numbers[-1] == "1"
    return is_init and not flags & _PF_EXITING and not program.endswith(b"/systemd-shutdown")


def execute_in(
    namespace: str, argv: Sequence[str], *, timeout: float = 60, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run this machine's command in a network namespace; as `execute` otherwise."""
    command = ["ip", "netns", "exec", namespace, *argv]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, input=stdin, check=False)
    except subprocess.TimeoutExpired as late:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout:.0f} s") from late


ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "TERM=dumb",
)


def wait_booted(name: str, call: Callable[..., "subprocess.CompletedProcess[str]"], timeout: float) -> str:
    """Wait until a machine's systemd has nothing left to start; return its state: ``running`` or ``degraded``.

    Args:
        name: the machine's, for the error.
        call: runs a command on the machine in whichever boot it is, as `lab.region.Host.run` does.

    Raises:
        LabError: it was still starting after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        try:
            state = call(["systemctl", "is-system-running", "--wait"], timeout=left).stdout.strip()
        except LabError:
            state = ""  # the machine went down under the call, or the time is over
        if state in ("running", "degraded"):
            return state
        time.sleep(0.1)  # PID 1 answers no call yet
    raise LabError(f"the machine {name} was still booting after {timeout:.0f} s")


def _unified_cgroups() -> bool:
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def remove_nspawn_leftovers(machine: str) -> None:
    """Remove what a killed systemd-nspawn leaves of a machine outside of the machine's directory."""
    for path in [Path("/run/systemd/nspawn", part, machine) for part in ("propagate", "unix-export")]:
        with contextlib.suppress(OSError, CommandFailed):
            if path.is_mount():
                run("umount", str(path))
            shutil.rmtree(path)


def unmount_below(directory: Path) -> None:
    """Unmount what is mounted below a directory, innermost first, and remove the locks nspawn leaves for each root."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((point for point in mounts if point.startswith(f"{directory}/")), reverse=True):
        with contextlib.suppress(OSError):
            root = Path(mount).stat()
            Path(f"/run/systemd/nspawn/locks/inode-{root.st_dev}:{root.st_ino}").unlink()
        try:
            run("umount", mount)
        except CommandFailed:
            run("umount", "--lazy", mount)
