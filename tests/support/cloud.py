"""What tests of AWS's packet rules are written in: a few calls of the EC2 API, and probes that say what came through.

A probe's sockets are the test's own, opened inside the network namespace of an instance or a host: nothing needs to
boot.
"""

import contextlib
import http.client
import itertools
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import boto3
import dns.message

from lab.linux import within
from lab.region import Region

AWS_REGION = "eu-west-1"
IMAGE = "ami-0debian13amd64"
ANYWHERE = "0.0.0.0/0"
ANYWHERE6 = "::/0"
#: How long a packet may take; what has not come by then was dropped. The way takes microseconds.
PATIENCE = 0.4


def client(region: Region, service: str, **credentials: str) -> Any:
    """A boto3 client of the lab, as its operator or with other credentials (boto3's names for them)."""
    own = region.environment
    keys = {"aws_access_key_id": own["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": own["AWS_SECRET_ACCESS_KEY"]}
    chosen: Any = {**keys, **credentials}
    make: Any = boto3.client
    return make(service, region_name=AWS_REGION, endpoint_url=region.endpoint, **chosen)


def raise_quotas(region: Region, value: int = 200) -> None:
    """Request more VPCs, internet gateways, Elastic IPs and routes than the defaults, as a customer would."""
    quotas = client(region, "service-quotas")
    for service, code in (("vpc", "L-F678F1CE"), ("vpc", "L-A4707A72"), ("ec2", "L-0263D0A3"), ("vpc", "L-93826ACB")):
        quotas.request_service_quota_increase(ServiceCode=service, QuotaCode=code, DesiredValue=value)


@dataclass(frozen=True)
class Place:
    """Somewhere packets come from and go to: an instance or a host elsewhere.

    Every probe waits first until packets follow what was asked of the API.
    """

    region: Region
    namespace: str
    address: str
    """Its own IPv4 address: private for an instance."""

    def _opened(self, family: int, kind: int) -> socket.socket:
        self.region.wait_reconciled(20)
        return within(self.namespace, lambda: socket.socket(family, kind))

    @contextlib.contextmanager
    def serves(self, port: int, protocol: str = "tcp") -> Iterator[None]:
        """Answer on a port, any of its addresses, with the address that the caller is seen by."""
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        bound = self._opened(socket.AF_INET6, kind)
        with bound:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("::", port))
            bound.settimeout(0.1)
            ended = threading.Event()
            if protocol == "tcp":
                bound.listen()
            answer = _answer_tcp if protocol == "tcp" else _answer_udp
            thread = threading.Thread(target=answer, args=(bound, ended))
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()

    def calls(self, address: object, port: int, protocol: str = "tcp", *, source: object = None) -> str | None:
        """Ask who it is seen as by a place that `serves`; None where no answer comes.

        Args:
            source: address to send from, where it is not the one Linux would take; it need not be the place's own.
        """
        there = str(address)
        family = socket.AF_INET6 if ":" in there else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with self._opened(family, kind) as caller:
            if source is not None:
                caller.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
                caller.bind((str(source), 0))
            caller.settimeout(PATIENCE)
            try:
                caller.connect((there, port))
                if protocol == "udp":
                    caller.send(b"?")
                return caller.recv(100).decode() or None
            except OSError:
                return None

    @contextlib.contextmanager
    def connected(self, address: object, port: int, *, greeted: bool = True) -> Iterator["Conversation"]:
        """A TCP connection, kept open, to a place that `serves` (or that says nothing first); OSError where none is."""
        with self._opened(socket.AF_INET, socket.SOCK_STREAM) as caller:
            caller.settimeout(PATIENCE)
            caller.connect((str(address), port))
            if greeted:
                caller.recv(100)
            yield Conversation(self.region, caller)

    def pings(self, address: object, *, size: int | None = None, source: object = None) -> bool:
        """Whether an echo comes back; with `size` (bytes of the whole IP packet) unfragmented."""
        return self.ping(address, size=size, source=source).returncode == 0

    def ping(
        self, address: object, *, size: int | None = None, source: object = None, count: int = 1, ttl: int | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """ping(8) itself, for what it says."""
        headers = 48 if ":" in str(address) else 28
        options = [] if size is None else ["-M", "do", "-s", str(size - headers)]
        options += ["-I", str(source)] if source is not None else []
        options += ["-t", str(ttl)] if ttl else []
        return self.run("ping", "-n", f"-c{count}", "-i0.2", f"-W{PATIENCE}", *options, str(address))

    def sends(self, there: "Place", size: int, port: int = 82) -> int:
        """How many of so many bytes arrive at another place over TCP, before nothing comes any more for some time."""
        with there._opened(socket.AF_INET, socket.SOCK_STREAM) as bound:
            bound.bind((there.address, port))
            bound.listen()
            with self._opened(socket.AF_INET, socket.SOCK_STREAM) as caller:
                caller.connect((there.address, port))
                taker, _ = bound.accept()
                with taker, ThreadPoolExecutor(1) as pool:
                    taker.settimeout(10 * PATIENCE)
                    caller.settimeout(10 * PATIENCE)
                    sent = pool.submit(caller.sendall, bytes(size))
                    arrived = 0
                    with contextlib.suppress(TimeoutError):
                        while arrived < size:
                            arrived += len(taker.recv(1 << 16))
                    with contextlib.suppress(TimeoutError):
                        sent.result()
                    return arrived

    def asks(
        self, path: str, method: str = "GET", *, headers: Mapping[str, str] | None = None, of: str = "169.254.169.254"
    ) -> tuple[int, str]:
        """Status and body of an HTTP answer; status 0 where none comes."""
        connection = http.client.HTTPConnection(of, 80)
        with self._opened(socket.AF_INET6 if ":" in of else socket.AF_INET, socket.SOCK_STREAM) as caller:
            caller.settimeout(2 * PATIENCE)
            try:
                caller.connect((of, 80))
                connection.sock = caller
                connection.request(method, path, headers=dict(headers or {}))
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except OSError:
                return 0, ""

    def resolves(self, name: str, server: str) -> list[str]:
        """IPv4 addresses that a name server has for a name."""
        question = dns.message.make_query(name, "A")
        with self._opened(socket.AF_INET, socket.SOCK_DGRAM) as caller:
            caller.settimeout(PATIENCE)
            caller.sendto(question.to_wire(), (server, 53))
            answer = dns.message.from_wire(caller.recv(4096))
        return [record.to_text() for found in answer.answer for record in found]

    def run(self, *argv: str, check: bool = False) -> "subprocess.CompletedProcess[str]":
        """A command of this machine's in the place's namespace."""
        self.region.wait_reconciled(20)
        command = ["ip", "netns", "exec", self.namespace, *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=check)

    @contextlib.contextmanager
    def captures(self, ether_type: int = 0x0003) -> Iterator["Capture"]:
        """All frames of an EtherType (any, by default) that reach the place while the block runs."""
        self.region.wait_reconciled(20)
        bound = within(
            self.namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ether_type))
        )
        with bound:
            bound.settimeout(PATIENCE)
            yield Capture(bound)

    def sends_frame(self, device: str, destination: str, ether_type: int, payload: bytes, source: str) -> None:
        """Put a frame as it is on a device's wire; MACs as aa:bb:cc:dd:ee:ff."""
        with self._opened(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((device, 0))
            header = bytes.fromhex((destination + source).replace(":", "")) + ether_type.to_bytes(2, "big")
            raw.send(header + payload)


@dataclass(frozen=True)
class Conversation:
    """An open connection."""

    region: Region
    socket: socket.socket

    def goes_on(self) -> bool:
        """Whether what is said is still answered."""
        self.region.wait_reconciled(20)
        try:
            self.socket.send(b"?")
            return bool(self.socket.recv(100))
        except OSError:
            return False


@dataclass(frozen=True)
class Capture:
    """Frames that arrived."""

    socket: socket.socket

    def has(self, content: bytes) -> bool:
        """Whether a frame that holds `content` has arrived, or arrives in time."""
        with contextlib.suppress(TimeoutError):
            while True:
                if content in self.socket.recv(65535):
                    return True
        return False


def _answer_tcp(bound: socket.socket, ended: threading.Event) -> None:
    open_ones: list[socket.socket] = []
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            connection, peer = bound.accept()
            connection.settimeout(20)
            open_ones.append(connection)
            threading.Thread(target=_converse, args=(connection, _name(peer[0]).encode()), daemon=True).start()
    for connection in open_ones:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def _converse(connection: socket.socket, name: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.send(name)
        while connection.recv(100):
            connection.send(name)


def _answer_udp(bound: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            _, peer = bound.recvfrom(100)
            with contextlib.suppress(OSError):  # no way back
                bound.sendto(_name(peer[0]).encode(), peer)


def _name(address: str) -> str:
    return address.removeprefix("::ffff:")


@dataclass(frozen=True)
class Instance(Place):
    """An instance, with what the API says of it at its launch."""

    id: str
    interface: str
    mac: str
    public: str | None
    address6: str | None


def allow(protocol: str, *peers: str, ports: tuple[int, int] | int = (-1, -1)) -> dict[str, Any]:
    """One permission of a security group; a peer is a CIDR, a security group's id or a prefix list's."""
    low, high = (ports, ports) if isinstance(ports, int) else ports
    permission: dict[str, Any] = {"IpProtocol": protocol}
    if protocol != "-1":
        permission |= {"FromPort": low, "ToPort": high}
    for peer in peers:
        if peer.startswith("sg-"):
            permission.setdefault("UserIdGroupPairs", []).append({"GroupId": peer})
        elif peer.startswith("pl-"):
            permission.setdefault("PrefixListIds", []).append({"PrefixListId": peer})
        elif ":" in peer:
            permission.setdefault("Ipv6Ranges", []).append({"CidrIpv6": peer})
        else:
            permission.setdefault("IpRanges", []).append({"CidrIp": peer})
    return permission


ALL = allow("-1", ANYWHERE, ANYWHERE6)


@dataclass
class Cloud:
    """The EC2 API of a lab in short words. What is made in a test goes with it."""

    region: Region
    ec2: Any = field(init=False)
    _made: list[str] = field(default_factory=list)
    _names: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.ec2 = client(self.region, "ec2")

    def follow(self) -> None:
        """Wait until packets follow all that was asked for."""
        self.region.wait_reconciled(20)

    def vpc(self, cidr: str = "10.1.0.0/16", *, ipv6: bool = False, online: bool = False) -> "Vpc":
        """A VPC; one that is `online` has an internet gateway, and its main route table leads there."""
        identity = self.ec2.create_vpc(CidrBlock=cidr, AmazonProvidedIpv6CidrBlock=ipv6)["Vpc"]["VpcId"]
        found = Vpc(self, identity, IPv4Network(cidr), self._ipv6_of(identity) if ipv6 else None)
        if online:
            found.go_online()
        return found

    def _ipv6_of(self, vpc: str) -> IPv6Network:
        found = self.ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
        return IPv6Network(found)

    def instance(
        self,
        subnet: str,
        *groups: str,
        public: bool = False,
        interface: str | None = None,
        index: int = 0,
        **options: Any,
    ) -> Instance:
        """Launch an instance (of its VPC's default group where none is named), or one on an interface that is there."""
        if interface:
            card: dict[str, Any] = {"DeviceIndex": 0, "NetworkInterfaceId": interface}
        else:
            card = {
                "DeviceIndex": index,
                "SubnetId": subnet,
                "AssociatePublicIpAddress": public,
                "Groups": list(groups),
            }
            card |= options.pop("card", {})
        defaults = {"ImageId": IMAGE, "InstanceType": "t3.nano", "MinCount": 1, "MaxCount": 1}
        made = self.ec2.run_instances(**{**defaults, "NetworkInterfaces": [card], **options})["Instances"][0][
            "InstanceId"
        ]
        self._made.append(made)
        return self.found(made)

    def found(self, identity: str) -> Instance:
        """An instance as it is now."""
        described = self.ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"][0]
        cards = sorted(described["NetworkInterfaces"], key=lambda card: int(card["Attachment"]["DeviceIndex"]))
        addresses6 = cards[0].get("Ipv6Addresses") or [{"Ipv6Address": None}]
        return Instance(
            region=self.region,
            namespace=f"{self.region.name}-{identity[-12:]}",
            address=described["PrivateIpAddress"],
            id=identity,
            interface=cards[0]["NetworkInterfaceId"],
            mac=cards[0]["MacAddress"],
            public=described.get("PublicIpAddress"),
            address6=addresses6[0]["Ipv6Address"],
        )

    def server(self, address: str = "203.0.113.80", address6: str | None = None) -> Place:
        """A host on the Internet."""
        name = f"server{next(self._names)}"
        self._made.append(name)
        host = self.region.add_internet_host(
            name, address=IPv4Address(address), address6=IPv6Address(address6) if address6 else None
        )
        return Place(self.region, host.namespace, address)

    def elastic_address(self) -> tuple[str, str]:
        """A new Elastic IP: allocation id, address."""
        made = self.ec2.allocate_address(Domain="vpc")
        return made["AllocationId"], made["PublicIp"]

    def clear(self) -> None:
        """Terminate what was launched."""
        instances = [name for name in self._made if name.startswith("i-")]
        if instances:
            self.ec2.terminate_instances(InstanceIds=instances)
        for name in set(self._made) - set(instances):
            self.region.remove_host(name)
        self._made.clear()


@dataclass
class Vpc:
    """A VPC under test."""

    cloud: Cloud
    id: str
    cidr: IPv4Network
    cidr6: IPv6Network | None
    _subnets: Iterator[int] = field(default_factory=itertools.count)

    @property
    def main_table(self) -> str:
        """Id of its main route table."""
        filters = [{"Name": "vpc-id", "Values": [self.id]}, {"Name": "association.main", "Values": ["true"]}]
        return str(self.cloud.ec2.describe_route_tables(Filters=filters)["RouteTables"][0]["RouteTableId"])

    @property
    def default_acl(self) -> str:
        """Id of its default network ACL."""
        filters = [{"Name": "vpc-id", "Values": [self.id]}, {"Name": "default", "Values": ["true"]}]
        return str(self.cloud.ec2.describe_network_acls(Filters=filters)["NetworkAcls"][0]["NetworkAclId"])

    def go_online(self) -> str:
        """Attach an internet gateway and lead the main route table there; its id."""
        made = str(self.cloud.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"])
        self.cloud.ec2.attach_internet_gateway(InternetGatewayId=made, VpcId=self.id)
        self.route(self.main_table, ANYWHERE, GatewayId=made)
        if self.cidr6:
            self.route(self.main_table, ANYWHERE6, GatewayId=made)
        return made

    def route(self, table: str, destination: str, **target: str) -> None:
        """Put a route into a table."""
        family = "DestinationIpv6CidrBlock" if ":" in destination else "DestinationCidrBlock"
        if destination.startswith("pl-"):
            family = "DestinationPrefixListId"
        self.cloud.ec2.create_route(RouteTableId=table, **{family: destination}, **target)

    def table(self, *subnets: str) -> str:
        """A route table of its own for subnets."""
        made = str(self.cloud.ec2.create_route_table(VpcId=self.id)["RouteTable"]["RouteTableId"])
        for subnet in subnets:
            self.cloud.ec2.associate_route_table(RouteTableId=made, SubnetId=subnet)
        return made

    def subnet(self, **options: Any) -> str:
        """The next /24 of the VPC, with a /64 where the VPC has IPv6."""
        number = next(self._subnets)
        ranges: dict[str, str] = {
            "CidrBlock": str(next(itertools.islice(self.cidr.subnets(new_prefix=24), number, None)))
        }
        if self.cidr6:
            ranges["Ipv6CidrBlock"] = str(next(itertools.islice(self.cidr6.subnets(new_prefix=64), number, None)))
        return str(self.cloud.ec2.create_subnet(VpcId=self.id, **ranges, **options)["Subnet"]["SubnetId"])

    def group(
        self, ingress: Sequence[Mapping[str, Any]] = (), egress: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """A security group; without `egress` it has AWS's default, all."""
        ec2, name = self.cloud.ec2, f"group{next(self.cloud._names)}"
        made = str(ec2.create_security_group(GroupName=name, Description=name, VpcId=self.id)["GroupId"])
        if ingress:
            ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=list(ingress))
        if egress is not None:
            given = ec2.describe_security_groups(GroupIds=[made])["SecurityGroups"][0]["IpPermissionsEgress"]
            ec2.revoke_security_group_egress(GroupId=made, IpPermissions=given)
            if egress:
                ec2.authorize_security_group_egress(GroupId=made, IpPermissions=list(egress))
        return made


__all__ = [
    "ALL",
    "ANYWHERE",
    "ANYWHERE6",
    "IMAGE",
    "Cloud",
    "Instance",
    "Place",
    "Vpc",
    "allow",
    "client",
    "ip_network",
]
