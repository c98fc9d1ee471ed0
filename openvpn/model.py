"""The values everything in this package is rendered from.

A `Tunnel` says what the gateway offers, a `Client` who may use it. Both only hold and derive; whether they make sense
together (overlaps, names, ranges) is judged where they come from, in the settings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from itertools import pairwise
from typing import Literal

from openvpn.listener import Listener

#: Offset of the addresses that OpenVPN hands out by itself: behind a /16 of IPv4 addresses, the largest pool there is.
DYNAMIC6 = 1 << 16

#: Prefix length that has room for both.
SMALLEST6 = 108

#: What the Internet's IPv6 addresses begin with (RFC 4291, 2.4; IANA).
GLOBAL6 = IPv6Network("2000::/3")

#: The bridge that a segment's ports are in; no interface of the gateway's host ever is.
BRIDGE = "br0"

#: Modes of the Linux bonding driver, as it names them.
Mode = Literal["balance-xor", "active-backup", "balance-rr", "balance-alb"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """One client; its name is the common name of its certificate and the name of its file in the server's `ccd`."""

    name: str
    address: IPv4Address | None = None
    """Tunnel address it always gets; without one, any that the server hands out."""
    lan: tuple[IPv4Network, ...] = ()
    """Networks behind the client, which it routes for."""
    reachable: tuple[IPv4Network, ...] = ()
    """Parts of `lan` towards which others may open connections; towards the rest only replies pass."""
    address6: IPv6Address | None = None
    """What its IPv6 address ends in; without one, what its IPv4 address counts in the pool."""
    system: Literal["linux", "windows", "phone"] = "linux"
    """What it runs."""
    mac: str | None = None
    """Hardware address it has on a segment; without one, what `Tunnel.macs` derives and its bundle sets."""
    bridge: bool = False
    """Whether it is a bridge between the segment and its `lan`: frames of every host there come through it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Multicast:
    """A range of multicast groups, and of UDP ports, that may cross a segment."""

    group: IPv4Network | IPv6Network
    ports: tuple[int, int] = (0, 65535)


@dataclass(frozen=True, slots=True)
class Process:
    """One OpenVPN server process of a tunnel."""

    instance: str
    """systemd's instance of its unit: `openvpn-server@<instance>`."""
    adapter: str
    """Network interface that it reads and writes."""
    port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Tunnel:
    """What a gateway offers, and the clients who may connect to it."""

    device: Literal["tun", "tap"] = "tun"
    """`tun` routes; `tap` is one Ethernet segment, whose ports meet in a bridge on the gateway."""
    within: str | None = None
    """The interface that has the tunnel's addresses, where it is none of OpenVPN's own: a bond."""
    bond: Mode | None = None
    """How hosts spread what they send over several links."""
    listener: Listener = field(default_factory=Listener)
    """Transport protocol, and a port for each process; hosts of a segment bond their tunnels to all of them."""
    pool: IPv4Network
    """Network of the tunnel, /16 to /29 as OpenVPN takes them; the server has its first address."""
    routes: tuple[IPv4Network, ...] = ()
    """All networks that clients reach through the tunnel and are told to route to it, the VPC's among them."""
    nat: bool = True
    """Whether sources are translated to the gateway's own address on their way out of the tunnel."""
    client_to_client: bool = False
    """Whether clients reach each other, through the gateway's firewall."""
    multicast: tuple[Multicast, ...] = ()
    """Groups that may cross a segment; all, if none is named."""
    broadcasts: int = 100
    """Broadcast frames that each client of a segment may send in a second."""
    redirect: bool = False
    """Whether all of a client's traffic takes the tunnel."""
    pool6: IPv6Network | None = None
    """Global addresses of the tunnel, /80 to `SMALLEST6`, or a /64 if `advertised`; the server has the first one."""
    advertised: bool = False
    """Whether the gateway announces `pool6` on the segment, so that hosts make addresses of their own (RFC 4862)."""
    default6: bool = False
    """Whether it announces itself as the way to everywhere."""
    routes6: tuple[IPv6Network, ...] = ()
    """All IPv6 networks that clients reach through the tunnel."""
    opened6: tuple[IPv6Network, ...] = ()
    """Who may open connections to the clients' IPv6 addresses, which are nobody else's: nothing is translated."""
    clients: tuple[Client, ...] = ()
    keepalive: tuple[int, int] = (10, 120)
    """Seconds between pings, and of silence after which a client starts anew."""
    verb: int = 3
    domain: str | None = None
    """Domain that clients look names up in."""
    resolver: IPv4Address | None = None
    """Who answers for it, through the tunnel."""
    mtu: int = 1420
    """Largest packet inside the tunnel, bytes: with all headers (at most 72) it still fits a PPPoE line (1,492)."""
    path_mtu: int = 1400
    """Smallest path, in bytes, over which TCP in the tunnel passes without a fragment."""

    @property
    def processes(self) -> tuple[Process, ...]:
        """The OpenVPN processes, one for each of the listener's ports; all serve the same clients."""
        return tuple(
            Process(instance=f"server{number or ''}", adapter=f"{self.device}{number}", port=port)
            for number, port in enumerate(self.listener.ports)
        )

    @property
    def adapters(self) -> tuple[str, ...]:
        """Network interfaces of all processes."""
        return tuple(process.adapter for process in self.processes)

    @property
    def is_bonded(self) -> bool:
        """Whether several processes serve one segment."""
        return len(self.listener.ports) > 1

    @property
    def interface(self) -> str:
        """Network interface that has the gateway's address in the tunnel: of a segment, its bridge."""
        return self.within or (BRIDGE if self.device == "tap" else self.processes[0].adapter)

    @property
    def address(self) -> IPv4Address:
        """The server's own address in the tunnel: the first, or, where bonded hosts have that, the last."""
        return self.pool.broadcast_address - 1 if self.is_bonded else self.pool.network_address + 1

    @property
    def max_clients(self) -> int:
        """Clients at one time: as many as the pool has room for, at most 1,024 (OpenVPN's own default)."""
        return min(self.pool.num_addresses - 3, 1024)

    @property
    def dynamic(self) -> tuple[IPv4Address, IPv4Address] | None:
        """First and last address for clients without one of their own; None if all are taken.

        OpenVPN does not keep fixed addresses out of the range it hands out, so the two must be apart. The pool's upper
        half is used where no fixed address lies in it and it is large enough: then fixed addresses come and go below it
        without a change of the server's configuration, that is without a restart. Otherwise it is the longest free run.
        """
        fixed = sorted({c.address for c in self.clients if c.address} | {self.address})
        half = self.pool.network_address + self.pool.num_addresses // 2
        if fixed[-1] < half and sum(c.address is None for c in self.clients) < self.pool.num_addresses // 2:
            return half, self.pool.broadcast_address - 1
        runs = [(a + 1, b - 1) for a, b in pairwise([*fixed, self.pool.broadcast_address]) if int(b) - int(a) > 1]
        return max(runs, key=lambda run: int(run[1]) - int(run[0]), default=None)

    @property
    def members(self) -> tuple[Client, ...]:
        """Clients that are hosts of a segment by themselves: all but a bridge."""
        return tuple(client for client in self.clients if not client.bridge)

    @property
    def bridged(self) -> Client | None:
        """The client that is a bridge to its LAN."""
        return next((client for client in self.clients if client.bridge), None)

    @property
    def network(self) -> IPv4Network:
        """The network that hosts of a segment see around them: its pool, or the bridged LAN that this is a part of."""
        return self.bridged.lan[0] if self.bridged else self.pool

    @property
    def addresses(self) -> Mapping[str, IPv4Address]:
        """The address of each client of a segment, by its name: there all are fixed, since the filter names them.

        Who declares none gets one that follows from its name, or the next that is free; so a client more changes no
        other's. A bridge has none: its host's are the LAN's.
        """
        fixed = {client.name: client.address for client in self.members if client.address}
        taken, room = {*fixed.values(), self.address}, self.pool.num_addresses - 2
        for client in self.members:
            if client.name not in fixed:
                start = int.from_bytes(_digest(f"{self.pool} {client.name}")[:4])
                places = (self.pool.network_address + 1 + (start + step) % room for step in range(room))
                fixed[client.name] = next(place for place in places if place not in taken)
                taken.add(fixed[client.name])
        return fixed

    @property
    def address6(self) -> IPv6Address | None:
        """The server's own IPv6 address in the tunnel."""
        return self.pool6[1] if self.pool6 else None

    @property
    def addresses6(self) -> Mapping[str, IPv6Address]:
        """The IPv6 address of each client that always has the same, by its name."""
        if self.pool6 is None:
            return {}
        fixed = self.addresses if self.device == "tap" else {c.name: c.address for c in self.clients if c.address}
        ends = {name: int(address) - int(self.pool.network_address) for name, address in fixed.items()}
        chosen = {c.name: int(c.address6) & int(self.pool6.hostmask) for c in self.clients if c.address6}
        # Where one has chosen what another's would be, that one's is in a place of its own.
        ends = {name: end + 2 * DYNAMIC6 if end in chosen.values() else end for name, end in ends.items()} | chosen
        return {name: self.pool6[end] for name, end in ends.items()}

    @property
    def dynamic6(self) -> IPv6Address | None:
        """Where the IPv6 addresses of clients without one of their own begin: behind those that IPv4 ones lead to."""
        return self.pool6[DYNAMIC6] if self.pool6 and self.dynamic else None

    @property
    def mac(self) -> str:
        """The gateway's hardware address on a segment; it stays when the machine is replaced."""
        return hardware_address(f"{self.pool}")

    @property
    def macs(self) -> Mapping[str, str]:
        """The hardware address of each client of a segment, by its name: its own, or one that follows from the name."""
        return {client.name: client.mac or hardware_address(f"{self.pool} {client.name}") for client in self.members}

    @property
    def hardware(self) -> Mapping[str, tuple[str, ...]]:
        """All addresses that frames of each client of a segment may come from, by its name."""
        if self.is_bonded:
            return {name: bond_addresses(f"{self.pool}", name, len(self.listener.ports)) for name in self.macs}
        return {name: (mac,) for name, mac in self.macs.items()}

    @property
    def lans(self) -> tuple[IPv4Network, ...]:
        """All networks behind clients, in order and without overlaps."""
        return tuple(collapse_addresses(n for c in self.clients for n in c.lan))

    @property
    def reachable(self) -> tuple[IPv4Network, ...]:
        """All networks behind clients towards which others may open connections."""
        return tuple(collapse_addresses(n for c in self.clients for n in c.reachable))

    @property
    def sources(self) -> tuple[IPv4Network, ...]:
        """Every source address a packet out of the tunnel may rightly have."""
        return tuple(collapse_addresses((self.pool, *self.lans)))

    @property
    def routed(self) -> tuple[IPv4Network, ...]:
        """Networks that others address as they are, so that they need routes to the gateway.

        In a VPC: routes to its network interface, and no source/dest check on that.
        """
        return self.reachable if self.nat else self.sources


@dataclass(frozen=True, slots=True)
class Paths:
    """Where an instance's files are on the gateway.

    >>> Paths("server").management
    '/run/openvpn-server/mgmt.sock'
    """

    instance: str

    root = "/etc/openvpn/server"
    secrets = f"{root}/secrets"
    """`ca.crt`, `server.crt`, `server.key`, `tls-crypt-v2.key`; OpenVPN warns of keys that group or others can read."""
    revoked = f"{root}/revoked"
    """A file for each revoked serial, named by it in decimal. Never move the directory: without it all get in."""
    ccd = f"{root}/ccd"
    """One file for each client who may connect."""
    learn = "/etc/drawbridge/learn-address"
    """Script that OpenVPN asks whether a hardware address on a segment is a client's own."""
    members = "/etc/drawbridge/members"
    """What it knows: a hardware address and a client's name a line."""

    @property
    def config(self) -> str:
        """What `openvpn-server@<instance>` starts from."""
        return f"{self.root}/{self.instance}.conf"

    @property
    def runtime(self) -> str:
        """Directory that systemd makes for the process, 0750: it guards the management socket, which is 0777."""
        return f"/run/openvpn-{self.instance}"

    @property
    def management(self) -> str:
        """UNIX socket of the management interface."""
        return f"{self.runtime}/mgmt.sock"

    @property
    def status(self) -> str:
        """Status file, version 3 (separated by tabs), written every 10 seconds."""
        return f"{self.runtime}/status"

    @property
    def addresses(self) -> str:
        """Addresses handed out before, so that a client gets the same one again."""
        return f"/var/lib/openvpn-{self.instance}/ipp.txt"


def hardware_address(seed: str) -> str:
    """A locally administered unicast MAC address (IEEE 802) that is always the same for the same seed.

    >>> hardware_address("10.9.0.0/24 robot")
    '02:8d:6b:3d:2c:f4'
    """
    return ":".join(f"{byte:02x}" for byte in (2, *_digest(seed)[:5]))


def bond_addresses(group: str, host: str, links: int) -> tuple[str, ...]:
    """Hardware addresses of a bonded host: its bond's, each tap's, and what the watcher of each tap sends from."""
    taps = tuple(hardware_address(f"{group} {host} ovn{number}") for number in range(links))
    return hardware_address(f"{group} {host}"), *taps, *map(probe_address, taps)


def probe_address(mac: str) -> str:
    """The address that a tap's watcher sends from: no device has it, so what answers it is the far end's alone.

    >>> probe_address("02:8d:6b:3d:2c:f4")
    '06:8d:6b:3d:2c:f4'
    """
    return f"{int(mac[:2], 16) | 4:02x}{mac[2:]}"


def _digest(seed: str) -> bytes:
    return sha256(seed.encode()).digest()


def netmask(network: IPv4Network) -> str:
    """A network as OpenVPN's options spell it.

    >>> netmask(IPv4Network("10.8.0.0/24"))
    '10.8.0.0 255.255.255.0'
    """
    return f"{network.network_address} {network.netmask}"


def text(title: str, lines: Iterable[str]) -> str:
    """Lines as a file that says what it is."""
    return "".join(f"{line}\n" for line in (f"# {title}", *lines))
