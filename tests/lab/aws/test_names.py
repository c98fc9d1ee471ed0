"""Private hosted zones, by questions to a VPC's resolver.

Does not prove alias records, routing policies or resolver rules: the lab has none of them.
"""

import secrets
from typing import Any

import pytest

from tests.support import cloud as clouds
from tests.support.cloud import ALL, AWS_REGION, Cloud, Instance, Vpc

NAME = "db.example.internal"


@pytest.fixture
def route53(cloud: Cloud) -> Any:
    return clouds.client(cloud.region, "route53")


def vpc_of_names(cloud: Cloud) -> tuple[Vpc, Instance]:
    """A VPC with both of its DNS attributes, and somebody in it; all have the same range."""
    vpc = cloud.vpc()
    for attribute in ("EnableDnsSupport", "EnableDnsHostnames"):
        cloud.ec2.modify_vpc_attribute(VpcId=vpc.id, **{attribute: {"Value": True}})
    return vpc, cloud.instance(vpc.subnet(), vpc.group([ALL]))


def zone(route53: Any, *vpcs: Vpc, address: str = "10.1.0.99") -> str:
    """A private zone with one name, associated with VPCs; its id."""
    listed = [{"VPCRegion": AWS_REGION, "VPCId": vpc.id} for vpc in vpcs]
    made = route53.create_hosted_zone(
        Name="example.internal", CallerReference=secrets.token_hex(4), HostedZoneConfig={"PrivateZone": True},
        VPC=listed[0],
    )["HostedZone"]["Id"]  # fmt: skip
    for vpc in listed[1:]:
        route53.associate_vpc_with_hosted_zone(HostedZoneId=made, VPC=vpc)
    put(route53, made, address)
    return str(made)


def put(route53: Any, zone: str, address: str) -> None:
    record = {"Name": NAME, "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": address}]}
    batch = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)


@pytest.mark.seed("3.12")
def test_a_private_zone_is_known_in_its_own_vpc_alone(cloud: Cloud, route53: Any) -> None:
    """Route 53 Developer Guide, "Working with private hosted zones"; two VPCs may each have a zone of one name."""
    (first, one), (second, other), (_, none) = (vpc_of_names(cloud) for _ in range(3))
    zone(route53, first, address="10.1.0.11")
    zone(route53, second, address="10.1.0.22")

    for resolver in ("10.1.0.2", "169.254.169.253"):
        assert one.resolves(NAME, resolver) == ["10.1.0.11"]
        assert other.resolves(NAME, resolver) == ["10.1.0.22"]
        assert none.resolves(NAME, resolver) == []
    assert one.resolves("ssm.eu-west-1.amazonaws.com", "10.1.0.2") == none.resolves(
        "ssm.eu-west-1.amazonaws.com", "10.1.0.2"
    ), "all other names are what they were"


def test_the_resolver_follows_the_api_at_once(cloud: Cloud, route53: Any) -> None:
    (first, one), (second, other) = vpc_of_names(cloud), vpc_of_names(cloud)
    made = zone(route53, first)
    assert one.resolves(NAME, "10.1.0.2") == ["10.1.0.99"]

    put(route53, made, "10.1.0.100")
    assert one.resolves(NAME, "10.1.0.2") == ["10.1.0.100"]
    assert other.resolves(NAME, "10.1.0.2") == []
    route53.associate_vpc_with_hosted_zone(HostedZoneId=made, VPC={"VPCRegion": AWS_REGION, "VPCId": second.id})
    assert other.resolves(NAME, "10.1.0.2") == ["10.1.0.100"]
    route53.disassociate_vpc_from_hosted_zone(HostedZoneId=made, VPC={"VPCRegion": AWS_REGION, "VPCId": first.id})
    assert one.resolves(NAME, "10.1.0.2") == []


@pytest.mark.parametrize("attribute", ["EnableDnsSupport", "EnableDnsHostnames"])
def test_a_vpc_needs_both_dns_attributes(cloud: Cloud, route53: Any, attribute: str) -> None:
    """Route 53 Developer Guide, "Considerations when working with a private hosted zone"."""
    vpc, one = vpc_of_names(cloud)
    zone(route53, vpc)
    assert one.resolves(NAME, "10.1.0.2") == ["10.1.0.99"]
    cloud.ec2.modify_vpc_attribute(VpcId=vpc.id, **{attribute: {"Value": False}})
    assert one.resolves(NAME, "10.1.0.2") == []
