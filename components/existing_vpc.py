"""Look up an existing VPC, and check that a gateway can be put into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import pulumi
import pulumi_aws as aws

from components.zones import find_offering_zones, suggest_types

EVERYWHERE, EVERYWHERE6 = "0.0.0.0/0", "::/0"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExistingVpcArgs:
    """An existing VPC as the settings name it, and what the gateway needs there."""

    key: str
    """The section of the settings that names it."""
    vpc_id: str
    subnet_id: str
    route_table_ids: tuple[str, ...] = ()
    instance_type: str
    ipv6: bool = False
    """Whether the gateway has IPv6."""
    ipv6_prefix: IPv6Network | None = None
    """The /80 of the subnet that is to be delegated, if one is named."""
    domain: str | None = None
    """Domain of a private zone for names inside the VPC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExistingVpc:
    """An existing VPC that a gateway can be put into."""

    vpc_id: str
    subnet_id: str
    """The public subnet of the gateway."""
    route_table_ids: tuple[str, ...]
    """Route tables that get routes to networks behind the gateway."""
    cidrs: tuple[IPv4Network, ...]
    """The VPC's IPv4 ranges, the primary one first."""
    cidr6: str | None
    """The VPC's IPv6 range that the subnet's is a part of, if the gateway has IPv6."""


def find_existing_vpc(args: ExistingVpcArgs) -> ExistingVpc:
    """Return the VPC.

    Raises:
        pulumi.RunError: the VPC, the subnet or a route table does not exist or do for a gateway.
    """
    key = f"drawbridge:{args.key}"
    # A look-up of many finds nothing where one of a single resource fails.
    if not aws.ec2.get_vpcs(filters=[{"name": "vpc-id", "values": [args.vpc_id]}]).ids:
        raise pulumi.RunError(f"{key}.vpcId: {args.vpc_id} does not exist in the region; name a VPC of this region")
    if not aws.ec2.get_subnets(filters=[{"name": "subnet-id", "values": [args.subnet_id]}]).ids:
        raise pulumi.RunError(
            f"{key}.subnetId: {args.subnet_id} does not exist in the region; name a subnet of the VPC"
        )
    vpc, subnet = aws.ec2.get_vpc(id=args.vpc_id), aws.ec2.get_subnet(id=args.subnet_id)
    if subnet.vpc_id != args.vpc_id:
        raise pulumi.RunError(
            f"{key}.subnetId: {args.subnet_id} is in {subnet.vpc_id}, not in {args.vpc_id}; name a subnet of that VPC"
        )
    _check_zone(args, subnet.availability_zone)
    if args.ipv6:
        _check_ipv6(args, subnet.ipv6_cidr_block)
    _check_public(args, _find_route_table(args.subnet_id, vpc.main_route_table_id))
    for table_id in args.route_table_ids:
        _check_route_table(args, table_id)
    if args.domain and not (vpc.enable_dns_support and vpc.enable_dns_hostnames):
        raise pulumi.RunError(
            f"drawbridge:network.domain: {args.domain} needs DNS support and DNS hostnames, which {args.vpc_id} has "
            "turned off; turn both on in the VPC's settings, or leave domain out"
        )
    # A VPC may have several IPv6 ranges; the gateway is in the one that contains its subnet.
    blocks = [
        association.ipv6_cidr_block
        for association in (vpc.ipv6_cidr_block_associations if args.ipv6 else ())
        if association.state == "associated"
        and IPv6Network(subnet.ipv6_cidr_block).subnet_of(IPv6Network(association.ipv6_cidr_block))
    ]
    primary = IPv4Network(vpc.cidr_block)
    associated = {
        IPv4Network(association.cidr_block)
        for association in vpc.cidr_block_associations
        if association.state == "associated"
    }
    return ExistingVpc(
        vpc_id=args.vpc_id,
        subnet_id=args.subnet_id,
        route_table_ids=args.route_table_ids,
        cidrs=(primary, *sorted(associated - {primary})),
        cidr6=blocks[0] if blocks else None,
    )


def _check_zone(args: ExistingVpcArgs, zone: str) -> None:
    offering = find_offering_zones(args.instance_type)
    if zone not in offering:
        elsewhere = f"name a subnet in {' or '.join(sorted(offering))}, or " if offering else ""
        raise pulumi.RunError(
            f"drawbridge:{args.key}.subnetId: {args.subnet_id} is in {zone}, which does not offer "
            f"drawbridge:gateway.instanceType {args.instance_type}; {elsewhere}{suggest_types(zone)}"
        )


def _find_route_table(subnet_id: str, main_table_id: str) -> str:
    """Return the route table of a subnet: its own, or else the VPC's main one."""
    tables: Sequence[str] = aws.ec2.get_route_tables(
        filters=[{"name": "association.subnet-id", "values": [subnet_id]}]
    ).ids
    return tables[0] if tables else main_table_id


def _check_public(args: ExistingVpcArgs, table_id: str) -> None:
    """Check that packets of the Internet reach the subnet: its default routes lead to an internet gateway."""
    routes = aws.ec2.get_route_table(route_table_id=table_id).routes
    targets = {route.cidr_block or route.ipv6_cidr_block: route.gateway_id for route in routes}
    for destination in (EVERYWHERE, EVERYWHERE6) if args.ipv6 else (EVERYWHERE,):
        if not (targets.get(destination) or "").startswith("igw-"):
            raise pulumi.RunError(
                f"drawbridge:{args.key}.subnetId: {args.subnet_id} is not public: its route table {table_id} has no "
                f"route for {destination} to an internet gateway; name a public subnet, or add that route"
            )


def _check_ipv6(args: ExistingVpcArgs, subnet6: str | None) -> None:
    if not subnet6:
        raise pulumi.RunError(
            f"drawbridge:{args.key}.subnetId: {args.subnet_id} has no IPv6 range; give it one, or write ipv6: none"
        )
    block, prefix = IPv6Network(subnet6), args.ipv6_prefix
    if prefix and not prefix.subnet_of(block):
        # The first /80 has the addresses that AWS reserves, the second one is free in an empty subnet.
        example = IPv6Network((int(block.network_address) + (1 << 48), 80))
        raise pulumi.RunError(
            f"drawbridge:gateway.ipv6Prefix: {prefix} is not in the range {block} of {args.subnet_id}; "
            f"use a part of it such as {example}, or leave ipv6Prefix out"
        )


def _check_route_table(args: ExistingVpcArgs, table_id: str) -> None:
    key = f"drawbridge:{args.key}.routeTableIds"
    if not aws.ec2.get_route_tables(filters=[{"name": "route-table-id", "values": [table_id]}]).ids:
        raise pulumi.RunError(f"{key}: {table_id} does not exist in the region; name route tables of the VPC")
    table = aws.ec2.get_route_table(route_table_id=table_id)
    if table.vpc_id != args.vpc_id:
        raise pulumi.RunError(
            f"{key}: {table_id} is in {table.vpc_id}, not in {args.vpc_id}; name route tables of that VPC"
        )
