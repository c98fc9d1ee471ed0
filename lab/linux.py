"""Run commands, and create namespaces and sockets inside them. Needs root, except `run`.

Sources: ip-netns(8), setns(2), unshare(2), ioctl_ns(2), pid_namespaces(7), proc_pid_stat(5), nft(8).
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from lab.errors import CommandFailed, LabError, NotInstalled, NotPermitted

T = TypeVar("T")
NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_CLONE_NEWPID = 0x20000000
_NS_GET_PARENT = 0xB702
#: How often `run_while` checks its condition while its command runs.
_POLL_SECONDS = 0.25
_libc = ctypes.CDLL(None, use_errno=True)


def run(*argv: str, stdin: str | None = None, timeout: float = 60) -> str:
    """Run a system tool and return what it prints.

    Raises:
        CommandFailed: it exited non-zero or took longer than `timeout` seconds; `NotInstalled` where it is missing.
    """
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as missing:
        raise NotInstalled(f"{argv[0]} is not installed") from missing
    except subprocess.TimeoutExpired as late:
        raise CommandFailed(f"`{' '.join(argv)}` did not end within {timeout:.0f} s") from late
    if done.returncode:
        message = (done.stderr or done.stdout).strip()
        raise CommandFailed(f"`{' '.join(argv)}` failed: {message[-2000:] or f'exit code {done.returncode}'}")
    return done.stdout


def run_while(
    condition: Callable[[], bool], command: Sequence[str], timeout: float, stdin: str | None
) -> subprocess.CompletedProcess[str] | None:
    """Run a command for as long as a condition holds; return None where it stopped holding first.

    The condition is checked every 0.25 s. nsenter needs it: it stays stopped for good in a container that goes down.
    systemd-shutdown stops all processes before it ends them, and nsenter stops itself when its child does (nsenter.c,
    `continue_as_child`). Until nsenter reaps the child, the kernel keeps the container's PID namespace.

    Raises:
        subprocess.TimeoutExpired: the command did not end within `timeout` seconds; its process group is killed.
    """
    deadline = time.monotonic() + timeout
    pipe = subprocess.PIPE
    with (
        _write_input(stdin) as input_file,
        subprocess.Popen(
            command, stdin=input_file, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        ) as process,
    ):
        try:
            while condition():
                left = deadline - time.monotonic()
                try:
                    stdout, stderr = process.communicate(timeout=max(min(left, _POLL_SECONDS), 0))
                    return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)
                except subprocess.TimeoutExpired:
                    if left <= _POLL_SECONDS:
                        raise
        except BaseException:
            _kill_group(process)
            raise
        _kill_group(process)
        return None


@contextmanager
def _write_input(text: str | None) -> Iterator[IO[str] | None]:
    """Yield a file that a command reads a text from; None for a command without input.

    A pipe would not do: `communicate` sends nothing more of its input once it was interrupted (python/cpython, 3.11).
    """
    if text is None:
        yield None
        return
    with tempfile.TemporaryFile("w+") as file:
        file.write(text)
        file.seek(0)
        yield file


def _kill_group(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def require_privileges() -> None:
    """Raise `NotPermitted` unless this process may make namespaces and tunnels."""
    if os.geteuid() != 0:
        raise NotPermitted("the lab needs root for its network namespaces")
    if not Path("/dev/net/tun").exists():
        raise NotPermitted("the lab needs /dev/net/tun")


#: What one systemd opens of these, times more machines than a lab has.
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances"), 4096


def allow_many_machines() -> None:
    """Raise the kernel's limit on inotify instances: its default is used up by some 25 booted machines."""
    limit, instances = _INOTIFY
    if int(limit.read_text()) < instances:
        limit.write_text(str(instances))


@dataclass(frozen=True, slots=True)
class Process:
    """One process for good: an id is given again to others, yet never with the same time of start."""

    pid: int
    started: int
    """Clock ticks after boot."""

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process that has this id now; None where it has ended, whether or not anyone has asked how."""
        try:
            state, *after = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return None
        return None if state == "Z" else cls(pid, int(after[18]))

    @property
    def runs(self) -> bool:
        """True until it has ended. A killed process runs on until the kernel has taken all of it apart."""
        return Process.of(self.pid) == self

    def memory(self) -> int:
        """Bytes it holds, its part of what it shares included; none once it has ended."""
        try:
            lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    def end(self, number: signal.Signals, timeout: float) -> None:
        """Send it a signal and wait until it has ended.

        Raises:
            LabError: it had not within `timeout` seconds.
        """
        self._signal(number)
        self._wait(lambda: not self.runs, timeout)

    def end_namespace(self, timeout: float) -> None:
        """Kill it, the init of a PID namespace, and wait until nothing runs in there.

        It may itself be there for longer: until somebody has asked how each of the others ended.

        Raises:
            LabError: something ran in there after `timeout` seconds.
        """
        self._signal(signal.SIGKILL)
        self._wait(lambda: not processes_under(self), timeout)

    def _signal(self, number: signal.Signals) -> None:
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _wait(self, done: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            if time.monotonic() > deadline:
                raise LabError(f"process {self.pid} did not end within {timeout:.0f} s")
            time.sleep(0.02)


def processes_in(namespace: str) -> list[Process]:
    """Return the processes in a network namespace."""
    return [process for pid in run("ip", "netns", "pids", namespace).split() if (process := Process.of(int(pid)))]


def processes_with(variable: str, value: str) -> list[Process]:
    """Return the processes that were started with a variable in their environment, except this one."""
    entry, processes = f"{variable}={value}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if entry in path.read_bytes().split(b"\0"):
                processes.append(Process.of(int(path.parent.name)))
    return [process for process in processes if process is not None and process.pid != os.getpid()]


def processes_under(init: Process) -> list[Process]:
    """Return the processes in the PID namespace of an init, and in those inside it, without itself."""
    try:
        top = Path(f"/proc/{init.pid}/ns/pid").stat().st_ino
    except OSError:
        return []  # the namespace went with it
    processes = []
    for path in Path("/proc").glob("[0-9]*/ns/pid"):
        with contextlib.suppress(OSError):
            process = Process.of(int(path.parts[2]))
            if process and process != init and top in _list_lineage(path):
                processes.append(process)
    return processes if init.runs else []


def _list_lineage(namespace: Path) -> Iterator[int]:
    """Numbers of a PID namespace and of those it is in, innermost first, as far as this process may see."""
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        while True:
            yield os.fstat(descriptor).st_ino
            try:
                outer = fcntl.ioctl(descriptor, _NS_GET_PARENT)
            except PermissionError:
                return
            os.close(descriptor)
            descriptor = outer
    finally:
        os.close(descriptor)


def enter_pid_namespace() -> None:
    """Have this thread's children from now on be in a PID namespace of their own, whose init is the first of them."""
    if _libc.unshare(_CLONE_NEWPID) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def ip_batch(namespace: str, commands: Sequence[str], *, force: bool = False, family: str | None = None) -> None:
    """Run many `ip` commands in a namespace in one process; `force` goes on after a refused one.

    `family` is ``inet`` or ``inet6``, where the commands do not tell by their addresses.
    """
    if not commands:
        return
    flags = [*(["-force"] if force else []), *(["-family", family] if family else [])]
    try:
        run("ip", "-n", namespace, *flags, "-batch", "-", stdin="\n".join(commands) + "\n")
    except CommandFailed:
        if not force:
            raise


def nft(namespace: str, ruleset: str) -> None:
    """Load an nftables ruleset in a namespace, whole or not at all (nft -f is one transaction)."""
    run("ip", "netns", "exec", namespace, "nft", "-f", "-", stdin=ruleset)


def sysctl(namespace: str, settings: dict[str, str]) -> None:
    """Set kernel parameters of a namespace; keys with `/` as separator (interface names hold dots)."""
    with entered(namespace):
        for key, value in settings.items():
            Path("/proc/sys", key).write_text(value)


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Put this thread into a network namespace for the length of a block.

    Sockets and /proc/sys/net opened in it belong to that namespace for good. The thread goes back at the end, so
    any thread may call this.
    """
    home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    try:
        target = os.open(NETNS / namespace, os.O_RDONLY)
        try:
            _set_namespace(target)
        finally:
            os.close(target)
        try:
            yield
        finally:
            _set_namespace(home)
    finally:
        os.close(home)


def listen(namespace: str | None, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a bound socket (and listening, where it is TCP) in a namespace, or in the host's for None."""

    def bind() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address, port))
            if kind == socket.SOCK_STREAM:
                bound.listen(128)
        except BaseException:
            bound.close()
            raise
        return bound

    return within(namespace, bind)


def within(namespace: str | None, call: Callable[[], T]) -> T:
    """Return the result of `call()` made inside a namespace, or in the host's for None."""
    if namespace is None:
        return call()
    with entered(namespace):
        return call()


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
