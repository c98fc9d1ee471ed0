"""What the program makes of world `ipv6`, in a VPC of its own and in one that is there. Packets: see tests/lab."""

import io
import tarfile
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any

import pulumi
import pytest

import contract
from drawbridge.doctor import path_checks, path_reader
from settings.stack_file import read_stack_file
from tests.program.conftest import ROOT, Deployment, deploy_into_moto, empty_aws_with_ipv6
from tests.program.test_doctor import account_of, report_ready

RAW = read_stack_file(ROOT / "stacks/Pulumi.ipv6.yaml")
NAMES = contract.Names("six")


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployment]:
    with empty_aws_with_ipv6():
        yield deploy_into_moto(RAW, "six")


@pytest.fixture
def aws() -> Iterator[Deployment]:
    """An account with nothing of ours; for tests that come before the module's own stack, as moto is one for all."""
    with empty_aws_with_ipv6():
        yield Deployment({}, [])


def interface(stack: Deployment) -> dict[str, Any]:
    (found,) = stack.ec2.describe_network_interfaces(NetworkInterfaceIds=[stack.outputs["gatewayInterfaceId"]])[
        "NetworkInterfaces"
    ]
    return dict(found)


def server_ccd(stack: Deployment, client: str) -> str:
    key = NAMES.release_key(stack.outputs["release"])
    body = stack.s3.get_object(Bucket=stack.outputs["bucket"], Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        member = tar.extractfile(f"ccd/{client}")
        assert member is not None
        return member.read().decode()


def adopt(aws: Deployment, *, ipv6: bool) -> dict[str, Any]:
    """Somebody's VPC and public subnet, as settings name them."""
    made = aws.ec2.create_vpc(CidrBlock="172.20.0.0/16", AmazonProvidedIpv6CidrBlock=ipv6)["Vpc"]
    range6 = {}
    if ipv6:
        block = made["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
        range6 = {"Ipv6CidrBlock": str(list(IPv6Network(block).subnets(new_prefix=64))[5])}
    subnet = aws.ec2.create_subnet(VpcId=made["VpcId"], CidrBlock="172.20.5.0/24", **range6)["Subnet"]
    internet = aws.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    aws.ec2.attach_internet_gateway(InternetGatewayId=internet, VpcId=made["VpcId"])
    main = [{"Name": "vpc-id", "Values": [made["VpcId"]]}, {"Name": "association.main", "Values": ["true"]}]
    (table,) = aws.ec2.describe_route_tables(Filters=main)["RouteTables"]
    for destination in [
        {"DestinationCidrBlock": "0.0.0.0/0"},
        *([{"DestinationIpv6CidrBlock": "::/0"}] if ipv6 else []),
    ]:
        aws.ec2.create_route(RouteTableId=table["RouteTableId"], GatewayId=internet, **destination)
    return {"vpcId": made["VpcId"], "subnetId": subnet["SubnetId"]}


def test_an_existing_vpc_with_ipv6_delegates_of_its_subnet(aws: Deployment) -> None:
    network = adopt(aws, ipv6=True)
    (subnet,) = aws.ec2.describe_subnets(SubnetIds=[network["subnetId"]])["Subnets"]
    subnet6 = IPv6Network(subnet["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
    named = str(list(subnet6.subnets(new_prefix=68))[3]).replace("/68", "/80")
    gateway = RAW["drawbridge:gateway"] | {"ipv6Prefix": named}
    stack = deploy_into_moto(RAW | {"drawbridge:network": network, "drawbridge:gateway": gateway}, "six")
    assert [held["Ipv6Prefix"] for held in interface(stack)["Ipv6Prefixes"]] == [named]
    assert f"{IPv6Network(named)[0x10]}/80" in server_ccd(stack, "cabin")
    # It is left as it is: no gateway, route or range of ours.
    assert aws.ec2.describe_egress_only_internet_gateways()["EgressOnlyInternetGateways"] == []


def test_an_existing_vpc_without_ipv6_is_refused(aws: Deployment) -> None:
    network = adopt(aws, ipv6=False)
    with pytest.raises(pulumi.RunError) as refusal:
        deploy_into_moto(RAW | {"drawbridge:network": network}, "six")
    assert str(refusal.value) == (
        f"drawbridge:network.subnetId: {network['subnetId']} has no IPv6 range; give it one, or write ipv6: none"
    )


def test_a_64_that_is_advertised_is_routed_to_the_interface_by_every_table(aws: Deployment) -> None:
    tunnel = RAW["drawbridge:tunnel"] | {"ipv6": "advertised"}
    stack = deploy_into_moto(RAW | {"drawbridge:tunnel": tunnel}, "six")
    found = interface(stack)
    assert (found["Ipv6Prefixes"], len(found["Ipv6Addresses"])) == ([], 1)
    mine = [{"Name": "vpc-id", "Values": [stack.outputs["vpcId"]]}]
    (empty,) = [one for one in stack.ec2.describe_subnets(Filters=mine)["Subnets"] if one["Ipv6Native"]]
    block = empty["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
    tables = stack.ec2.describe_route_tables(Filters=mine)["RouteTables"]
    leading = {
        tag["Value"].rpartition("-")[2]: [one.get("GatewayId", "")[:4] for one in table["Associations"]]
        for table in tables
        for tag in table.get("Tags", [])
        for route in table["Routes"]
        if tag["Key"] == "Name" and route.get("DestinationIpv6CidrBlock") == block
        if route.get("NetworkInterfaceId") == stack.outputs["gatewayInterfaceId"]
    }
    assert leading == {"public": [""], "private": [""], "edge": ["igw-"]}
    assert f"{IPv6Network(block)[0x10]}/64" in server_ccd(stack, "cabin")


@pytest.mark.seed("2.8")
def test_the_interface_has_an_address_a_prefix_and_no_check(stack: Deployment) -> None:
    found = interface(stack)
    (held,) = found["Ipv6Prefixes"]
    prefix = IPv6Network(held["Ipv6Prefix"])
    assert prefix.prefixlen == 80 and len(found["Ipv6Addresses"]) == 1
    assert found["SourceDestCheck"] is False
    assert f"ifconfig-ipv6-push {prefix[0x10]}/80 {prefix[1]}" in server_ccd(stack, "cabin")


def test_the_internet_by_ipv6_is_open_from_the_private_subnet_and_to_the_public_one(stack: Deployment) -> None:
    tables = stack.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [stack.outputs["vpcId"]]}])
    targets = {
        next(tag["Value"] for tag in table.get("Tags", []) if tag["Key"] == "Name"): next(
            (r.get("EgressOnlyInternetGatewayId") or r.get("GatewayId") or "")[:4]
            for r in table["Routes"]
            if r.get("DestinationIpv6CidrBlock") == "::/0"
        )
        for table in tables["RouteTables"]
        if table.get("Tags")
    }
    assert targets == {"drawbridge-six-public": "igw-", "drawbridge-six-private": "eigw"}
    subnets = stack.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [stack.outputs["vpcId"]]}])["Subnets"]
    ranges = [IPv6Network(one["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]) for one in subnets]
    assert len(set(ranges)) == 2 and {one.prefixlen for one in ranges} == {64}


def test_the_group_and_the_acl_let_in_by_ipv6_what_is_open(stack: Deployment) -> None:
    mine = [{"Name": "group-id", "Values": [stack.outputs["securityGroupId"]]}]
    rules = stack.ec2.describe_security_group_rules(Filters=mine)["SecurityGroupRules"]
    six = {(r["IpProtocol"], r["CidrIpv6"], r["IsEgress"]) for r in rules if r.get("CidrIpv6")}
    assert six == {("-1", "::/0", False), ("icmpv6", "::/0", False), ("-1", "::/0", True)}
    acls = stack.ec2.describe_network_acls(Filters=[{"Name": "tag:Name", "Values": ["drawbridge-six-public"]}])
    entries = {
        (e["RuleNumber"], e["Protocol"], e["Ipv6CidrBlock"])
        for e in acls["NetworkAcls"][0]["Entries"]
        if not e["Egress"] and e.get("Ipv6CidrBlock") and e["RuleAction"] == "allow"
    }
    assert entries == {(230, "6", "::/0"), (240, "17", "::/0"), (250, "58", "::/0"), (260, "-1", "::/0")}


def test_the_doctor_judges_ipv6_and_names_what_is_broken(stack: Deployment) -> None:
    report_ready(stack, NAMES)
    table = stack.ec2.describe_route_tables(
        Filters=[{"Name": "association.subnet-id", "Values": [stack.outputs["publicSubnetId"]]}]
    )["RouteTables"][0]
    host = stack.ec2.create_network_interface(
        SubnetId=stack.outputs["privateSubnetId"],
        Groups=[stack.outputs["securityGroupId"]],
        Ipv6AddressCount=1,
    )["NetworkInterface"]
    target = IPv6Address(host["Ipv6Addresses"][0]["Ipv6Address"])

    def judge(**part: Any) -> tuple[path_checks.HopResult, ...]:
        query = path_reader.PathQuery(source=IPv4Address("203.0.113.10"), probes=False, **part)
        return path_checks.judge_path(path_reader.read_snapshot(account_of("six"), query))

    try:
        for query in ({}, {"client": "cabin"}, {"client": "cabin", "target6": target}):
            results = judge(**query)
            assert [result for result in results if result.state not in ("ok", "skipped")] == [], query
            assert [result.state for result in results if result.hop.startswith("IPv6")] == ["ok"] * 3
        nobody = path_checks.find_first_broken(judge(target6=target + 0x1000))
        assert nobody is not None and nobody.breakage == "ipv6-host-missing"
        stack.ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationIpv6CidrBlock="::/0")
        broken = path_checks.find_first_broken(judge(client="cabin"))
        assert broken is not None
        assert (broken.breakage, broken.finding) == (
            "ipv6-route-missing",
            f"{table['RouteTableId']} has no route to ::/0",
        )
    finally:
        (internet,) = [
            route["GatewayId"] for route in table["Routes"] if route.get("DestinationIpv6CidrBlock") == "::/0"
        ]
        stack.ec2.create_route(RouteTableId=table["RouteTableId"], DestinationIpv6CidrBlock="::/0", GatewayId=internet)
        stack.ec2.delete_network_interface(NetworkInterfaceId=host["NetworkInterfaceId"])
