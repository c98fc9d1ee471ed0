"""Provide every AWS type and function by its token, with Pulumi's rules for checks and diffs."""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from endpoint import decode

# Imported for their effect: each module registers its types.
from engine.provider import cloudwatch, compute, iam, kms, logs, route53, s3, security, sns, ssm, vpc  # noqa: F401
from engine.provider.invokes import INVOKES
from engine.provider.resource_type import (
    RESOURCE_TYPES,
    Aws,
    BotoCoreError,
    ClientError,
    ProviderError,
    ResourceType,
    already_exists,
    error_text,
    not_found,
)
from engine.provider.values import Props, comparable, has_unknown

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Diff:
    """Consequences of a change of inputs."""

    changed: tuple[str, ...] = ()
    """Inputs that differ."""
    replaces: tuple[str, ...] = ()
    """Those among them that need a replacement."""
    delete_before_replace: bool = False
    """The old resource must be deleted before the new one is created."""


class Provider:
    """AWS resources by type token.

    Inputs and outputs are wire values without secret tags (see `engine.provider.values`); outputs hold every input as
    it was given and what AWS adds. All methods raise `ProviderError` with the type, the resource's name and AWS's
    reason.

    Args:
        aws: the clients.
        default_tags: Pulumi's provider configuration `aws:defaultTags`, `{"tags": {…}}`.
    """

    def __init__(self, aws: Aws | None = None, default_tags: object = None) -> None:
        self.aws = aws or Aws()
        self._default_tags = read_default_tags(default_tags)
        self._resource_types: dict[str, ResourceType] = {}

    def resource_type(self, token: str) -> ResourceType:
        """Return the handler of a type."""
        if token not in RESOURCE_TYPES:
            raise ProviderError(f"{token}: this provider does not know this type")
        return self._resource_types.setdefault(token, RESOURCE_TYPES[token](self.aws))

    def check(self, token: str, name: str, olds: Props, news: Props) -> Props:
        """Return the inputs with defaults and a generated name, which is kept from the old inputs."""
        resource_type = self.resource_type(token)
        understood = {key.split(".")[0] for key in resource_type.replace_on_change | resource_type.updatable}
        unknown = sorted(key for key in news if key not in understood and not key.startswith("__"))
        if unknown:
            raise ProviderError(f"{token} {name}: this provider does not know the input {', '.join(unknown)}")
        inputs = {**resource_type.defaults, **news}
        # As in Pulumi's provider, default tags become inputs of each resource; its own tags come first.
        own_tags = news.get("tags") or {}
        if self._default_tags and "tags" in resource_type.updatable and isinstance(own_tags, Mapping):
            inputs["tags"] = {**self._default_tags, **own_tags}
        if resource_type.autoname and resource_type.autoname not in inputs:
            inputs[resource_type.autoname] = olds.get(resource_type.autoname) or f"{name}-{secrets.token_hex(4)[:7]}"
        return inputs

    def plan(
        self, token: str, olds: Props, outputs: Props, news: Props, ignored: Collection[str] = ()
    ) -> tuple[Props, Props]:
        """Return old and new inputs with the defaults that Pulumi's provider plans against the resource's outputs.

        Args:
            token: type of the resource.
            olds: inputs of the last run.
            outputs: outputs of the last run or refresh.
            news: checked inputs of this run.
            ignored: inputs that `ignoreChanges` names; their defaults are not planned.
        """
        defaults = self.resource_type(token).planned_defaults(news)
        planned = {key: value for key, value in defaults.items() if key not in news and key not in ignored}
        return {**{key: outputs.get(key, value) for key, value in planned.items()}, **olds}, {**planned, **news}

    def diff(self, token: str, olds: Props, news: Props) -> Diff:
        """Compare two checked inputs. A new value that is unknown counts as changed."""
        resource_type = self.resource_type(token)
        keys = sorted(set(olds) | set(news))
        changed = tuple(
            k for k in keys if has_unknown(news.get(k)) or comparable(olds.get(k)) != comparable(news.get(k))
        )
        replacing = set(resource_type.replace_on_change)
        if changed:
            replacing |= self._translate_errors(token, "", lambda: resource_type.replaced_inputs(olds, news))
        replaces = tuple(key for key in changed if key in replacing or _member_differs(key, replacing, olds, news))
        # Two resources cannot have the same name at once.
        same_name = resource_type.autoname is not None and resource_type.autoname not in changed
        return Diff(
            changed=changed,
            replaces=replaces,
            delete_before_replace=bool(replaces) and (resource_type.delete_before_replace or same_name),
        )

    def create(self, token: str, name: str, inputs: Props) -> tuple[str, Props]:
        """Create a resource and return its id and outputs."""
        resource_type = self.resource_type(token)

        def create_resource() -> tuple[str, Props]:
            id = resource_type.create(inputs)
            return id, self._outputs(resource_type, id, inputs)

        return self._translate_errors(token, name, create_resource)

    def read(self, token: str, name: str, id: str, inputs: Props) -> Props | None:
        """Return a resource's outputs, or None if it does not exist."""
        resource_type = self.resource_type(token)

        def read_outputs() -> Props | None:
            try:
                outputs = resource_type.read(id, inputs)
            except ClientError as error:
                if not_found(error):
                    return None
                raise
            return None if outputs is None else {**outputs, **inputs}

        return self._translate_errors(token, name, read_outputs)

    def update(self, token: str, name: str, id: str, olds: Props, news: Props) -> Props:
        """Change a resource from the old inputs to the new and return its outputs; `{}` as old inputs applies all."""
        resource_type = self.resource_type(token)

        def update_resource() -> Props:
            resource_type.update(id, olds, news)
            return self._outputs(resource_type, id, news)

        return self._translate_errors(token, name, update_resource)

    def delete(self, token: str, name: str, id: str, outputs: Props) -> None:
        """Delete a resource; it may already be deleted."""
        resource_type = self.resource_type(token)

        def delete_resource() -> None:
            try:
                resource_type.delete(id, outputs)
            except ClientError as error:
                if not not_found(error):
                    raise

        self._translate_errors(token, name, delete_resource)

    def find(self, token: str, name: str, inputs: Props, owned_ids: Sequence[str] = ()) -> str | None:
        """Return the id of the resource that an interrupted creation left; `owned_ids` are other resources'."""
        resource_type = self.resource_type(token)

        def find_id() -> str | None:
            try:
                ids = [id for id in resource_type.find(inputs) if id not in owned_ids]
            except ClientError as error:
                if not_found(error):
                    return None
                raise
            return ids[0] if len(ids) == 1 else None

        return self._translate_errors(token, name, find_id)

    def invoke(self, token: str, arguments: Mapping[str, Any]) -> Props:
        """Return the answer of a function of the provider."""
        if token not in INVOKES:
            raise ProviderError(f"{token}: this provider does not know this function")
        return self._translate_errors(token, "", lambda: INVOKES[token](self.aws, dict(arguments)))

    @staticmethod
    def _outputs(resource_type: ResourceType, id: str, inputs: Props) -> Props:
        return {**(resource_type.read(id, inputs) or {}), **inputs}

    @staticmethod
    def _translate_errors(token: str, name: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except ProviderError as error:
            raise ProviderError(f"{token} {name}".rstrip() + f": {error}") from error
        except (ClientError, BotoCoreError) as error:
            translated = ProviderError(f"{token} {name}".rstrip() + f": {error_text(error)}")
            translated.already_exists = already_exists(error)
            raise translated from error
        except KeyError as error:
            raise ProviderError(f"{token} {name}".rstrip() + f": the input {error.args[0]} is required") from error


def read_default_tags(value: object) -> dict[str, str]:
    """Return the tags of Pulumi's `aws:defaultTags`, given as a mapping or as its JSON; raises `ProviderError`."""
    section = decode(value) or {}
    tags = section.get("tags") or {} if isinstance(section, Mapping) else None
    if not isinstance(tags, Mapping):
        raise ProviderError(f"aws:defaultTags: {value} is not a mapping of tags; write {{tags: {{Team: network}}}}")
    return {str(key): str(tag) for key, tag in tags.items()}


def _member_differs(key: str, replacing: set[str], olds: Props, news: Props) -> bool:
    """Return whether a member that needs a replacement differs."""
    before, after = olds.get(key) or {}, news.get(key) or {}
    members = [path.partition(".")[2] for path in replacing if path.startswith(f"{key}.")]
    return any(has_unknown(after) or before.get(member) != after.get(member) for member in members)
