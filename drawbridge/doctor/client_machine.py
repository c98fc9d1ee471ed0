"""Hold what a client's own machine says of itself: its devices, routes and name servers."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

#: Bytes that every path of IPv6, and so nearly every one, lets pass.
SMALLEST_PATH = 1280


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientDevice:
    """A network device of a client's machine."""

    name: str
    mtu: int | None
    """Bytes; None where the system does not print it."""
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
