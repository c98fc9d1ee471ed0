"""Read a client's own machine: its devices, routes and name servers, as its own tools print them.

The text is what the command of `READ_COMMANDS` for its system prints. So it can be read here, or on another machine and
brought here as a file.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from drawbridge import errors
from drawbridge.doctor.client_machine import ClientMachine
from drawbridge.doctor.linux_machine import READ_LINUX, parse_linux
from drawbridge.doctor.macos_machine import READ_MACOS, parse_macos
from drawbridge.doctor.windows_machine import READ_WINDOWS, parse_windows

READ_TIMEOUT = 10.0

#: What a machine runs to describe itself, by its system.
READ_COMMANDS: Mapping[str, str] = {"Linux": READ_LINUX, "macOS": READ_MACOS, "Windows": READ_WINDOWS}
_PARSERS: tuple[Callable[[str], ClientMachine], ...] = (parse_linux, parse_macos, parse_windows)

_ICMP_HEADERS = 20 + 8
#: Windows names the bit DF in every language.
_TOO_BIG = re.compile(r"too long|needed|\bDF\b", re.IGNORECASE)
#: Seconds for a connection through the tunnel.
_CONNECT_TIMEOUT = 3.0

_BY_HAND = "; ".join(
    (
        f"on a client with Linux, run: ({READ_LINUX}) > machine.txt",
        f"with macOS: ({READ_MACOS}) > machine.txt",
        f"with Windows, in cmd: ({READ_WINDOWS}) > machine.txt",
        "and give that file: --machine machine.txt",
    )
)


def read_own_machine() -> ClientMachine:
    """Return this machine; raises `MachineError` where its tools are missing."""
    # cmd itself parses what follows /c, so it is not a list of arguments.
    windows = f"cmd /c {READ_WINDOWS}"
    commands: dict[str, list[str] | str] = {"darwin": ["sh", "-c", READ_MACOS], "win32": windows}
    command = commands.get(sys.platform, ["sh", "-c", READ_LINUX])
    try:
        done = subprocess.run(command, capture_output=True, timeout=READ_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.MachineError(f"this machine cannot be read: {error}", _BY_HAND) from error
    return parse_machine(_decode(done.stdout))


def read_machine(path: Path) -> ClientMachine:
    """Return the machine that a file describes; raises `MachineError`."""
    try:
        return parse_machine(_decode(path.read_bytes()))
    except (OSError, UnicodeDecodeError) as error:
        raise errors.MachineError(f"{path} cannot be read: {error}", _BY_HAND) from None


def _decode(content: bytes) -> str:
    """Return a file's text: PowerShell writes UTF-16 with a mark, and cmd the machine's own code page.

    Only ASCII matters in the latter, and the names of adapters.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp437")


def parse_machine(text: str) -> ClientMachine:
    """Return the machine that a text of any system describes; raises `MachineError` for another text."""
    for parse in _PARSERS:
        with suppress(ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return parse(text)
    raise errors.MachineError("the client's machine is not described as expected", _BY_HAND)


def read_segment_size(address: IPv4Address, port: int) -> int | None:
    """Return how many bytes a TCP segment has at most that this machine sends to a host, without headers.

    None if there is no connection, or the system does not say it. Source: tcp(7) and macOS' tcp(4), `TCP_MAXSEG`.
    """
    try:
        with socket.create_connection((str(address), port), timeout=_CONNECT_TIMEOUT) as connection:
            return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    except (OSError, AttributeError):
        return None


def measure_path(address: IPv4Address, sizes: Iterable[int]) -> dict[int, bool]:
    """Return for sizes of packets, bytes, whether they reach an address, or an error says that they are too big.

    A size is left out if this machine cannot send pings. Source: ping(8), `-M do`, and of macOS, `-D`, whose `-W` is in
    milliseconds; Microsoft's reference of Windows commands, "ping"; RFC 2923, 2.1, on lost errors.
    """
    passing = {}
    # The status that says that no answer came; any other one but 0 is for an error, such as no permission.
    options, silence = {
        "darwin": (("-n", "-c", "3", "-i", "0.3", "-W", "1000", "-D", "-s"), 2),
        "win32": (("-n", "3", "-w", "1000", "-f", "-l"), 1),
    }.get(sys.platform, (("-n", "-c", "3", "-i", "0.3", "-W", "1", "-M", "do", "-s"), 1))
    for size in sizes:
        argv = ["ping", *options, str(size - _ICMP_HEADERS), str(address)]
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=READ_TIMEOUT,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
            if done.returncode in (0, silence):
                passing[size] = done.returncode == 0 or _TOO_BIG.search(done.stdout + done.stderr) is not None
    return passing
