"""Create network namespaces without a name, which the kernel removes when the tests' process ends, even by SIGKILL.

Sources: network_namespaces(7), setpriv(1), PR_SET_PDEATHSIG(2const).
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Starts a program that the kernel kills when the process that started it ends.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """A network namespace; it lives as long as the process that holds it, and the programs in it."""

    holder: int
    """Id of the process that holds it, by which ip-link(8) knows the namespace."""

    @property
    def path(self) -> Path:
        """The namespace's file, for setns(2)."""
        return Path(f"/proc/{self.holder}/ns/net")

    def enter(self, *argv: str) -> list[str]:
        """Return the command that runs a program in the namespace, for no longer than this process lives."""
        return [*_DIE_WITH_PARENT, "nsenter", f"--net={self.path}", *argv]


@contextmanager
def network_namespace() -> Iterator[NetworkNamespace]:
    """Create a network namespace whose loopback interface is up."""
    argv = [*_DIE_WITH_PARENT, "unshare", "--net", "sh", "-c", "ip link set lo up && echo && exec sleep infinity"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout and holder.stdout.readline() == "\n", "no network namespace"
            yield NetworkNamespace(holder.pid)
        finally:
            holder.kill()


@contextmanager
def receive_buffers_allowed(size: int) -> Iterator[None]:
    """Have the kernel allow sockets such a buffer, in bytes, as a gateway's does; the limit is the whole machine's."""
    limit = Path("/proc/sys/net/core/rmem_max")
    before = limit.read_text()
    limit.write_text(f"{max(size, int(before))}\n")
    try:
        yield
    finally:
        limit.write_text(before)
