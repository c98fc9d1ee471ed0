"""Define the base of every AWS type: its inputs, and create, read, update, delete and find on boto3."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, ClassVar

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader

from engine.provider.values import Props


class ProviderError(Exception):
    """A type or input is unknown, or AWS returned an error. The text names the type, the resource and the reason."""

    already_exists: bool = False
    """AWS refused because the resource already exists, so the existing one is not ours."""


#: Error codes that mean "not found" and contain neither "NotFound" nor "NoSuch".
NOT_FOUND_CODES = frozenset({"404", "InvalidNetworkAclEntry.NotFound", "InvalidAttachmentID.NotFound"})


def not_found(error: Exception) -> bool:
    """Return whether an AWS error means that the resource does not exist."""
    if not isinstance(error, ClientError):
        return False
    code = str(error.response.get("Error", {}).get("Code", ""))
    return "NotFound" in code or "NoSuch" in code or code in NOT_FOUND_CODES


def none_if_not_found(call: Callable[..., Any], **arguments: Any) -> Any:
    """Return AWS's answer to a call, or None if the resource does not exist."""
    try:
        return call(**arguments)
    except Exception as error:
        if not_found(error):
            return None
        raise


def already_exists(error: Exception) -> bool:
    """Return whether an AWS error means that the resource already exists."""
    if not isinstance(error, ClientError):
        return False
    detail = error.response.get("Error", {})
    code = str(detail.get("Code", ""))
    # Route 53 has one code for whatever it refuses in a batch of changes.
    if code == "InvalidChangeBatch":
        return "already exists" in str(detail.get("Message", ""))
    return any(word in code for word in ("AlreadyExists", "AlreadyOwned", "AlreadyAssociated", "Duplicate"))


def error_text(error: Exception) -> str:
    """Return an AWS error as one line, without the values that were sent."""
    if isinstance(error, ClientError):
        detail = error.response.get("Error", {})
        return f"{error.operation_name}: {detail.get('Code', '?')}: {detail.get('Message', '')}"
    return f"{type(error).__name__}: {error}"


@cache
def _create_loader() -> Loader:
    """Return the loader of the services' models; parsing takes half a second a service, so it is shared."""
    loader: Loader = create_loader()
    return loader


class Aws:
    """boto3 clients of one region, created on first use.

    Args:
        region: region name; None takes AWS_REGION, then AWS_DEFAULT_REGION.
        endpoint: URL of the AWS API; None leaves it to boto3 (AWS_ENDPOINT_URL, in-process moto).
    """

    def __init__(self, region: str | None = None, endpoint: str | None = None) -> None:
        self.region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._endpoint = endpoint
        self._clients: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._account: str | None = None

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service."""
        with self._lock:
            if service not in self._clients:
                # AWS throttles; Pulumi's own provider would try even 25 times.
                config = Config(
                    retries={"total_max_attempts": 10, "mode": "standard"}, connect_timeout=5, read_timeout=60
                )
                session: Any = botocore.session.Session()
                session.register_component("data_loader", _create_loader())
                self._clients[service] = session.create_client(
                    service, region_name=self.region, endpoint_url=self._endpoint, config=config
                )
            return self._clients[service]

    @property
    def account(self) -> str:
        """The account id, twelve digits."""
        if self._account is None:
            self._account = str(self.client("sts").get_caller_identity()["Account"])
        return self._account

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource of this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


class ResourceType:
    """An AWS resource type. Inputs and outputs have Pulumi's names (camelCase); ids are AWS's.

    `create` creates the resource, then applies what AWS takes in later calls only. `update` without old inputs applies
    every updatable input, and so completes an interrupted creation.
    """

    token: ClassVar[str]
    """Pulumi's type token."""
    replace_on_change: ClassVar[frozenset[str]] = frozenset()
    """Inputs whose change replaces the resource; `a.b` is the member b of the input a."""
    updatable: ClassVar[frozenset[str]] = frozenset()
    """Inputs that `update` changes in place."""
    autoname: ClassVar[str | None] = None
    """Input that gets a generated name when the program gives none."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Values of inputs that the program leaves out."""
    delete_before_replace: ClassVar[bool] = False
    """A replacement must delete the old resource before it creates the new one."""
    id_from_inputs: ClassVar[bool] = False
    """The inputs alone determine the id, so `find` needs no tags."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws

    def create(self, inputs: Props) -> str:
        """Create the resource and return its id."""
        raise NotImplementedError

    def read(self, id: str, inputs: Props) -> Props | None:
        """Return the outputs that AWS reports, or None if the resource does not exist."""
        raise NotImplementedError

    def update(self, id: str, olds: Props, news: Props) -> None:
        """Apply the updatable inputs that differ."""

    def delete(self, id: str, outputs: Props) -> None:
        """Delete the resource. The caller ignores an error that says it does not exist."""
        raise NotImplementedError

    def find(self, inputs: Props) -> list[str]:
        """Return the ids of resources that an interrupted creation with these inputs may have left."""
        return []

    def planned_defaults(self, inputs: Props) -> Mapping[str, Any]:
        """Return defaults that a plan compares with the resource's outputs, although the program does not set them."""
        return {}

    def replaced_inputs(self, olds: Props, news: Props) -> frozenset[str]:
        """Return updatable inputs whose change replaces the resource in this case."""
        return frozenset()


def differs(olds: Props, news: Props, *keys: str) -> bool:
    """Return whether one of the keys has a different value."""
    return any(olds.get(key) != news.get(key) for key in keys)


def tag_list(tags: Mapping[str, str] | None) -> list[dict[str, str]]:
    """Return {key: value} as AWS's list of tags."""
    return [{"Key": key, "Value": value} for key, value in (tags or {}).items()]


def tag_map(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """Return AWS's list of tags as {key: value}, without AWS's own `aws:` tags."""
    return {tag["Key"]: tag["Value"] for tag in tags or () if not tag["Key"].startswith("aws:")}


def tag_outputs(tags: Iterable[Mapping[str, str]] | None) -> Props:
    """Return tags as Pulumi's outputs `tags` and `tagsAll`."""
    mapping = tag_map(tags)
    return {"tags": mapping, "tagsAll": mapping}


def tag_changes(olds: Props, news: Props) -> tuple[list[str], dict[str, str]]:
    """Return the tag keys to remove and the tags to set to get from the old inputs to the new."""
    before, after = olds.get("tags") or {}, news.get("tags") or {}
    return [key for key in before if key not in after], {k: v for k, v in after.items() if before.get(k) != v}


def without_none(**arguments: Any) -> dict[str, Any]:
    """Return the arguments that are not None, which boto3 does not accept."""
    return {key: value for key, value in arguments.items() if value is not None}


class Ec2ResourceType(ResourceType):
    """An EC2 type that has tags and a describe call."""

    resource: ClassVar[str]
    """EC2's name of the type in TagSpecifications and ARNs."""
    describe: ClassVar[str]
    """boto3 method that describes resources of the type."""
    items: ClassVar[str]
    """Member of the response that holds the list."""
    id_key: ClassVar[str]
    """Member of an item that holds the id; the describe call's argument is this plus `s`."""

    @property
    def ec2(self) -> Any:
        """The EC2 client."""
        return self.aws.client("ec2")

    def tagging(self, inputs: Props) -> dict[str, Any]:
        """Return the TagSpecifications argument, so that a resource has its tags from the start."""
        tags = tag_list(inputs.get("tags"))
        return {"TagSpecifications": [{"ResourceType": self.resource, "Tags": tags}]} if tags else {}

    def retag(self, id: str, olds: Props, news: Props) -> None:
        """Change the tags from the old inputs to the new."""
        removed, changed = tag_changes(olds, news)
        if removed:
            self.ec2.delete_tags(Resources=[id], Tags=[{"Key": key} for key in removed])
        if changed:
            self.ec2.create_tags(Resources=[id], Tags=tag_list(changed))

    def item(self, id: str) -> dict[str, Any] | None:
        """Return the description of one resource, or None if it does not exist."""
        try:
            items = getattr(self.ec2, self.describe)(**{f"{self.id_key}s": [id]})[self.items]
        except ClientError as error:
            if not_found(error):
                return None
            raise
        return items[0] if items else None

    def outputs(self, item: dict[str, Any]) -> Props:
        """Return a described item as outputs."""
        raise NotImplementedError

    def read(self, id: str, inputs: Props) -> Props | None:
        item = self.item(id)
        return None if item is None else self.outputs(item) | tag_outputs(item.get("Tags"))

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)

    def find(self, inputs: Props) -> list[str]:
        if not inputs.get("tags"):
            return []
        ids = []
        for item in getattr(self.ec2, self.describe)()[self.items]:
            outputs = self.outputs(item)
            expected = {key: inputs[key] for key in self.replace_on_change if key in inputs and key in outputs}
            if tag_map(item.get("Tags")) == inputs["tags"] and all(outputs[k] == v for k, v in expected.items()):
                ids.append(str(item[self.id_key]))
        return ids


RESOURCE_TYPES: dict[str, type[ResourceType]] = {}


def register(kind: type[ResourceType]) -> type[ResourceType]:
    """Register the decorated type under its token."""
    RESOURCE_TYPES[kind.token] = kind
    return kind


__all__ = [
    "RESOURCE_TYPES",
    "Aws",
    "BotoCoreError",
    "ClientError",
    "Ec2ResourceType",
    "ProviderError",
    "ResourceType",
    "already_exists",
    "differs",
    "error_text",
    "not_found",
    "register",
    "tag_changes",
    "tag_list",
    "tag_map",
    "tag_outputs",
    "without_none",
]
