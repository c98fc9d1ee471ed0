"""Read a client's own machine: its devices, routes and name servers, as its own tools print them.

The text is what `READ_MACHINE` prints. So it can be read here, or on another machine and brought here as a file.
Sources: ip-address(8) and ip-route(8) of iproute2, `-json`; resolvectl(1), "dns"; resolv.conf(5).
"""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from drawbridge import errors

#: Prints devices and routes as JSON, then the name servers.
READ_MACHINE = "ip -json -details address; ip -json route; resolvectl dns 2>/dev/null || cat /etc/resolv.conf"
READ_TIMEOUT = 10.0

#: Bytes that every path of IPv6, and so nearly every one, lets pass.
SMALLEST_PATH = 1280
_ICMP_HEADERS = 20 + 8
_TOO_BIG = re.compile("too long|needed", re.IGNORECASE)

_TUNNEL_KINDS = ("tun", "tap")
_ADDRESS = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientDevice:
    """A network device of a client's machine."""

    name: str
    mtu: int
    is_tunnel: bool
    """Whether it is a TUN or TAP device, as OpenVPN has."""
    addresses: tuple[IPv4Interface, ...]
    is_up: bool = True
    """Whether it is on and has a carrier; a TUN or TAP device has one while a program holds it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientRoute:
    """An IPv4 route of a client's machine."""

    destination: IPv4Network
    device: str
    metric: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientMachine:
    """A client's machine."""

    devices: Mapping[str, ClientDevice]
    """By their names."""
    routes: tuple[ClientRoute, ...]
    resolvers: frozenset[IPv4Address]
    """Name servers of all devices."""

    def find_route(self, destination: IPv4Address) -> ClientRoute | None:
        """Return the route that a packet takes; None without one."""
        matching = [route for route in self.routes if destination in route.destination]
        return max(matching, key=lambda route: (route.destination.prefixlen, -route.metric), default=None)

    def list_devices(self, neighbor: IPv4Address) -> list[ClientDevice]:
        """Return the devices in whose network an address is."""
        return [
            device
            for device in self.devices.values()
            if any(neighbor in address.network for address in device.addresses)
        ]


def measure_path(address: IPv4Address, sizes: Iterable[int]) -> dict[int, bool]:
    """Return for sizes of packets, bytes, whether they reach an address, or an error says that they are too big.

    A size is left out if this machine cannot send pings. Source: ping(8), `-M do`; RFC 2923, 2.1, on lost errors.
    """
    passing = {}
    for size in sizes:
        payload = str(size - _ICMP_HEADERS)
        argv = ["ping", "-n", "-c", "3", "-i", "0.3", "-W", "1", "-M", "do", "-s", payload, str(address)]
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                timeout=READ_TIMEOUT,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
            # 1: no answer; 2: anything else, such as no permission.
            if done.returncode in (0, 1):
                passing[size] = done.returncode == 0 or _TOO_BIG.search(done.stdout + done.stderr) is not None
    return passing


def read_own_machine() -> ClientMachine:
    """Return this machine; raises `MachineError` where it has no iproute2."""
    argv = ["sh", "-c", READ_MACHINE]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=READ_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.MachineError(f"this machine cannot be read: {error}", _BY_HAND) from error
    return parse_machine(done.stdout)


def read_machine(path: Path) -> ClientMachine:
    """Return the machine that a file describes; raises `MachineError`."""
    try:
        return parse_machine(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise errors.MachineError(f"{path} cannot be read: {error}", _BY_HAND) from None


def parse_machine(text: str) -> ClientMachine:
    """Return the machine whose `READ_MACHINE` has printed a text; raises `MachineError` for another text."""
    decoder = json.JSONDecoder()
    try:
        devices, end = decoder.raw_decode(text.lstrip())
        routes, last = decoder.raw_decode(text.lstrip()[end:].lstrip())
        names = text.lstrip()[end:].lstrip()[last:]
        parsed = [_parse_device(device) for device in devices]
        return ClientMachine(
            devices={device.name: device for device in parsed},
            routes=tuple(_parse_route(route) for route in routes if route.get("dev")),
            resolvers=frozenset(map(IPv4Address, _find_addresses(names))),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise errors.MachineError("the client's machine is not described as expected", _BY_HAND) from None


_BY_HAND = f"on the client, run: ({READ_MACHINE}) > machine.txt, and give that file: --machine machine.txt"


def _parse_device(device: Mapping[str, Any]) -> ClientDevice:
    kind = (device.get("linkinfo") or {}).get("info_kind", "")
    return ClientDevice(
        name=str(device["ifname"]),
        mtu=int(device["mtu"]),
        is_tunnel=kind in _TUNNEL_KINDS,
        is_up="flags" not in device or {"UP", "LOWER_UP"} <= {*device["flags"]},
        addresses=tuple(
            IPv4Interface(f"{address['local']}/{address['prefixlen']}")
            for address in device.get("addr_info", [])
            if address.get("family") == "inet"
        ),
    )


def _parse_route(route: Mapping[str, Any]) -> ClientRoute:
    destination = str(route["dst"])
    return ClientRoute(
        destination=IPv4Network("0.0.0.0/0" if destination == "default" else destination),
        device=str(route["dev"]),
        metric=int(route.get("metric", 0)),
    )


def _find_addresses(text: str) -> list[str]:
    """Return the IPv4 addresses in a text.

    >>> _find_addresses("Link 5 (tun0): 10.1.0.2 fe80::1\\nnameserver 192.168.1.1\\n# 999.1.1.1\\n")
    ['10.1.0.2', '192.168.1.1']
    """
    addresses = []
    for word in _ADDRESS.findall(text):
        with suppress(ValueError):
            addresses.append(str(IPv4Address(word)))
    return addresses
