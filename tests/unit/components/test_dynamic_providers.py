"""The dynamic providers of an image and of an IPv6 prefix, on in-process moto."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pulumi
import pytest
from moto import mock_aws
from moto.ec2.models import ec2_backends
from moto.ssm.models import ssm_backends

from components.image_provider import ImageError, NewestImage
from components.prefix_provider import PrefixDelegation, PrefixError
from components.prepared_image import check_prepared_image
from images import IMAGES
from lab.api.iam import ACCOUNT
from lab.api.moto_patches import patched
from lab.api.moto_state import publish_images

REGION = "eu-west-1"
PARAMETER = IMAGES["debian-13"].parameters["arm64"]


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An AWS in this process with Debian's public images."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws(), patched():
        publish_images(REGION)
        yield


def prepare_image(name: str, architecture: str, created: str, **tags: str) -> str:
    """Return the ID of an image of the account."""
    ec2 = boto3.client("ec2", region_name=REGION)
    image = ec2.register_image(Name=name)["ImageId"]
    if tags:
        ec2.create_tags(Resources=[image], Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
    entry = ec2_backends[ACCOUNT][REGION].amis[image]
    entry.architecture, entry.creation_date = architecture, datetime.fromisoformat(created)
    return str(image)


def test_the_newest_prepared_image_of_the_architecture_stays_until_its_resource_is_replaced() -> None:
    provider, inputs = NewestImage(), {"prepared": "arm64", "region": REGION}
    with pytest.raises(ImageError, match="eu-west-1 has no prepared image for arm64; build one: drawbridge image"):
        provider.create(inputs)
    prepare_image("not prepared", "arm64", "2026-11-20T10:00:00+00:00")
    prepare_image("another system", "arm64", "2026-11-20T10:00:00+00:00", DrawbridgeImage="debian-14")
    prepare_image("another architecture", "x86_64", "2026-11-20T10:00:00+00:00", DrawbridgeImage="debian-13")
    new = prepare_image("new", "arm64", "2026-11-03T10:00:00+00:00", DrawbridgeImage="debian-13")
    prepare_image("old", "arm64", "2026-11-02T10:00:00+00:00", DrawbridgeImage="debian-13")
    outputs = provider.create(inputs).outs
    assert outputs is not None
    assert outputs["image"] == new
    newer = prepare_image("newer", "arm64", "2026-11-04T10:00:00+00:00", DrawbridgeImage="debian-13")
    assert provider.diff("id", outputs, inputs).changes is False
    replaced = provider.create(inputs).outs
    assert replaced is not None
    assert replaced["image"] == newer
    public = {"parameter": PARAMETER, "region": REGION}
    assert provider.diff("id", {**public, "image": "ami-1"}, public).changes is False
    assert provider.diff("id", {**public, "image": "ami-1"}, inputs).replaces == ["parameter", "prepared"]


def test_an_image_with_backports_is_another_system_and_a_gateway_that_changes_to_it_gets_a_new_instance() -> None:
    provider, plain = NewestImage(), {"prepared": "arm64", "region": REGION}
    inputs = {**plain, "system": "debian-13-backports"}
    prepare_image("plain", "arm64", "2026-11-03T10:00:00+00:00", DrawbridgeImage="debian-13")
    with pytest.raises(ImageError, match="has no prepared image"):
        provider.create(inputs)
    with pytest.raises(pulumi.RunError, match=r"image: ours-backports needs .*--architecture arm64 --backports\)"):
        check_prepared_image(REGION, "prod", "ours-backports", "t4g.nano")
    image = prepare_image("backports", "arm64", "2026-11-02T10:00:00+00:00", DrawbridgeImage="debian-13-backports")
    check_prepared_image(REGION, "prod", "ours-backports", "t4g.nano")
    outputs = provider.create(inputs).outs
    assert outputs is not None
    assert outputs["image"] == image
    assert provider.diff("id", outputs, plain).replaces == ["system"]


def test_an_image_that_somebody_else_has_published_is_not_taken() -> None:
    image = prepare_image("published", "arm64", "2026-11-03T10:00:00+00:00", DrawbridgeImage="debian-13")
    ec2_backends[ACCOUNT][REGION].amis[image].owner_id = "999999999999"
    with pytest.raises(ImageError, match="has no prepared image"):
        NewestImage().create({"prepared": "arm64", "region": REGION})


@pytest.mark.parametrize(("days", "warnings"), [(59, 0), (61, 1)])
def test_an_old_prepared_image_is_warned_of(days: int, warnings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    created = datetime.now(UTC) - timedelta(days=days, hours=1)
    image = prepare_image("old", "arm64", created.isoformat(), DrawbridgeImage="debian-13")
    logged: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", logged.append)
    check_prepared_image(REGION, "prod", "ours", "t4g.nano")
    assert len(logged) == warnings
    assert all(f"{image}, the newest prepared image for arm64, is {days} days old" in text for text in logged)


@pytest.fixture
def interface() -> str:
    """An interface with an IPv6 address and no prefix."""
    ec2 = boto3.client("ec2", region_name=REGION)
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    block = vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"].replace("/56", "/64")
    subnet = ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock="10.1.0.0/24", Ipv6CidrBlock=block)["Subnet"]
    created = ec2.create_network_interface(SubnetId=subnet["SubnetId"], Ipv6AddressCount=1)
    return str(created["NetworkInterface"]["NetworkInterfaceId"])


def prefixes(interface: str) -> list[str]:
    found = boto3.client("ec2", region_name=REGION).describe_network_interfaces(NetworkInterfaceIds=[interface])
    return [row["Ipv6Prefix"] for row in found["NetworkInterfaces"][0].get("Ipv6Prefixes", [])]


def test_an_image_stays_until_its_resource_is_replaced() -> None:
    provider, inputs = NewestImage(), {"parameter": PARAMETER, "region": REGION}
    outputs = provider.create(inputs).outs
    assert outputs is not None
    assert outputs["image"] == "ami-0debian13arm64"
    ssm_backends[ACCOUNT][REGION]._parameters[PARAMETER][-1].value = "ami-0newer"
    assert provider.diff("id", outputs, inputs).changes is False
    replaced = provider.create(inputs).outs
    assert replaced is not None
    assert replaced["image"] == "ami-0newer"
    assert provider.diff("id", outputs, {**inputs, "parameter": "/other"}).replaces == ["parameter"]
    with pytest.raises(ImageError, match=r"cannot read the image in parameter /none: .*ParameterNotFound"):
        provider.create({"parameter": "/none", "region": REGION})


def test_a_prefix_is_assigned_once_and_removed(interface: str) -> None:
    provider: PrefixDelegation = PrefixDelegation()
    inputs: dict[str, Any] = {"region": REGION, "interfaceId": interface}
    outputs = provider.create(inputs).outs
    assert outputs is not None
    assert prefixes(interface) == [outputs["prefix"]]
    again = provider.create(inputs).outs  # the state of an interrupted run knows nothing of it
    assert again == outputs
    assert provider.read("id", outputs).id == "id"
    assert provider.diff("id", outputs, inputs).changes is False
    assert provider.diff("id", outputs, {**inputs, "named": "2001:db8::/80"}).replaces == ["named"]
    provider.delete("id", outputs)
    assert prefixes(interface) == []
    assert provider.read("id", outputs).id == ""
    provider.delete("id", outputs)  # what is gone already is no error


def test_a_prefix_outside_the_subnet_is_an_error(interface: str) -> None:
    with pytest.raises(PrefixError, match=interface):
        PrefixDelegation().create({"region": REGION, "interfaceId": interface, "named": "2001:db8::/80"})
