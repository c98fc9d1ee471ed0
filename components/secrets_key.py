"""The KMS key that encrypts a stack's secrets in SSM and S3, and the policy that says who may use it.

AWS's own key of SSM, `aws/ssm`, decrypts for every principal of the account that may read parameters ("Restricting
access to Parameter Store parameters", AWS Systems Manager User Guide). This key does for those that its policy names.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pulumi
import pulumi_aws as aws

import contract

#: The shortest time that AWS takes.
DELETION_WINDOW = 7

#: What administrators of the account may do. `kms:CreateGrant` and `kms:ReEncrypt*` are not among it: with these a
#: principal gives itself what the other statements withhold.
MANAGE = (
    *("kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListGrants", "kms:ListKeyPolicies"),
    *("kms:ListResourceTags", "kms:TagResource", "kms:UntagResource", "kms:UpdateKeyDescription", "kms:PutKeyPolicy"),
    *("kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias", "kms:EnableKey", "kms:DisableKey"),
    *("kms:EnableKeyRotation", "kms:DisableKeyRotation", "kms:RevokeGrant"),
    *("kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion"),
)

#: S3 encrypts an object with a data key (Amazon S3 User Guide, "Using server-side encryption with AWS KMS keys").
USE_BY_S3 = ("kms:Decrypt", "kms:GenerateDataKey")

#: SSM encrypts a standard parameter with Encrypt and an advanced one with GenerateDataKey, and decrypts both with
#: Decrypt ("How AWS Systems Manager Parameter Store uses AWS KMS"). An account's default tier may be the advanced one.
USE = ("kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey")


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretsKeyArgs:
    stack: str
    region: str
    users: Sequence[str]
    """ARNs of IAM users and roles that may use the key as the deployer does."""
    readers: Mapping[str, Sequence[str]]
    """By the name of each gateway's role: paths of the parameters that it reads; `*` stands for any text."""
    kit_users: bool
    """Whether clients' machines have IAM users, whose policies then decide which bundle each decrypts."""
    bundles_bucket: str | None
    """Name of the bucket that bundles may be in; None if they never are in one."""


class SecretsKey(pulumi.ComponentResource):
    """A KMS key with an alias. Only SSM and S3 can use it, for the stack's secrets and the principals in its policy."""

    arn: pulumi.Output[str]

    def __init__(self, name: str, args: SecretsKeyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:SecretsKey", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        look_up = pulumi.InvokeOptions(parent=self)
        caller = aws.get_caller_identity(opts=look_up)
        suffix = aws.get_partition(opts=look_up).dns_suffix
        key = aws.kms.Key(
            f"{name}-key",
            description=f"Secrets of Drawbridge stack {args.stack}",
            deletion_window_in_days=DELETION_WINDOW,
            policy=render_key_policy(args, caller.arn, suffix),
            tags=contract.tags(args.stack, "secrets"),
            opts=child,
        )
        aws.kms.Alias(f"{name}-alias", name=contract.key_alias(args.stack), target_key_id=key.key_id, opts=child)
        self.arn = key.arn
        self.register_outputs({"arn": self.arn})


def render_key_policy(args: SecretsKeyArgs, deployer: str, suffix: str) -> str:
    """Return the key's policy as JSON; `deployer` is an ARN as STS reports it, `suffix` that of the partition's names.

    Conditions name the principals, because KMS refuses a policy whose `Principal` does not exist yet. Source: AWS KMS
    Developer Guide, "Key policies in AWS KMS", "Condition keys for AWS KMS" and "AWS global condition context keys".
    """
    partition, account = deployer.split(":")[1], deployer.split(":")[4]
    root = f"arn:{partition}:iam::{account}:root"
    stack = contract.Names(args.stack)

    def statement(
        sid: str,
        principal: str,
        actions: Sequence[str],
        principals: Sequence[str],
        service: str,
        encryption_context: Mapping[str, Sequence[str]],
    ) -> dict[str, Any]:
        patterns = {f"kms:EncryptionContext:{key}": list(values) for key, values in encryption_context.items()}
        via = f"{service}.{args.region}.{suffix}"
        return {
            "Sid": sid,
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": list(actions),
            "Resource": "*",
            "Condition": {
                "StringEquals": {"kms:CallerAccount": account, "kms:ViaService": via},
                "ArnLike": {"aws:PrincipalArn": list(principals)},
                "StringLike": patterns,
            },
        }

    def parameters(paths: Sequence[str]) -> dict[str, list[str]]:
        # SSM gives KMS the parameter's ARN as encryption context.
        base = f"arn:{partition}:ssm:{args.region}:{account}:parameter"
        return {"PARAMETER_ARN": [f"{base}{path}" for path in paths]}

    operators = list_principals(deployer, args.users)
    manage = {"Sid": "Manage", "Effect": "Allow", "Principal": {"AWS": root}, "Action": list(MANAGE), "Resource": "*"}
    statements = [
        manage,
        statement("Operators", "*", USE, operators, "ssm", parameters([f"{stack.root}/*"])),
        *(
            statement(
                f"Gateway{number}",
                "*",
                ["kms:Decrypt"],
                [f"arn:{partition}:iam::{account}:role/{role}"],
                "ssm",
                parameters(paths),
            )
            for number, (role, paths) in enumerate(args.readers.items(), start=1)
        ),
    ]
    # S3 gives KMS the object's ARN. Also while bundles are in SSM: those that move there are read from S3.
    objects = {"aws:s3:arn": [f"arn:{partition}:s3:::{args.bundles_bucket}/{stack.bundle_keys}/*"]}
    if args.bundles_bucket:
        statements.append(statement("OperatorsS3", "*", USE_BY_S3, operators, "s3", objects))
    if args.kit_users:
        users = [f"arn:{partition}:iam::{account}:user/{stack.kit_user('*')}"]
        # The account as principal leaves the decision to the user's own policy, which names one bundle.
        bundles = parameters([f"{stack.clients}/*"])
        statements.append(statement("Kits", root, ["kms:Decrypt"], users, "ssm", bundles))
        if args.bundles_bucket:
            statements.append(statement("KitsS3", root, ["kms:Decrypt"], users, "s3", objects))
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def list_principals(deployer: str, users: Sequence[str]) -> list[str]:
    """Return patterns of `aws:PrincipalArn` for the users and, unless they include it, the deployer.

    A policy with the deployer in its users is the same whichever of them deploys.

    >>> list_principals("arn:aws:sts::123456789012:assumed-role/admin/alice", [])
    ['arn:aws:iam::123456789012:role/admin', 'arn:aws:iam::123456789012:role/*/admin']
    """
    patterns = _principal_patterns(deployer)
    is_listed = any(fnmatchcase(user, pattern) for user in users for pattern in patterns)
    return [*sorted(users), *([] if is_listed else patterns)]


def _principal_patterns(arn: str) -> list[str]:
    """Return patterns for the principal of a session: STS leaves out a role's path, but role names are unique."""
    head, _, session = arn.partition(":assumed-role/")
    if not session:
        return [arn]
    role, account = session.split("/")[0], head.replace(":sts:", ":iam:")
    return [f"{account}:role/{role}", f"{account}:role/*/{role}"]
