"""What the gateway may do in AWS: read what is its own, and say how it is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    secrets: pulumi.Input[str]
    """ARN of the path of the gateway's secrets."""
    bucket: pulumi.Input[str]
    """ARN of the bucket with its releases."""
    pointer: pulumi.Input[str]
    """ARN of the parameter that points at the release."""
    report: pulumi.Input[str]
    """ARN of the parameter the gateway writes."""
    bundles: Sequence[pulumi.Input[str]] = ()
    """ARNs of the bundles that it is a client with; plain, as is whether there are any."""


class Access(pulumi.ComponentResource):
    """The instance's role and profile."""

    profile: pulumi.Output[str]
    """Name of the instance profile."""

    def __init__(self, name: str, args: AccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Access", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        # IAM knows no regions, so the region is in the name.
        full_name = f"{args.names.display_name('gateway')}-{args.region}"
        tags = args.names.tags("gateway")
        role = aws.iam.Role(
            f"{name}-role",
            name=full_name,
            description="Drawbridge gateway",
            assume_role_policy=json.dumps(TRUST),
            tags=tags,
            opts=child,
        )
        policy = aws.iam.RolePolicy(
            f"{name}-policy",
            name="gateway",
            role=role.name,
            policy=pulumi.Output.json_dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Sid": "Read",
                            "Effect": "Allow",
                            "Action": ["ssm:GetParameter", "ssm:GetParameters"],
                            "Resource": [args.pointer, pulumi.Output.concat(args.secrets, "/*"), *args.bundles],
                        },
                        {
                            "Sid": "ReadPath",
                            "Effect": "Allow",
                            "Action": "ssm:GetParametersByPath",
                            "Resource": args.secrets,
                        },
                        {
                            "Sid": "Report",
                            "Effect": "Allow",
                            "Action": "ssm:PutParameter",
                            "Resource": args.report,
                        },
                        {
                            "Sid": "Releases",
                            "Effect": "Allow",
                            "Action": "s3:GetObject",
                            "Resource": pulumi.Output.concat(args.bucket, f"/{args.names.releases}/*"),
                        },
                        {
                            # Metrics have no ARN; their namespace is what can be told apart.
                            "Sid": "Metrics",
                            "Effect": "Allow",
                            "Action": "cloudwatch:PutMetricData",
                            "Resource": "*",
                            "Condition": {"StringEquals": {"cloudwatch:namespace": args.names.metrics}},
                        },
                    ],
                }
            ),
            opts=child,
        )
        profile = aws.iam.InstanceProfile(
            f"{name}-profile",
            name=full_name,
            role=role.name,
            tags=tags,
            # Whoever takes the profile finds the role able.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
        self.profile = profile.name
        self.register_outputs({"profile": self.profile})


TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
