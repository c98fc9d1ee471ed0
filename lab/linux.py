"""Thin hands for Linux: commands, namespaces, sockets inside them. Needs root, except `run`.

Sources: ip-netns(8), setns(2), nft(8).
"""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from lab.errors import CommandFailed, NotPermitted

T = TypeVar("T")
NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def run(*argv: str, stdin: str | None = None, timeout: float = 60) -> str:
    """Run a system tool and return what it prints.

    Raises:
        CommandFailed: it exited non-zero, is missing, or took longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as missing:
        raise CommandFailed(f"{argv[0]} is not installed; `make lab` installs what the lab needs") from missing
    except subprocess.TimeoutExpired as late:
        raise CommandFailed(f"`{' '.join(argv)}` did not end within {timeout:.0f} s") from late
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise CommandFailed(f"`{' '.join(argv)}` failed: {said[-2000:] or f'exit code {done.returncode}'}")
    return done.stdout


def require_privileges() -> None:
    """Raise `NotPermitted` unless this process may make namespaces and tunnels."""
    if os.geteuid() != 0:
        raise NotPermitted("the lab needs root for its network namespaces; run it with sudo, or run `make test-unit`")
    if not Path("/dev/net/tun").exists():
        raise NotPermitted("the lab needs /dev/net/tun (try `modprobe tun`); `make test-unit` does without")


#: What one systemd opens of these, times more machines than a lab has.
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances"), 4096


def allow_many_machines() -> None:
    """Raise the kernel's limit on inotify instances: its default is used up by some 25 booted machines."""
    limit, wanted = _INOTIFY
    if int(limit.read_text()) < wanted:
        limit.write_text(str(wanted))


def add_namespace(name: str) -> None:
    """Make a network namespace with its loopback up; keep one that is there."""
    if not (NETNS / name).exists():
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")


def delete_namespace(name: str) -> None:
    """Remove a network namespace and the links in it; none is no error."""
    if (NETNS / name).exists():
        run("ip", "netns", "delete", name)


def namespaces(prefix: str) -> list[str]:
    """Names of the network namespaces that start with `prefix`."""
    return sorted(path.name for path in NETNS.glob(f"{prefix}*")) if NETNS.is_dir() else []


def processes_in(namespace: str) -> list[int]:
    """Ids of the processes whose network is a namespace."""
    return [int(pid) for pid in run("ip", "netns", "pids", namespace).split()]


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
        there = os.open(NETNS / namespace, os.O_RDONLY)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def listen(namespace: str | None, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A bound socket (and listening, where it is TCP) in a namespace, or in the host's for None."""

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
    """Result of `call()` made inside a namespace, or in the host's for None."""
    if namespace is None:
        return call()
    with entered(namespace):
        return call()


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
