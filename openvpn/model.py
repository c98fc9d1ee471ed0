"""The values that everything in this package is rendered from.

A `Tunnel` says what the gateway offers, a `TunnelClient` who may use it. Both only hold values and derive others;
the settings, where they come from, check that they make sense together (overlaps, names, ranges).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import Literal, TypeVar, cast

from openvpn.listener import Listener
from openvpn.topology import BridgedSegment, Layout, PairLink, Routed, Topology, lay_out

T = TypeVar("T")

#: What a client runs, or the program there that imports its bundle.
System = Literal["linux", "networkmanager", "windows", "macos", "android", "ios"]

#: Prefix length that has room for every fixed and every dynamic IPv6 address of a tunnel.
SMALLEST6 = 108

#: Addresses that stand for no host: with them a client has IPv6 in a tunnel that carries none, and so refuses it.
BLOCKED6 = IPv6Network("fd5b:9c1e:40d2::/64")

#: The range of the Internet's IPv6 addresses (RFC 4291, 2.4; IANA).
GLOBAL6 = IPv6Network("2000::/3")


#: Bytes of IPv4's and TCP's headers; and of what is around a packet in the tunnel: IPv4, UDP, OpenVPN's header and tag.
IPV4_AND_TCP = 20 + 20
ENVELOPE = 20 + 8 + 24

#: Path MTUs, in bytes, of lines with tunnels or translators of their own (464XLAT, GRE, IPsec, WireGuard, 6in4); the
#: last one is less than IPv6 demands of a line (RFC 8200, section 5).
_SMALLER_PATHS = (1472, 1440, 1400, 1360, 1312, 1280, 1200)

#: Largest packets, bytes, inside a routed tunnel, where they fill a PPPoE line (1,492) with what is around them; and
#: inside frames, which fit that line with their 14 bytes more.
_ROUTED_MTU, _FRAMED_MTU = 1440, 1420


@dataclass(frozen=True, kw_only=True, slots=True)
class TunnelClient:
    """One client; its name is the common name of its certificate and the name of its file in the server's `ccd`."""

    name: str
    address: IPv4Address | None = None
    """Tunnel address it always gets; without one, any that the server hands out."""
    lan: tuple[IPv4Network, ...] = ()
    """Networks behind the client, which it routes for or bridges."""
    reachable: tuple[IPv4Network, ...] = ()
    """Parts of `lan` towards which others may open connections; towards the rest only replies pass."""
    address6: IPv6Address | None = None
    """Last bits of its IPv6 address; without them, the offset of its IPv4 address in the pool."""
    system: System = "linux"
    mac: str | None = None
    """Hardware address it has on a segment; without one, the one that follows from its name and its bundle sets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MulticastRange:
    """A range of multicast groups, and of UDP ports, that may cross a segment."""

    group: IPv4Network | IPv6Network
    ports: tuple[int, int] = (0, 65535)


@dataclass(frozen=True, kw_only=True, slots=True)
class TunnelIPv6:
    """The IPv6 part of a tunnel: global addresses, which are not translated."""

    pool: IPv6Network
    """Addresses of the tunnel, /80 to `SMALLEST6`, or a /64 if `advertised`; the server has the first one."""
    routes: tuple[IPv6Network, ...] = ()
    """All IPv6 networks that clients reach through the tunnel."""
    open_to: tuple[IPv6Network, ...] = ()
    """Networks that may open connections to the clients' addresses."""
    advertised: bool = False
    """Whether the gateway advertises `pool` on a segment, so that hosts form addresses of their own (RFC 4862)."""
    default_router: bool = False
    """Whether it advertises itself as the router to everywhere."""

    @property
    def address(self) -> IPv6Address:
        """The server's own IPv6 address in the tunnel."""
        return self.pool[1]


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """One OpenVPN server process of a tunnel."""

    instance: str
    """systemd's instance of its unit: `openvpn-server@<instance>`."""
    adapter: str
    """Network interface that it reads and writes."""
    port: int


@dataclass(frozen=True, kw_only=True)
class Tunnel:
    """A gateway's offer, and the clients who may connect to it.

    It has no slots: values that every client's file needs are derived once and kept in its `__dict__`.
    """

    topology: Topology = field(default_factory=Routed)
    """What the tunnel is: a routed network, a segment, or the link of a pair."""
    listener: Listener = field(default_factory=Listener)
    """Transport protocol and ports; hosts of a bonded segment connect to all of them."""
    pool: IPv4Network
    """Network of the tunnel, /16 to /29 as OpenVPN takes them; the server has one of its addresses."""
    routes: tuple[IPv4Network, ...] = ()
    """All networks that clients reach through the tunnel, the VPC's among them; the server pushes them as routes."""
    nat: bool = True
    """Whether sources are translated to the gateway's own address on their way out of the tunnel."""
    client_to_client: bool = False
    """Whether clients reach each other, through the gateway's firewall."""
    multicast: tuple[MulticastRange, ...] = ()
    """Groups that may cross a segment; all, if none is named."""
    broadcasts: int = 100
    """Broadcast frames that each client of a segment may send in a second."""
    clients_per_address: int = 20
    """Sessions that clients behind one public address may open at once, and in a minute after that."""
    multicasts: int = 500
    """Multicast frames that each client of a segment may send in a second."""
    redirect: bool = False
    """Whether all of a client's traffic takes the tunnel."""
    ipv6: TunnelIPv6 | None = None
    """The tunnel's IPv6, if it has any."""
    clients: tuple[TunnelClient, ...] = ()
    keepalive: tuple[int, int] = (1, 7)
    """Seconds between pings, and of silence after which a client starts anew."""
    verb: int = 3
    domain: str | None = None
    """Domain that clients look names up in."""
    resolver: IPv4Address | None = None
    """Name server that clients ask through the tunnel."""
    fixed_mtu: int | None = None
    """Largest packet inside a tunnel whose hosts use no smaller one, bytes: a LAN's, or a bond's."""
    path_mtu: int = 1400
    """Smallest path, in bytes, over which TCP from a client passes without a fragment if its path is not measured."""

    data_channel_offload: bool = False
    """Whether the kernel carries the data, where it can; OpenVPN creates the device then, and has the privilege."""

    @cached_property
    def layout(self) -> Layout:
        """The device, interface and addresses that follow from the topology."""
        return lay_out(self.topology, self.pool)

    @property
    def mtu(self) -> int:
        """Largest packet inside the tunnel, bytes."""
        return self.fixed_mtu or (_FRAMED_MTU if self.layout.frame_header else _ROUTED_MTU)

    @property
    def segment_size(self) -> int:
        """Largest TCP segment over IPv4 that fits the tunnel's device, bytes."""
        return self.mtu - IPV4_AND_TCP

    @property
    def client_segment_size(self) -> int:
        """Largest TCP segment over IPv4 of clients whose path is not measured, bytes: it fits the smallest path.

        Clients' systems forbid routers to fragment, which the gateway does not. In a tunnel over TCP each packet fits.
        """
        if self.listener.protocol == "tcp":
            return self.segment_size
        return self.segment_size_over(self.path_mtu)

    def segment_size_over(self, path_mtu: int) -> int:
        """Return the largest TCP segment over IPv4, bytes, that fits a path in one of the tunnel's UDP packets."""
        return min(self.segment_size, path_mtu - ENVELOPE - self.layout.frame_header - IPV4_AND_TCP)

    @property
    def measured_paths(self) -> tuple[int, ...]:
        """Path MTUs that the gateway looks for, bytes: the tunnel's largest packet, then smaller ones in falling order.

        Empty where a client's path does not matter, or its tunnel address does not say whose packets are to be smaller:
        over TCP, on a segment, and between a pair.
        """
        if self.listener.protocol == "tcp" or not isinstance(self.topology, Routed):
            return ()
        largest = self.mtu + ENVELOPE
        return (largest, *(path for path in _SMALLER_PATHS if path < largest))

    @property
    def processes(self) -> tuple[ServerProcess, ...]:
        """The OpenVPN server processes, each with a port of its own; all serve the same clients.

        The link of a pair has none: it runs units of its own.
        """
        if isinstance(self.topology, PairLink):
            return ()
        return tuple(
            ServerProcess(instance=f"server{number or ''}", adapter=f"{self.layout.device}{number}", port=port)
            for number, port in enumerate(self.listener.process_ports)
        )

    @property
    def adapters(self) -> tuple[str, ...]:
        """Network interfaces of all processes."""
        return tuple(process.adapter for process in self.processes)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Network interfaces that clients' packets come in by: one, or that of each process of a routed tunnel."""
        return self.adapters if isinstance(self.topology, Routed) else (self.layout.interface,)

    @property
    def max_sessions(self) -> int:
        """Sessions of a process at one time.

        OpenVPN counts half-open ones too, so there is room for several of each client. Who has an address is decided
        by the declared clients: each has one session that is complete.
        """
        return max(4 * min(self.pool.num_addresses - 3, 1024), 256)

    @property
    def hand_window(self) -> int:
        """Seconds until a session must be complete, for which a half-open one occupies a place.

        All clients may come at once, as after an outage, and one process opens some 60 sessions a second. Those of a
        large pool get as long as that takes; what a client has sent stands in one queue, behind everybody's packets.
        """
        return min(max(15, 60 * self.pool.num_addresses // 2048), 60)

    @property
    def receive_buffer(self) -> int | None:
        """Bytes of packets that wait for a process over UDP: as many as all clients send when they come at once.

        A packet that does not fit is sent again after 2, 4, 8 and 16 seconds. None, the system's default, up to a /24:
        more waiting packets cost processor time and delay.
        """
        addresses = self.pool.num_addresses
        return min(2048 * addresses, 4 << 20) if addresses > 256 else None

    @property
    def blocks_ipv6(self) -> bool:
        """Return whether clients refuse IPv6, because the tunnel takes all of their traffic and has none."""
        return self.redirect and self.ipv6 is None

    @property
    def bridge(self) -> str | None:
        """Name of the client that is a bridge to its LAN."""
        return self.topology.bridge if isinstance(self.topology, BridgedSegment) else None

    @cached_property
    def clients_by_name(self) -> Mapping[str, TunnelClient]:
        """The clients by their names."""
        return {client.name: client for client in self.clients}

    @cached_property
    def members(self) -> tuple[TunnelClient, ...]:
        """Clients that are hosts of a segment by themselves: all but a bridge."""
        return tuple(client for client in self.clients if client.name != self.bridge)

    @property
    def lans(self) -> tuple[IPv4Network, ...]:
        """All networks behind clients, in order and without overlaps."""
        return tuple(collapse_addresses(lan for client in self.clients for lan in client.lan))

    @property
    def reachable(self) -> tuple[IPv4Network, ...]:
        """All networks behind clients towards which others may open connections."""
        return tuple(collapse_addresses(network for client in self.clients for network in client.reachable))

    @property
    def sources(self) -> tuple[IPv4Network, ...]:
        """Every source address that a packet out of the tunnel may rightly have."""
        return tuple(collapse_addresses((self.pool, *self.lans)))

    @property
    def vpc_routes(self) -> tuple[IPv4Network, ...]:
        """Networks that hosts of the VPC address directly, so that the VPC needs routes to the gateway's interface.

        The gateway forwards their packets, so AWS must not check source and destination on that interface.
        """
        return self.reachable if self.nat else self.sources


def packet_size(segment_size: int, frame_header: int = 0) -> int:
    """Return the bytes of the tunnel's packet that carries a TCP segment over IPv4, whose options do not count.

    `frame_header` is the bytes that the tunnel carries in front of each IP packet (`Layout.frame_header`).
    """
    return segment_size + IPV4_AND_TCP + frame_header + ENVELOPE


def derive_once(derive: Callable[[Tunnel], T]) -> Callable[[Tunnel], T]:
    """Decorate a function of a tunnel so that it runs once for each tunnel, whose values do not change.

    A file is rendered for each client, so a function that looks at all clients would cost the square of their number.
    """
    key = f"{derive.__module__}.{derive.__qualname__}"

    @wraps(derive)
    def look_up(tunnel: Tunnel) -> T:
        derived = vars(tunnel)
        if key not in derived:
            derived[key] = derive(tunnel)
        return cast(T, derived[key])

    return look_up
