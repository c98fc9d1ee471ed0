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
