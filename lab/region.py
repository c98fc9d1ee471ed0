"""A lab from the outside: start it, find it, use it, take it down.

A lab is one process (`lab.server`) with a directory of its own; `connect` finds it by name. Everything here is for
root.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any

from lab.errors import AlreadyUp, CommandFailed, LabError, NotUp
from lab.linux import (
    Process,
    delete_namespace,
    namespaces,
    processes_in,
    processes_under,
    processes_with,
    require_privileges,
    run,
)
from lab.machines import image, uml
from lab.machines.container import execute, execute_in, unmount_below, wait_booted

ROOT = Path("/var/tmp/drawbridge")
DEFAULT = "lab"
DEFAULT_PORT = 4700
#: What the region notes of its processes in its directory.
PROCESSES = "processes.json"
#: In the environment of all that a region starts on this machine: its directory.
MARK = "LAB_REGION"
_START_SECONDS = 60.0
#: Regions this process started, to reap them when they end.
_CHILDREN: dict[str, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the lab, an instance or a host at some premises."""

    name: str
    leader: int
    """Process id of its PID 1; 0 where machines do not boot."""
    address: str
    namespace: str
    own_kernel: bool = False

    def run(
        self, argv: Sequence[str], *, timeout: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine as root; never raises for its exit code.

        Where machines do not boot (see `start`) it is this machine's command, run in the host's network namespace.

        Raises:
            LabError: it did not end within `timeout` seconds.
        """
        if self.own_kernel:
            return uml.execute(self.namespace, argv, timeout=timeout, stdin=stdin)
        if not self.leader:
            return execute_in(self.namespace, argv, timeout=timeout, stdin=stdin)
        return execute(self.leader, argv, timeout=timeout, stdin=stdin)

    def wait_booted(self, timeout: float = 60) -> str:
        """Wait for the machine's systemd; see `lab.machines.container.wait_booted`."""
        return wait_booted(self.run, timeout) if self.leader else "running"


@dataclass(frozen=True, slots=True)
class Region:
    """A running lab."""

    name: str
    directory: Path
    port: int
    _token: str = field(repr=False)
    _credentials: dict[str, str] = field(repr=False)

    @property
    def endpoint(self) -> str:
        """Where the AWS API listens: on loopback, always."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point any AWS client at the lab, as its operator."""
        return {**self._credentials, "AWS_ENDPOINT_URL": self.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}

    @property
    def stacks(self) -> Path:
        """Directory for the state of stacks deployed here: it goes when the lab goes."""
        return self.directory / "stacks"

    def status(self) -> dict[str, Any]:
        """Instances, hosts, premises and routers that run."""
        answer: dict[str, Any] = self._ask("status")
        return answer

    def memory(self) -> int:
        """Bytes that the region and its machines hold, each shared page counted once (proc(5), smaps_rollup: Pss)."""
        server, *inits = _recorded(self.directory)
        held = [server, *(process for init in inits for process in processes_under(init))]
        return sum(process.memory() for process in held)

    def settle(self, timeout: float = 30) -> None:
        """Wait until packets follow every API call made so far.

        Raises:
            LabError: they did not within `timeout` seconds.
        """
        if not self._ask("settle", timeout=timeout)["settled"]:
            raise LabError(f"the lab did not follow the API within {timeout:.0f} s; see {self.directory}/log")

    def premises(
        self, name: str, *, public: IPv4Address, lan: IPv4Network, mtu: int = 1500, rate: str | None = None
    ) -> None:
        """A place behind a NAT router; one of that name stays as it is."""
        self._ask("premises", name=name, public=str(public), lan=str(lan), mtu=mtu, rate=rate)

    def move(self, name: str, public: IPv4Address) -> None:
        """Give a place another public address."""
        self._ask("move", name=name, public=str(public))

    def route(self, name: str, network: IPv4Network, via: str) -> None:
        """Tell a place's router that a network is behind a host of its LAN."""
        self._ask("route", name=name, network=str(network), via=via)

    def add_host(
        self,
        name: str,
        *,
        premises: str,
        address: IPv4Address | None = None,
        files: dict[str, str] | None = None,
        second: str | None = None,
        own_kernel: bool = False,
    ) -> Host:
        """A booting machine on the LAN of some premises; one of that name stays as it is.

        `second` are premises that its ``eth1`` is plugged into; with `own_kernel` it is a `lab.machines.uml.OwnKernel`.
        """
        self._ask("host", name=name, premises=premises, address=str(address) if address else None, files=files or {},
                  second=second, own_kernel=own_kernel)  # fmt: skip
        return self.host(name)

    def forward(self, premises: str, port: int, host: str) -> None:
        """Have a place's router hand a UDP port of its public address on to one of its hosts."""
        self._ask("forward", name=premises, port=port, host=host)

    def own_kernels(self, wanted: bool) -> None:
        """Whether instances launched from now on have a kernel of their own: `lab.machines.uml.OwnKernel`."""
        self._ask("own-kernels", wanted=wanted)

    def cut_power(self, name: str) -> None:
        """Stop a host as a power cut does."""
        self._ask("cut-power", name=name)

    def power_on(self, name: str) -> Host:
        """Start a host that is off, with all it wrote."""
        self._ask("power-on", name=name)
        return self.host(name)

    def add_internet_host(
        self,
        name: str,
        *,
        address: IPv4Address,
        address6: IPv6Address | None = None,
        files: dict[str, str] | None = None,
    ) -> Host:
        """A booting machine right on the Internet, with public addresses and nothing in front of it."""
        named6 = str(address6) if address6 else None
        self._ask("host", name=name, address=str(address), address6=named6, files=files or {})
        return self.host(name)

    def remove_host(self, name: str) -> None:
        """Take a host away with all it wrote; none is no error."""
        self._ask("remove-host", name=name)

    def reboot_host(self, name: str) -> None:
        """Have a host reboot."""
        self._ask("reboot-host", name=name)

    def host(self, name: str, timeout: float = 20) -> Host:
        """A machine by its name: a host's, an instance's `Name` tag or id.

        Raises:
            LabError: there is none, or it does not run after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            found = [h for h in status["hosts"] if h["name"] == name] + [
                i for i in status["instances"] if name in (i["id"], i["name"]) and i["state"] != "terminated"
            ]
            if found and (found[0]["leader"] or (found[0]["namespace"] and not status["boots"])):
                keys = ("leader", "address", "namespace", "own_kernel")
                return Host(name, **{**{key: found[0][key] for key in keys}, "leader": found[0]["leader"] or 0})
            if time.monotonic() > deadline:
                known = sorted(h["name"] for h in (*status["hosts"], *status["instances"]))
                raise LabError(f"no machine {name} runs in the lab; there is {', '.join(known) or 'none'}")
            time.sleep(0.1)

    def _ask(self, verb: str, **asked: Any) -> Any:
        request = urllib.request.Request(
            f"{self.endpoint}/_lab/{verb}",
            data=json.dumps(asked).encode(),
            headers={"X-Lab-Token": self._token, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            raise LabError(json.load(refused)["error"]) from refused
        except OSError as gone:
            raise NotUp(f"the lab {self.name} does not answer ({gone}); `drawbridge lab down` cleans up") from gone


def directory_of(name: str) -> Path:
    """Where a lab keeps everything it writes, but for the image cache."""
    return ROOT / name


def connect(name: str = DEFAULT) -> Region | None:
    """The running lab of this name, or None."""
    directory = directory_of(name)
    try:
        ready = json.loads((directory / "region.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    processes = _recorded(directory)
    if not processes or not all(process.runs for process in processes):
        return None
    settings = ready["settings"]
    return Region(name, directory, settings["port"], settings["token"], ready["credentials"])


def start(
    name: str = DEFAULT,
    progress: Callable[[str], None] = lambda _: None,
    port: int | None = None,
    *,
    boots: bool = True,
    throw_away: bool = False,
) -> Region:
    """Start a lab (building its image first where the cache has none) and wait until it answers.

    Without `boots` its machines are network namespaces alone: all of AWS's packet rules hold, and nothing takes time.
    One to `throw_away` is taken down when this process ends, if it was not before.

    Raises:
        NotPermitted: not root, or no /dev/net/tun.
        AlreadyUp: it runs, is being started, or the port is taken.
        ImageError: the image could not be built.
        LabError: the process ended or did not answer within 60 s; the text holds the log's end.
    """
    require_privileges()
    with _alone(name):
        if connect(name) is not None:
            raise AlreadyUp(f"the lab {name} is up already; `drawbridge lab down` takes it down")
        _clean(name)
        chosen = _claim_port(port or (DEFAULT_PORT if name == DEFAULT else 0))
        image.ensure(progress)
        directory = directory_of(name)
        directory.mkdir(parents=True, mode=0o700)
        owner = Process.of(os.getpid()) if throw_away else None
        settings = {
            "name": name,
            "port": chosen,
            "token": secrets.token_hex(16),
            "boots": boots,
            "owner": asdict(owner) if owner else None,
        }
        with os.fdopen(os.open(directory / "settings.json", os.O_CREAT | os.O_WRONLY, 0o600), "w") as out:
            json.dump(settings, out)
        progress("starting the region")
        with (directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lab.server", str(directory)],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MOTO_"))}
                | {MARK: str(directory)},
            )
        try:
            region = _wait_ready(name, process)
            _CHILDREN[name] = process
            return region
        except BaseException:
            process.kill()
            process.wait()
            log_end = (directory / "log").read_text()[-1500:].strip()
            _clean(name)
            if isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], LabError):
                raise LabError(f"the region did not come up: {log_end}") from None
            raise


def _wait_ready(name: str, process: subprocess.Popen[bytes]) -> Region:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if (region := connect(name)) is not None:
            return region
        time.sleep(0.05)
    raise LabError("the region did not come up")


def down(name: str = DEFAULT) -> bool:
    """Take a lab down and remove all it made, also what a killed one left; whether there was anything."""
    require_privileges()
    with _alone(name):
        for server in _recorded(directory_of(name))[:1]:
            server.end(signal.SIGTERM, 40)
        return _clean(name)


def running() -> list[str]:
    """Names of the labs that have a directory, running or left behind."""
    return sorted(path.name for path in ROOT.iterdir() if path.is_dir()) if ROOT.is_dir() else []


def _clean(name: str) -> bool:
    """Remove what any region of this name left: processes, mounts, namespaces, files."""
    directory = directory_of(name)
    found = directory.exists()
    if child := _CHILDREN.pop(name, None):
        child.kill()
        child.wait(10)
    for server in _recorded(directory)[:1]:
        server.end(signal.SIGKILL, 10)
    for init in _recorded(directory)[1:]:
        init.end_namespace(20)
    # Again until none is left: one that is killed may just have started another.
    while marked := processes_with(MARK, str(directory)):
        found = True
        for process in marked:
            process.end(signal.SIGKILL, 10)
    for process in [process for namespace in namespaces(f"{name}-") for process in processes_in(namespace)]:
        process.end(signal.SIGKILL, 10)  # what somebody left running in a machine's network
    if directory.exists():
        unmount_below(directory)
        shutil.rmtree(directory)
    for namespace in namespaces(f"{name}-"):
        found = True
        delete_namespace(namespace)
    for left in ("propagate", "unix-export"):
        for path in Path("/run/systemd/nspawn", left).glob(f"{name}-*"):
            with contextlib.suppress(OSError, CommandFailed):
                if path.is_mount():
                    run("umount", str(path))
                shutil.rmtree(path)
    with contextlib.suppress(OSError):
        ROOT.rmdir()  # only the last lab's leaving empties it
    return found


def _recorded(directory: Path) -> list[Process]:
    """The region's process and the one its machines end with, as the region noted them before it did anything."""
    try:
        return [Process(**noted) for noted in json.loads((directory / PROCESSES).read_text())]
    except (FileNotFoundError, json.JSONDecodeError):
        return []


def _claim_port(wanted: int) -> int:
    """A port of 127.0.0.1 that nobody listens on: the wanted one, or for 0 any.

    The default lab's is fixed, so that it is where people expect it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as taken:
            raise AlreadyUp(
                f"port {wanted} of 127.0.0.1 is taken; stop what listens there (`ss -ltnp sport = :{wanted}` names it)"
            ) from taken
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold the lab's lock, so that two commands never make or unmake one lab at once."""
    path = Path(f"/run/lock/drawbridge-{name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as busy:
            raise AlreadyUp(f"another command is bringing the lab {name} up or down; wait for it") from busy
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


if __name__ == "__main__":  # a region's last deed, when whoever wanted it is gone
    down(sys.argv[1])
