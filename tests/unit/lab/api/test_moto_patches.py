"""Patches of moto: in force inside their block, gone after it. Does not prove each difference: see tests/lab."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.s3.models import FakeBucket

from lab.api.moto_patches import (
    PATCHES,
    Patches,
    add_interface_prefixes,
    ignore_bucket_policies,
    patched,
    serve_console_output,
)
from lab.errors import LabError


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield boto3.client("ec2", region_name="eu-west-1")


def create_interface(ec2: Any) -> str:
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    return str(ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"])


def test_a_patch_is_in_force_inside_its_block_alone(ec2: Any) -> None:
    interface = create_interface(ec2)
    with patched(add_interface_prefixes):
        interface = create_interface(ec2)
        answer = ec2.assign_private_ip_addresses(NetworkInterfaceId=interface, Ipv4PrefixCount=1)
        assert answer["AssignedIpv4Prefixes"][0]["Ipv4Prefix"].endswith("/28")
    assert not hasattr(NetworkInterface, "ipv4_prefixes")
    assert "AssignedIpv4Prefixes" not in ec2.assign_private_ip_addresses(
        NetworkInterfaceId=interface, SecondaryPrivateIpAddressCount=1
    )


def test_every_patch_is_undone_even_after_an_error() -> None:
    before = FakeBucket.get_permission
    with pytest.raises(ZeroDivisionError), patched():
        assert FakeBucket.get_permission is not before
        raise ZeroDivisionError
    assert FakeBucket.get_permission is before
    assert ignore_bucket_policies in PATCHES


def test_the_console_is_what_the_machine_wrote_or_nothing_yet(ec2: Any) -> None:
    (instance,) = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"]
    consoles = {instance["InstanceId"]: b"old" + b"x" * 65_530 + b"last\xff\n"}
    read = serve_console_output(lambda name, size: consoles.get(name, b"")[-size:])
    with patched(read):
        answer = ec2.get_console_output(InstanceId=instance["InstanceId"])
        consoles.clear()
        assert "Output" not in ec2.get_console_output(InstanceId=instance["InstanceId"])
    assert answer["Output"] == "x" * 65_530 + "last\ufffd\n"


def test_a_function_that_moto_does_not_have_is_named() -> None:
    with pytest.raises(LabError, match=r"has no NetworkInterface\.fly.*requirements\.txt"):
        Patches().wrap(NetworkInterface, "fly")


def test_an_instance_without_a_subnet_has_an_address_of_its_default_subnet(ec2: Any) -> None:
    """Amazon VPC User Guide, "Default VPCs"."""
    with patched(*PATCHES):
        image = ec2.describe_images()["Images"][0]["ImageId"]
        launch = ec2.run_instances(ImageId=image, InstanceType="t3.nano", MinCount=1, MaxCount=1)["Instances"][0]
    subnet = ec2.describe_subnets(SubnetIds=[launch["SubnetId"]])["Subnets"][0]
    assert IPv4Address(launch["PrivateIpAddress"]) in IPv4Network(subnet["CidrBlock"])


def launch(ec2: Any, **options: Any) -> dict[str, Any]:
    """Launch an instance, and return its description."""
    image = ec2.describe_images()["Images"][0]["ImageId"]
    (instance,) = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, **options)["Instances"]
    return describe_instance(ec2, instance["InstanceId"])


def describe_instance(ec2: Any, identity: str) -> dict[str, Any]:
    (reservation,) = ec2.describe_instances(InstanceIds=[identity])["Reservations"]
    (instance,) = reservation["Instances"]
    return dict(instance)


def list_groups(description: dict[str, Any], key: str = "SecurityGroups") -> set[str]:
    return {group["GroupId"] for group in description[key]}


def test_the_default_vpc_alone_has_an_internet_gateway_and_a_route_to_it(ec2: Any) -> None:
    """Amazon VPC User Guide, "Default VPC components"."""
    with patched(*PATCHES):
        other = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        (default,) = (vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"] if vpc["IsDefault"])
        (gateway,) = ec2.describe_internet_gateways()["InternetGateways"]
        tables = ec2.describe_route_tables(Filters=[{"Name": "association.main", "Values": ["true"]}])["RouteTables"]
    assert gateway["Attachments"] == [{"State": "available", "VpcId": default}]
    routes = {
        table["VpcId"]: {route["DestinationCidrBlock"]: route["GatewayId"] for route in table["Routes"]}
        for table in tables
    }
    assert routes == {
        default: {"172.31.0.0/16": "local", "0.0.0.0/0": gateway["InternetGatewayId"]},
        other: {"10.0.0.0/16": "local"},
    }


def test_the_default_vpc_is_made_again_with_its_internet_gateway(ec2: Any) -> None:
    with patched(*PATCHES):
        (default,) = (vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"])
        (gateway,) = (entry["InternetGatewayId"] for entry in ec2.describe_internet_gateways()["InternetGateways"])
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=default)
        ec2.delete_internet_gateway(InternetGatewayId=gateway)
        for subnet in ec2.describe_subnets()["Subnets"]:
            ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        ec2.delete_vpc(VpcId=default)
        again = ec2.create_default_vpc()["Vpc"]["VpcId"]
        (gateway,) = ec2.describe_internet_gateways()["InternetGateways"]
    assert [attachment["VpcId"] for attachment in gateway["Attachments"]] == [again]


def test_an_instance_without_groups_has_the_default_group_of_its_vpc(ec2: Any) -> None:
    """Amazon EC2 API Reference, "RunInstances": SecurityGroupId."""
    with patched(*PATCHES):
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        in_default_vpc, in_own_vpc = launch(ec2), launch(ec2, SubnetId=subnet)
        defaults = {
            group["VpcId"]: group["GroupId"]
            for group in ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
        }
        found = ec2.describe_instances(Filters=[{"Name": "instance.group-id", "Values": [defaults[vpc]]}])
    assert list_groups(in_default_vpc) == {defaults[in_default_vpc["VpcId"]]}
    assert list_groups(in_own_vpc) == list_groups(in_own_vpc["NetworkInterfaces"][0], "Groups") == {defaults[vpc]}
    assert [entry["Instances"][0]["InstanceId"] for entry in found["Reservations"]] == [in_own_vpc["InstanceId"]]


def test_an_instance_has_the_groups_of_its_primary_interface(ec2: Any) -> None:
    """Amazon EC2 API Reference, "ModifyInstanceAttribute" and "ModifyNetworkInterfaceAttribute"."""
    with patched(*PATCHES):
        interface = create_interface(ec2)
        vpc = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]["VpcId"]
        first, second = (
            ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"] for name in "ab"
        )
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[first])
        instance = launch(ec2, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": interface}])
        assert list_groups(instance) == {first}
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[second])
        assert list_groups(describe_instance(ec2, instance["InstanceId"])) == {second}
        ec2.modify_instance_attribute(InstanceId=instance["InstanceId"], Groups=[first])
        described = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]
        assert list_groups(described, "Groups") == {first}
