"""Define the sections of a stack's configuration: their keys, the values these may have, and their defaults."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from images import DEFAULT_IMAGE, IMAGE_PATTERN
from settings import maintenance

#: The stack that may only be deployed into the region on this machine.
LAB = "lab"

SAFE_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"

#: A bucket's name (63 characters) also holds the project, the account and the region.
SAFE_STACK = re.compile(r"[a-z](?:[a-z0-9-]{0,18}[a-z0-9])?")

#: At least two labels of letters, digits and hyphens (RFC 1035, 2.3.1); the label `*` stands for the stack's name.
DOMAIN = r"^(\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$"

#: At least two labels of letters, digits and hyphens; the last one, unlike an address, begins with a letter.
HOSTNAME = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"

PUBLIC_KEY = r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/]+=*( [^\n]*)?$"

#: The default pool of each device.
DEFAULT_POOLS = {"tun": IPv4Network("10.8.0.0/24"), "tap": IPv4Network("192.168.255.0/24")}

#: A killed gateway sends no exit notification: its clients are back 2 s after the silence. A lossy line rarely loses
#: seven pings in a row.
DEFAULT_KEEPALIVE = (1, 7)

#: A family and a size (Amazon EC2 Instance Types, "Naming conventions").
INSTANCE_TYPE = r"^[a-z]+[a-z0-9-]*\d[a-z0-9-]*\.(nano|micro|small|medium|large|(\d+)?xlarge|metal(-\d+xl)?)$"

#: Each process opens a device and takes 10 MB of memory; larger machines' networks are busy before.
MAX_PROCESSES = 16

#: A unicast address: the last bit of its first byte is 0 (IEEE 802).
MAC = r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$"

#: The ARN of a managed policy, AWS's own or an account's (IAM User Guide, "IAM identifiers"). Its name has at most 128
#: characters.
POLICY_ARN = r"^arn:aws[a-z-]*:iam::(\d{12}|aws):policy/([!-.0-~]+/)*[A-Za-z0-9+=,.@_-]{1,128}$"

#: An e-mail address with an unquoted local part (RFC 5321, 4.1.2 and 4.5.3.1); SNS sends to no other.
_HOST_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
EMAIL = rf"^[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.-]{{1,64}}@{_HOST_LABEL}(\.{_HOST_LABEL})+$"

#: The name of a network interface: at most 15 bytes on Linux.
INTERFACE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$"


def _normalize_mac(value: object) -> object:
    """Return a hardware address in lower case with colons; Windows shows it with dashes and in capitals."""
    return value.lower().replace("-", ":") if isinstance(value, str) else value


def _parse_ipv6(value: object) -> object:
    """Return one of the words, or an IPv6 range; raises ValueError."""
    return value if value in ("none", "delegated", "advertised") else IPv6Network(str(value))


def _parse_processes(value: object) -> object:
    """Return `auto`, or a number of processes; raises ValueError."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_PROCESSES):
        return value
    raise ValueError


def _parse_range(value: object) -> object:
    """Return an IPv4 or IPv6 range; raises ValueError."""
    return ip_network(str(value))


def _parse_moment(value: object) -> str:
    """Return a moment in ISO 8601, in UTC and to the second; YAML reads one without quotes as a time.

    Raises ValueError.
    """
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        raise ValueError
    if moment.tzinfo is None:
        # Source: YAML's timestamp type (https://yaml.org/type/timestamp.html): without a time zone, it is UTC.
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_retention(value: object) -> object:
    """Return `none` for 0 days; and a boolean as text, because Python would take it for 0 or 1."""
    if isinstance(value, bool):
        return str(value)
    return "none" if value == 0 else value


def _write_number(value: object) -> object:
    """Return a number as text: Python would take it for an address."""
    return str(value) if isinstance(value, int | float) else value


#: An IPv4 address.
_ADDRESS = re.compile(r"\d+(\.\d+){3}")


def _refuse_host(value: object) -> object:
    """Return a range as it is; raises `PydanticCustomError` for an address without a prefix length, which is a host."""
    if isinstance(value, str) and _ADDRESS.fullmatch(value):
        raise PydanticCustomError("no_prefix", "an address without a prefix length")
    return value


def _refuse_bare_network(value: object) -> object:
    """Return a range as it is; raises as `_refuse_host` for an address that ends in 0.

    Other addresses stand for the range of that host alone.
    """
    return _refuse_host(value) if isinstance(value, str) and value.endswith(".0") else value


#: A KMS key (`Secrets.key`). IAM policies name keys by these ARNs; an alias there is no key. An ID of KMS has 36
#: characters; without a limit here, a policy could outgrow IAM's.
KEY_ARN = r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]{1,64}"

#: An IAM user or role, without wildcards.
PRINCIPAL_ARN = r"^arn:aws[a-z-]*:iam::\d{12}:(user|role)/[A-Za-z0-9_+=,.@/-]+$"

Address4 = Annotated[IPv4Address, BeforeValidator(_write_number)]
Address6 = Annotated[IPv6Address, BeforeValidator(_write_number)]
Range4 = Annotated[IPv4Network, BeforeValidator(_refuse_bare_network), BeforeValidator(_write_number)]
#: A range that cannot be of one host.
Network4 = Annotated[IPv4Network, BeforeValidator(_refuse_host), BeforeValidator(_write_number)]
Range6 = Annotated[IPv6Network, BeforeValidator(_write_number)]

Port = Annotated[int, Field(ge=0, le=65535)]

#: Seconds between pings: home routers and security groups forget a UDP flow that is silent for longer.
Interval = Annotated[int, Field(ge=1, le=60)]

#: Seconds of silence after which a client connects anew.
Silence = Annotated[int, Field(ge=2, le=3600)]

#: A moment as `_parse_moment` returns it: texts in that form have the order of the moments. Empty for never.
Moment = Annotated[str, BeforeValidator(_parse_moment)]

Group = Annotated[IPv4Network | IPv6Network, PlainValidator(_parse_range)]


class Section(BaseModel):
    """A part of the configuration: its keys are spelled in camelCase, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, hide_input_in_errors=True)


class Vpc(Section):
    """A VPC: a new one with the range `cidr`, or an existing one (`vpcId`) with a public subnet (`subnetId`)."""

    cidr: Network4 = IPv4Network("10.1.0.0/16")
    zones: int = Field(default=1, ge=1, le=3)
    """Availability zones that get a public and a private subnet."""
    private_prefix: int = Field(default=24, ge=17, le=24)
    """Prefix length of each private subnet: a /24 has room for 251 hosts, a /17 for 32,763."""
    vpc_id: str | None = Field(default=None, pattern=r"^vpc-[0-9a-f]+$")
    subnet_id: str | None = Field(default=None, pattern=r"^subnet-[0-9a-f]+$")
    """The subnet of the existing VPC that the gateway is in."""
    route_table_ids: tuple[Annotated[str, Field(pattern=r"^rtb-[0-9a-f]+$")], ...] = ()
    """Route tables of the existing VPC that get routes to the networks behind the gateway."""


class Network(Vpc):
    """The gateway's VPC; in a pair, the first gateway's."""

    domain: str | None = Field(default=None, pattern=DOMAIN)
    """Domain of a private zone for names inside the VPC; the label `*` becomes the stack's name."""


class Pair(Vpc):
    """The second gateway's VPC. The two gateways reach each other over two links."""

    cidr: Network4 = IPv4Network("10.2.0.0/16")


class Gateway(Section):
    """The gateway's machine, and the addresses that may reach it."""

    instance_type: str = Field(default="t4g.nano", pattern=INSTANCE_TYPE)
    image: str = Field(default=DEFAULT_IMAGE, pattern=IMAGE_PATTERN)
    """A name in `images.IMAGE_NAMES`, for the newest when the gateway is created; or an AMI's ID."""
    admin_from: tuple[Range4, ...] = ()
    """Ranges that may use SSH."""
    admin_from_anywhere: bool = False
    """Confirms that SSH is to be open to the world."""
    allow_from: tuple[Range4, ...] = (IPv4Network("0.0.0.0/0"),)
    """Ranges that may reach the tunnel."""
    admin_at: Address4 | None = None
    """The administrator's public address now; SSH is open to it, and `drawbridge access allow-me` updates it."""
    ssh_key: str | None = Field(default=None, pattern=PUBLIC_KEY)
    """The operator's public key, one line of OpenSSH."""
    ipv6_prefix: Range6 | None = None
    """The /80 to delegate to the gateway's network interface; by default AWS chooses one of the subnet's."""
    hostname: str | None = Field(default=None, pattern=HOSTNAME, max_length=253)
    """Public DNS name of the gateway, which clients look up when they connect; without it they have its address."""
    hosted_zone_id: str | None = Field(default=None, pattern=r"^[A-Z0-9]{1,32}$")
    """Public hosted zone of the account in which the name gets its record; without it, you keep the record yourself."""
    disk_size: int = Field(default=8, ge=8, le=16384)
    """Size of the root volume, GiB."""
    credits: Literal["standard", "unlimited"] = "standard"
    """CPU of a burstable instance above its baseline: as far as its credits go, or without end at a price."""
    processes: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_PROCESSES)], PlainValidator(_parse_processes)
    ] = 1
    """OpenVPN processes that share the tunnel's port; `auto`: one for each vCPU of the instance type."""
    metrics: Literal["basic", "full", "off"] = "basic"
    """What the gateway sends to CloudWatch, which bills each metric by the hour."""
    maintenance_window: str = Field(default="sun:03:00-sun:04:00", pattern=maintenance.PATTERN)
    """When processes that run old files restart, and the machine reboots for a new kernel, in UTC."""

    @property
    def is_burstable(self) -> bool:
        """Return whether the instance type has CPU credits (Amazon EC2 User Guide, "Burstable performance")."""
        return re.match(r"t\d", self.instance_type) is not None

    @property
    def is_recoverable(self) -> bool:
        """Return whether an alarm can have EC2 move the instance to other hardware.

        Amazon EC2 User Guide, "Configure CloudWatch action based recovery": general purpose, compute and memory
        optimized types without instance store (a `d` in the family's name), not bare metal.
        """
        return re.match(r"(a1|t\d[a-z]*|[cmr]\d(?:[abceginz]*|[a-z]+-flex))\.(?!metal)", self.instance_type) is not None


class Multicast(Section):
    """Multicast that may cross a segment."""

    group: Group
    ports: tuple[Port, Port] = (0, 65535)
    """First and last UDP port."""


class Tunnel(Section):
    """The tunnel that OpenVPN offers."""

    device: Literal["tun", "tap"] = "tun"
    """`tun` routes; `tap` is one Ethernet segment."""
    pool: Network4 = Field(default_factory=lambda values: DEFAULT_POOLS[values.get("device", "tun")])
    protocol: Literal["udp", "tcp"] = "udp"
    """`tcp` works in networks that let only web traffic out, but is slower."""
    port: int = Field(default=1194, ge=1, le=65535)
    nat: bool = True
    client_to_client: bool = False
    ipv6: Annotated[Literal["none", "delegated", "advertised"] | IPv6Network, PlainValidator(_parse_ipv6)] = "none"
    """Source of the clients' global addresses: the delegated prefix, a part of it, or a /64 of the VPC.

    The gateway advertises the /64 on the segment, for hosts that choose their addresses themselves.
    """
    open_to: tuple[Range6, ...] = ()
    """IPv6 ranges that may open connections to clients."""
    multicasts: int = Field(default=500, ge=1, le=100_000)
    """Multicast frames a second that each client of a segment may send."""
    clients_per_address: int = Field(default=20, ge=1, le=1000)
    """Clients that may connect at once from one public address, and in a minute after that."""
    redirect: Literal["none", "ipv6", "all"] = "none"
    routes: tuple[Range4, ...] = ()
    """Networks whose routes are pushed to clients, in addition to the VPC's."""
    vpc: bool = True
    """Whether clients reach the VPC."""
    links: Literal[1, 2] = 1
    """OpenVPN processes that serve one segment, on consecutive ports; hosts bond their tunnels to both."""
    bond: Literal["balance-alb", "active-backup", "balance-xor", "balance-rr"] | None = None
    """How hosts distribute frames over the links: by default balance-alb, in a pair balance-xor."""
    multicast: tuple[Multicast, ...] = ()
    """Multicast that may cross a segment; if empty, all may."""
    broadcasts: int = Field(default=100, ge=1, le=100_000)
    """Broadcast frames a second that each client of a segment may send."""
    keepalive: tuple[Interval, Silence] = DEFAULT_KEEPALIVE
    """Seconds between pings, and of silence after which a client connects anew; two links have their own."""
    data_channel_offload: bool = False
    """Whether the kernel carries the data, where the gateway's image has OpenVPN 2.7 and a kernel with `ovpn`."""
    path_mtu: int = Field(default=1400, ge=1280, le=1500)
    """Bytes of a path that the gateway has not measured, over which the client's TCP needs no fragments."""
    verb: int = Field(default=3, ge=1, le=6)
    """Verbosity of OpenVPN's log at both ends: 5 shows each packet."""

    @property
    def has_ipv6(self) -> bool:
        """Return whether clients have global IPv6 addresses."""
        return self.ipv6 != "none"

    @property
    def advertised(self) -> bool:
        """Return whether clients choose their IPv6 addresses themselves, from a /64 that the gateway advertises."""
        return self.ipv6 == "advertised"

    @property
    def capacity(self) -> int:
        """Return how many clients the pool has addresses for: all but the network's, the gateway's and broadcast."""
        return self.pool.num_addresses - 3


class Bridge(Section):
    """A client's host that bridges the segment and its LAN."""

    interface: str | None = Field(default=None, pattern=INTERFACE)
    """The host's network interface in the LAN; by default, that of its default route."""
    tap: Literal["persistent", "dynamic"] = "persistent"
    """`persistent`: the TAP exists before OpenVPN starts; `dynamic`: OpenVPN creates it, an `up` script adds it."""
    gateway6: Address6 | None = None
    """Router of the host's IPv6 default route, if the LAN advertises none; link-local with its interface."""
    timeout: int = Field(default=60, ge=10, le=600)
    """Seconds until the host restores its former network, unless it is reached over the bridge."""


class Client(Section):
    """A client that may connect; its name is its certificate's common name."""

    name: str = Field(pattern=SAFE_NAME)
    address: Address4 | None = None
    lan: tuple[Range4, ...] = ()
    """Networks behind the client."""
    reachable: tuple[Range4, ...] = ()
    """Parts of `lan` to which the VPC may open connections."""
    system: Literal["linux", "networkmanager", "windows", "macos", "android", "ios"] = "linux"
    """What the client runs, or the program there that imports its bundle."""
    lines: tuple[Annotated[str, Field(pattern=INTERFACE)], ...] = ()
    """Network interfaces of a bonded client, one for each link, if its routes alone do not separate the links."""
    address6: Address6 | None = None
    """The end of its IPv6 address, such as `::10`; or the whole address, if the prefix is configured."""
    mac: Annotated[str, BeforeValidator(_normalize_mac)] | None = Field(default=None, pattern=MAC)
    """Hardware address of its adapter on a segment, if its bundle cannot set one."""
    at: Address4 | None = None
    """The client's public address now: the tunnel is open to it, and to the address it moves to."""
    csr: str | None = Field(default=None, min_length=1)
    """File with its signing request, relative to the program: then its key never leaves it."""
    bridge: Bridge | None = None
    """Makes its host a bridge between the segment and `lan`."""
    days: int | None = Field(default=None, ge=1)
    """Validity of its certificates, in days, in place of `lifetimes.client`."""

    def needs_kit(self, tunnel: Tunnel) -> bool:
        """Return whether a kit sets up the client's machine.

        Kits are for Debian hosts: sites, bridges, bonded hosts, and hosts that update the rule for their own address.
        """
        return self.system == "linux" and bool(self.lan or self.at or self.bridge or tunnel.links > 1)


class Lifetimes(Section):
    """Validity of certificates, in days."""

    ca: int = Field(default=3650, ge=1, le=36500)
    server: int = Field(default=825, ge=1)
    client: int = Field(default=365, ge=1)
    renewal: int = Field(default=30, ge=1)
    """Days before its end from which a certificate is renewed, but at most a third of its validity."""


class Rotations(Section):
    """Moments at which keys were last rotated: `pulumi up` replaces those that are from before."""

    stack: Moment = ""
    """Of the authority, and with it of all keys and certificates."""
    gateway: Moment = ""
    """Of the gateway's keys: server, tls-crypt-v2, SSH host key; in a pair, of both gateways."""
    clients: Mapping[Annotated[str, BeforeValidator(_write_number)], Moment] = Field(default_factory=dict)
    """Of each client's key, by the client's name."""
    renewals: Mapping[Annotated[str, BeforeValidator(_write_number)], Moment] = Field(default_factory=dict)
    """When certificates were last renewed before their time, by the client's name; former ones stay valid."""


class Iam(Section):
    """The IAM roles and users that a stack creates."""

    permissions_boundary: str | None = Field(default=None, pattern=POLICY_ARN)
    """Managed policy that bounds what each role and user may do."""
    users: Literal["kits", "none"] = "kits"
    """`kits`: a user for each client with a kit, for its machine; `none`: the stack creates no users."""


class Secrets(Section):
    """The KMS key of the stack's secrets in SSM, and who may use it."""

    key: str = Field(default="stack", pattern=rf"^(stack|aws/ssm|{KEY_ARN})$")
    """`stack`: a key of its own; `aws/ssm`: AWS's key, which everybody in the account may use; or an existing key."""
    users: tuple[Annotated[str, Field(pattern=PRINCIPAL_ARN)], ...] = ()
    """IAM users and roles that may use the stack's own key, in addition to the deployer and the gateway."""
    tier: Literal["account", "intelligent"] = "account"
    """Tier of new parameters with certificates and keys: the account's default, or Intelligent-Tiering."""
    bundles: Literal["ssm", "s3"] = "ssm"
    """Where clients' bundles are: in a parameter each, or in an object each."""


class Alerts(Section):
    """Alarms on the gateway, and who gets them."""

    email: str = Field(pattern=EMAIL, max_length=254)
    """The address that SNS sends the alarms to, once its owner has confirmed."""


#: Days for which CloudWatch Logs keeps events, as AWS has them; `none` for no log at all.
Retention = Literal[
    "none", 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]


class Log(Section):
    """The log of clients' connections, in CloudWatch Logs."""

    retention: Annotated[Retention, BeforeValidator(_parse_retention)] = 90
    """Days for which an event is kept; `none` switches the log off and deletes it."""

    @property
    def days(self) -> int | None:
        """Return the days for which an event is kept; None without a log."""
        return None if self.retention == "none" else self.retention


class Settings(Section):
    """A stack's whole configuration."""

    stack: str
    region: str
    network: Network
    gateway: Gateway
    tunnel: Tunnel
    clients: tuple[Client, ...]
    lifetimes: Lifetimes
    rotations: Rotations
    iam: Iam
    secrets: Secrets
    log: Log
    pair: Pair | None = None
    alerts: Alerts | None = None

    @property
    def domain(self) -> str | None:
        """Return the domain of names inside the VPC, with the stack's name in place of `*`."""
        return self.network.domain and self.network.domain.replace("*", self.stack)

    @property
    def vpcs(self) -> tuple[Vpc, ...]:
        """Return the VPC of each gateway, the first gateway's first."""
        return (self.network, self.pair) if self.pair else (self.network,)

    @property
    def disposable(self) -> bool:
        """Return whether the stack's data may be destroyed with it without asking."""
        return self.stack == LAB
