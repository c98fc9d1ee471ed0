"""Measure from a machine of the lab with packets."""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TypeVar

from lab import region as labs
from lab.errors import LabError, MachineDown

#: Where machines of the lab answer who asks them.
ECHO_PORT = 7007
_SCRIPT = Path(__file__).with_name("echo.py").read_text()
_PLACE = "/run/probe.py"
_UNIT = "probe"
#: Time for a machine to start a program.
_START_SECONDS = 60

T = TypeVar("T")


def ping(host: labs.Host, address: str | IPv4Address | IPv6Address, timeout: float) -> float | None:
    """Round-trip time of a ping, milliseconds, tried again until one is answered; None after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            done = host.run(["ping", "-n", "-c", "1", "-W", "1", str(address)])
        except MachineDown:
            time.sleep(0.1)
            continue
        for word in done.stdout.split():
            if word.startswith("time="):
                return float(word.removeprefix("time="))
    return None


def format_rtt(milliseconds: float | None) -> str:
    """A round-trip time for people."""
    return "no answer" if milliseconds is None else f"{milliseconds:.1f} ms"


@dataclass(frozen=True, slots=True)
class EchoAnswer:
    """The result of a connection to a machine that answers."""

    source: str
    """The asker's address, as the other end sees it."""
    seconds: float
    """All of it, the bytes that were asked for included."""
    received: int


def start_echo(host: labs.Host, port: int = ECHO_PORT) -> None:
    """Have a machine answer TCP connections on a port until it reboots; it may do so already."""
    unit = f"{_UNIT}-{port}"
    if host.run(["systemctl", "is-active", "--quiet", unit]).returncode == 0:
        return
    _bring_up(host)
    command = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "python3", _PLACE, "serve", str(port)]
    if (done := host.run(command)).returncode:
        raise LabError(f"{host.name} serves no probes: {done.stderr.strip()}")
    if wait_until(
        lambda: host.run(["python3", _PLACE, "ask", "127.0.0.1", str(port), "1", "0", "0"]).returncode == 0,
        _START_SECONDS,
    ):
        return
    raise LabError(f"{host.name} answers nothing on port {port}")


def ask_echo(
    host: labs.Host,
    address: str | IPv4Address,
    *,
    port: int = ECHO_PORT,
    timeout: float = 3,
    send: int = 0,
    take: int = 0,
) -> EchoAnswer | None:
    """Ask a machine that serves, moving bytes both ways; None where nothing came for `timeout` seconds."""
    _bring_up(host)
    argv = ["python3", _PLACE, "ask", str(address), str(port), str(timeout), str(send), str(take)]
    done = host.run(argv, timeout=timeout + 120)
    return EchoAnswer(**json.loads(done.stdout)) if done.returncode == 0 else None


def wait_until(condition: Callable[[], T], timeout: float) -> T:
    """Return the condition's value once it is true, or its last one after `timeout` seconds.

    A machine that goes down while it is asked is asked again in its next boot.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            if (value := condition()) or time.monotonic() > deadline:
                return value
        except MachineDown:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _bring_up(host: labs.Host) -> None:
    if host.run(["test", "-e", _PLACE]).returncode:
        host.run(["tee", _PLACE], stdin=_SCRIPT)


def packets_arrive(at: labs.Host, packets: str, send: Callable[[], object], timeout: float = 3) -> bool:
    """Return whether packets (a tcpdump filter) arrive at a machine during or soon after a call of `send`."""
    unit = f"{_UNIT}-{secrets.token_hex(4)}"
    capture = ["tcpdump", "--immediate-mode", "-l", "-n", "-i", "any", "-c", "1", packets]
    done = at.run(["systemd-run", "--quiet", f"--unit={unit}", *capture])
    if done.returncode or not wait_until(lambda: "listening on" in _read_journal(at, unit), _START_SECONDS):
        raise LabError(f"{at.name} captures no packets: {done.stderr.strip() or _read_journal(at, unit)[-300:]}")
    try:
        send()
        return wait_until(lambda: at.run(["systemctl", "is-active", "--quiet", unit]).returncode != 0, timeout)
    finally:
        at.run(["systemctl", "stop", unit])


def send_datagram(host: labs.Host, address: str | IPv4Address, port: int, text: str = "x") -> None:
    """Send one UDP datagram."""
    script = "import socket, sys; a, p, t = sys.argv[1:]; socket.socket(2, 2).sendto(t.encode(), (a, int(p)))"
    host.run(["python3", "-c", script, str(address), str(port), text])


_QUESTION = """
import socket, struct, sys
name, server = sys.argv[1:]
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
asked = struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!B2H", 0, 1, 1)
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(1)
for _ in range(5):
    try:
        asking.sendto(asked, (server, 53))
        answer = asking.recv(512)
        print(socket.inet_ntoa(answer[-4:]) if answer[6:8] != b"\\0\\0" else "")
        break
    except OSError:
        pass
"""


def resolve_name(host: labs.Host, name: str, server: str | IPv4Address) -> str | None:
    """The address that a name server (RFC 1035) tells a machine for a name; None where it tells none."""
    return host.run(["python3", "-c", _QUESTION, name, str(server)]).stdout.strip() or None


def _read_journal(host: labs.Host, unit: str) -> str:
    return host.run(["journalctl", "--no-pager", "-o", "cat", "-u", unit]).stdout
