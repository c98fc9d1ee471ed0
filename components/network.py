"""The VPC around the gateway: a new one, or an existing one that is used as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from itertools import islice

import pulumi
import pulumi_aws as aws

import contract
from components.existing_vpc import EVERYWHERE, EVERYWHERE6, ExistingVpc
from openvpn.listener import Listener
from subnets import plan_subnets

#: Number of the last /64 of a VPC's /56. `subnets.plan_subnets` numbers subnets from 0, so it never gets there.
LAST6 = 255

#: Source ports of connections (RFC 6056, 3.2), to which replies go.
EPHEMERAL = (1024, 65535)


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a network ACL. ACLs are stateless, so each direction of a connection needs an entry."""

    number: int
    """Position in the evaluation order. Each purpose has a fixed one, so that adding a rule does not move others."""
    protocol: str
    cidr: pulumi.Input[str]
    ports: tuple[int, int] | None = None
    ipv6: bool = False
    """Whether `cidr` is an IPv6 range."""


def plan6(block: IPv6Network, number: int) -> IPv6Network:
    """Return the /64 of a subnet; `number` is twice the zone's index, plus one for the private subnet.

    AWS takes no other size. `block` is the VPC's range.
    """
    return list(islice(block.subnets(new_prefix=64), number + 1))[-1]


def public_rules(cidr: IPv4Network, *, listener: Listener, ssh: bool) -> tuple[list[Rule], list[Rule]]:
    """Return the inbound and outbound ACL rules of the gateway's subnet.

    Inbound are the tunnel, SSH if any range may use it, replies, ICMP (path MTU discovery needs its errors) and the
    VPC's hosts. Everything is allowed out, because clients may send all their traffic through the gateway.
    """
    incoming = [
        Rule(100, "all", str(cidr)),
        Rule(110, listener.protocol, EVERYWHERE, listener.port_range),
        *([Rule(120, "tcp", EVERYWHERE, (22, 22))] if ssh else []),
        Rule(130, "tcp", EVERYWHERE, EPHEMERAL),
        Rule(140, "udp", EVERYWHERE, EPHEMERAL),
        Rule(150, "icmp", EVERYWHERE),
    ]
    return incoming, [Rule(100, "all", EVERYWHERE)]


def rules6(cidr: pulumi.Input[str], opened: Sequence[IPv6Network], *, public: bool) -> tuple[list[Rule], list[Rule]]:
    """Return the inbound and outbound IPv6 rules of a subnet: replies, ICMP, and ranges that may open connections.

    These are the VPC's range `cidr` in private subnets, which clients reach on every port, and `opened` in public ones.
    Everything is allowed out. Private subnets use an egress-only internet gateway, which lets only replies in.
    """
    incoming = [
        *([] if public else [Rule(220, "all", cidr, ipv6=True)]),
        Rule(230, "tcp", EVERYWHERE6, EPHEMERAL, ipv6=True),
        Rule(240, "udp", EVERYWHERE6, EPHEMERAL, ipv6=True),
        Rule(250, "icmpv6", EVERYWHERE6, ipv6=True),
        *(
            Rule(number, "all", str(network), ipv6=True)
            for number, network in enumerate(collapse_addresses(opened) if public else (), start=260)
        ),
    ]
    return incoming, [Rule(200, "all", EVERYWHERE6, ipv6=True)]


def private_rules(cidr: IPv4Network, behind: Sequence[IPv4Network]) -> tuple[list[Rule], list[Rule]]:
    """Return the inbound and outbound ACL rules of the private subnets.

    They allow the VPC, S3 (by the VPC's endpoint), and the networks `behind` the gateway.
    """
    internal = [Rule(number, "all", str(network)) for number, network in enumerate((cidr, *behind), start=100)]
    return [*internal, Rule(90, "tcp", EVERYWHERE, EPHEMERAL)], [*internal, Rule(90, "tcp", EVERYWHERE, (443, 443))]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkArgs:
    """Values are plain, because they decide which resources exist."""

    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    cidr: IPv4Network
    """Range of the new VPC; ignored for an existing one."""
    zones: tuple[str, ...]
    """Availability zones of the new VPC's subnets, the gateway's first."""
    private_prefix: int = 24
    """Prefix length of the new VPC's private subnets."""
    existing: ExistingVpc | None = None
    """The VPC to use instead of a new one."""
    listener: Listener
    """Protocol and ports of the tunnel."""
    ssh: bool
    """Whether any range may use SSH."""
    ipv6: bool = False
    """Whether the new VPC gets an IPv6 range."""
    opened6: tuple[IPv6Network, ...] = ()
    """IPv6 ranges that may connect to clients."""
    announced: bool = False
    """Whether the new VPC gets an empty subnet, whose range is routed to hosts behind the gateway."""
    behind: tuple[IPv4Network, ...]
    """Networks behind the gateway whose addresses are not translated."""


class Network(pulumi.ComponentResource):
    """A VPC with a public and a private subnet a zone, or an existing one that is not changed."""

    cidrs: tuple[IPv4Network, ...]
    """The VPC's ranges, the primary one first; only an existing VPC has several."""
    cidr6: pulumi.Output[str | None]
    """The VPC's IPv6 range, if it uses one."""
    announced6: pulumi.Output[str | None]
    """Range (/64) of the empty subnet, if there is one."""
    vpc_id: pulumi.Output[str]
    public_subnet_id: pulumi.Output[str]
    """Subnet of the gateway's network interface."""
    private_subnet_id: pulumi.Output[str | None]
    """Private subnet of the first zone; None in an existing VPC."""
    route_tables: dict[str, pulumi.Input[str]]
    """Ids of the tables that get routes to networks behind the gateway, by a name for each."""
    edge: dict[str, pulumi.Input[str]]
    """Route table of the internet gateway, if it has one."""

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Network", name, {}, opts)
        self.announced6, self.edge = pulumi.Output.from_input(None), {}
        if args.existing:
            self._adopt(args.existing)
        else:
            self._create(name, args)
        self.register_outputs(
            {
                "vpcId": self.vpc_id,
                "publicSubnetId": self.public_subnet_id,
                "privateSubnetId": self.private_subnet_id,
            }
        )

    def _adopt(self, vpc: ExistingVpc) -> None:
        self.cidr6 = pulumi.Output.from_input(vpc.cidr6)
        self.cidrs = vpc.cidrs
        self.vpc_id = pulumi.Output.from_input(vpc.vpc_id)
        self.public_subnet_id = pulumi.Output.from_input(vpc.subnet_id)
        self.private_subnet_id = pulumi.Output.from_input(None)
        self.route_tables = {table_id: table_id for table_id in vpc.route_table_ids}

    def _create(self, name: str, args: NetworkArgs) -> None:
        child = pulumi.ResourceOptions(parent=self)

        self.cidrs = (args.cidr,)
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
            # Private hosts may connect to the IPv6 Internet, but not the Internet to them.
            egress = aws.ec2.EgressOnlyInternetGateway(
                f"{name}-egress", vpc_id=vpc.id, tags=args.names.tags("egress"), opts=child
            )
            for kind, target in (
                ("public", {"gateway_id": internet.id}),
                ("private", {"egress_only_gateway_id": egress.id}),
            ):
                aws.ec2.Route(
                    f"{name}-{kind}-internet6",
                    route_table_id=tables[kind].id,
                    destination_ipv6_cidr_block=EVERYWHERE6,
                    **target,
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
        subnets = self._create_subnets(name, args, vpc, tables)
        rules = {
            "public": public_rules(args.cidr, listener=args.listener, ssh=args.ssh),
            "private": private_rules(args.cidr, args.behind),
        }
        for kind, (incoming, outgoing) in rules.items():
            incoming6, outgoing6 = (
                rules6(vpc.ipv6_cidr_block, args.opened6, public=kind == "public") if args.ipv6 else ([], [])
            )
            acl_rules = ([*incoming, *incoming6], [*outgoing, *outgoing6])
            self._create_acl(f"{name}-{kind}", vpc, args.names.tags(kind), *acl_rules, subnets[kind])

        if args.announced:
            self._create_announced_subnet(name, args, vpc, internet)
        self.cidr6 = vpc.ipv6_cidr_block.apply(lambda block: block if args.ipv6 else None)
        self.vpc_id = vpc.id
        self.public_subnet_id = subnets["public"]["0"].id
        self.private_subnet_id = subnets["private"]["0"].id
        self.route_tables = {kind: table.id for kind, table in tables.items()}

    def _create_announced_subnet(
        self, name: str, args: NetworkArgs, vpc: aws.ec2.Vpc, internet: aws.ec2.InternetGateway
    ) -> None:
        """Create the empty subnet, and a route table by which the internet gateway reaches its range.

        Only a whole subnet's range may have a route of its own inside a VPC (Amazon VPC User Guide, "Subnet route
        tables" and "Gateway route tables").
        """
        child = pulumi.ResourceOptions(parent=self)
        subnet = aws.ec2.Subnet(
            f"{name}-announced",
            vpc_id=vpc.id,
            ipv6_cidr_block=vpc.ipv6_cidr_block.apply(subnet6(LAST6)),
            # It never holds an interface, so it needs no part of the VPC's IPv4 range.
            ipv6_native=True,
            assign_ipv6_address_on_creation=True,
            tags=args.names.tags("announced"),
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["availabilityZone"]),
        )
        table = aws.ec2.RouteTable(f"{name}-edge", vpc_id=vpc.id, tags=args.names.tags("edge"), opts=child)
        aws.ec2.RouteTableAssociation(f"{name}-edge", gateway_id=internet.id, route_table_id=table.id, opts=child)
        self.announced6 = subnet.ipv6_cidr_block.apply(lambda block: block)
        self.edge = {"edge": table.id}

    def _create_subnets(
        self, name: str, args: NetworkArgs, vpc: aws.ec2.Vpc, tables: dict[str, aws.ec2.RouteTable]
    ) -> dict[str, dict[str, aws.ec2.Subnet]]:
        child = pulumi.ResourceOptions(parent=self)
        # A subnet stays in the zone it was created in, whatever zones AWS adds.
        fixed_zone = pulumi.ResourceOptions(parent=self, ignore_changes=["availabilityZone"])
        subnets: dict[str, dict[str, aws.ec2.Subnet]] = {"public": {}, "private": {}}
        for i, zone in enumerate(plan_subnets(args.cidr, len(args.zones), args.private_prefix)):
            for n, (kind, cidr) in enumerate((("public", zone.public), ("private", zone.private)), start=2 * i):
                subnet = aws.ec2.Subnet(
                    f"{name}-{kind}-{i}",
                    vpc_id=vpc.id,
                    cidr_block=str(cidr),
                    availability_zone=args.zones[i],
                    ipv6_cidr_block=vpc.ipv6_cidr_block.apply(subnet6(n)) if args.ipv6 else None,
                    assign_ipv6_address_on_creation=True if args.ipv6 and kind == "private" else None,
                    map_public_ip_on_launch=False,
                    tags=args.names.tags(f"{kind}-{i}"),
                    opts=fixed_zone,
                )
                aws.ec2.RouteTableAssociation(
                    f"{name}-{kind}-{i}", subnet_id=subnet.id, route_table_id=tables[kind].id, opts=child
                )
                subnets[kind][str(i)] = subnet
        return subnets

    def _create_acl(
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
                cidr_block=None if rule.ipv6 else rule.cidr,
                ipv6_cidr_block=rule.cidr if rule.ipv6 else None,
                from_port=rule.ports[0] if rule.ports else None,
                to_port=rule.ports[1] if rule.ports else None,
                icmp_type=-1 if rule.protocol.startswith("icmp") else None,
                icmp_code=-1 if rule.protocol.startswith("icmp") else None,
                # A number is taken until the entry with it is deleted.
                opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
            )
            for egress, rules in ((False, incoming), (True, outgoing))
            for rule in rules
        ]
        # An ACL without entries drops everything, so it is associated once its entries exist.
        for key, subnet in subnets.items():
            aws.ec2.NetworkAclAssociation(
                f"{name}-{key}",
                network_acl_id=acl.id,
                subnet_id=subnet.id,
                opts=pulumi.ResourceOptions(parent=self, depends_on=entries),
            )


#: Protocol numbers (IANA) by name; network ACLs need numbers.
PROTOCOLS = {"all": "-1", "icmp": "1", "tcp": "6", "udp": "17", "icmpv6": "58"}


def subnet6(number: int) -> Callable[[str], str]:
    """Return a function from the VPC's range, which AWS chooses, to the /64 of the subnet with a `number` (`plan6`)."""
    return lambda block: str(plan6(IPv6Network(block), number))
