"""List and remove prepared images: AMIs of Debian with a gateway's packages, which `image_build` creates."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import contract
from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.monthly_cost import read_prices
from images import EC2_ARCHITECTURES, Architecture

#: Tags of an image, beside those of `contract`, that say what is in it.
ARCHITECTURE_TAG, DEBIAN_TAG, OPENVPN_TAG, PACKAGES_TAG = "Architecture", "Debian", "OpenVPN", "Packages"
BUILDER_TAG, BASE_TAG = "BuiltBy", "BaseImage"

#: States in which an instance has its image's disk.
_ALIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedImage:
    """An AMI of the account with a gateway's packages."""

    id: str
    name: str
    state: str
    """EC2's word: `available`, `pending` or `failed`."""
    architecture: Architecture
    created: datetime
    base: str
    """AMI that it was built from."""
    debian: str
    """Debian's version, such as 13.2."""
    openvpn: str
    packages: str
    """SHA-256 of the names and versions of all installed packages."""
    builder: str
    """ARN of who built it."""
    snapshots: tuple[str, ...]
    size: float
    """GB of its snapshots; at most that, if EC2 does not say it."""
    dollars: float
    """Cost of its snapshots a month."""
    stacks: tuple[str, ...]
    """Stacks whose gateway runs on it; of an instance of no stack, its ID."""

    def days_old(self, now: datetime) -> int:
        """Return the full days since its creation."""
        return (now - self.created).days


def list_images(account: Account) -> list[PreparedImage]:
    """Return the prepared images of the account and region, newest first; raises `AwsError`."""
    with translate_aws_errors(account.stack, policy=account.policy):
        ec2 = account.client("ec2")
        pages = ec2.get_paginator("describe_images").paginate(
            Owners=["self"], Filters=[{"Name": "tag-key", "Values": [contract.IMAGE_TAG]}]
        )
        images = [image for page in pages for image in page["Images"]]
        sizes = _read_sizes(ec2, [snapshot for image in images for snapshot in _list_snapshots(image)])
        stacks = _find_stacks(ec2, [image["ImageId"] for image in images])
    prepared = [_describe(image, sizes, stacks.get(image["ImageId"], ())) for image in images]
    return sorted(prepared, key=lambda image: image.created, reverse=True)


def remove_image(account: Account, image: str) -> None:
    """Deregister a prepared image and delete its snapshots; also what an interrupted removal left of it.

    Raises:
        StackError: it is not a prepared image of the account and region, or an instance runs on it.
        AwsError: AWS refused.
    """
    prepared = next((entry for entry in list_images(account) if entry.id == image), None)
    if prepared and prepared.stacks:
        raise errors.StackError(
            f"{image} is in use by {', '.join(prepared.stacks)}",
            "let the gateway take a newer image (pulumi up --replace '**PinnedImage::**'), or destroy its stack",
        )
    with translate_aws_errors(account.stack, policy=account.policy):
        ec2 = account.client("ec2")
        snapshots = {*prepared.snapshots} if prepared else set()
        snapshots.update(_find_snapshots(ec2, image))
        if not prepared and not snapshots:
            raise errors.StackError(
                f"{image} is not a prepared image of this account and region",
                f"see which there are: drawbridge image list --stack {account.stack}",
            )
        if prepared:
            ec2.deregister_image(ImageId=image)
        for snapshot in sorted(snapshots):
            ec2.delete_snapshot(SnapshotId=snapshot)


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag_filter(key: str, value: str) -> dict[str, Any]:
    """Return EC2's filter of resources with a tag."""
    return {"Name": f"tag:{key}", "Values": [value]}


def _describe(image: Mapping[str, Any], sizes: Mapping[str, float], stacks: Iterable[str]) -> PreparedImage:
    tags = {tag["Key"]: tag["Value"] for tag in image.get("Tags", ())}
    snapshots = tuple(_list_snapshots(image))
    size = sum(sizes.get(snapshot, 0.0) for snapshot in snapshots)
    return PreparedImage(
        id=image["ImageId"],
        name=image.get("Name", ""),
        state=image["State"],
        architecture=next(name for name, ec2_name in EC2_ARCHITECTURES.items() if ec2_name == image["Architecture"]),
        created=datetime.fromisoformat(image["CreationDate"]),
        base=tags.get(BASE_TAG, ""),
        debian=tags.get(DEBIAN_TAG, ""),
        openvpn=tags.get(OPENVPN_TAG, ""),
        packages=tags.get(PACKAGES_TAG, ""),
        builder=tags.get(BUILDER_TAG, ""),
        snapshots=snapshots,
        size=size,
        dollars=size * float(read_prices()["month"]["snapshot"]),
        stacks=tuple(sorted(stacks)),
    )


def _list_snapshots(image: Mapping[str, Any]) -> Iterator[str]:
    for mapping in image.get("BlockDeviceMappings", ()):
        if snapshot := mapping.get("Ebs", {}).get("SnapshotId"):
            yield str(snapshot)


def _find_snapshots(ec2: Any, image: str) -> Iterator[str]:
    """Yield the snapshots of a prepared image, by what EC2 writes into their descriptions."""
    filters = [
        {"Name": "tag-key", "Values": [contract.IMAGE_TAG]},
        {"Name": "description", "Values": [f"*for {image}*"]},
    ]
    for page in ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters):
        yield from (snapshot["SnapshotId"] for snapshot in page["Snapshots"])


def _read_sizes(ec2: Any, snapshots: list[str]) -> dict[str, float]:
    """Return the size of each snapshot, GB."""
    if not snapshots:
        return {}
    described = ec2.describe_snapshots(SnapshotIds=snapshots)["Snapshots"]
    return {
        entry["SnapshotId"]: entry.get("FullSnapshotSizeInBytes", entry["VolumeSize"] << 30) / (1 << 30)
        for entry in described
    }


def _find_stacks(ec2: Any, images: list[str]) -> dict[str, set[str]]:
    """Return the stacks whose gateways run on each image."""
    stacks: dict[str, set[str]] = {}
    if not images:
        return stacks
    filters = [{"Name": "image-id", "Values": images}, {"Name": "instance-state-name", "Values": _ALIVE}]
    for page in ec2.get_paginator("describe_instances").paginate(Filters=filters):
        for instance in (instance for row in page["Reservations"] for instance in row["Instances"]):
            tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
            stacks.setdefault(instance["ImageId"], set()).add(tags.get("Stack", instance["InstanceId"]))
    return stacks
