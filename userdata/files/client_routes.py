#!/usr/bin/env python3
"""Leads packets for a client to the OpenVPN process that has its session, where several processes share a port.

Each process has a device of its own, and notes in `sessions/NAME` of its runtime directory which clients it has. Routes
to a client's addresses and networks lead to the device of the process that noted it last; the first process needs none,
because its device has the routes to everything, and a segment has none, because its bridge finds clients itself.
OpenVPN ends a client's former session only within one process, so this script ends those of other processes. It runs as
long as its release does; only Python's standard library.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

#: Leads to the release that runs now.
CURRENT = Path("/opt/drawbridge/current")
#: Source address of the gateway, device of each process, and networks of each client, of this script's release.
SETTINGS = Path(__file__).with_name("client-routes.json")
RUNTIME, ROUTES = Path("/run"), Path("/proc/net")
#: Seconds after which all is compared again, though the kernel has reported no change: networkd removes routes that are
#: not its own when it sets a device up again.
TICK = 1.0
#: Seconds for a run of `ip`, and for an answer of OpenVPN, which serves one management client at a time.
IP_TIMEOUT, MANAGEMENT_TIMEOUT = 10, 1.0

Network = IPv4Network | IPv6Network
#: A network and the device that it is reached by.
Route = tuple[Network, str]


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of a release that is about its processes and clients."""

    source: str
    """The gateway's address in the tunnel."""
    devices: Mapping[str, str]
    """Device of each process by its instance; the first one's has the routes to everything."""
    networks: Mapping[str, tuple[Network, ...]]
    """Addresses and networks of each client by its name, on a segment none: a process cannot claim others."""

    @property
    def led(self) -> frozenset[str]:
        """Devices that routes are set to."""
        return frozenset([*self.devices.values()][1:])


def read_settings(text: str) -> Settings:
    """Return the settings in a release's file; raises ValueError or KeyError for anything else."""
    raw = json.loads(text)
    networks = {name: tuple(map(ip_network, networks)) for name, networks in raw["clients"].items()}
    return Settings(raw["source"], raw["devices"], networks)


@dataclass(frozen=True, slots=True, order=True)
class Session:
    """A client's session with a process, as the process has noted it; later ones are greater."""

    noted: int
    """Nanoseconds since 1970."""
    instance: str
    client: str


def latest_sessions(sessions: Iterable[Session]) -> dict[str, Session]:
    """Return each client's latest session by the client's name."""
    return {session.client: session for session in sorted(sessions)}


def routes_to(settings: Settings, latest: Mapping[str, Session]) -> set[Route]:
    """Return the routes that lead to the clients of all processes but the first one."""
    return {
        (network, device)
        for client, session in latest.items()
        if (device := settings.devices[session.instance]) in settings.led
        for network in settings.networks.get(client, ())
    }


def read_routes(text4: str, text6: str) -> Iterator[Route]:
    """Yield the routes of the kernel's tables /proc/net/route, without a metric, and /proc/net/ipv6_route."""
    for line in text4.splitlines()[1:]:
        device, destination, _, _, _, _, metric, mask, *_ = line.split()
        if metric == "0":
            address = IPv4Address(int.from_bytes(bytes.fromhex(destination), "little"))
            yield IPv4Network((address, int.from_bytes(bytes.fromhex(mask), "little").bit_count())), device
    for line in text6.splitlines():
        destination, length, *_, device = line.split()
        yield IPv6Network((IPv6Address(int(destination, 16)), int(length, 16))), device


def present_routes(settings: Settings) -> set[Route]:
    """Return the routes to clients that the kernel has on the devices which routes are set to."""
    tables = []
    for name in ("route", "ipv6_route"):
        # A kernel without IPv6 has no such table.
        with contextlib.suppress(FileNotFoundError):
            tables.append((ROUTES / name).read_text())
    of_clients = {network for networks in settings.networks.values() for network in networks}
    routes = read_routes(*tables, *[""] * (2 - len(tables)))
    return {(network, device) for network, device in routes if device in settings.led and network in of_clients}


def render_add(route: Route, source: str) -> str:
    """Return the line for `ip -batch` that adds a route, in place of another one to the same network."""
    network, device = route
    hint = f" src {source}" if network.version == 4 else ""
    return f"route replace {network} dev {device}{hint}"


def render_delete(route: Route) -> str:
    """Return the line for `ip -batch` that deletes a route."""
    return "route delete {} dev {}".format(*route)


def run_ip(commands: Collection[str]) -> None:
    """Run commands of ip, each of them also if another one fails; raises OSError with their errors."""
    if not commands:
        return
    lines = "".join(f"{command}\n" for command in sorted(commands))
    try:
        result = subprocess.run(
            ["ip", "-force", "-batch", "-"],
            input=lines,
            capture_output=True,
            text=True,
            timeout=IP_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(str(error)) from error
    if result.returncode:
        raise OSError(" | ".join(result.stderr.splitlines()))


def set_routes(settings: Settings, latest: Mapping[str, Session]) -> None:
    """Have the kernel's routes lead to each client's latest session; raises OSError if some do not."""
    routes, before = routes_to(settings, latest), present_routes(settings)
    run_ip([render_add(route, settings.source) for route in routes - before])
    if before - routes:
        run_ip([render_delete(route) for route in present_routes(settings) - routes])


def end_session(client: str, instance: str) -> bool:
    """End a client's session with a process and return whether there was one; raises OSError without an answer."""
    end = time.monotonic() + MANAGEMENT_TIMEOUT
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(MANAGEMENT_TIMEOUT)
        connection.connect(str(RUNTIME / f"openvpn-{instance}/mgmt.sock"))
        with connection.makefile("rw", encoding="utf-8", errors="replace", newline="\n") as stream:
            stream.write(f"kill {client}\n")
            stream.flush()
            while not (line := stream.readline()).startswith(("SUCCESS:", "ERROR:")):
                if not line or time.monotonic() > end:
                    raise TimeoutError(f"no answer to kill {client}")
    return line.startswith("SUCCESS:")


class FormerSessions:
    """Ends the sessions that later ones of the same client have displaced."""

    def __init__(self, end: Callable[[str, str], bool] = end_session) -> None:
        """`end` ends a client's session with a process, and returns whether there was one, or raises OSError."""
        self._end = end
        self._ended: set[Session] = set()

    def end_all(self, sessions: Collection[Session], latest: Mapping[str, Session]) -> None:
        """End each session once that is not its client's latest; raises OSError if a process does not answer."""
        self._ended &= set(sessions)
        failures = []
        for session in sessions:
            newer = latest[session.client]
            if session == newer or session in self._ended:
                continue
            try:
                if self._end(session.client, session.instance):
                    text = f"new connection by client '{session.client}' to {newer.instance}"
                    print(f"{text} has ended its session with {session.instance}", flush=True)
                self._ended.add(session)
            except OSError as error:
                failures.append(f"{session.instance}: {error}")
        if failures:
            raise OSError("; ".join(failures))


class SessionDirectories:
    """The directories in which processes note their sessions; SIGIO reports a change."""

    def __init__(self, instances: Iterable[str]) -> None:
        self._paths = {instance: RUNTIME / f"openvpn-{instance}/sessions" for instance in instances}
        self._watched: dict[Path, tuple[int, int]] = {}
        """Descriptor and inode of each directory."""

    def watch(self) -> None:
        """Have the kernel report changes, also of directories that are new since a process has restarted."""
        for path in self._paths.values():
            descriptor, inode = self._watched.pop(path, (-1, 0))
            try:
                present = path.stat().st_ino
            except OSError:
                present = 0
            if present == inode != 0:
                self._watched[path] = descriptor, inode
                continue
            if descriptor >= 0:
                os.close(descriptor)
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.fcntl(
                    descriptor, fcntl.F_NOTIFY, fcntl.DN_CREATE | fcntl.DN_MODIFY | fcntl.DN_DELETE | fcntl.DN_MULTISHOT
                )
                self._watched[path] = descriptor, os.fstat(descriptor).st_ino

    def read(self) -> list[Session]:
        """Return the sessions of all processes."""
        sessions = []
        for instance, path in self._paths.items():
            with contextlib.suppress(FileNotFoundError):
                for file in os.scandir(path):
                    status = file.stat(follow_symlinks=False)
                    if status.st_size:
                        sessions.append(Session(status.st_mtime_ns, instance, file.name))
        return sessions


def follow(settings: Settings) -> None:
    """Keep routes and sessions right until the gateway runs another release."""
    release, last_error = CURRENT.resolve(), ""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    directories, former = SessionDirectories(settings.devices), FormerSessions()
    while CURRENT.resolve() == release:
        error_text = ""
        try:
            directories.watch()
            sessions = [session for session in directories.read() if session.client in settings.networks]
            latest = latest_sessions(sessions)
            set_routes(settings, latest)
            former.end_all(sessions, latest)
        except (OSError, ValueError) as error:
            error_text = str(error)
            if error_text != last_error:
                print(f"routes to clients could not be set: {error}", file=sys.stderr, flush=True)
        last_error = error_text
        signal.sigtimedwait({signal.SIGIO}, TICK)


def main() -> int:
    """Lead packets, and return the exit status once the gateway runs another release: systemd starts that one's."""
    follow(read_settings(SETTINGS.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
