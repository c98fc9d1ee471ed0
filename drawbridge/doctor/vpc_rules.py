"""Judge packets by a VPC's route tables, network ACLs and security groups, as AWS does.

Each table and list holds the rules of one family of addresses.

Sources: Amazon VPC User Guide, "Route tables" (the longest prefix decides), "Network ACLs" (the first rule
by its number decides, and replies need rules of their own), "Security groups" (rules allow, and replies need none).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

EVERYWHERE = IPv4Network("0.0.0.0/0")

#: Number of each protocol that a network ACL names by it (IANA, "Protocol Numbers").
PROTOCOL_NUMBERS: Mapping[str, str] = {"icmp": "1", "tcp": "6", "udp": "17"}
_ALL_PROTOCOLS = "-1"

#: Ports that a client behind a NAT router may send from (RFC 6056, 3.2): the ends of the range, and Linux' own.
EPHEMERAL_PORTS = (1024, 32768, 60999, 65535)


@dataclass(frozen=True, slots=True)
class VpcRoute:
    """One route of a route table."""

    destination: IpNetwork
    target: str
    """ID of the gateway, interface or connection; `local` for the VPC itself."""
    is_active: bool = True
    """False for a route whose target is gone, which AWS calls a blackhole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VpcRouteTable:
    """A route table, and the subnets that use it by name."""

    id: str
    is_main: bool
    """Whether all other subnets of the VPC use it."""
    subnets: tuple[str, ...]
    routes: tuple[VpcRoute, ...]

    def find_route(self, destination: IpAddress) -> VpcRoute | None:
        """Return the route that a packet takes; None without one.

        >>> routes = (VpcRoute(EVERYWHERE, "igw-1"), VpcRoute(IPv4Network("10.0.0.0/8"), "local"))
        >>> table = VpcRouteTable(id="rtb-1", is_main=True, subnets=(), routes=routes)
        >>> table.find_route(IPv4Address("10.1.2.3")).target
        'local'
        """
        matching = [route for route in self.routes if destination in route.destination]
        return max(matching, key=lambda route: route.destination.prefixlen, default=None)


def find_route_table(tables: Iterable[VpcRouteTable], subnet: str) -> VpcRouteTable | None:
    """Return the route table of a subnet: its own, or else the VPC's main one."""
    tables = tuple(tables)
    explicit = (table for table in tables if subnet in table.subnets)
    return next(explicit, next((table for table in tables if table.is_main), None))


@dataclass(frozen=True, kw_only=True, slots=True)
class Packet:
    """The part of a packet that rules look at, seen from the VPC's side."""

    peer: IpAddress | None
    """Address at the other end: the source of what comes in, the destination of what goes out; None if unknown."""
    protocol: str | None
    """`tcp`, `udp` or `icmp`; None for any."""
    port: int | None
    """Destination port; None for any."""

    def matches(self, protocol: str, ports: tuple[int, int] | None) -> bool:
        """Return whether a rule for a protocol, by name or number, and a range of ports applies to the packet."""
        if protocol == _ALL_PROTOCOLS or self.protocol is None:
            return True
        if protocol not in (self.protocol, PROTOCOL_NUMBERS.get(self.protocol)):
            return False
        return ports is None or self.port is None or ports[0] <= self.port <= ports[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkAclEntry:
    """One entry of a network ACL."""

    number: int
    is_outbound: bool
    allows: bool
    protocol: str
    """Number of the protocol; -1 for all."""
    cidr: IpNetwork
    ports: tuple[int, int] | None
    """First and last port; None for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubnetAcl:
    """A network ACL with the subnets that it filters."""

    id: str
    subnets: tuple[str, ...]
    entries: tuple[NetworkAclEntry, ...]

    def find_entry(self, packet: Packet, *, outbound: bool) -> NetworkAclEntry | None:
        """Return the entry that decides on a packet; None if none applies, which denies it.

        For a peer that is not known, only entries for all addresses count; for any protocol, an entry that denies one
        of them does not count.
        """
        for entry in sorted(self.entries, key=lambda entry: entry.number):
            covers = entry.cidr == EVERYWHERE if packet.peer is None else packet.peer in entry.cidr
            denies_a_part = packet.protocol is None and not entry.allows and entry.protocol != _ALL_PROTOCOLS
            if entry.is_outbound != outbound or not covers or denies_a_part:
                continue
            if packet.matches(entry.protocol, entry.ports):
                return entry
        return None

    def admits(self, packet: Packet, *, outbound: bool) -> bool:
        """Return whether the ACL lets a packet pass."""
        entry = self.find_entry(packet, outbound=outbound)
        return entry is not None and entry.allows


@dataclass(frozen=True, kw_only=True, slots=True)
class IngressEgressRule:
    """One rule of a security group, for one peer."""

    id: str
    is_egress: bool
    protocol: str
    """`tcp`, `udp`, `icmp` or a number; -1 for all."""
    ports: tuple[int, int] | None
    """First and last port; None for all."""
    cidr: IpNetwork | None = None
    group: str = ""
    """Security group whose interfaces are the peers."""
    prefix_list: str = ""
    """Prefix list that holds the peers."""

    def applies(self, packet: Packet, peer_groups: Iterable[str] = ()) -> bool:
        """Return whether the rule allows a packet; `peer_groups` are those of the interface at its other end."""
        if not packet.matches(self.protocol, self.ports):
            return False
        if self.group:
            return self.group in peer_groups
        if self.cidr is None:
            return False
        return self.cidr == EVERYWHERE if packet.peer is None else packet.peer in self.cidr


Direction = Literal["ingress", "egress"]


def select_rules(rules: Iterable[IngressEgressRule], direction: Direction) -> tuple[IngressEgressRule, ...]:
    """Return the rules of one direction."""
    return tuple(rule for rule in rules if rule.is_egress == (direction == "egress"))
