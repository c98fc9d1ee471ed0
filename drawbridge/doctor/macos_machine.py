"""Parse what a Mac prints of its devices, routes and name servers.

Sources: macOS' manual pages ifconfig(8), netstat(1), "-r", and scutil(8), "--dns".
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from drawbridge.doctor.client_machine import ClientDevice, ClientMachine, ClientRoute

READ_MACOS = "ifconfig -a; netstat -rn -f inet; scutil --dns"

_DEVICE = re.compile(r"(\w+): flags=\w+<([\w,]*)> mtu (\d+)")
_INET = re.compile(r"inet (\S+) (?:--> \S+ )?netmask 0x([0-9a-f]{8})")
_RESOLVER = re.compile(r"\s+nameserver\[\d+\] : (\d+\.\d+\.\d+\.\d+)")
#: Of the devices that Macs call `utun`, the system has some for itself; those have no IPv4 address.
_TUNNEL_PREFIXES = ("utun", "tun", "tap")
#: A route that only programs take which ask for its device (netstat(1), RTF_IFSCOPE).
_SCOPED = "I"


def parse_macos(text: str) -> ClientMachine:
    """Return the machine whose `READ_MACOS` has printed a text; raises ValueError for another text."""
    lines = text.splitlines()
    routes = tuple(_parse_routes(lines))
    devices = {device.name: device for device in _parse_devices(lines)}
    if not devices or not routes:
        raise ValueError("no devices, or no routes")
    # What follows the heading is asked only by programs that bind to a device.
    dns = text.partition("DNS configuration")[2].partition("DNS configuration (for scoped queries)")[0]
    return ClientMachine(devices=devices, routes=routes, resolvers=frozenset(map(IPv4Address, _RESOLVER.findall(dns))))


def _parse_devices(lines: list[str]) -> Iterator[ClientDevice]:
    heading: re.Match[str] | None = None
    addresses: list[IPv4Interface] = []
    for line in [*lines, "end"]:
        if match := _INET.match(line.strip()):
            addresses.append(IPv4Interface(f"{match[1]}/{IPv4Address(int(match[2], 16))}"))
        elif not line.startswith(("\t", " ")):
            if heading:
                yield ClientDevice(
                    name=heading[1],
                    mtu=int(heading[3]),
                    is_tunnel=heading[1].startswith(_TUNNEL_PREFIXES),
                    is_up={"UP", "RUNNING"} <= {*heading[2].split(",")},
                    addresses=tuple(addresses),
                )
            heading, addresses = _DEVICE.match(line), []


def _parse_routes(lines: list[str]) -> Iterator[ClientRoute]:
    columns: list[str] = []
    for line in lines:
        words = line.split()
        if words[:3] == ["Destination", "Gateway", "Flags"]:
            columns = words
        elif not words:
            continue
        elif columns and len(words) > columns.index("Netif") and not line.startswith((" ", "\t")):
            if _SCOPED not in words[2]:
                yield ClientRoute(destination=parse_destination(words[0]), device=words[columns.index("Netif")])
        else:
            columns = []


def parse_destination(text: str) -> IPv4Network:
    """Return the network of a route, which netstat writes without the zeros at its end.

    >>> str(parse_destination("default")), str(parse_destination("10.1/16")), str(parse_destination("192.168.1"))
    ('0.0.0.0/0', '10.1.0.0/16', '192.168.1.0/24')
    >>> str(parse_destination("10.8.0.10")), str(parse_destination("128.0/1")), str(parse_destination("127"))
    ('10.8.0.10/32', '128.0.0.0/1', '127.0.0.0/8')
    """
    if text == "default":
        return IPv4Network("0.0.0.0/0")
    address, _, length = text.partition("/")
    parts = address.split(".")
    return IPv4Network(f"{'.'.join([*parts, '0', '0', '0'][:4])}/{length or 8 * len(parts)}")
