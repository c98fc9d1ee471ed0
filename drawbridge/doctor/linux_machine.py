"""Parse what a Linux machine prints of its devices, routes and name servers.

Sources: ip-address(8) and ip-route(8) of iproute2, `-json`; resolvectl(1), "dns"; resolv.conf(5).
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from drawbridge.doctor.client_machine import ClientDevice, ClientMachine, ClientRoute

#: Prints devices and routes as JSON, then the name servers.
READ_LINUX = "ip -json -details address; ip -json route; resolvectl dns 2>/dev/null || cat /etc/resolv.conf"

_TUNNEL_KINDS = ("tun", "tap", "ovpn", "ovpn-dco")
_ADDRESS = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")


def parse_linux(text: str) -> ClientMachine:
    """Return the machine whose `READ_LINUX` has printed a text; raises ValueError, KeyError, TypeError and such."""
    decoder, text = json.JSONDecoder(), text.lstrip()
    devices, end = decoder.raw_decode(text)
    rest = text[end:].lstrip()
    routes, last = decoder.raw_decode(rest)
    parsed = [_parse_device(device) for device in devices]
    return ClientMachine(
        devices={device.name: device for device in parsed},
        routes=tuple(_parse_route(route) for route in routes if route.get("dev")),
        resolvers=frozenset(map(IPv4Address, find_addresses(rest[last:]))),
    )


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


def find_addresses(text: str) -> list[str]:
    """Return the IPv4 addresses in a text.

    >>> find_addresses("Link 5 (tun0): 10.1.0.2 fe80::1\\nnameserver 192.168.1.1\\n# 999.1.1.1\\n")
    ['10.1.0.2', '192.168.1.1']
    """
    addresses = []
    for word in _ADDRESS.findall(text):
        with suppress(ValueError):
            addresses.append(str(IPv4Address(word)))
    return addresses
