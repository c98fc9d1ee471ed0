"""Debian's images: an older and the newest of each architecture, newer ones, and withdrawn ones. No machine boots.

Does not prove when Debian publishes or deregisters an image.
"""

import pytest
from botocore.exceptions import ClientError

from lab.errors import LabError
from lab.region import Region
from tests.support.cloud import AWS_REGION, Cloud, client

DEBIAN = "136693071363"


def newest(region: Region, architecture: str) -> str:
    """Return the image that Debian's public parameter names."""
    name = f"/aws/service/debian/release/13/latest/{architecture}"
    return str(client(region, "ssm").get_parameter(Name=name)["Parameter"]["Value"])


def list_images(region: Region, architecture: str) -> list[str]:
    """Return Debian 13's images of an architecture, oldest first, as the Debian wiki says how to list them."""
    filters = [{"Name": "name", "Values": [f"debian-13-{architecture}-*"]}]
    images = client(region, "ec2").describe_images(Owners=[DEBIAN], Filters=filters)["Images"]
    return [image["ImageId"] for image in sorted(images, key=lambda image: str(image["Name"]))]


def test_a_newer_image_is_published_and_an_old_one_withdrawn(cloud: Cloud) -> None:
    """Debian wiki, "Cloud/AmazonEC2Image"; Amazon EC2 User Guide, "Deregister an AMI"."""
    region = cloud.region
    before = {architecture: list_images(region, architecture) for architecture in ("amd64", "arm64")}
    for architecture, images in before.items():
        assert len(images) == 2
        assert newest(region, architecture) == images[-1]

    published = region.publish_images(AWS_REGION)
    for architecture, images in before.items():
        assert list_images(region, architecture) == [*images, published[architecture]]
        assert newest(region, architecture) == published[architecture]

    subnet = cloud.vpc().subnet()
    old = before["arm64"][0]
    runs_on = cloud.instance(subnet, ImageId=old, InstanceType="t4g.nano")
    region.withdraw_image(AWS_REGION, old)
    with pytest.raises(ClientError, match=r"InvalidAMIID\.NotFound"):
        cloud.instance(subnet, ImageId=old, InstanceType="t4g.nano")
    described = cloud.ec2.describe_instances(InstanceIds=[runs_on.id])["Reservations"][0]["Instances"][0]
    assert described["ImageId"] == old
    with pytest.raises(LabError, match=f"Debian has no image {old} in {AWS_REGION}"):
        region.withdraw_image(AWS_REGION, old)
