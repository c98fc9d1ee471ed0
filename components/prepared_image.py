"""Find the account's prepared images (docs/image.md), and check that there is one for a gateway."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import boto3
import pulumi

import contract
from images import (
    DEFAULT_IMAGE,
    EC2_ARCHITECTURES,
    PREPARED_BACKPORTS,
    PREPARED_SYSTEMS,
    Architecture,
    find_architecture,
)

#: An older image is warned of: Debian has published another one since, and fixes that a new gateway lacks at first.
MAX_AGE = timedelta(days=60)


@dataclass(frozen=True, slots=True)
class AvailableImage:
    """A prepared image that instances can be launched from."""

    id: str
    architecture: Architecture
    created: datetime


def find_prepared_images(region: str, system: str = DEFAULT_IMAGE) -> list[AvailableImage]:
    """Return the account's prepared images of a system in `PREPARED_SYSTEMS`, newest first; boto3's errors are raised.

    Only the account's own images count, because anybody may publish one with these tags.
    """
    filters = [
        {"Name": f"tag:{contract.IMAGE_TAG}", "Values": [system]},
        {"Name": "state", "Values": ["available"]},
    ]
    ec2 = boto3.Session(region_name=region).client("ec2")
    pages = ec2.get_paginator("describe_images").paginate(Owners=["self"], Filters=filters)
    images = [
        AvailableImage(image["ImageId"], architecture, datetime.fromisoformat(image["CreationDate"]))
        for page in pages
        for image in page["Images"]
        for architecture, ec2_name in EC2_ARCHITECTURES.items()
        if ec2_name == image["Architecture"]
    ]
    return sorted(images, key=lambda image: image.created, reverse=True)


def check_prepared_image(region: str, stack: str, image: str, instance_type: str) -> None:
    """Raise `pulumi.RunError` if the account has no prepared image for an instance type; warn of an old one.

    `image` is a name in `PREPARED_SYSTEMS`.
    """
    architecture = find_architecture(instance_type)
    images = find_prepared_images(region, PREPARED_SYSTEMS[image])
    newest = next((entry for entry in images if entry.architecture == architecture), None)
    backports = " --backports" if image == PREPARED_BACKPORTS else ""
    build = f"drawbridge image build --stack {stack} --architecture {architecture}{backports}"
    if newest is None:
        existing = f"only images for {images[0].architecture}" if images else "none"
        raise pulumi.RunError(
            f"drawbridge:gateway.image: {image} needs a prepared image for {architecture}, the architecture of "
            f"{instance_type}, but {region} has {existing}; build one ({build}), or write image: {DEFAULT_IMAGE}"
        )
    age = datetime.now(UTC) - newest.created
    if age > MAX_AGE:
        pulumi.log.warn(
            f"drawbridge:gateway.image: {newest.id}, the newest prepared image for {architecture}, is {age.days} days "
            f"old, and a new instance lacks Debian's fixes since then until it has installed them; build one: {build}"
        )
