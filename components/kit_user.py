"""What a client's own machine may do in AWS: set itself up, and follow its own address."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    client: str
    bucket: pulumi.Input[str]
    """ARN of the bucket with its kit."""
    door: tuple[pulumi.Input[str], pulumi.Input[str]] | None = None
    """ARNs of the security group, and of the one rule in it that the machine may change."""


class Member(pulumi.ComponentResource):
    """An IAM user without a key: whoever sets the machine up makes one for it, so that none is in Pulumi's state."""

    def __init__(self, name: str, args: MemberArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Member", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        caller = aws.get_caller_identity(opts=pulumi.InvokeOptions(parent=self))
        partition = caller.arn.split(":")[1]
        bundle = f"arn:{partition}:ssm:{args.region}:{caller.account_id}:parameter{args.names.bundle(args.client)}"
        user = aws.iam.User(
            f"{name}-user",
            name=args.names.kit_user(args.client),
            # Its keys are made by hand, and go with it.
            force_destroy=True,
            tags=contract.tags(args.names.stack),
            opts=child,
        )
        statements: list[dict[str, Any]] = [
            {"Sid": "Bundle", "Effect": "Allow", "Action": "ssm:GetParameter", "Resource": bundle},
            {
                "Sid": "Kit",
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": pulumi.Output.concat(args.bucket, "/", args.names.kit_key(args.client)),
            },
        ]
        if args.door:
            # The action touches the group and the rule, so both are named (Service Authorization Reference).
            door = {"Sid": "Door", "Effect": "Allow", "Action": "ec2:ModifySecurityGroupRules"}
            statements.append({**door, "Resource": list(args.door)})
        aws.iam.UserPolicy(
            f"{name}-policy",
            name="member",
            user=user.name,
            policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": statements}),
            opts=child,
        )
        self.register_outputs({})
