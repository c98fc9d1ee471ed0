"""What every AWS type shares: its inputs, which of them are fixed, and five verbs on boto3."""

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
    """A resource cannot be handled: unknown type or input, or AWS said no. The text names type, resource and reason."""

    taken: bool = False
    """AWS said no because there is such a thing already: whatever is found there is not ours."""


#: Error codes that say "there is no such thing" without the words "NotFound" or "NoSuch".
ABSENT_CODES = frozenset({"404", "InvalidNetworkAclEntry.NotFound", "InvalidAttachmentID.NotFound"})


def absent(error: Exception) -> bool:
    """Say whether an AWS error means that the thing is not there."""
    if not isinstance(error, ClientError):
        return False
    code = str(error.response.get("Error", {}).get("Code", ""))
    return "NotFound" in code or "NoSuch" in code or code in ABSENT_CODES


def or_none(call: Callable[..., Any], **arguments: Any) -> Any:
    """What AWS answers to a call, or None where it says that there is no such thing."""
    try:
        return call(**arguments)
    except Exception as error:
        if absent(error):
            return None
        raise


def taken(error: Exception) -> bool:
    """Say whether an AWS error means that there is such a thing already."""
    if not isinstance(error, ClientError):
        return False
    code = str(error.response.get("Error", {}).get("Code", ""))
    return any(word in code for word in ("AlreadyExists", "AlreadyOwned", "AlreadyAssociated", "Duplicate"))


def reason(error: Exception) -> str:
    """Give an AWS error in one line, without the values that were sent."""
    if isinstance(error, ClientError):
        detail = error.response.get("Error", {})
        return f"{error.operation_name}: {detail.get('Code', '?')}: {detail.get('Message', '')}"
    return f"{type(error).__name__}: {error}"


@cache
def _loader() -> Loader:
    """Give the reader of the services' models: half a second a service, so once a process."""
    loader: Loader = create_loader()
    return loader


class Aws:
    """Clients of one region, made when first needed.

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
        """Give the boto3 client of a service."""
        with self._lock:
            if service not in self._clients:
                config = Config(
                    retries={"total_max_attempts": 3, "mode": "standard"}, connect_timeout=5, read_timeout=60
                )
                session: Any = botocore.session.Session()
                session.register_component("data_loader", _loader())
                self._clients[service] = session.create_client(
                    service, region_name=self.region, endpoint_url=self._endpoint, config=config
                )
            return self._clients[service]

    @property
    def account(self) -> str:
        """The account's twelve digits."""
        if self._account is None:
            self._account = str(self.client("sts").get_caller_identity()["Account"])
        return self._account

    def arn(self, service: str, resource: str) -> str:
        """Spell the ARN of a resource of this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


class Kind:
    """One AWS type. Inputs and outputs are Pulumi's, camelCase; ids are AWS's.

    `create` makes the thing with everything that cannot be changed later, then calls `update` for the rest; `update`
    with no old inputs applies every changeable input, so it also finishes a creation that was cut off.
    """

    token: ClassVar[str]
    """Pulumi's type token."""
    fixed: ClassVar[frozenset[str]] = frozenset()
    """Inputs whose change needs a new resource; `a.b` is the member b of the input a."""
    changeable: ClassVar[frozenset[str]] = frozenset()
    """Inputs that `update` applies."""
    auto_name: ClassVar[str | None] = None
    """Input that gets a name of its own when the program gives none."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Inputs that have a value when the program gives none."""
    delete_first: ClassVar[bool] = False
    """The old one must go before the new one can be."""
    named: ClassVar[bool] = False
    """The inputs alone decide the id, so `find` needs no tags."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws

    def create(self, inputs: Props) -> str:
        """Make the resource and return its id."""
        raise NotImplementedError

    def read(self, id: str, inputs: Props) -> Props | None:
        """Return what AWS says about it as outputs, None where it is gone."""
        raise NotImplementedError

    def update(self, id: str, olds: Props, news: Props) -> None:
        """Apply the changeable inputs that differ."""

    def delete(self, id: str, outputs: Props) -> None:
        """Remove it. An error that says it is not there is taken as done by the caller."""
        raise NotImplementedError

    def find(self, inputs: Props) -> list[str]:
        """Return the ids of what a creation with these inputs, cut off half-way, may have left."""
        return []


def differs(olds: Props, news: Props, *keys: str) -> bool:
    """Say whether one of the keys has another value now."""
    return any(olds.get(key) != news.get(key) for key in keys)


def tag_list(tags: Mapping[str, str] | None) -> list[dict[str, str]]:
    """Turn {key: value} into AWS's list."""
    return [{"Key": key, "Value": value} for key, value in (tags or {}).items()]


def tag_map(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """Turn AWS's list into {key: value}, without AWS's own tags."""
    return {tag["Key"]: tag["Value"] for tag in tags or () if not tag["Key"].startswith("aws:")}


def tag_outputs(tags: Iterable[Mapping[str, str]] | None) -> Props:
    """Spell tags as Pulumi's two outputs."""
    mapping = tag_map(tags)
    return {"tags": mapping, "tagsAll": mapping}


def tag_changes(olds: Props, news: Props) -> tuple[list[str], dict[str, str]]:
    """Give the tag keys to remove and the tags to set between two inputs."""
    before, after = olds.get("tags") or {}, news.get("tags") or {}
    return [key for key in before if key not in after], {k: v for k, v in after.items() if before.get(k) != v}


def some(**arguments: Any) -> dict[str, Any]:
    """Keep the arguments that are set, as boto3 takes no None."""
    return {key: value for key, value in arguments.items() if value is not None}


class Ec2Kind(Kind):
    """A type of EC2 that a describe call lists and that carries tags."""

    resource: ClassVar[str]
    """Its name in TagSpecifications and ARNs."""
    describe: ClassVar[str]
    """boto3 method that lists it."""
    items: ClassVar[str]
    """Member of the answer that holds the list."""
    id_key: ClassVar[str]
    """Member of an item that holds the id; the describe call's argument is this plus `s`."""

    @property
    def ec2(self) -> Any:
        """The EC2 client."""
        return self.aws.client("ec2")

    def tagging(self, inputs: Props) -> dict[str, Any]:
        """Give the TagSpecifications argument, so that a resource is never without its tags."""
        tags = tag_list(inputs.get("tags"))
        return {"TagSpecifications": [{"ResourceType": self.resource, "Tags": tags}]} if tags else {}

    def retag(self, id: str, olds: Props, news: Props) -> None:
        """Bring the tags from the old inputs to the new."""
        gone, wanted = tag_changes(olds, news)
        if gone:
            self.ec2.delete_tags(Resources=[id], Tags=[{"Key": key} for key in gone])
        if wanted:
            self.ec2.create_tags(Resources=[id], Tags=tag_list(wanted))

    def item(self, id: str) -> dict[str, Any] | None:
        """Describe one."""
        try:
            found = getattr(self.ec2, self.describe)(**{f"{self.id_key}s": [id]})[self.items]
        except ClientError as error:
            if absent(error):
                return None
            raise
        return found[0] if found else None

    def outputs(self, item: dict[str, Any]) -> Props:
        """Spell a described item as outputs."""
        raise NotImplementedError

    def read(self, id: str, inputs: Props) -> Props | None:
        item = self.item(id)
        return None if item is None else self.outputs(item) | tag_outputs(item.get("Tags"))

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)

    def find(self, inputs: Props) -> list[str]:
        if not inputs.get("tags"):
            return []
        found = []
        for item in getattr(self.ec2, self.describe)()[self.items]:
            outputs = self.outputs(item)
            wanted = {key: inputs[key] for key in self.fixed if key in inputs and key in outputs}
            if tag_map(item.get("Tags")) == inputs["tags"] and all(outputs[k] == v for k, v in wanted.items()):
                found.append(str(item[self.id_key]))
        return found


KINDS: dict[str, type[Kind]] = {}


def register(kind: type[Kind]) -> type[Kind]:
    """Class decorator: enter a type into the registry under its token."""
    KINDS[kind.token] = kind
    return kind


__all__ = [
    "KINDS",
    "Aws",
    "BotoCoreError",
    "ClientError",
    "Ec2Kind",
    "Kind",
    "ProviderError",
    "absent",
    "differs",
    "reason",
    "register",
    "some",
    "tag_changes",
    "tag_list",
    "tag_map",
    "tag_outputs",
    "taken",
]
