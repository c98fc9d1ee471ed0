"""Read the IPv6 part of the path from a client to a host in the VPC from AWS."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from drawbridge.doctor.path_snapshot import Ipv6Host, Ipv6Path, VpcInterface
from drawbridge.doctor.vpc_reader import parse_acl, parse_route_table, parse_rules
from drawbridge.doctor.vpc_rules import IngressEgressRule
from drawbridge.operate.account import Account, translate_aws_errors

#: EC2's states of a range that the VPC or the subnet does not have.
_GONE = ("associating", "disassociating", "disassociated", "failing", "failed")


def read_ipv6_path(account: Account, interface: VpcInterface, target: IPv6Address | None) -> Ipv6Path:
    """Return the IPv6 part of a path by the gateway's interface, to a host if one is named; raises `AwsError`."""
    vpc = _filter("vpc-id", interface.vpc)
    (gateway,) = _list_pages(
        account, "describe_network_interfaces", "NetworkInterfaces", _filter("network-interface-id", interface.id)
    )
    subnets = {
        row["SubnetId"]: network
        for row in _list_pages(account, "describe_subnets", "Subnets", vpc)
        for network in _list_ranges(row.get("Ipv6CidrBlockAssociationSet", ()))
    }
    return Ipv6Path(
        vpc_ranges=tuple(
            network
            for row in _list_pages(account, "describe_vpcs", "Vpcs", vpc)
            for network in _list_ranges(row.get("Ipv6CidrBlockAssociationSet", ()))
        ),
        subnets=subnets,
        prefixes=tuple(IPv6Network(entry["Ipv6Prefix"]) for entry in gateway.get("Ipv6Prefixes") or ()),
        route_tables=tuple(
            parse_route_table(row, 6) for row in _list_pages(account, "describe_route_tables", "RouteTables", vpc)
        ),
        acls=tuple(parse_acl(row, 6) for row in _list_pages(account, "describe_network_acls", "NetworkAcls", vpc)),
        rules=_read_rules(account, interface.groups),
        host=_find_host(account, subnets, target) if target else None,
    )


def _find_host(account: Account, subnets: Mapping[str, IPv6Network], address: IPv6Address) -> Ipv6Host | None:
    """Return the host that has an address, which is in its subnet's range."""
    names = [subnet for subnet, network in subnets.items() if address in network]
    interfaces = (
        _list_pages(account, "describe_network_interfaces", "NetworkInterfaces", _filter("subnet-id", *names))
        if names
        else []
    )
    for row in interfaces:
        if any(IPv6Address(entry["Ipv6Address"]) == address for entry in row.get("Ipv6Addresses", ())):
            groups = tuple(group["GroupId"] for group in row["Groups"])
            return Ipv6Host(row["SubnetId"], groups, _read_rules(account, groups))
    return None


def _read_rules(account: Account, groups: Iterable[str]) -> tuple[IngressEgressRule, ...]:
    rows = _list_pages(account, "describe_security_group_rules", "SecurityGroupRules", _filter("group-id", *groups))
    return tuple(parse_rules(rows, 6))


def _filter(name: str, *values: str) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [*values]}]


def _list_pages(account: Account, operation: str, key: str, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with translate_aws_errors(account.stack):
        pages = account.client("ec2").get_paginator(operation).paginate(Filters=filters)
        return [row for page in pages for row in page[key]]


def _list_ranges(associations: Iterable[Mapping[str, Any]]) -> list[IPv6Network]:
    return [
        IPv6Network(entry["Ipv6CidrBlock"])
        for entry in associations
        if (entry.get("Ipv6CidrBlockState") or {}).get("State") not in _GONE
    ]
