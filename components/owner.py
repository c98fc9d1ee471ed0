"""Give a deployment a random identifier that its state keeps: whoever has the state owns what bears the identifier."""

import uuid
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider


class OwnerProvider(ResourceProvider):
    """Creates a random identifier. States name this class by its module; keep both names."""

    # What is serialized is this class's name, which is not secret.
    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(str(uuid.uuid4()), {})


class Owner(Resource, name="Owner"):
    """A random identifier, as the resource's id; it is in the state before a resource that uses it is created."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions) -> None:
        super().__init__(OwnerProvider(), name, {}, opts)
