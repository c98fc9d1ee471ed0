"""What is read of EC2's answers, field by field. Does not prove that moto, or AWS, answers so."""

import copy
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

import pytest

from lab.network.state import GroupRule, Route, State, read_state

VPC, SUBNET, TABLE = "vpc-1", "subnet-1", "rtb-1"
CIDR = IPv4Network("10.1.0.0/16")
ANYWHERE = IPv4Network("0.0.0.0/0")
#: A region with one VPC, one subnet in its main table, one running instance on one interface.
ANSWERS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "describe_managed_prefix_lists": {"PrefixLists": []},
    "describe_instances": {
        "Reservations": [
            {
                "Instances": [
                    {
                        "InstanceId": "i-1",
                        "State": {"Name": "running"},
                        "InstanceType": "t3.nano",
                        "ImageId": "ami-1",
                        "Placement": {"AvailabilityZone": "eu-west-1a"},
                        "Architecture": "x86_64",
                    }
                ]
            }
        ]
    },
    "describe_addresses": {"Addresses": []},
    "describe_network_interfaces": {
        "NetworkInterfaces": [
            {
                "NetworkInterfaceId": "eni-1",
                "VpcId": VPC,
                "SubnetId": SUBNET,
                "MacAddress": "02:00:00:00:00:01",
                "PrivateIpAddress": "10.1.0.10",
                "PrivateIpAddresses": [
                    {"PrivateIpAddress": "10.1.0.11", "Primary": False},
                    {"PrivateIpAddress": "10.1.0.10", "Primary": True},
                ],
                "Ipv4Prefixes": [{"Ipv4Prefix": "10.1.0.32/28"}],
                "SourceDestCheck": False,
                "Groups": [{"GroupId": "sg-1"}],
                "Association": {"PublicIp": "198.18.0.1"},
                "Attachment": {"InstanceId": "i-1", "DeviceIndex": 0},
            }
        ]
    },
    "describe_internet_gateways": {"InternetGateways": []},
    "describe_egress_only_internet_gateways": {"EgressOnlyInternetGateways": []},
    "describe_vpcs": {"Vpcs": [{"VpcId": VPC, "CidrBlock": str(CIDR)}]},
    "describe_network_acls": {
        "NetworkAcls": [{"VpcId": VPC, "IsDefault": True, "Associations": [], "Entries": []}],
    },
    "describe_subnets": {"Subnets": [{"SubnetId": SUBNET, "VpcId": VPC, "CidrBlock": "10.1.0.0/24"}]},
    "describe_vpc_endpoints": {"VpcEndpoints": []},
    "describe_route_tables": {
        "RouteTables": [{"RouteTableId": TABLE, "VpcId": VPC, "Routes": [], "Associations": [{"Main": True}]}]
    },
    "describe_security_groups": {"SecurityGroups": []},
}


class Ec2:
    """Answers as a boto3 client does."""

    def __init__(self, **changes: list[dict[str, Any]]) -> None:
        self.answers = copy.deepcopy(ANSWERS)
        for answer in self.answers.values():
            for key, value in changes.items():
                if key in answer:
                    answer[key] = value

    def can_paginate(self, operation: str) -> bool:
        return False

    def get_managed_prefix_list_entries(self, **_: str) -> dict[str, list[dict[str, str]]]:
        return {"Entries": [{"Cidr": "52.216.0.0/15"}]}

    def __getattr__(self, operation: str) -> Any:
        return lambda: self.answers[operation]


def read(**changes: list[dict[str, Any]]) -> State:
    return read_state(Ec2(**changes))


def interface_description() -> dict[str, Any]:
    return copy.deepcopy(ANSWERS["describe_network_interfaces"]["NetworkInterfaces"][0])


def table(*routes: dict[str, str], **fields: Any) -> list[dict[str, Any]]:
    return [{"RouteTableId": TABLE, "VpcId": VPC, "Routes": list(routes), "Associations": [{"Main": True}], **fields}]


def test_an_interface_has_its_primary_address_first_and_its_prefixes_as_ranges() -> None:
    interface = read().interfaces["eni-1"]
    assert interface.addresses == (IPv4Address("10.1.0.10"), IPv4Address("10.1.0.11"))
    assert interface.own_ranges == tuple(map(IPv4Network, ("10.1.0.10/32", "10.1.0.11/32", "10.1.0.32/28")))
    assert (interface.source_dest_check, interface.groups, interface.instance) == (False, ("sg-1",), "i-1")


def test_an_elastic_address_takes_the_place_of_an_assigned_one() -> None:
    assert read().interfaces["eni-1"].public == ((IPv4Address("10.1.0.10"), IPv4Address("198.18.0.1")),)
    elastic = {"PublicIp": "198.18.0.9", "NetworkInterfaceId": "eni-1", "PrivateIpAddress": "10.1.0.10"}
    assert read(Addresses=[elastic]).interfaces["eni-1"].public == (
        (IPv4Address("10.1.0.10"), IPv4Address("198.18.0.9")),
    )


@pytest.mark.parametrize(
    ("name", "on", "boots", "attached"),
    [
        ("pending", True, True, True),
        ("running", True, True, True),
        ("stopping", True, False, True),
        ("shutting-down", True, False, True),
        ("stopped", False, False, True),
        ("terminated", False, False, False),
    ],
)
def test_a_state_of_an_instance_says_what_its_machine_does(name: str, on: bool, boots: bool, attached: bool) -> None:
    reservations = copy.deepcopy(ANSWERS["describe_instances"]["Reservations"])
    reservations[0]["Instances"][0]["State"]["Name"] = name
    state = read(Reservations=reservations)
    assert (state.instances["i-1"].on, state.instances["i-1"].boots) == (on, boots)
    assert (state.interfaces["eni-1"].instance is not None) == attached


def test_the_main_table_has_the_subnets_that_no_table_names() -> None:
    other = {"RouteTableId": "rtb-2", "VpcId": VPC, "Routes": [], "Associations": [{"SubnetId": SUBNET}]}
    assert [entry.subnets for entry in read().tables] == [(SUBNET,)]
    assert [entry.subnets for entry in read(RouteTables=[*table(), other]).tables] == [(), (SUBNET,)]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"GatewayId": "igw-1"}, Route(ANYWHERE, "internet-gateway", "igw-1")),
        ({"GatewayId": "igw-gone"}, Route(ANYWHERE, "blackhole", "")),
        ({"NetworkInterfaceId": "eni-1"}, Route(ANYWHERE, "interface", "eni-1")),
        ({"InstanceId": "i-1"}, Route(ANYWHERE, "interface", "eni-1")),
        ({"NetworkInterfaceId": "eni-gone"}, Route(ANYWHERE, "blackhole", "eni-gone")),
        ({"EgressOnlyInternetGatewayId": "eigw-gone"}, Route(ANYWHERE, "blackhole", "")),
    ],
)
def test_a_route_whose_target_is_gone_is_a_blackhole(target: dict[str, str], expected: Route) -> None:
    """Amazon VPC User Guide, "Route table concepts"."""
    gateway = {"InternetGatewayId": "igw-1", "Attachments": [{"VpcId": VPC}]}
    tables = table({"DestinationCidrBlock": str(ANYWHERE), **target})
    assert read(InternetGateways=[gateway], RouteTables=tables).tables[0].routes == (Route(CIDR, "local"), expected)


def test_every_range_of_a_vpc_is_local_whatever_the_table_lists() -> None:
    vpc = {
        "VpcId": VPC,
        "CidrBlockAssociationSet": [{"CidrBlock": str(CIDR)}, {"CidrBlock": "10.2.0.0/16"}],
        "Ipv6CidrBlockAssociationSet": [
            {"Ipv6CidrBlock": "2001:db8::/56"},
            {"Ipv6CidrBlock": "2001:db8:1::/56", "Ipv6CidrBlockState": {"State": "disassociated"}},
        ],
    }
    state = read(Vpcs=[vpc])
    assert state.vpcs[VPC].cidrs == (CIDR, IPv4Network("10.2.0.0/16"), IPv6Network("2001:db8::/56"))
    assert {route.destination for route in state.tables[0].routes} == {*state.vpcs[VPC].cidrs}


def test_a_subnets_own_acl_goes_before_the_default_one_and_its_entries_are_in_order() -> None:
    def entry(number: int, **fields: Any) -> dict[str, Any]:
        common = {"RuleNumber": number, "Egress": False, "RuleAction": "allow", "CidrBlock": str(ANYWHERE)}
        return {**common, "Protocol": "6", "PortRange": {"From": 22, "To": 23}, **fields}

    ping = entry(90, Protocol="1", IcmpTypeCode={"Type": 8, "Code": -1}, RuleAction="deny")
    acls: list[dict[str, Any]] = [
        {"VpcId": VPC, "IsDefault": True, "Associations": [], "Entries": []},
        {"VpcId": VPC, "Associations": [{"SubnetId": SUBNET}], "Entries": [entry(100), ping]},
    ]
    first, second = read(NetworkAcls=acls).subnets[SUBNET].acl
    assert (first.number, first.allow, first.protocol, first.low, first.high) == (90, False, "icmp", 8, -1)
    assert (second.number, second.allow, second.protocol, second.low, second.high) == (100, True, "tcp", 22, 23)


def test_a_permission_is_a_rule_for_its_ranges_and_one_for_each_group() -> None:
    permission = {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "IpRanges": [{"CidrIp": "192.0.2.0/24"}],
        "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}],
        "PrefixListIds": [{"PrefixListId": "pl-1"}],
        "UserIdGroupPairs": [{"GroupId": "sg-2"}],
    }
    group = {"GroupId": "sg-1", "IpPermissions": [permission], "IpPermissionsEgress": []}
    listed = {"PrefixListId": "pl-1", "PrefixListArn": "arn:pl-1", "PrefixListName": "mine", "OwnerId": "123456789012"}
    peers = (IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/32"), IPv4Network("52.216.0.0/15"))
    assert read(SecurityGroups=[group], PrefixLists=[listed]).groups["sg-1"].ingress == (
        GroupRule("tcp", 22, 22, peers=peers),
        GroupRule("tcp", 22, 22, group="sg-2"),
    )


def test_a_gateway_endpoint_routes_its_services_prefixes_in_its_tables() -> None:
    service = "com.amazonaws.s3"
    listed = {
        "PrefixListId": "pl-s3",
        "PrefixListArn": "arn:pl-s3",
        "PrefixListName": service,
        "OwnerId": "AWS",
    }
    endpoint = {
        "VpcEndpointId": "vpce-1",
        "State": "available",
        "ServiceName": service,
        "RouteTableIds": [TABLE],
    }
    state = read(PrefixLists=[listed], VpcEndpoints=[endpoint])
    assert Route(IPv4Network("52.216.0.0/15"), "endpoint", "vpce-1") in state.tables[0].routes
