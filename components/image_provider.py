"""The dynamic provider behind `PinnedImage`: looks an image up once, when the resource is created.

Under Pulumi it runs in a process of its own, with the environment's AWS credentials only; the parameters that it reads
are public, so any account's will do.
"""

from typing import Any

import boto3
import pulumi
from botocore.exceptions import BotoCoreError, ClientError
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider


class ImageError(Exception):
    """The image could not be looked up; the message names the parameter and AWS's reason."""


class NewestImage(ResourceProvider):
    """Keeps the image that a public SSM parameter named at creation."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        try:
            ssm = boto3.Session(region_name=props["region"]).client("ssm")
            image = str(ssm.get_parameter(Name=props["parameter"])["Parameter"]["Value"])
        except (ClientError, BotoCoreError) as error:
            raise ImageError(f"cannot read the image in parameter {props['parameter']}: {error}") from error
        return CreateResult(image, {**props, "image": image})

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        changed = [key for key in ("parameter", "region") if olds.get(key) != news.get(key)]
        return DiffResult(changes=bool(changed), replaces=changed)


class PinnedImage(Resource, name="PinnedImage"):
    """The newest image of a release and architecture when this resource was created; replacing it takes the newest."""

    image: pulumi.Output[str]

    def __init__(self, name: str, *, parameter: str, region: str, opts: pulumi.ResourceOptions) -> None:
        super().__init__(NewestImage(), name, {"parameter": parameter, "region": region, "image": None}, opts)
