"""Render IAM policies from the calls that program and command make: for who deploys, operates, and builds images.

Run it with .venv/bin/python after a call of AWS's API is new. It fails if no statement covers the call's action. The
calls are those of Pulumi's AWS provider in tests/unit/engine/provider_calls.toml, those that our code makes with boto3,
and `PROVIDER_EXTRAS`, which the recorded stack does not show.

Sources: Service Authorization Reference, for the actions' names, resource types and condition keys; IAM User Guide,
"IAM and STS quotas".
"""

import argparse
import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import botocore.session
from botocore import xform_name

ROOT = Path(__file__).resolve().parent.parent
CALLS = ROOT / "tests" / "unit" / "engine" / "provider_calls.toml"
POLICIES = ROOT / "docs" / "policies"

#: Characters of a managed policy, white space not counted.
LIMIT = 6144

SERVICES = ("ec2", "iam", "s3", "ssm", "kms", "route53", "logs", "cloudwatch", "sns", "sts")

#: Calls of the provider that the recorded stack does not make, each with the reason for it.
PROVIDER_EXTRAS: Mapping[str, str] = {
    # Tags of a resource that exists already.
    **dict.fromkeys(
        ("ec2:CreateTags", "ec2:DeleteTags", "ssm:AddTagsToResource", "ssm:RemoveTagsFromResource"), "tags change"
    ),
    **dict.fromkeys(
        (f"iam:{verb}{noun}" for verb in ("Tag", "Untag") for noun in ("Role", "User", "InstanceProfile")),
        "tags change",
    ),
    **dict.fromkeys(("s3:PutObjectTagging", "s3:DeleteObjectTagging"), "tags change"),
    # Pulumi's provider of today tags buckets by S3 Control, as far as its role may.
    **dict.fromkeys(("s3:TagResource", "s3:UntagResource", "s3:ListTagsForResource"), "the provider's newer versions"),
    "iam:PutUserPermissionsBoundary": "iam.permissionsBoundary changes",
    "iam:DeleteRolePermissionsBoundary": "iam.permissionsBoundary is removed",
    "iam:UpdateAssumeRolePolicy": "a new version changes the trust policy",
    **dict.fromkeys(("kms:TagResource", "kms:UntagResource"), "tags change"),
    **dict.fromkeys(("logs:TagResource", "logs:UntagResource"), "tags change"),
    "kms:UpdateAlias": "the key is replaced",
    "kms:UpdateKeyDescription": "a new version changes the description",
    "ec2:ModifyInstanceCreditSpecification": "an instance that is deployed gets standard credits",
    "ec2:ModifyVolume": "gateway.diskSize changes",
    "ec2:DescribeVolumesModifications": "gateway.diskSize changes",
    "ec2:ModifySubnetAttribute": "a subnet has IPv6",
    "ec2:ModifyVpcEndpoint": "network.zones changes",
    "ec2:AssociateVpcCidrBlock": "tunnel.ipv6 is new in a deployed stack",
    "ec2:DisassociateVpcCidrBlock": "tunnel.ipv6 is removed",
    "ec2:AssociateSubnetCidrBlock": "tunnel.ipv6 is new in a deployed stack",
    "ec2:DisassociateSubnetCidrBlock": "tunnel.ipv6 is removed",
    "ec2:DetachNetworkInterface": "`pulumi refresh` has seen the interface attached",
    "iam:PassRole": "the instance gets its role",
    "iam:CreateServiceLinkedRole": "the account's first alarm with an action of EC2's",
    **dict.fromkeys(
        (f"{service}:{verb}Resource" for service in ("cloudwatch", "sns") for verb in ("Tag", "Untag")), "tags change"
    ),
    # A bucket with `forceDestroy` is emptied before it is deleted.
    **dict.fromkeys(("s3:ListBucketVersions", "s3:DeleteObjectVersion"), "the bucket is emptied"),
    # Look-ups of the program (invokes).
    "ec2:DescribeAvailabilityZones": "network.zones",
    "route53:ListHostedZones": "gateway.hostedZoneId: versions of the provider differ in how they look a zone up",
    **dict.fromkeys(
        ("servicequotas:GetAWSDefaultServiceQuota", "servicequotas:GetServiceQuota"), "the region has many VPCs"
    ),
    "ssm:GetParameters": "secrets are read in one call",
}

#: Actions that operations of S3 are called, where the names differ.
S3_ACTIONS = {
    "DeleteObjects": "DeleteObject",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketAccelerateConfiguration": "GetAccelerateConfiguration",
    "GetBucketCors": "GetBucketCORS",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycle": "GetLifecycleConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketReplication": "GetReplicationConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjectsV2": "ListBucket",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}

#: What IAM asks for together with an action.
DEPENDENT = {
    "iam:CreateInstanceProfile": ("iam:TagInstanceProfile",),
    "iam:CreateRole": ("iam:TagRole",),
    "iam:CreateUser": ("iam:TagUser",),
    "cloudwatch:PutMetricAlarm": ("cloudwatch:TagResource",),
    "logs:CreateLogGroup": ("logs:TagResource",),
    "sns:CreateTopic": ("sns:TagResource",),
    "ssm:PutParameter": ("ssm:AddTagsToResource",),
    "s3:PutObject": ("s3:PutObjectTagging",),
}

#: Operations that `boto3_calls` takes for those of a wrong service, because a file has clients of several.
MISTAKEN = {f"{service}:ListTagsForResource" for service in ("cloudwatch", "logs", "sns", "ssm")}

#: Actions that need no permission.
FREE = {"sts:GetCallerIdentity"}

TAGGED = {"StringEquals": {"aws:ResourceTag/Project": "drawbridge"}}
TAGGED_ANEW = {"StringEquals": {"aws:RequestTag/Project": "drawbridge"}}
#: Types of EC2's resources that are created with tags.
CREATED = (
    "egress-only-internet-gateway",
    "elastic-ip",
    "instance",
    "internet-gateway",
    "network-acl",
    "network-interface",
    "route-table",
    "security-group",
    "subnet",
    "volume",
    "vpc",
    "vpc-endpoint",
)
#: Types of EC2's resources that a build of an image creates with tags, beside `IMAGES`.
BUILT = (
    "instance",
    "internet-gateway",
    "network-interface",
    "route-table",
    "security-group",
    "subnet",
    "volume",
    "vpc",
)
#: Images and snapshots belong to no account.
IMAGES = ("arn:aws:ec2:*::image/*", "arn:aws:ec2:*::snapshot/*")
IAM_NAMES = tuple(f"arn:aws:iam::*:{kind}/drawbridge-*" for kind in ("role", "user", "instance-profile"))


def ec2_arns(*kinds: str) -> tuple[str, ...]:
    """Return patterns of ARNs of EC2's resources of some types."""
    return tuple(f"arn:aws:ec2:*:*:{kind}/*" for kind in kinds)


def _matches(action: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(action, pattern) for pattern in patterns)


def _collapse(action: str, patterns: Iterable[str]) -> str:
    """Return the first pattern that an action matches, or else the action."""
    return next((pattern for pattern in patterns if fnmatchcase(action, pattern)), action)


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """A statement of a policy; it gets the actions of `patterns` that are needed."""

    sid: str
    patterns: Sequence[str]
    resources: Sequence[str] = ("*",)
    condition: Mapping[str, Mapping[str, str]] | None = None
    excluded: Sequence[str] = ()
    """Patterns of actions that do not belong into the statement."""
    collapsed: Sequence[str] = ()
    """Patterns that the policy has in place of the actions that they match, to stay within IAM's limit."""

    def covers(self, action: str) -> bool:
        """Return whether an action belongs into the statement."""
        return _matches(action, self.patterns) and not _matches(action, self.excluded)

    def render(self, actions: Iterable[str]) -> dict[str, object] | None:
        """Return the statement as JSON with those of `actions` that belong into it, or None if none does."""
        chosen = [action for action in actions if self.covers(action)]
        if not chosen:
            return None
        return {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": sorted({_collapse(action, self.collapsed) for action in chosen}),
            "Resource": list(self.resources),
            **({"Condition": self.condition} if self.condition else {}),
        }


#: Lets tags be written by the calls that create something, and by no other.
TAG_WHAT_IS_NEW = Statement(
    sid="TagWhatIsNew",
    patterns=("ec2:CreateTags",),
    condition={**TAGGED_ANEW, "Null": {"ec2:CreateAction": "false"}},
)


#: Calls for pools of IPAM, which belong to no region and have tags of their owner's.
IPAM = ("ec2:AllocateIpamPoolCidr", "ec2:GetIpamPoolCidrs", "ec2:ReleaseIpamPoolAllocation")
POOLS = Statement(sid="Pools", patterns=IPAM, resources=("arn:aws:ec2::*:ipam-pool/*",))

#: Lists and look-ups whose actions AWS does not restrict to resources.
UNRESTRICTED = (
    "cloudwatch:DescribeAlarms",
    "iam:ListInstanceProfiles",
    "iam:ListRoles",
    "iam:ListUsers",
    "iam:ListVirtualMFADevices",
    "kms:ListAliases",
    "kms:ListKeys",
    "logs:DescribeLogGroups",
    "route53:ListHostedZones*",
    "s3:ListAllMyBuckets",
    "servicequotas:Get*",
    "sns:ListTopics",
    "ssm:DescribeParameters",
)
#: Actions of SNS that AWS does not restrict to topics.
SUBSCRIPTIONS = ("sns:GetSubscriptionAttributes", "sns:Unsubscribe")
#: Rules of security groups go in and out, and there is no third direction.
RULES = ("ec2:AuthorizeSecurityGroup*", "ec2:RevokeSecurityGroup*")
LOOK = (
    Statement(sid="DescribeEc2", patterns=("ec2:Describe*",), collapsed=("ec2:Describe*",)),
    Statement(sid="Look", patterns=UNRESTRICTED),
)

DEPLOYER = (
    *LOOK,
    # What is created gets the tag in the same call.
    Statement(
        sid="Create",
        patterns=("ec2:AllocateAddress", "ec2:Create*", "ec2:RunInstances"),
        excluded=("ec2:CreateNetworkAclEntry", "ec2:CreateRoute", "ec2:CreateTags"),
        resources=ec2_arns(*CREATED),
        condition=TAGGED_ANEW,
    ),
    TAG_WHAT_IS_NEW,
    # What exists must have the tag already: also the VPC in which a subnet is created.
    Statement(
        sid="UseWhatHasTheTag",
        patterns=("ec2:*",),
        excluded=("ec2:AllocateAddress", "ec2:CreateInternetGateway", "ec2:CreateVpc", "ec2:Describe*", *IPAM),
        condition=TAGGED,
        collapsed=("ec2:Associate*", "ec2:Delete*", "ec2:Disassociate*", *RULES),
    ),
    POOLS,
    # A rule's security group must have the tag.
    Statement(
        sid="Rules",
        patterns=("ec2:AuthorizeSecurityGroup*", "ec2:ModifySecurityGroupRules", "ec2:RevokeSecurityGroup*"),
        resources=ec2_arns("security-group-rule"),
        collapsed=RULES,
    ),
    # Subnets go back to their VPC's default network ACL, which AWS creates without a tag.
    Statement(
        sid="DefaultAcl",
        patterns=("ec2:ReplaceNetworkAclAssociation",),
        resources=ec2_arns("network-acl", "subnet"),
    ),
    Statement(
        sid="LaunchImage",
        patterns=("ec2:RunInstances",),
        resources=IMAGES,
    ),
    Statement(
        sid="Identities",
        patterns=("iam:*",),
        excluded=(*UNRESTRICTED, "iam:PassRole", "iam:CreateServiceLinkedRole"),
        resources=IAM_NAMES,
        collapsed=("iam:Delete*", "iam:Get*", "iam:List*", "iam:Tag*", "iam:Untag*"),
    ),
    Statement(
        sid="PassRole",
        patterns=("iam:PassRole",),
        resources=IAM_NAMES[:1],
        condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    ),
    # CloudWatch acts on instances with a role that the account's first such alarm creates.
    Statement(
        sid="AlarmRole",
        patterns=("iam:CreateServiceLinkedRole",),
        resources=("arn:aws:iam::*:role/aws-service-role/events.amazonaws.com/*",),
    ),
    Statement(
        sid="Alarms",
        patterns=("cloudwatch:*", "sns:*"),
        excluded=(*UNRESTRICTED, *SUBSCRIPTIONS),
        resources=("arn:aws:cloudwatch:*:*:alarm:drawbridge-*", "arn:aws:sns:*:*:drawbridge-*"),
        collapsed=("cloudwatch:*", "sns:*"),
    ),
    Statement(sid="Subscriptions", patterns=SUBSCRIPTIONS),
    Statement(
        sid="Parameters",
        patterns=("ssm:*",),
        excluded=UNRESTRICTED,
        resources=("arn:aws:ssm:*:*:parameter/drawbridge/*",),
    ),
    Statement(
        sid="Images",
        patterns=("ssm:GetParameter",),
        resources=("arn:aws:ssm:*::parameter/aws/service/debian/*",),
    ),
    Statement(
        sid="Bucket",
        patterns=("s3:*",),
        excluded=UNRESTRICTED,
        resources=("arn:aws:s3:::drawbridge-*",),
        collapsed=("s3:Delete*", "s3:Get*", "s3:List*"),
    ),
    Statement(
        sid="NewKey",
        patterns=("kms:CreateKey", "kms:TagResource"),
        condition=TAGGED_ANEW,
    ),
    Statement(
        sid="Key",
        patterns=("kms:*",),
        excluded=(*UNRESTRICTED, "kms:CreateKey"),
        resources=("arn:aws:kms:*:*:key/*",),
        condition=TAGGED,
    ),
    Statement(
        sid="KeyAlias",
        patterns=("kms:*Alias",),
        resources=("arn:aws:kms:*:*:alias/drawbridge-*",),
    ),
    Statement(
        sid="Logs",
        patterns=("logs:*",),
        excluded=UNRESTRICTED,
        resources=("arn:aws:logs:*:*:log-group:/drawbridge/*",),
        collapsed=("logs:*",),
    ),
    Statement(sid="NewZone", patterns=("route53:CreateHostedZone",)),
    Statement(
        sid="Zones",
        patterns=("route53:*",),
        excluded=(*UNRESTRICTED, "route53:CreateHostedZone"),
        resources=("arn:aws:route53:::hostedzone/*", "arn:aws:route53:::change/*"),
        collapsed=("route53:Change*", "route53:Get*", "route53:List*"),
    ),
)

OPERATOR = (
    *LOOK,
    # `drawbridge access allow-me`: the rule and its group have the tag.
    Statement(
        sid="FollowAddress",
        patterns=("ec2:ModifySecurityGroupRules",),
        resources=ec2_arns("security-group", "security-group-rule"),
        condition=TAGGED,
    ),
    Statement(
        sid="Console",
        patterns=("ec2:GetConsoleOutput",),
        resources=ec2_arns("instance"),
        condition=TAGGED,
    ),
    Statement(sid="Identities", patterns=("iam:List*Tags",), resources=IAM_NAMES),
    # Neither the authority's keys nor the gateway's, but the register of certificates.
    Statement(
        sid="Parameters",
        patterns=("ssm:Get*",),
        resources=tuple(
            f"arn:aws:ssm:*:*:parameter/drawbridge/{name}"
            for name in (
                *("*/authority/issued", "*/authority/issued/*", "*/clients", "*/clients/*"),
                *("*/kits/*", "*/release", "*/report", "*/ssh-host-key"),
                # Claims on names and ranges, with each stack's owner and end.
                "_claims",
            )
        ),
    ),
    Statement(sid="Bucket", patterns=("s3:ListBucket",), resources=("arn:aws:s3:::drawbridge-*",)),
    Statement(
        sid="Objects",
        patterns=("s3:GetObject",),
        resources=tuple(f"arn:aws:s3:::drawbridge-*/{name}/*" for name in ("kits", "clients", "releases")),
    ),
    Statement(
        sid="ConnectionLog",
        patterns=("logs:FilterLogEvents",),
        resources=("arn:aws:logs:*:*:log-group:/drawbridge/*",),
    ),
    Statement(
        sid="Keys",
        patterns=("kms:DescribeKey", "kms:ListResourceTags"),
        resources=("arn:aws:kms:*:*:key/*",),
    ),
    Statement(
        sid="Zones",
        patterns=("route53:GetHostedZone", "route53:ListTagsForResource"),
        resources=("arn:aws:route53:::hostedzone/*",),
    ),
)

REAPER = (
    *LOOK,
    Statement(sid="Ec2", patterns=("ec2:*",), excluded=("ec2:Describe*", *IPAM), condition=TAGGED),
    POOLS,
    Statement(sid="Identities", patterns=("iam:*",), excluded=UNRESTRICTED, resources=IAM_NAMES),
    Statement(
        sid="Alarms",
        patterns=("cloudwatch:DeleteAlarms", "sns:DeleteTopic"),
        resources=("arn:aws:cloudwatch:*:*:alarm:drawbridge-*", "arn:aws:sns:*:*:drawbridge-*"),
    ),
    # Secrets are deleted without being read.
    Statement(
        sid="Parameters",
        patterns=("ssm:DeleteParameter*",),
        resources=("arn:aws:ssm:*:*:parameter/drawbridge/*",),
    ),
    Statement(
        sid="Claims",
        patterns=("ssm:GetParameter*",),
        resources=("arn:aws:ssm:*:*:parameter/drawbridge/_claims", "arn:aws:ssm:*:*:parameter/drawbridge/*/report"),
    ),
    Statement(sid="Buckets", patterns=("s3:*",), excluded=UNRESTRICTED, resources=("arn:aws:s3:::drawbridge-*",)),
    Statement(sid="Logs", patterns=("logs:DeleteLogGroup",), resources=("arn:aws:logs:*:*:log-group:/drawbridge/*",)),
    Statement(
        sid="Keys",
        patterns=("kms:DescribeKey", "kms:ListResourceTags"),
        resources=("arn:aws:kms:*:*:key/*",),
    ),
    Statement(
        sid="DeleteKey",
        patterns=("kms:DeleteAlias", "kms:ScheduleKeyDeletion"),
        resources=("arn:aws:kms:*:*:key/*",),
        condition=TAGGED,
    ),
    Statement(sid="KeyAlias", patterns=("kms:DeleteAlias",), resources=("arn:aws:kms:*:*:alias/drawbridge-*",)),
    Statement(
        sid="Zones", patterns=("route53:*",), excluded=UNRESTRICTED, resources=("arn:aws:route53:::hostedzone/*",)
    ),
)

IMAGE_BUILDER = (
    LOOK[0],
    # What is created gets the tag in the same call.
    Statement(
        sid="Create",
        patterns=("ec2:Create*", "ec2:RunInstances"),
        excluded=("ec2:CreateRoute", "ec2:CreateTags"),
        resources=(*ec2_arns(*BUILT), *IMAGES),
        condition=TAGGED_ANEW,
    ),
    TAG_WHAT_IS_NEW,
    Statement(
        sid="UseWhatHasTheTag",
        patterns=("ec2:*",),
        excluded=("ec2:CreateInternetGateway", "ec2:CreateTags", "ec2:CreateVpc", "ec2:Describe*"),
        condition=TAGGED,
    ),
    Statement(sid="LaunchImage", patterns=("ec2:RunInstances",), resources=IMAGES),
    Statement(
        sid="DebianImages",
        patterns=("ssm:GetParameter",),
        resources=("arn:aws:ssm:*::parameter/aws/service/debian/*",),
    ),
)

#: Tags are given in the calls that create.
IMAGE_BUILDER_EXTRAS = ("ec2:CreateTags",)

#: Buckets are versioned, so their objects are deleted by version.
REAPER_EXTRAS = ("s3:DeleteObjectVersion",)

#: Links to kits are signed, not called: whoever opens one has the operator's permission.
OPERATOR_EXTRAS = ("s3:GetObject",)


@cache
def operations(service: str) -> Mapping[str, str]:
    """Return the operations of a service by boto3's names of them."""
    names = botocore.session.Session().get_service_model(service).operation_names
    return {xform_name(name): name for name in names}


def boto3_calls(files: Iterable[Path]) -> Iterator[str]:
    """Yield the operations that files name, such as ``ssm:PutParameter``, of the services that they have clients of."""
    words: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                words.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
    for service in words.intersection(SERVICES):
        yield from (f"{service}:{operations(service)[word]}" for word in words & operations(service).keys())


def provider_calls() -> Iterator[str]:
    """Yield the operations that the provider is known to call."""
    data = tomllib.loads(CALLS.read_text())
    yield from data["reads"]
    for phases in data["calls"].values():
        for call in (call for calls in phases.values() for call in calls):
            operation = call.partition("(")[0]
            yield next(f"{name}:{operation}" for name in SERVICES if operation in operations(name).values())


def actions(calls: Iterable[str]) -> set[str]:
    """Return the actions of some operations, with those that they depend on."""
    named = set()
    for call in calls:
        service, _, operation = call.partition(":")
        named.add(f"s3:{S3_ACTIONS.get(operation, operation)}" if service == "s3" else call)
    return (named | {action for call in named for action in DEPENDENT.get(call, ())}) - FREE


def policy(statements: Sequence[Statement], needed: set[str]) -> str:
    """Return a policy's JSON; raises ValueError if no statement covers an action, or the policy is too long."""
    if missing := sorted(action for action in needed if not any(s.covers(action) for s in statements)):
        raise ValueError(f"no statement of tools/policies.py covers {', '.join(missing)}")
    rendered = [json_value for statement in statements if (json_value := statement.render(needed))]
    text = json.dumps({"Version": "2012-10-17", "Statement": rendered}, indent=2) + "\n"
    if (length := len(re.sub(r"\s", "", text))) > LIMIT:
        raise ValueError(f"a policy has {length} characters, and IAM takes {LIMIT}")
    return text


def files() -> dict[str, str]:
    """Return the text of each policy, by its file's name; raises ValueError."""
    operate = ROOT / "drawbridge" / "operate"
    # Whoever backs up or restores an authority has its keys, as the deployer has.
    backup = operate / "stack_backup.py"
    images = {operate / "image_build.py", operate / "prepared_images.py"}
    # Whoever deploys a new stack has claimed its name and ranges.
    creation = {operate / f"{name}.py" for name in ("address_pools", "claims", "stack_creation")}
    program = [*(ROOT / "components").glob("*.py"), ROOT / "engine" / "provider" / "route53.py", backup, *creation]
    reaper = operate / "reaper.py"
    reaped = [reaper, *(operate / f"{name}.py" for name in ("account", "claims", "leftovers", "stack_inventory"))]
    command = {*operate.glob("*.py"), *(ROOT / "drawbridge" / "doctor").glob("*.py")}
    operated = {*boto3_calls(command - images - creation - {backup, reaper})} - MISTAKEN
    deployer = actions([*provider_calls(), *({*boto3_calls(program)} - MISTAKEN), *PROVIDER_EXTRAS])
    return {
        "deployer.json": policy(DEPLOYER, deployer),
        "operator.json": policy(OPERATOR, actions([*OPERATOR_EXTRAS, *operated])),
        "reaper.json": policy(
            REAPER, actions([*REAPER_EXTRAS, *({*boto3_calls(reaped)} - MISTAKEN - {"ssm:PutParameter"})])
        ),
        "image-builder.json": policy(IMAGE_BUILDER, actions([*IMAGE_BUILDER_EXTRAS, *boto3_calls(images)])),
    }


def main() -> int:
    """Write the files; with --check, write nothing and exit 1 if they would change."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a file would change")
    check = parser.parse_args().check
    try:
        texts = files()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    stale = [
        name for name, text in texts.items() if not (POLICIES / name).exists() or (POLICIES / name).read_text() != text
    ]
    if check:
        if stale:
            print(f"{' and '.join(stale)}: out of date; run .venv/bin/python tools/policies.py", file=sys.stderr)
        return bool(stale)
    POLICIES.mkdir(exist_ok=True)
    for name, text in texts.items():
        (POLICIES / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
