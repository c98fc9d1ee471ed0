"""The VPC around the gateway: made from a range of addresses, or one that exists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import islice

import pulumi
import pulumi_aws as aws

import contract

EVERYWHERE = "0.0.0.0/0"
EVERYWHERE6 = "::/0"

#: Number of the last /64 of a VPC's /56: those of `plan` are counted from 0, three zones' at most.
LAST6 = 255

#: Source ports of whoever opens a connection (RFC 6056, 3.2): where replies go.
EPHEMERAL = (1024, 65535)


@dataclass(frozen=True, slots=True)
class Zone:
    """The two subnets of one availability zone."""

    public: IPv4Network
    private: IPv4Network


#: In front of private subnets that are wider than a /24, room for the public ones: one for each of at most three zones.
FRONT = 22


def plan(cidr: IPv4Network, zones: int, private: int = 24) -> tuple[Zone, ...]:
    """Return a public /24 and a private subnet of `cidr` for each zone, always the same ones.

    A zone's subnets do not depend on how many zones follow it. `private` is the private ones' prefix length, /24 or
    wider. Raises ValueError where `cidr` has no room for them.
    """
    if private == 24:
        subnets = list(islice(cidr.subnets(new_prefix=24), 2 * zones))
        if len(subnets) < 2 * zones:
            raise ValueError(f"{cidr} has no room for {2 * zones} subnets of /24")
        return tuple(Zone(*pair) for pair in zip(subnets[::2], subnets[1::2], strict=True))
    before = max(1, 2 ** (private - FRONT))
    wide = list(islice(cidr.subnets(new_prefix=max(private, cidr.prefixlen)), before, before + zones))
    if len(wide) < zones:
        raise ValueError(f"{cidr} has no room for {zones} subnets of /{private} behind the public ones")
    return tuple(map(Zone, islice(cidr.subnets(new_prefix=24), zones), wide))


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a network ACL; they are stateless, so each direction of a connection needs one."""

    number: int
    """Its place in the order; each purpose has its own, so that one rule more moves no other."""
    protocol: str
    cidr: str
    ports: tuple[int, int] | None = None


def plan6(block: IPv6Network, number: int) -> IPv6Network:
    """Return the /64 of a subnet, the only size there is; subnets are counted as `plan` has them, public ones even."""
    return list(islice(block.subnets(new_prefix=64), number + 1))[-1]


def public_rules(
    cidr: IPv4Network, *, protocol: str, ports: tuple[int, int], ssh: bool
) -> tuple[list[Rule], list[Rule]]:
    """Return what the gateway's subnet lets in and out.

    In come the tunnel, SSH if anybody may use it, replies, ICMP (path MTU discovery needs its errors) and the VPC's own
    hosts. Out goes everything: with all of a client's traffic in the tunnel, the gateway opens any connection for it.
    """
    incoming = [
        Rule(100, "all", str(cidr)),
        Rule(110, protocol, EVERYWHERE, ports),
        *([Rule(120, "tcp", EVERYWHERE, (22, 22))] if ssh else []),
        Rule(130, "tcp", EVERYWHERE, EPHEMERAL),
        Rule(140, "udp", EVERYWHERE, EPHEMERAL),
        Rule(150, "icmp", EVERYWHERE),
    ]
    return incoming, [Rule(100, "all", EVERYWHERE)]


def rules6(opened: Sequence[IPv6Network], *, public: bool) -> tuple[list[Rule], list[Rule]]:
    """Return what a subnet lets in and out by IPv6: replies, ICMP, and whoever may open connections to clients.

    Out of a private one goes what its hosts ask for: the gateway it leaves by lets nothing else in.
    """
    incoming = [
        Rule(230, "tcp", EVERYWHERE6, EPHEMERAL),
        Rule(240, "udp", EVERYWHERE6, EPHEMERAL),
        Rule(250, "icmpv6", EVERYWHERE6),
        *(Rule(number, "all", str(network)) for number, network in enumerate(opened if public else (), start=260)),
    ]
    return incoming, [Rule(200, "all", EVERYWHERE6)]


def private_rules(cidr: IPv4Network, behind: Sequence[IPv4Network]) -> tuple[list[Rule], list[Rule]]:
    """Return what the private subnets let in and out.

    That is the VPC, S3 by its endpoint, and the networks `behind` the gateway.
    """
    inside = [Rule(number, "all", str(network)) for number, network in enumerate((cidr, *behind), start=100)]
    return [*inside, Rule(90, "tcp", EVERYWHERE, EPHEMERAL)], [*inside, Rule(90, "tcp", EVERYWHERE, (443, 443))]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkArgs:
    """All plain: they decide which resources there are."""

    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    cidr: IPv4Network
    """Range of the new VPC; not looked at for an existing one."""
    zones: int
    private_prefix: int = 24
    """Prefix length of the new VPC's private subnets."""
    vpc_id: str | None = None
    subnet_id: str | None = None
    """Public subnet of the existing VPC for the gateway."""
    route_table_ids: tuple[str, ...] = ()
    """Tables of the existing VPC for routes to what is behind the gateway."""
    port: int
    """The tunnel's port, the first of its `links`."""
    protocol: str = "udp"
    links: int = 1
    ssh: bool
    """Whether SSH is allowed from anywhere at all."""
    ipv6: bool = False
    """Whether the new VPC has IPv6, or the existing subnet's is used."""
    opened6: tuple[IPv6Network, ...] = ()
    """Who may open connections to clients by IPv6."""
    announced: bool = False
    """Whether the new VPC has a subnet that stays empty, whose range is for what is behind the gateway."""
    behind: tuple[IPv4Network, ...]
    """Networks behind the gateway that the VPC's hosts see by their own addresses."""


class Network(pulumi.ComponentResource):
    """A VPC with a public and a private subnet, or an existing one that is left as it is."""

    cidr: IPv4Network
    """The VPC's range; known at once, also of an existing VPC."""
    cidr6: pulumi.Output[str | None]
    """Its IPv6 range, if it uses one."""
    announced6: pulumi.Output[str | None]
    """Range of the empty subnet, a /64, if there is one."""
    vpc_id: pulumi.Output[str]
    public_subnet_id: pulumi.Output[str]
    """Where the gateway's network interface lives."""
    private_subnet_id: pulumi.Output[str | None]
    """The first zone's; none in an existing VPC."""
    route_tables: dict[str, pulumi.Input[str]]
    """Ids of the tables that get routes to networks behind the gateway, by a name for each."""
    edge: dict[str, pulumi.Input[str]]
    """The table that the internet gateway asks, if there is one."""

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Network", name, {}, opts)
        self.announced6, self.edge = pulumi.Output.from_input(None), {}
        if args.vpc_id and args.subnet_id:
            self._adopt(args.vpc_id, args.subnet_id, args.route_table_ids, ipv6=args.ipv6)
        else:
            self._make(name, args)
        self.register_outputs(
            {
                "vpcId": self.vpc_id,
                "publicSubnetId": self.public_subnet_id,
                "privateSubnetId": self.private_subnet_id,
            }
        )

    def _adopt(self, vpc_id: str, subnet_id: str, route_table_ids: Sequence[str], *, ipv6: bool) -> None:
        look = pulumi.InvokeOptions(parent=self)
        vpc = aws.ec2.get_vpc(id=vpc_id, opts=look)
        subnet = aws.ec2.get_subnet(id=subnet_id, opts=look)
        if (found := subnet.vpc_id) != vpc_id:
            raise pulumi.RunError(
                f"drawbridge:network.subnetId: {subnet_id} is in {found}, not in {vpc_id}; name a subnet of that VPC"
            )
        if ipv6 and not subnet.ipv6_cidr_block:
            raise pulumi.RunError(
                f"drawbridge:network.subnetId: {subnet_id} has no IPv6 range; give it one, or write ipv6: none"
            )
        # A VPC may have several; what counts is the one that the subnet is of.
        around = [
            one.ipv6_cidr_block
            for one in (vpc.ipv6_cidr_block_associations if ipv6 else ())
            if IPv6Network(subnet.ipv6_cidr_block).subnet_of(IPv6Network(one.ipv6_cidr_block))
        ]
        self.cidr6 = pulumi.Output.from_input(around[0] if around else None)
        self.cidr = IPv4Network(vpc.cidr_block)
        self.vpc_id = pulumi.Output.from_input(vpc_id)
        self.public_subnet_id = pulumi.Output.from_input(subnet_id)
        self.private_subnet_id = pulumi.Output.from_input(None)
        self.route_tables = {id_: id_ for id_ in route_table_ids}

    def _make(self, name: str, args: NetworkArgs) -> None:
        child = pulumi.ResourceOptions(parent=self)

        self.cidr = args.cidr
        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=str(args.cidr),
            assign_generated_ipv6_cidr_block=True if args.ipv6 else None,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=args.names.tags("vpc"),
            opts=child,
        )
        internet = aws.ec2.InternetGateway(
            f"{name}-internet", vpc_id=vpc.id, tags=args.names.tags("internet"), opts=child
        )
        tables = {
            kind: aws.ec2.RouteTable(f"{name}-{kind}", vpc_id=vpc.id, tags=args.names.tags(kind), opts=child)
            for kind in ("public", "private")
        }
        aws.ec2.Route(
            f"{name}-public-internet",
            route_table_id=tables["public"].id,
            destination_cidr_block=EVERYWHERE,
            gateway_id=internet.id,
            opts=child,
        )
        if args.ipv6:
            # Private hosts open connections to the Internet, and nobody from there to them.
            egress = aws.ec2.EgressOnlyInternetGateway(
                f"{name}-egress", vpc_id=vpc.id, tags=args.names.tags("egress"), opts=child
            )
            for kind, way in (
                ("public", {"gateway_id": internet.id}),
                ("private", {"egress_only_gateway_id": egress.id}),
            ):
                aws.ec2.Route(
                    f"{name}-{kind}-internet6",
                    route_table_id=tables[kind].id,
                    destination_ipv6_cidr_block=EVERYWHERE6,
                    **way,
                    opts=child,
                )
        aws.ec2.VpcEndpoint(
            f"{name}-s3",
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in tables.values()],
            tags=args.names.tags("s3"),
            opts=child,
        )
        subnets = self._subnets(name, args, vpc, tables)
        ports = args.port, args.port + args.links - 1
        rules = {
            "public": public_rules(args.cidr, protocol=args.protocol, ports=ports, ssh=args.ssh),
            "private": private_rules(args.cidr, args.behind),
        }
        for kind, (incoming, outgoing) in rules.items():
            more_in, more_out = rules6(args.opened6, public=kind == "public") if args.ipv6 else ([], [])
            incoming, outgoing = [*incoming, *more_in], [*outgoing, *more_out]
            self._acl(f"{name}-{kind}", vpc, args.names.tags(kind), incoming, outgoing, subnets[kind])

        if args.announced:
            self._announce(name, args, vpc, internet)
        self.cidr6 = vpc.ipv6_cidr_block.apply(lambda block: block if args.ipv6 else None)
        self.vpc_id = vpc.id
        self.public_subnet_id = subnets["public"]["0"].id
        self.private_subnet_id = subnets["private"]["0"].id
        self.route_tables = {kind: table.id for kind, table in tables.items()}

    def _announce(self, name: str, args: NetworkArgs, vpc: aws.ec2.Vpc, internet: aws.ec2.InternetGateway) -> None:
        """Make the empty subnet, and a table that says where the Internet finds it.

        Only a whole subnet's range may have a route of its own inside a VPC (Amazon VPC User Guide, "Subnet route
        tables" and "Gateway route tables").
        """
        child = pulumi.ResourceOptions(parent=self)
        subnet = aws.ec2.Subnet(
            f"{name}-announced",
            vpc_id=vpc.id,
            ipv6_cidr_block=vpc.ipv6_cidr_block.apply(subnet6(LAST6)),
            # It holds no interface, ever; so it takes nothing of the VPC's IPv4 range.
            ipv6_native=True,
            assign_ipv6_address_on_creation=True,
            tags=args.names.tags("announced"),
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["availabilityZone"]),
        )
        table = aws.ec2.RouteTable(f"{name}-edge", vpc_id=vpc.id, tags=args.names.tags("edge"), opts=child)
        aws.ec2.RouteTableAssociation(f"{name}-edge", gateway_id=internet.id, route_table_id=table.id, opts=child)
        self.announced6 = subnet.ipv6_cidr_block.apply(lambda block: block)
        self.edge = {"edge": table.id}

    def _subnets(
        self, name: str, args: NetworkArgs, vpc: aws.ec2.Vpc, tables: dict[str, aws.ec2.RouteTable]
    ) -> dict[str, dict[str, aws.ec2.Subnet]]:
        child = pulumi.ResourceOptions(parent=self)
        # AWS adds zones, and the list is sorted: a subnet stays in the zone it was made in.
        settled = pulumi.ResourceOptions(parent=self, ignore_changes=["availabilityZone"])
        found = aws.get_availability_zones(state="available", opts=pulumi.InvokeOptions(parent=self)).names
        # Local and Wavelength Zones have longer names, fewer instance types and other ways to the Internet.
        available = sorted(zone for zone in found if len(zone) == len(args.region) + 1)
        if len(available) < args.zones:
            raise pulumi.RunError(
                f"drawbridge:network.zones: {args.zones} is more than {args.region} has; write {len(available)} or less"
            )
        subnets: dict[str, dict[str, aws.ec2.Subnet]] = {"public": {}, "private": {}}
        for i, zone in enumerate(plan(args.cidr, args.zones, args.private_prefix)):
            for n, (kind, cidr) in enumerate((("public", zone.public), ("private", zone.private)), start=2 * i):
                subnet = aws.ec2.Subnet(
                    f"{name}-{kind}-{i}",
                    vpc_id=vpc.id,
                    cidr_block=str(cidr),
                    availability_zone=available[i],
                    ipv6_cidr_block=vpc.ipv6_cidr_block.apply(subnet6(n)) if args.ipv6 else None,
                    assign_ipv6_address_on_creation=True if args.ipv6 and kind == "private" else None,
                    map_public_ip_on_launch=False,
                    tags=args.names.tags(f"{kind}-{i}"),
                    opts=settled,
                )
                aws.ec2.RouteTableAssociation(
                    f"{name}-{kind}-{i}", subnet_id=subnet.id, route_table_id=tables[kind].id, opts=child
                )
                subnets[kind][str(i)] = subnet
        return subnets

    def _acl(
        self,
        name: str,
        vpc: aws.ec2.Vpc,
        tags: dict[str, str],
        incoming: Sequence[Rule],
        outgoing: Sequence[Rule],
        subnets: dict[str, aws.ec2.Subnet],
    ) -> None:
        child = pulumi.ResourceOptions(parent=self)
        acl = aws.ec2.NetworkAcl(name, vpc_id=vpc.id, tags=tags, opts=child)
        entries: list[pulumi.Resource] = [
            aws.ec2.NetworkAclRule(
                f"{name}-{'out' if egress else 'in'}-{rule.number}",
                network_acl_id=acl.id,
                egress=egress,
                rule_number=rule.number,
                rule_action="allow",
                protocol=PROTOCOLS[rule.protocol],
                cidr_block=rule.cidr if ":" not in rule.cidr else None,
                ipv6_cidr_block=rule.cidr if ":" in rule.cidr else None,
                from_port=rule.ports[0] if rule.ports else None,
                to_port=rule.ports[1] if rule.ports else None,
                icmp_type=-1 if rule.protocol.startswith("icmp") else None,
                icmp_code=-1 if rule.protocol.startswith("icmp") else None,
                opts=child,
            )
            for egress, rules in ((False, incoming), (True, outgoing))
            for rule in rules
        ]
        # An ACL without entries drops everything, so a subnet takes it on when they are there.
        for key, subnet in subnets.items():
            aws.ec2.NetworkAclAssociation(
                f"{name}-{key}",
                network_acl_id=acl.id,
                subnet_id=subnet.id,
                opts=pulumi.ResourceOptions(parent=self, depends_on=entries),
            )


#: Protocol numbers (IANA), as network ACLs want them.
PROTOCOLS = {"all": "-1", "icmp": "1", "tcp": "6", "udp": "17", "icmpv6": "58"}


def subnet6(number: int) -> Callable[[str], str]:
    """Return what makes a subnet's range of a VPC's, which is known once AWS has chosen it."""
    return lambda block: str(plan6(IPv6Network(block), number))
