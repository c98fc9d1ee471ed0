"""Parse what a Windows machine prints of its adapters, routes and name servers, in any language.

Sources: Microsoft's reference of Windows commands, "ipconfig" and "route". Neither prints an adapter's MTU.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from drawbridge.doctor.client_machine import ClientDevice, ClientMachine, ClientRoute

READ_WINDOWS = "ipconfig /all & route print -4"

_ADAPTER = re.compile(r"(\S.*):\s*$")
#: A label, dots or not, a colon, and the value; the label's words are in the language of the machine.
_FIELD = re.compile(r"\s+(?P<label>\S.*?)(?: ?\.)*\s*: (?P<value>.*\S)\s*$")
_ADDRESS = re.compile(r"(\d+\.\d+\.\d+\.\d+)(?:\(.*\))?")
_ROUTE = re.compile(r"\s*(\d+(?:\.\d+){3})\s+(\d+(?:\.\d+){3})\s+(.*\S)\s+(\d+(?:\.\d+){3})\s+(\d+)\s*$")
#: Names of OpenVPN's drivers, in an adapter's heading or description.
_DRIVERS = re.compile("TAP-Windows|OpenVPN|Wintun|ovpn-dco", re.IGNORECASE)


def parse_windows(text: str) -> ClientMachine:
    """Return the machine whose `READ_WINDOWS` has printed a text; raises ValueError for another text."""
    devices, resolvers = dict[str, ClientDevice](), set[IPv4Address]()
    for name, lines in _split_adapters(text):
        device, names = _parse_adapter(name, lines)
        if device.addresses:
            devices[name] = device
            resolvers.update(names)
    # Windows names a route's adapter by its address.
    owners = {address.ip: device.name for device in devices.values() for address in device.addresses}
    routes = tuple(
        ClientRoute(
            destination=IPv4Network(f"{match[1]}/{match[2]}"),
            device=owners.get(IPv4Address(match[4]), match[4]),
            metric=int(match[5]),
        )
        for match in map(_ROUTE.match, text.splitlines())
        if match
    )
    if not devices or not routes:
        raise ValueError("no adapters, or no routes")
    return ClientMachine(devices=devices, routes=routes, resolvers=frozenset(resolvers))


def _split_adapters(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the heading of each adapter with the lines below it."""
    name, lines = "", list[str]()
    for line in text.splitlines():
        if match := _ADAPTER.match(line):
            yield name, lines
            name, lines = match[1], []
        elif line.startswith("=="):
            break
        else:
            lines.append(line)
    yield name, lines


def _parse_adapter(name: str, lines: list[str]) -> tuple[ClientDevice, set[IPv4Address]]:
    addresses, resolvers = list[IPv4Interface](), set[IPv4Address]()
    label, is_tunnel = "", _DRIVERS.search(name) is not None
    former: IPv4Address | None = None
    for line in lines:
        field = _FIELD.match(line)
        label, value = (field["label"], field["value"]) if field else (label, line.strip())
        is_tunnel = is_tunnel or _DRIVERS.search(value) is not None
        match = _ADDRESS.fullmatch(value)
        if not match:
            former = None
        elif "DNS" in label:
            resolvers.add(IPv4Address(match[1]))
        else:
            # The mask follows the address; both have labels in the machine's language.
            with suppress(ValueError):
                addresses.extend([IPv4Interface(f"{former}/{match[1]}")] if former else [])
            former = IPv4Address(match[1])
    return ClientDevice(name=name, mtu=None, is_tunnel=is_tunnel, addresses=tuple(addresses)), resolvers
