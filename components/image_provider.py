"""The dynamic provider behind `PinnedImage`: looks an image up once, when the resource is created.

Under Pulumi it runs in a process of its own, with the environment's AWS credentials only. The parameters that it reads
are public, so any account's will do; a prepared image must be in the account of these credentials.
"""

from typing import Any

import boto3
import pulumi
from botocore.exceptions import BotoCoreError, ClientError
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider

from components.prepared_image import find_prepared_images
from images import DEFAULT_IMAGE, Architecture


class ImageError(Exception):
    """The image could not be looked up; the message names the parameter and AWS's reason."""


class NewestImage(ResourceProvider):
    """Keeps the image that a public SSM parameter named at creation, or the prepared image that was the newest then."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        image = self._read_prepared(props) if props.get("prepared") else self._read_public(props)
        return CreateResult(image, {**props, "image": image})

    def _read_prepared(self, props: dict[str, Any]) -> str:
        architecture, region = props["prepared"], props["region"]
        try:
            images = find_prepared_images(region, props.get("system") or DEFAULT_IMAGE)
        except (ClientError, BotoCoreError) as error:
            raise ImageError(f"cannot list the prepared images of {region}: {error}") from error
        for image in images:
            if image.architecture == architecture:
                return image.id
        raise ImageError(f"{region} has no prepared image for {architecture}; build one: drawbridge image build")

    def _read_public(self, props: dict[str, Any]) -> str:
        try:
            ssm = boto3.Session(region_name=props["region"]).client("ssm")
            return str(ssm.get_parameter(Name=props["parameter"])["Parameter"]["Value"])
        except (ClientError, BotoCoreError) as error:
            raise ImageError(f"cannot read the image in parameter {props['parameter']}: {error}") from error

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        changed = [key for key in ("parameter", "prepared", "system", "region") if olds.get(key) != news.get(key)]
        return DiffResult(changes=bool(changed), replaces=changed)


class PinnedImage(Resource, name="PinnedImage"):
    """The newest image of a release and architecture when this resource was created; replacing it takes the newest."""

    image: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        region: str,
        opts: pulumi.ResourceOptions,
        parameter: str | None = None,
        prepared: Architecture | None = None,
        system: str = DEFAULT_IMAGE,
    ) -> None:
        """Pin the image in a public SSM parameter, or the account's prepared image of a system for an architecture."""
        source: dict[str, str | None] = {"prepared": prepared} if prepared else {"parameter": parameter}
        if system != DEFAULT_IMAGE:
            # Not in the state of stacks that are older than the second system: they would get a new instance.
            source["system"] = system
        super().__init__(NewestImage(), name, {**source, "region": region, "image": None}, opts)
