"""Parse EC2's descriptions of route tables, network ACLs and security groups, for one family of addresses.

Source: Amazon EC2 API Reference, the types RouteTable, NetworkAcl and SecurityGroupRule.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any, Literal

from drawbridge.doctor.vpc_rules import IngressEgressRule, NetworkAclEntry, SubnetAcl, VpcRoute, VpcRouteTable

Family = Literal[4, 6]

#: Keys of a route's target in DescribeRouteTables.
_TARGETS = (
    "GatewayId",
    "NetworkInterfaceId",
    "NatGatewayId",
    "TransitGatewayId",
    "VpcPeeringConnectionId",
    "LocalGatewayId",
    "CarrierGatewayId",
    "CoreNetworkArn",
    "EgressOnlyInternetGatewayId",
    "InstanceId",
)


def parse_route_table(table: Mapping[str, Any], family: Family = 4) -> VpcRouteTable:
    """Return a route table with the routes of a family; those to prefix lists are left out."""
    key = "DestinationCidrBlock" if family == 4 else "DestinationIpv6CidrBlock"
    associations = table.get("Associations", [])
    return VpcRouteTable(
        id=table["RouteTableId"],
        is_main=any(entry.get("Main") for entry in associations),
        subnets=tuple(entry["SubnetId"] for entry in associations if entry.get("SubnetId")),
        routes=tuple(
            VpcRoute(
                ip_network(route[key]),
                next((route[target] for target in _TARGETS if route.get(target)), ""),
                is_active=route.get("State", "active") == "active",
            )
            for route in table.get("Routes", [])
            if route.get(key)
        ),
    )


def parse_acl(acl: Mapping[str, Any], family: Family = 4) -> SubnetAcl:
    """Return a network ACL with the entries of a family."""
    key = "CidrBlock" if family == 4 else "Ipv6CidrBlock"
    return SubnetAcl(
        id=acl["NetworkAclId"],
        subnets=tuple(entry["SubnetId"] for entry in acl.get("Associations", [])),
        entries=tuple(
            NetworkAclEntry(
                number=entry["RuleNumber"],
                is_outbound=entry["Egress"],
                allows=entry["RuleAction"] == "allow",
                protocol=str(entry["Protocol"]),
                cidr=ip_network(entry[key]),
                ports=(entry["PortRange"]["From"], entry["PortRange"]["To"]) if entry.get("PortRange") else None,
            )
            for entry in acl.get("Entries", [])
            if entry.get(key)
        ),
    )


def parse_rules(rules: Iterable[Mapping[str, Any]], family: Family = 4) -> Iterator[IngressEgressRule]:
    """Yield the rules of security groups for a family, and those whose peers are groups or prefix lists."""
    key, foreign = ("CidrIpv4", "CidrIpv6") if family == 4 else ("CidrIpv6", "CidrIpv4")
    for rule in rules:
        if rule.get(foreign):
            continue
        first, last = rule.get("FromPort", -1), rule.get("ToPort", -1)
        yield IngressEgressRule(
            id=rule["SecurityGroupRuleId"],
            is_egress=rule["IsEgress"],
            protocol=str(rule["IpProtocol"]),
            ports=None if -1 in (first, last) else (first, last),
            cidr=ip_network(rule[key]) if rule.get(key) else None,
            group=str((rule.get("ReferencedGroupInfo") or {}).get("GroupId") or ""),
            prefix_list=str(rule.get("PrefixListId") or ""),
        )
