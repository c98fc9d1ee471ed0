"""IAM user for a client's own machine: it reads its kit and bundle and may update its own rule."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract
from components.grants import Grant, render_policy


@dataclass(frozen=True, kw_only=True, slots=True)
class KitUserArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    client: str
    grants: Sequence[Grant]
    """Permissions of the client's machine."""
    permissions_boundary: str | None = None
    """ARN of the managed policy that bounds the user."""


class KitUser(pulumi.ComponentResource):
    """An IAM user without an access key: whoever sets the machine up creates one, so that none is in Pulumi's state."""

    def __init__(self, name: str, args: KitUserArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        # This type and the policy's name are those of deployed stacks.
        super().__init__("drawbridge:index:Member", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        user = aws.iam.User(
            f"{name}-user",
            name=args.names.kit_user(args.client),
            # Its access keys are created by hand and must not keep it from being deleted.
            force_destroy=True,
            permissions_boundary=args.permissions_boundary,
            tags=contract.tags(args.names.stack),
            opts=child,
        )
        aws.iam.UserPolicy(
            f"{name}-policy",
            name="member",
            user=user.name,
            policy=render_policy(args.grants),
            opts=child,
        )
        self.register_outputs({})
