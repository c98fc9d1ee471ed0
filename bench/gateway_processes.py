"""Run a gateway's OpenVPN processes on their real release in a network namespace, without a machine around them.

Everything that a client meets is the release's: configuration, files of clients, packet filter, sysctl settings,
scripts and, with several processes, the program that sets routes. Paths lead into a directory. Left out are systemd
with its sandbox, the agent, and what measures paths.
"""

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

from bench.namespaces import run
from openvpn.bundle import render_bundle
from openvpn.model import Tunnel
from openvpn.paths import Paths
from openvpn.profile import render_profile
from pki import tls_crypt
from pki.authority import CertificateAuthority
from tests.support.network_namespace import NetworkNamespace, receive_buffers_allowed
from userdata import release

SERVER_NAME = "gateway.bench"
#: Seconds that a process may take to come up.
PATIENCE = 60
#: Runs client_routes.py with its paths below a directory.
_CLIENT_ROUTES = """
import sys; from pathlib import Path
root = Path(sys.argv[1]); sys.path.insert(0, str(root))
import client_routes
client_routes.CURRENT, client_routes.RUNTIME = root, root / "run"
client_routes.main()
"""


class Issuer:
    """An authority with the keys that a gateway and its clients need."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)
        self._authority = CertificateAuthority.create("bench", timedelta(days=2), self._now)
        self._server_key = tls_crypt.server_key()

    def server_files(self) -> dict[str, str]:
        """Return the gateway's secrets by file name."""
        leaf = self._authority.issue_server(SERVER_NAME, timedelta(days=1), self._now)
        return {
            "ca.crt": self._authority.certificate,
            "server.crt": leaf.certificate,
            "server.key": leaf.key,
            "tls-crypt-v2.key": self._server_key,
        }

    def issue_bundle(self, tunnel: Tunnel, name: str, address: str) -> str:
        """Return the bundle of a client for a gateway's address."""
        leaf = self._authority.issue_client(name, timedelta(days=1), self._now)
        key = tls_crypt.client_key(self._server_key, str(leaf.serial).encode())
        profile = render_profile(tunnel, address, SERVER_NAME, name)
        return render_bundle(profile, self._authority.certificate, leaf.certificate, leaf.key, key)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that runs."""

    namespace: NetworkNamespace
    directory: Path
    tunnel: Tunnel
    pids: tuple[int, ...]
    """Ids of its OpenVPN processes."""
    followers: tuple[int, ...]
    """Id of the program that sets routes to clients, if there are several processes."""

    def sessions(self) -> list[int]:
        """Return how many complete sessions each process has, by its status file, which is up to 10 seconds old."""
        return [
            sum(_has_address(line) for line in (self._runtime(process.instance) / "status").read_text().splitlines())
            for process in self.tunnel.processes
        ]

    def noted(self) -> list[set[str]]:
        """Return the clients that each of several processes has noted."""
        directories = [self._runtime(process.instance) / "sessions" for process in self.tunnel.processes]
        return [{file.name for file in directory.iterdir() if file.stat().st_size} for directory in directories]

    def _runtime(self, instance: str) -> Path:
        return self.directory / f"run/openvpn-{instance}"


def _has_address(line: str) -> bool:
    """Return whether a line of a status file is of a client with an address, which it gets last."""
    fields = line.split("\t")
    return fields[0] == "CLIENT_LIST" and bool(fields[3])


@contextlib.contextmanager
def running_gateway(namespace: NetworkNamespace, directory: Path, tunnel: Tunnel, issuer: Issuer) -> Iterator[Gateway]:
    """Run a routed tunnel's processes in a namespace, on files in an empty directory."""
    with ExitStack() as undo:
        _unpack(directory, tunnel, issuer.server_files())
        for process in tunnel.processes:
            _add_device(namespace, process.adapter, tunnel, undo)
        first = tunnel.processes[0].adapter
        run(namespace, "ip", "address", "add", f"{tunnel.layout.address}/{tunnel.pool.prefixlen}", "dev", first)
        run(namespace, "sysctl", "-q", "-e", "-p", str(directory / "root/etc/sysctl.d/90-drawbridge.conf"))
        undo.enter_context(receive_buffers_allowed(tunnel.receive_buffer or 0))
        run(namespace, "nft", "-f", str(directory / "root/etc/drawbridge/nftables.conf"))
        undo.callback(run, namespace, "nft", "flush", "ruleset")
        pids = []
        for process in tunnel.processes:
            config = Path(Paths(process.instance).config).relative_to("/")
            log = directory / f"{process.instance}.log"
            argv = namespace.enter("openvpn", "--suppress-timestamps", "--config", str(directory / "root" / config))
            pids.append(_start(argv, log, undo))
            _wait(lambda log=log: "Initialization Sequence Completed" in log.read_text(), log)  # type: ignore[misc]
        followers: tuple[int, ...] = ()
        if tunnel.listener.sharing > 1:
            argv = namespace.enter(sys.executable, "-I", "-c", _CLIENT_ROUTES, str(directory))
            followers = (_start(argv, directory / "client_routes.log", undo),)
        yield Gateway(namespace, directory, tunnel, tuple(pids), followers)


def _unpack(directory: Path, tunnel: Tunnel, secrets: dict[str, str]) -> None:
    """Write a release's files and a gateway's secrets, whose paths lead into the directory."""
    everywhere = (IPv4Network("0.0.0.0/0"),)
    built = release.build(tunnel, admin_from=(), allow_from=everywhere, vpc=tunnel.routes, revoked={})
    with tarfile.open(fileobj=io.BytesIO(built.archive)) as archive:
        archive.extractall(directory)
    places = {
        "/etc/": f"{directory / 'root' / 'etc'}/",
        "/run/openvpn-": f"{directory}/run/openvpn-",
        "/var/lib/openvpn-": f"{directory}/lib/openvpn-",
    }
    server, scripts = directory / "root/etc/openvpn/server", directory / "root/etc/drawbridge"
    for path in (*server.glob("*.conf"), *scripts.iterdir()):
        text = path.read_text()
        for place, replacement in places.items():
            text = text.replace(place, replacement)
        path.write_text(text)
    for name in ("ccd", "revoked"):
        (server / name).symlink_to(directory / name)
    (server / "secrets").mkdir()
    for name, text in secrets.items():
        path = server / "secrets" / name
        path.touch(mode=0o600)
        path.write_text(text)
    for process in tunnel.processes:
        (directory / f"run/openvpn-{process.instance}/sessions").mkdir(parents=True)
        (directory / f"lib/openvpn-{process.instance}").mkdir(parents=True)


def _add_device(namespace: NetworkNamespace, adapter: str, tunnel: Tunnel, undo: ExitStack) -> None:
    run(namespace, "ip", "tuntap", "add", "dev", adapter, "mode", tunnel.layout.device)
    undo.callback(run, namespace, "ip", "link", "delete", adapter)
    run(namespace, "ip", "link", "set", adapter, "mtu", str(tunnel.mtu), "up")


def _start(argv: list[str], log: Path, undo: ExitStack) -> int:
    """Start a program whose output goes to a file; it ends with the stack. Return its id."""
    process = undo.enter_context(
        subprocess.Popen(argv, stdout=undo.enter_context(log.open("w")), stderr=subprocess.STDOUT)
    )
    undo.callback(process.kill)
    return process.pid


def _wait(condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"it does not come up:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """Return the processor time of processes and the kernel's for them, with children that ended. Source: proc(5)."""
    return sum(sum(times) for times in _read_times(pids))


def user_seconds(pids: tuple[int, ...]) -> float:
    """Return the processor time of processes without the kernel's, with children that ended. Source: proc(5)."""
    return sum(user + of_children for user, _, of_children, _ in _read_times(pids))


def _read_times(pids: tuple[int, ...]) -> list[list[float]]:
    """Return seconds of each process: its own, the kernel's for it, and both of its children that ended."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return [[int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in field[11:15]] for field in fields]


def resident(pids: tuple[int, ...]) -> int:
    """Return the bytes of memory that processes have. Source: proc(5)."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")
