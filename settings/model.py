"""The sections of a stack's configuration: what each key may be, and what it is by default."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic.alias_generators import to_camel

#: The stack that may only ever be deployed into the region on this machine.
LAB = "lab"

SAFE_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"

#: In the name of a bucket (63 characters) it shares the room with project, account and region.
SAFE_STACK = re.compile(r"[a-z](?:[a-z0-9-]{0,18}[a-z0-9])?")

#: Labels of letters, digits and hyphens (RFC 1035, 2.3.1), two at least; `*` stands for the stack's name.
DOMAIN = r"^(\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$"

PUBLIC_KEY = r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/]+=*( [^\n]*)?$"

#: Pools by device, where none is given.
POOLS = {"tun": IPv4Network("10.8.0.0/24"), "tap": IPv4Network("192.168.255.0/24")}

#: Unicast: the last bit of the first byte is 0 (IEEE 802).
MAC = r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$"

#: A network interface's name, as Linux takes it (15 bytes).
INTERFACE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$"


Port = Annotated[int, Field(ge=0, le=65535)]


def _lower(value: object) -> object:
    """Windows writes hardware addresses with dashes and in capitals."""
    return value.lower().replace("-", ":") if isinstance(value, str) else value


def _pool6(value: object) -> object:
    """A word, or a range; raises ValueError."""
    return value if value in ("none", "delegated", "advertised") else IPv6Network(str(value))


class Section(BaseModel):
    """A part of the configuration: its keys are spelled in camelCase, unknown ones are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, hide_input_in_errors=True)


class Vpc(Section):
    """The VPC: made from `cidr`, or an existing one (`vpcId`) whose public subnet (`subnetId`) takes the gateway."""

    cidr: IPv4Network = IPv4Network("10.1.0.0/16")
    zones: int = Field(default=1, ge=1, le=3)
    """Availability zones that get a public and a private subnet."""
    private_prefix: int = Field(default=24, ge=17, le=24)
    """Prefix length of each private subnet: /24 has room for 251 hosts, /17 for 32,763."""
    vpc_id: str | None = Field(default=None, pattern=r"^vpc-[0-9a-f]+$")
    subnet_id: str | None = Field(default=None, pattern=r"^subnet-[0-9a-f]+$")
    route_table_ids: tuple[Annotated[str, Field(pattern=r"^rtb-[0-9a-f]+$")], ...] = ()
    """Route tables of the existing VPC that are to lead to networks behind the gateway."""


class Network(Vpc):
    """The gateway's VPC, in a pair the first one's."""

    domain: str | None = Field(default=None, pattern=DOMAIN)
    """Names inside the VPC, in a private zone of its own; a `*` label in it becomes the stack's name."""


class Pair(Vpc):
    """The second gateway's VPC, written as the first one's; the two gateways hold an address each over two links."""

    cidr: IPv4Network = IPv4Network("10.2.0.0/16")


class Gateway(Section):
    """The machine and who may talk to it."""

    instance_type: str = Field(default="t4g.nano", pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")
    image: str = Field(default="debian-13", pattern=r"^(debian-13|ami-[0-9a-f]+)$")
    """`debian-13`: the newest image at the time the machine is made; or the id of one."""
    admin_from: tuple[IPv4Network, ...] = ()
    """Where SSH is allowed from; nowhere by default."""
    admin_from_anywhere: bool = False
    """Says a second time that SSH is to be open to the world."""
    allow_from: tuple[IPv4Network, ...] = (IPv4Network("0.0.0.0/0"),)
    """Where the tunnel may be reached from."""
    admin_at: IPv4Address | None = None
    """Public address of the admin's at first; `drawbridge access allow-me` moves what it opens to SSH."""
    ssh_key: str | None = Field(default=None, pattern=PUBLIC_KEY)
    """The operator's public key, one line of OpenSSH."""
    ipv6_prefix: IPv6Network | None = None
    """The /80 to delegate to its network interface; without it AWS chooses one of the subnet's."""
    disk_size: int = Field(default=8, ge=8, le=16384)
    """GiB of the root volume."""


class Multicast(Section):
    """Multicast that may cross a segment."""

    group: IPv4Network | IPv6Network
    ports: tuple[Port, Port] = (0, 65535)
    """First and last UDP port."""


class Tunnel(Section):
    """What OpenVPN offers."""

    device: Literal["tun", "tap"] = "tun"
    """`tun` routes; `tap` is one Ethernet segment."""
    pool: IPv4Network = Field(default_factory=lambda given: POOLS[given.get("device", "tun")])
    protocol: Literal["udp", "tcp"] = "udp"
    """`tcp` gets through where nothing but the Web does, at the cost of speed."""
    port: int = Field(default=1194, ge=1, le=65535)
    nat: bool = True
    client_to_client: bool = False
    ipv6: Annotated[Literal["none", "delegated", "advertised"] | IPv6Network, PlainValidator(_pool6)] = "none"
    """Whether clients have global addresses: of all of the delegated prefix, or of a part of it; or of a /64 that is
    also advertised on the segment, for hosts that make addresses of their own.
    """
    open_to: tuple[IPv6Network, ...] = ()
    """Who may open connections to clients by IPv6."""
    redirect: Literal["none", "ipv6", "all"] = "none"
    routes: tuple[IPv4Network, ...] = ()
    """Networks pushed to clients besides the VPC's own."""
    vpc: bool = True
    """Whether clients reach the VPC."""
    links: Literal[1, 2] = 1
    """OpenVPN processes that serve one segment, on ports that follow each other; hosts bond their tunnels to both."""
    bond: Literal["balance-alb", "active-backup", "balance-xor", "balance-rr"] | None = None
    """How hosts spread what they send over the links; balance-alb by default, balance-xor in a pair."""
    multicast: tuple[Multicast, ...] = ()
    """What may cross a segment; everything, if nothing is named."""
    broadcasts: int = Field(default=100, ge=1, le=100_000)
    """Broadcast frames that each client of a segment may send in a second."""
    verb: int = Field(default=3, ge=1, le=6)
    """How much OpenVPN logs, at both ends: 5 shows each packet that comes or goes."""

    @property
    def has_ipv6(self) -> bool:
        """Whether clients have global addresses."""
        return self.ipv6 != "none"

    @property
    def advertised(self) -> bool:
        """Whether they make them themselves, of a /64 that the gateway advertises."""
        return self.ipv6 == "advertised"

    @property
    def server(self) -> IPv4Address:
        """The gateway's own address: the first, or, where bonded hosts have that, the last."""
        return self.pool.network_address + 1 if self.links == 1 else self.pool.broadcast_address - 1

    @property
    def room(self) -> int:
        """Clients the pool has addresses for: all but the network's, the server's and the broadcast one."""
        return self.pool.num_addresses - 3


class Bridge(Section):
    """A client's host that is a bridge between the segment and the LAN it stands in."""

    interface: str | None = Field(default=None, pattern=INTERFACE)
    """Network interface in that LAN; without it, that of the default route."""
    tap: Literal["persistent", "dynamic"] = "persistent"
    """Whether the TAP is there before OpenVPN starts, or OpenVPN makes it and an `up` script adds it."""
    gateway6: IPv6Address | None = None
    """Router of the host's IPv6 default route, where the LAN tells of none; a link-local one with its interface."""
    timeout: int = Field(default=60, ge=10, le=600)
    """Seconds after which the host has its former network again, unless its way into the LAN is proven."""


class Client(Section):
    """Who may connect; the name is the certificate's common name."""

    name: str = Field(pattern=SAFE_NAME)
    address: IPv4Address | None = None
    lan: tuple[IPv4Network, ...] = ()
    """Networks behind the client."""
    reachable: tuple[IPv4Network, ...] = ()
    """Parts of `lan` towards which the VPC may open connections."""
    system: Literal["linux", "windows", "phone"] = "linux"
    """What the client runs."""
    lines: tuple[Annotated[str, Field(pattern=INTERFACE)], ...] = ()
    """Network interfaces of a bonded client, one a link, where its routes alone do not tell its lines apart."""
    address6: IPv6Address | None = None
    """What its IPv6 address ends in, such as `::10`; or all of it, where the prefix is named."""
    mac: Annotated[str, BeforeValidator(_lower)] | None = Field(default=None, pattern=MAC)
    """Hardware address of its adapter on a segment, where its bundle cannot set one."""
    at: IPv4Address | None = None
    """Its public address at first: it may reach the tunnel from there, and from where it moves to."""
    bridge: Bridge | None = None
    """Makes its host a bridge between the segment and `lan`."""

    def needs_kit(self, tunnel: Tunnel) -> bool:
        """Return whether its machine is set up by a kit, and so needs an IAM user to fetch it with.

        Kits are for Debian: of a site, of a bridge, of a host that keeps the rule for its own address up to date, and
        of a bonded host.
        """
        return self.system == "linux" and bool(self.lan or self.at or self.bridge or tunnel.links > 1)


class Lifetimes(Section):
    """Validity of certificates, days."""

    ca: int = Field(default=3650, ge=1, le=36500)
    server: int = Field(default=825, ge=1)
    client: int = Field(default=365, ge=1)


class Settings(Section):
    """A stack's whole configuration."""

    stack: str
    region: str
    network: Network
    gateway: Gateway
    tunnel: Tunnel
    clients: tuple[Client, ...]
    lifetimes: Lifetimes
    pair: Pair | None = None

    @property
    def domain(self) -> str | None:
        """Names inside the VPC: the environment's own domain."""
        return self.network.domain and self.network.domain.replace("*", self.stack)

    @property
    def throw_away(self) -> bool:
        """Whether the stack's data may be destroyed with it unasked."""
        return self.stack == LAB
