"""Hold what AWS, the gateway and the client's machine report of the path from a client to a host in the VPC.

A snapshot is read once (`path_reader`) and judged without any further call (`path_checks`). It holds no secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, TypeVar

from drawbridge.doctor.client_machine import ClientMachine
from drawbridge.doctor.vpc_rules import IngressEgressRule, SubnetAcl, VpcRouteTable
from drawbridge.operate.bundle_probe import Verdict
from drawbridge.operate.client_states import SessionState
from drawbridge.operate.connection_log import ConnectionEvent
from drawbridge.operate.deployed_release import DeployedRelease
from drawbridge.operate.gateway_status import AgentReport, GatewayInstance
from openvpn.bundle import Remote

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unread:
    """A part of a snapshot that could not be read."""

    reason: str
    permission: str = ""
    """The permission that is missing, such as `ec2:DescribeNetworkAcls`, if that is the reason."""


class UnreadError(Exception):
    """A check needs a part of the snapshot that could not be read."""

    def __init__(self, unread: Unread) -> None:
        super().__init__(unread.reason)
        self.unread = unread


def require(reading: T | Unread) -> T:
    """Return a part of a snapshot; raises `UnreadError` if it could not be read."""
    if isinstance(reading, Unread):
        raise UnreadError(reading)
    return reading


@dataclass(frozen=True, kw_only=True, slots=True)
class ElasticIp:
    """The gateway's public address."""

    address: IPv4Address
    interface: str
    """Network interface that it belongs to; empty if it belongs to none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VpcInterface:
    """A network interface in the VPC: the gateway's, or a host's."""

    id: str
    vpc: str
    subnet: str
    address: IPv4Address
    """Its primary private address."""
    groups: tuple[str, ...]
    source_dest_check: bool
    instance: str
    """Instance that it is attached to; empty if there is none."""
    attachment: str
    """State of the attachment, such as `attached`; empty without one."""


@dataclass(frozen=True, slots=True)
class Ipv6Host:
    """A host in the VPC, named by its IPv6 address."""

    subnet: str
    groups: tuple[str, ...]
    rules: tuple[IngressEgressRule, ...]
    """Rules of its security groups for IPv6."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ipv6Path:
    """The VPC as packets of IPv6 in the tunnel see it."""

    vpc_ranges: tuple[IPv6Network, ...]
    subnets: Mapping[str, IPv6Network]
    """Ranges of those subnets of the VPC that have one."""
    prefixes: tuple[IPv6Network, ...]
    """Prefixes that are delegated to the gateway's interface."""
    route_tables: tuple[VpcRouteTable, ...]
    acls: tuple[SubnetAcl, ...]
    rules: tuple[IngressEgressRule, ...]
    """Rules of the gateway's security groups."""
    host: Ipv6Host | None
    """The host that has the address `target6`, if one is named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientRecord:
    """A client as the stack knows it."""

    name: str
    state: Literal["enrolled", "pending", "revoked"]
    """`pending`: it is in the stack file and has no bundle yet."""
    revoked: datetime | None = None
    """When its last certificate was revoked, if it has none that works."""
    serial: int | None = None
    not_after: datetime | None = None
    """When its certificate ends."""
    remote: Remote | None = None
    """The gateway that its bundle names."""
    fallbacks: tuple[str, ...] = ()
    """Addresses that its bundle names after `remote`, for when that is not found."""
    address: IPv4Address | None = None
    """Its address in the tunnel, if that is always the same."""
    tunnel_gateway: IPv4Address | None = None
    """The gateway's address in the tunnel, as its bundle accepts it; None if the bundle names none."""
    routes: tuple[IPv4Network, ...] = ()
    """Networks whose routes its bundle accepts, one by one."""
    resolver: IPv4Address | None = None
    """Name server that its bundle accepts."""
    is_current: bool = True
    """False if the bundle that the client has is not the one that the stack has for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PathSnapshot:
    """Everything that is known of a path at one moment."""

    stack: str
    now: datetime
    client: ClientRecord | Unread | None
    """None if no client is named: then the path begins at the Internet."""
    source: IPv4Address | None
    """The client's public address, if it is known."""
    target: IPv4Address | None
    """Private address of the host that the client wants to reach, if one is named."""
    target_protocol: str | None = None
    """`tcp` or `udp`; None for anything."""
    target_port: int | None = None
    resolved: tuple[IPv4Address, ...] | Unread = ()
    """Addresses of the name in `remote`; empty if the name is not found."""
    elastic_ip: ElasticIp | Unread | None
    interface: VpcInterface | Unread | None
    instances: tuple[GatewayInstance, ...] | Unread
    impaired: Mapping[str, str] | Unread = field(default_factory=dict)
    """Status checks that fail, `system` or `instance`, with AWS's word for each."""
    internet_gateways: tuple[str, ...] | Unread
    """Internet gateways that are attached to the VPC."""
    vpc_ranges: tuple[IPv4Network, ...] | Unread
    subnets: Mapping[str, IPv4Network] | Unread
    """Ranges of the VPC's subnets."""
    route_tables: tuple[VpcRouteTable, ...] | Unread
    acls: tuple[SubnetAcl, ...] | Unread
    rules: tuple[IngressEgressRule, ...] | Unread
    """Rules of the gateway's security groups."""
    host: VpcInterface | Unread | None = None
    """The interface that has the address `target`."""
    host_state: str | Unread = ""
    """EC2's state of the host's instance, such as `running`; empty for an interface without an instance."""
    host_rules: tuple[IngressEgressRule, ...] | Unread = ()
    release: DeployedRelease | Unread
    report: AgentReport | Unread
    session: SessionState | Unread = field(default_factory=SessionState)
    refusal: ConnectionEvent | Unread | None = None
    """The last event of the connection log, if that is the client's refusal."""
    machine: ClientMachine | None = None
    """The client's own machine, if it was read."""
    path_sizes: Mapping[int, bool] = field(default_factory=dict)
    """Sizes of packets, bytes, and whether the way to the gateway lets them pass or says that it does not."""
    segment_size: int | None = None
    """Bytes of the largest TCP segment that the client sends through the tunnel, if a connection has shown it."""
    target6: IPv6Address | None = None
    """IPv6 address of the host that the client wants to reach, if it is named by that."""
    ipv6: Ipv6Path | Unread | None = None
    """None if the tunnel has no IPv6."""
    verdict: Verdict | None = None
    """What a probe of the client's bundle saw from here, if one was made."""


def client_of(path: PathSnapshot) -> ClientRecord:
    """Return the client; raises `UnreadError` if none is named."""
    client = require(path.client)
    if client is None:
        raise UnreadError(Unread("no client is named"))
    return client


def interface_of(path: PathSnapshot) -> VpcInterface:
    """Return the gateway's interface; raises `UnreadError` if there is none."""
    interface = require(path.interface)
    if interface is None:
        raise UnreadError(Unread("the gateway has no network interface"))
    return interface


def host_of(path: PathSnapshot) -> VpcInterface:
    """Return the host's interface; raises `UnreadError` if there is none."""
    host = require(path.host)
    if host is None:
        raise UnreadError(Unread(f"the VPC has no interface with {path.target}"))
    return host


def leaves_vpc(path: PathSnapshot) -> bool:
    """Return whether the host is outside the VPC; raises `UnreadError`."""
    return path.target is not None and not any(path.target in network for network in require(path.vpc_ranges))
