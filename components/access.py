"""The gateway's permissions in AWS."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract
from components.grants import Grant, render_policy


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    grants: Sequence[Grant]
    """Grants of the components that the gateway uses."""
    permissions_boundary: str | None = None
    """ARN of the managed policy that bounds the role."""


class Access(pulumi.ComponentResource):
    """The instance's role, with all that is granted to the gateway, and the profile that hands the role over."""

    profile: pulumi.Output[str]
    """Name of the instance profile."""

    def __init__(self, name: str, args: AccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Access", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        full_name = args.names.role(args.region)
        tags = args.names.tags("gateway")
        metrics = Grant(
            sid="Metrics",
            actions=["cloudwatch:PutMetricData"],
            # Metrics have no ARN; only their namespace can be restricted.
            resources=["*"],
            condition={"StringEquals": {"cloudwatch:namespace": args.names.metrics}},
        )
        role = aws.iam.Role(
            f"{name}-role",
            name=full_name,
            description="Drawbridge gateway",
            assume_role_policy=json.dumps(EC2_TRUST),
            permissions_boundary=args.permissions_boundary,
            tags=tags,
            opts=child,
        )
        policy = aws.iam.RolePolicy(
            f"{name}-policy",
            name="gateway",
            role=role.name,
            policy=render_policy([*args.grants, metrics]),
            opts=child,
        )
        profile = aws.iam.InstanceProfile(
            f"{name}-profile",
            name=full_name,
            role=role.name,
            tags=tags,
            # An instance that gets the profile must find the role's policy in place.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
        self.profile = profile.name
        self.register_outputs({"profile": self.profile})


#: Trust policy: EC2 instances may assume the role.
EC2_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
