"""What the account and the region do not allow is refused before anything is created.

The tables of instance types are moto's copies of AWS's. That AWS refuses the same is not shown here.
"""

from collections.abc import Callable
from ipaddress import IPv6Network
from typing import Any

import pulumi
import pytest

import contract
from components import parameter_quotas
from engine.provider import invokes
from lab.api.moto_patches import add_quota_increases, patched
from openvpn.model import Tunnel
from program import single
from program.tunnel import tunnel_from_settings
from settings.model import Settings
from tests.program.conftest import REGION, Deploy, Deployment

NAMES = contract.Names("dev")


def config(**sections: Any) -> dict[str, object]:
    return {"aws:region": REGION} | {f"drawbridge:{key}": value for key, value in sections.items()}


def aws_tags(kind: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


@pytest.fixture
def ec2(deploy: Deploy) -> Any:
    return Deployment({}, []).ec2


@pytest.fixture
def refused(deploy: Deploy, ec2: Any) -> Callable[..., str]:
    """Return a function that deploys, and returns the refusal; the program has created nothing then."""

    def vpcs() -> list[str]:
        return [vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]]

    def run(**sections: Any) -> str:
        before = vpcs()
        with pytest.raises(pulumi.RunError) as refusal:
            deploy(config(**sections))
        assert vpcs() == before
        assert (
            ec2.describe_security_groups(Filters=[{"Name": "tag-key", "Values": ["Project"]}])["SecurityGroups"] == []
        )
        return str(refusal.value)

    return run


# --- zones ------------------------------------------------------------------------------------------------------------


def test_the_gateways_zone_offers_its_type(deploy: Deploy) -> None:
    stack = deploy(config(gateway={"instanceType": "a1.medium"}, network={"zones": 3}))  # not offered in eu-west-1a
    filters = [{"Name": "vpc-id", "Values": [stack.outputs["vpcId"]]}]
    subnets = stack.ec2.describe_subnets(Filters=filters)["Subnets"]
    zones = {subnet["CidrBlock"]: subnet["AvailabilityZone"] for subnet in subnets}
    assert [zones[f"10.1.{number}.0/24"] for number in (0, 2, 4)] == [f"{REGION}{letter}" for letter in "bca"]


def test_a_type_that_the_region_does_not_offer(refused: Callable[..., str]) -> None:
    assert refused(gateway={"instanceType": "t9z.nano"}) == (
        "drawbridge:gateway.instanceType: t9z.nano is not offered in eu-west-1; use another type, such as t4g.nano or "
        "t3a.nano"
    )


def test_more_zones_than_the_region_has(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        invokes.INVOKES,
        "aws:index/getAvailabilityZones:getAvailabilityZones",
        lambda *_: {"id": REGION, "names": ["eu-west-1-wl1-bru-wlz-1", "eu-west-1b", "eu-west-1a"]},
    )
    assert refused(network={"zones": 3}) == ("drawbridge:network.zones: 3 is more than eu-west-1 has; write 2 or less")


@pytest.fixture
def deployed_subnet(ec2: Any) -> str:
    """The public subnet of the stack, which a deployment of another version put into zone a."""
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16", TagSpecifications=aws_tags("vpc", NAMES.tags("vpc")))["Vpc"]["VpcId"]
    tags = aws_tags("subnet", NAMES.tags("public-0"))
    zone = {"AvailabilityZone": f"{REGION}a"}
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24", TagSpecifications=tags, **zone)["Subnet"]
    return str(subnet["SubnetId"])


def test_a_deployed_subnet_whose_zone_does_not_offer_the_type(
    refused: Callable[..., str], deployed_subnet: str
) -> None:
    assert refused(gateway={"instanceType": "a1.medium"}) == (
        "drawbridge:gateway.instanceType: a1.medium is not offered in eu-west-1a, where the stack's subnets are; "
        "use another type, such as t4g.nano or t3a.nano, or destroy the stack and deploy it again, in eu-west-1b or "
        "eu-west-1c"
    )


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "chosen", "warned"), [("auto", 4, False), (4, 4, False), (6, 6, True)])
def test_processes_by_the_vcpus_of_the_type(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, asked: object, chosen: int, warned: bool
) -> None:
    tunnels, warnings = list[Tunnel](), list[str]()

    def render(settings: Settings) -> Tunnel:
        tunnels.append(tunnel_from_settings(settings))
        return tunnels[-1]

    monkeypatch.setattr(single, "tunnel_from_settings", render)
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    deploy(config(gateway={"instanceType": "c7g.xlarge", "processes": asked}, clients=[{"name": "alice"}]))

    assert [process.port for process in tunnels[0].processes] == [*range(1194, 1194 + chosen)]
    excess = (
        "drawbridge:gateway.processes: 6 is more than the 4 vCPUs of c7g.xlarge: more processes than that carry no "
    )
    assert [warning for warning in warnings if "processes" in warning] == (
        [f"{excess}more; use auto"] if warned else []
    )


# --- quotas -----------------------------------------------------------------------------------------------------------


def test_a_vpc_too_many(refused: Callable[..., str], ec2: Any) -> None:
    for number in range(4):  # beside the default VPC
        ec2.create_vpc(CidrBlock=f"10.{number + 50}.0.0/16")
    with patched(add_quota_increases):
        assert refused() == (
            "drawbridge:network: needs 1 new VPC, but eu-west-1 has 5 and the account's quota is 5; delete 1, use an "
            "existing one (drawbridge:network.vpcId), or ask for more: aws service-quotas "
            "request-service-quota-increase --service-code vpc --quota-code L-F678F1CE --desired-value 6 "
            "--region eu-west-1"
        )


def test_addresses_too_many_for_a_pair(refused: Callable[..., str], ec2: Any) -> None:
    for _ in range(4):
        ec2.allocate_address(Domain="vpc")
    with patched(add_quota_increases):
        assert refused(pair={}) == (
            "drawbridge:network: needs 2 new Elastic IPs, but eu-west-1 has 4 and the account's quota is 5; "
            "release 1, or ask for more: aws service-quotas request-service-quota-increase --service-code ec2 "
            "--quota-code L-0263D0A3 --desired-value 6 --region eu-west-1"
        )


def test_a_deployed_stack_takes_no_more_of_a_quota(deploy: Deploy, ec2: Any, deployed_subnet: str) -> None:
    ec2.allocate_address(Domain="vpc", TagSpecifications=aws_tags("elastic-ip", NAMES.tags("gateway")))
    for number in range(4):
        ec2.create_vpc(CidrBlock=f"10.{number + 50}.0.0/16")
        ec2.allocate_address(Domain="vpc")
    with patched(add_quota_increases):
        assert deploy(config()).outputs


def test_a_raised_quota_counts(deploy: Deploy, ec2: Any) -> None:
    for number in range(4):
        ec2.create_vpc(CidrBlock=f"10.{number + 50}.0.0/16")
    with patched(add_quota_increases):
        quotas: Any = Deployment({}, []).__getattr__("service-quotas")
        quotas.request_service_quota_increase(ServiceCode="vpc", QuotaCode="L-F678F1CE", DesiredValue=6)
        assert deploy(config()).outputs


# --- an existing VPC --------------------------------------------------------------------------------------------------


def test_every_range_of_an_existing_vpc_counts(refused: Callable[..., str], existing: dict[str, Any]) -> None:
    assert refused(network=existing, tunnel={"pool": "172.21.9.0/24"}) == (
        "drawbridge:tunnel.pool: 172.21.9.0/24 overlaps drawbridge:network.vpcId 172.21.0.0/16; "
        "use a range that does not overlap it"
    )


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"vpcId": "vpc-9"}, "vpcId: vpc-9 does not exist in the region; name a VPC of this region"),
        ({"subnetId": "subnet-9"}, "subnetId: subnet-9 does not exist in the region; name a subnet of the VPC"),
        (
            {"routeTableIds": ["rtb-9"]},
            "routeTableIds: rtb-9 does not exist in the region; name route tables of the VPC",
        ),
    ],
)
def test_what_does_not_exist(
    refused: Callable[..., str], existing: dict[str, Any], keys: dict[str, Any], text: str
) -> None:
    assert refused(network={**existing, **keys}) == f"drawbridge:network.{text}"


def test_a_subnet_of_another_vpc(refused: Callable[..., str], existing: dict[str, Any], ec2: Any) -> None:
    default = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0]
    assert refused(network={**existing, "subnetId": default["SubnetId"]}) == (
        f"drawbridge:network.subnetId: {default['SubnetId']} is in {default['VpcId']}, not in {existing['vpcId']}; "
        "name a subnet of that VPC"
    )


def test_a_private_subnet(refused: Callable[..., str], existing: dict[str, Any], ec2: Any) -> None:
    (table,) = existing["routeTableIds"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=existing["subnetId"])
    assert refused(network=existing) == (
        f"drawbridge:network.subnetId: {existing['subnetId']} is not public: its route table {table} has no route for "
        "0.0.0.0/0 to an internet gateway; name a public subnet, or add that route"
    )


def test_a_subnet_in_a_zone_without_the_type(refused: Callable[..., str], existing: dict[str, Any]) -> None:
    assert refused(network=existing, gateway={"instanceType": "a1.medium"}) == (
        f"drawbridge:network.subnetId: {existing['subnetId']} is in eu-west-1a, which does not offer "
        "drawbridge:gateway.instanceType a1.medium; name a subnet in eu-west-1b or eu-west-1c, or use another type, "
        "such as t4g.nano or t3a.nano"
    )


def test_a_route_table_of_another_vpc(refused: Callable[..., str], existing: dict[str, Any], ec2: Any) -> None:
    table = ec2.describe_route_tables(Filters=[{"Name": "association.main", "Values": ["true"]}])["RouteTables"][0]
    assert refused(network={**existing, "routeTableIds": [table["RouteTableId"]]}) == (
        f"drawbridge:network.routeTableIds: {table['RouteTableId']} is in {table['VpcId']}, not in "
        f"{existing['vpcId']}; name route tables of that VPC"
    )


def test_a_subnet_without_ipv6(refused: Callable[..., str], existing: dict[str, Any]) -> None:
    assert refused(network=existing, tunnel={"ipv6": "delegated"}) == (
        f"drawbridge:network.subnetId: {existing['subnetId']} has no IPv6 range; give it one, or write ipv6: none"
    )


def test_a_subnet_without_a_way_to_the_ipv6_internet(
    refused: Callable[..., str], existing: dict[str, Any], ec2: Any
) -> None:
    ec2.associate_vpc_cidr_block(VpcId=existing["vpcId"], AmazonProvidedIpv6CidrBlock=True)
    (vpc,) = ec2.describe_vpcs(VpcIds=[existing["vpcId"]])["Vpcs"]
    block = IPv6Network(vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
    first = str(next(block.subnets(new_prefix=64)))
    ec2.associate_subnet_cidr_block(SubnetId=existing["subnetId"], Ipv6CidrBlock=first)
    text = refused(network=existing, tunnel={"ipv6": "delegated"})
    assert text.startswith(f"drawbridge:network.subnetId: {existing['subnetId']} is not public: ")
    assert "no route for ::/0 to an internet gateway" in text


def test_a_domain_in_a_vpc_without_dns_names(refused: Callable[..., str], existing: dict[str, Any], ec2: Any) -> None:
    assert refused(network={**existing, "domain": "tenant.internal"}) == (
        f"drawbridge:network.domain: tenant.internal needs DNS support and DNS hostnames, which {existing['vpcId']} "
        "has turned off; turn both on in the VPC's settings, or leave domain out"
    )


def test_clients_reach_every_range_of_an_existing_vpc(deploy: Deploy, existing: dict[str, Any]) -> None:
    stack = deploy(config(network=existing, tunnel={"nat": False}, clients=[{"name": "alice"}]))
    rules = stack.ec2.describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [stack.outputs["securityGroupId"]]}]
    )["SecurityGroupRules"]
    forwarded = {rule["CidrIpv4"] for rule in rules if rule.get("Description") == "forwarded"}
    assert forwarded == {"172.20.0.0/16", "172.21.0.0/16"}


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """20 clients, in an account that has room for fewer: its limits are small, and it has 24 parameters."""
    for name, limit in {"STANDARD_PARAMETERS": 50, "COUNTED_FROM": 10, "PUTS_PER_SECOND": 0.5}.items():
        monkeypatch.setattr(parameter_quotas, name, limit)
    ssm = Deployment({}, []).ssm
    published = sum(len(page["Parameters"]) for page in ssm.get_paginator("describe_parameters").paginate())
    for number in range(24 - published):
        ssm.put_parameter(Name=f"/other/{number}", Value="1", Type="String")
    return [{"name": f"client{number:03}"} for number in range(20)]


@pytest.mark.fault("8.4")
def test_more_parameters_than_the_account_may_have(refused: Callable[..., str], crowd: list[dict[str, str]]) -> None:
    assert refused(clients=crowd) == (
        "drawbridge:clients: need 31 new SSM parameters, but eu-west-1 has 24 and the account's limit is 50; remove "
        "some that nobody needs, or let SSM make those beyond the limit advanced ones, 0.05 USD a month each: "
        "drawbridge:secrets.tier: intelligent; or keep clients' bundles in S3: drawbridge:secrets.bundles: s3"
    )


def test_the_remedies_for_too_many_parameters_are_accepted(
    deploy: Deploy, crowd: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", lambda text, *_: lines.append(text))
    stack = deploy(config(clients=crowd, secrets={"tier": "intelligent"}))
    assert len(stack.outputs["clients"]) == 20
    said = "31 new SSM parameters take about 1 minute, because SSM writes 0.5 a second"
    assert [line.partition(";")[0] for line in lines if "SSM parameters" in line] == [said]
    lines.clear()
    # What is deployed is not new.
    parameter_quotas.check_parameters(REGION, NAMES, 31, intelligent=False)
    assert lines == []
