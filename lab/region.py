"""Start a lab, find it, use it and take it down.

A lab is one process (`lab.server`) with a directory of its own; `connect` finds it by name. Everything here needs root.
"""

import contextlib
import fcntl
import functools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any

from lab import verbs
from lab.errors import AlreadyUp, InTransition, LabError, MachineDown, NotPermitted, NotUp, PortInUse
from lab.linux import (
    Process,
    processes_in,
    processes_under,
    processes_with,
    require_privileges,
)
from lab.machines import image, uml, uml_kernel, vm, vm_image
from lab.machines.container import execute, execute_in, is_up, remove_nspawn_leftovers, unmount_below, wait_booted
from lab.machines.control_groups import remove_groups
from lab.machines.factory import Kernel
from lab.namespaces import REGION_VARIABLE, delete_namespace, list_namespaces, remove_notes
from lab.paths import CACHE_VARIABLE, DEFAULT_LAB, PATHS, check_private, create_in_private, create_private
from lab.verbs import Verb

DEFAULT_PORT = 4700
#: File in a region's directory that lists its processes.
PROCESSES = "processes.json"
_START_SECONDS = 60.0
#: Seconds that a region's process may take to stop its machines before it is killed, and a killed process to be gone.
_STOP_SECONDS, _KILL_SECONDS = 40.0, 60.0
#: Regions this process started, to reap them when they end.
_CHILDREN: dict[str, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the lab: an instance, or a host outside of AWS."""

    name: str
    leader: int
    """Process id of its PID 1 in the boot that was on when it was looked up; 0 where machines do not boot."""
    address: str
    namespace: str
    own_kernel: bool = False
    find: "Callable[[], Host] | None" = field(default=None, repr=False, compare=False)
    """Looks the machine up again."""

    def run(
        self, argv: Sequence[str], *, timeout: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine as root, in whichever boot it is; never raises for its exit code.

        Where machines do not boot (see `start`) it is this machine's command, run in the host's network namespace.

        Raises:
            MachineDown: the machine is down, or went down before the command had ended.
            LabError: it did not end within `timeout` seconds.
        """
        if self.own_kernel:
            return uml.execute(self.namespace, argv, timeout=timeout, stdin=stdin)
        if not self.leader:
            return execute_in(self.namespace, argv, timeout=timeout, stdin=stdin)
        return execute(self._current_leader(), argv, timeout=timeout, stdin=stdin)

    def wait_booted(self, timeout: float = 60) -> str:
        """Wait for the machine's systemd; see `lab.machines.container.wait_booted`."""
        return wait_booted(self.name, self.run, timeout) if self.leader else "running"

    def _current_leader(self) -> int:
        if is_up(self.leader) or self.find is None:
            return self.leader
        try:
            return self.find().leader
        except LabError as error:
            raise MachineDown(f"the machine {self.name} is down") from error


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
        """URL of the AWS API, on loopback."""
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
        """Return the instances, hosts, sites and routers that run."""
        answer: dict[str, Any] = self._ask(Verb.STATUS)
        return answer

    def memory(self) -> int:
        """Bytes that the region and its machines hold, each shared page counted once (proc(5), smaps_rollup: Pss)."""
        server, *inits = _read_processes(self.directory)
        processes = [server, *(process for init in inits for process in processes_under(init))]
        return sum(process.memory() for process in processes)

    def wait_reconciled(self, timeout: float = 30) -> None:
        """Wait until packets follow every API call so far.

        Raises:
            LabError: they did not within `timeout` seconds.
        """
        if not self._ask(Verb.WAIT_RECONCILED, timeout=timeout)["reconciled"]:
            raise LabError(f"the lab did not follow the API within {timeout:.0f} s; see {self.directory}/log")

    def add_site(
        self, name: str, *, public: IPv4Address, lan: IPv4Network, mtu: int = 1500, rate: str | None = None
    ) -> None:
        """Create a site: a LAN behind a NAT router. One of that name stays as it is.

        Args:
            mtu: of its line to the Internet, in bytes.
            rate: of the line, both ways, as tc(8) spells it (``20mbit``).
        """
        self._ask(Verb.ADD_SITE, name=name, public=str(public), lan=str(lan), mtu=mtu, rate=rate)

    def remove_site(self, name: str) -> None:
        """Remove a site without hosts, if there is one.

        Raises:
            LabError: it still has hosts.
        """
        self._ask(Verb.REMOVE_SITE, name=name)

    def move_site(self, name: str, public: IPv4Address) -> None:
        """Give a site another public address."""
        self._ask(Verb.MOVE_SITE, name=name, public=str(public))

    def add_route(self, site: str, network: IPv4Network, via: str) -> None:
        """Have a site's router send a network's packets to a host of its LAN."""
        self._ask(Verb.ADD_ROUTE, site=site, network=str(network), via=via)

    def forward_port(self, site: str, port: int, host: str) -> None:
        """Have a site's router pass a UDP port of its public address on to one of its hosts."""
        self._ask(Verb.FORWARD_PORT, site=site, port=port, host=host)

    def add_host(
        self,
        name: str,
        *,
        site: str,
        second_site: str | None = None,
        address: IPv4Address | None = None,
        files: dict[str, str] | None = None,
        own_kernel: bool = False,
    ) -> Host:
        """Create and boot a machine on the LAN of a site; one of that name stays as it is.

        Args:
            second_site: site that its ``eth1`` is plugged into.
            address: on the LAN of `site`; any free one by default.
            files: text by path, written before it boots.
            own_kernel: whether it is a `lab.machines.uml.UmlMachine`; its kernel is fetched first where the cache has
                none.

        Raises:
            ImageError: the kernel could not be fetched.
        """
        if own_kernel:
            uml_kernel.ensure(lambda _: None)
        self._ask(
            Verb.ADD_HOST,
            name=name,
            site=site,
            second_site=second_site,
            address=str(address) if address else None,
            files=files or {},
            own_kernel=own_kernel,
        )
        return self.host(name)

    def add_internet_host(
        self,
        name: str,
        *,
        address: IPv4Address,
        address6: IPv6Address | None = None,
        files: dict[str, str] | None = None,
    ) -> Host:
        """Create and boot a machine on the Internet itself, with public addresses and nothing in front of it."""
        text6 = str(address6) if address6 else None
        self._ask(Verb.ADD_HOST, name=name, address=str(address), address6=text6, files=files or {})
        return self.host(name)

    def remove_host(self, name: str) -> None:
        """Remove a host with all it wrote, if there is one."""
        self._ask(Verb.REMOVE_HOST, name=name)

    def reboot_host(self, name: str) -> None:
        """Ask the system of a host to reboot."""
        self._ask(Verb.REBOOT_HOST, name=name)

    def cut_power(self, name: str) -> None:
        """Stop a host as a power cut does."""
        self._ask(Verb.CUT_POWER, name=name)

    def power_on(self, name: str) -> Host:
        """Start a host that is off, with all it wrote."""
        self._ask(Verb.POWER_ON, name=name)
        return self.host(name)

    def use_own_kernels(self, enabled: bool, progress: Callable[[str], None] = lambda _: None) -> None:
        """Set whether instances launched from now on have a kernel of their own: `lab.machines.uml.UmlMachine`.

        The kernel is fetched first where the cache has none.

        Raises:
            ImageError: the kernel could not be fetched.
        """
        if enabled:
            uml_kernel.ensure(progress)
        self._ask(Verb.USE_KERNEL, kernel=Kernel.USER_MODE if enabled else Kernel.SHARED)

    def use_virtual_machines(self, enabled: bool, progress: Callable[[str], None] = lambda _: None) -> None:
        """Set whether instances launched from now on are virtual machines: `lab.machines.vm.VirtualMachine`.

        Their image is built first where the cache has none.

        Raises:
            ImageError: the image could not be built.
            NotInstalled: qemu is not installed.
        """
        if enabled:
            vm.require_qemu()
            vm_image.ensure(progress)
        self._ask(Verb.USE_KERNEL, kernel=Kernel.CLOUD if enabled else Kernel.SHARED)

    def set_rules(self, **rules: Any) -> None:
        """Change which of AWS's refusals the lab makes: the fields of `lab.api.rules.Rules`, the others stay.

        Raises:
            LabError: there is no rule of a name.
        """
        self._ask(Verb.SET_RULES, **rules)

    def set_clock_forward(self, seconds: float) -> None:
        """Set CloudWatch's clock forward; alarms are evaluated at each minute on the way."""
        self._ask(Verb.SET_CLOCK_FORWARD, seconds=seconds)

    def fail_check(self, instance: str, check: str) -> None:
        """Have a status check of an instance (`System` or `Instance`) fail until EC2 has recovered or rebooted it."""
        self._ask(Verb.FAIL_CHECK, instance=instance, check=check)

    def publish_images(self, region: str, release: str = "13") -> dict[str, str]:
        """Publish a newer Debian image for each architecture in an AWS region; return their IDs by architecture."""
        images: dict[str, str] = self._ask(Verb.PUBLISH_IMAGES, region=region, release=release)["images"]
        return images

    def withdraw_image(self, region: str, image: str) -> None:
        """Deregister one of Debian's images in an AWS region, as Debian does with its old ones.

        Raises:
            LabError: there is no such image.
        """
        self._ask(Verb.WITHDRAW_IMAGE, region=region, image=image)

    def host(self, name: str, timeout: float = 20) -> Host:
        """Return a machine by its name: a host's, an instance's `Name` tag or id.

        Raises:
            LabError: there is none, or it does not run after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            matches = [h for h in status["hosts"] if h["name"] == name] + [
                i for i in status["instances"] if name in (i["id"], i["name"]) and i["state"] != "terminated"
            ]
            if matches and (matches[0]["leader"] or (matches[0]["namespace"] and not status["boots"])):
                keys = ("leader", "address", "namespace", "own_kernel")
                leader = matches[0]["leader"] or 0
                again = functools.partial(self.host, name, timeout=0)
                return Host(name, **{**{key: matches[0][key] for key in keys}, "leader": leader}, find=again)
            if time.monotonic() > deadline:
                names = sorted(h["name"] for h in (*status["hosts"], *status["instances"]))
                raise LabError(f"no machine {name} runs in the lab; there is {', '.join(names) or 'none'}")
            time.sleep(0.1)

    def _ask(self, verb: Verb, **arguments: Any) -> Any:
        request = urllib.request.Request(
            f"{self.endpoint}{verbs.PATH}{verb}",
            data=json.dumps(arguments).encode(),
            headers={verbs.TOKEN_HEADER: self._token, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            raise LabError(json.load(refused)["error"]) from refused
        except OSError as gone:
            raise NotUp(f"the lab {self.name} does not answer ({gone})") from gone


_ROOT_ALONE = "only root may use a lab"


def connect(name: str = DEFAULT_LAB) -> Region | None:
    """Return the running lab of this name, or None; raises `LabError` as `_check_directories`."""
    directory = PATHS.directory(name)
    _check_directories(directory)
    try:
        ready = json.loads((directory / "region.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    except PermissionError as error:
        raise NotPermitted(_ROOT_ALONE) from error
    processes = _read_processes(directory)
    if not processes or not all(process.runs for process in processes):
        return None
    settings = ready["settings"]
    return Region(name, directory, settings["port"], settings["token"], ready["credentials"])


def start(
    name: str = DEFAULT_LAB,
    progress: Callable[[str], None] = lambda _: None,
    port: int | None = None,
    *,
    boots: bool = True,
    disposable: bool = False,
) -> Region:
    """Start a lab (building its image first where the cache has none) and wait until it answers.

    Without `boots` its machines are network namespaces alone: all of AWS's packet rules hold, and nothing takes time.
    A `disposable` one is taken down when this process ends, if it was not before.

    Raises:
        NotPermitted: not root, or no /dev/net/tun.
        AlreadyUp, InTransition, PortInUse: it runs, is being started or stopped, or its port is in use.
        ImageError: the image could not be built.
        LabError: the process ended or did not answer within 60 s; the text holds the log's end.
    """
    require_privileges()
    with _locked(name):
        if connect(name) is not None:
            raise AlreadyUp(f"the lab {name} is up already")
        _clean_up(name)
        chosen = _claim_port(port or (DEFAULT_PORT if name == DEFAULT_LAB else 0))
        image.ensure(progress)
        directory = PATHS.directory(name)
        create_in_private(PATHS.root, lambda: create_private(directory))
        owner = Process.of(os.getpid()) if disposable else None
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
                env={k: v for k, v in os.environ.items() if k == CACHE_VARIABLE or not k.startswith(("AWS_", "MOTO_"))}
                | {REGION_VARIABLE: str(directory)},
            )
        try:
            region = _wait_ready(name, process)
            _CHILDREN[name] = process
            return region
        except BaseException:
            process.kill()
            process.wait()
            log_end = (directory / "log").read_text()[-1500:].strip()
            _clean_up(name)
            if isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], LabError):
                raise LabError(f"the region did not come up: {log_end}") from None
            raise


@contextlib.contextmanager
def disposable_region(
    progress: Callable[[str], None] = lambda _: None, *, boots: bool = True, keep: bool = False
) -> Iterator[Region]:
    """Start a lab under a name that no other has, and take it down when the block ends, however it ends.

    With `keep` it stays, also after an error, unless the block is interrupted. Other arguments and errors are those of
    `start`.
    """
    name = f"try{secrets.token_hex(3)}"
    stays = False
    try:
        yield start(name, progress, boots=boots, disposable=not keep)
        stays = keep
    except Exception:
        stays = keep and connect(name) is not None
        raise
    finally:
        if not stays:
            with _uninterrupted():
                progress("taking the region down")
                down(name)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM during the block, in this process and in those that it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python changes a signal's handler in the main thread alone, and no other thread is interrupted.
        return
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _wait_ready(name: str, process: subprocess.Popen[bytes]) -> Region:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if (region := connect(name)) is not None:
            return region
        time.sleep(0.05)
    raise LabError("the region did not come up")


def down(name: str = DEFAULT_LAB) -> bool:
    """Take a lab down and remove all it made, also what a killed one left; return whether there was anything."""
    require_privileges()
    _check_directories(PATHS.directory(name))
    with _locked(name):
        for server in _read_processes(PATHS.directory(name))[:1]:
            # One that does not end by itself, as on a busy machine, is killed, which leaves no less to clean up.
            with contextlib.suppress(LabError):
                server.end(signal.SIGTERM, _STOP_SECONDS)
        return _clean_up(name)


def is_going(region: Region) -> bool:
    """Return whether a region is gone, or another command is taking it down."""
    try:
        with _locked(region.name):
            return connect(region.name) != region
    except InTransition:
        return True


def running() -> list[str]:
    """Return the names of the labs that have a directory, running or left behind."""
    return sorted(path.name for path in PATHS.root.glob("*") if path.is_dir())


def _clean_up(name: str) -> bool:
    """Remove what any region of this name left: processes, mounts, namespaces, files."""
    directory = PATHS.directory(name)
    removed = directory.exists()
    if child := _CHILDREN.pop(name, None):
        child.kill()
        child.wait(_KILL_SECONDS)
    for server in _read_processes(directory)[:1]:
        server.end(signal.SIGKILL, _KILL_SECONDS)
    for init in _read_processes(directory)[1:]:
        init.end_namespace(_KILL_SECONDS)
    # Again until none is left: one that is killed may just have started another.
    while marked := processes_with(REGION_VARIABLE, str(directory)):
        removed = True
        for process in marked:
            process.end(signal.SIGKILL, _KILL_SECONDS)
    created = list_namespaces(directory)
    for process in [process for namespace in created for process in processes_in(namespace)]:
        process.end(signal.SIGKILL, _KILL_SECONDS)  # what somebody left running in a machine's network
    machines = _machine_names(name, directory)
    if directory.exists():
        unmount_below(directory)
        shutil.rmtree(directory)
    for namespace in created:
        removed = True
        delete_namespace(namespace)
    removed |= remove_groups(name)
    remove_notes(directory)
    for machine in machines:
        remove_nspawn_leftovers(machine)
    with contextlib.suppress(OSError):
        PATHS.root.rmdir()  # only the last lab's leaving empties it
    return removed


def _machine_names(name: str, directory: Path) -> list[str]:
    """Return the names under which systemd-nspawn knows a region's machines: see `lab.machines.factory`."""
    names = [path.name[-12:] for path in (directory / "machines").glob("*")]
    names += [path.name for path in (directory / "hosts").glob("*")]
    return [f"{name}-{machine}".replace("_", "-") for machine in names]


def _read_processes(directory: Path) -> list[Process]:
    """The region's process and the one its machines end with, as the region noted them before it did anything."""
    try:
        return [Process(**noted) for noted in json.loads((directory / PROCESSES).read_text())]
    except (FileNotFoundError, json.JSONDecodeError):
        return []


def _claim_port(port: int) -> int:
    """Return a port of 127.0.0.1 that nobody listens on: `port`, or any for 0.

    Raises:
        PortInUse: somebody listens on `port`.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortInUse(f"port {port} of 127.0.0.1 is already in use") from error
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold the lab's lock for a block, so that two commands never bring one lab up or down at once."""
    path = PATHS.lock(name)
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The command that held it may have removed the file in the meantime.
        if not path.exists() or path.stat().st_ino != os.fstat(descriptor).st_ino:
            raise BlockingIOError
    except BlockingIOError as busy:
        os.close(descriptor)
        raise InTransition(f"another command is bringing the lab {name} up or down") from busy
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):
            PATHS.run.rmdir()  # only the last command's leaving empties it


def _open_lock(path: Path) -> int:
    """Return the descriptor of a lock file, created if missing in a directory that only root can write."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return create_in_private(path.parent, lambda: os.open(path, flags, 0o600))


def _check_directories(directory: Path) -> None:
    """Check that a region's directory and that of all regions, where they exist, are writable by root alone.

    What they say is obeyed by root: which processes to end, and where the API is.

    Raises:
        LabError: somebody else could have written it; `NotPermitted` for a user who may not look into it.
    """
    for path in (directory.parent, directory):
        try:
            check_private(path)
        except FileNotFoundError:
            return
        except PermissionError as error:
            raise NotPermitted(_ROOT_ALONE) from error


if __name__ == "__main__":  # called by a region whose owner is gone
    down(sys.argv[1])
