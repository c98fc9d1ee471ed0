"""List every AWS resource that still carries a stack's tags or names.

It asks the services themselves, by the tags and names of `contract`, and never Pulumi's state: an audit is for those
resources that the state has lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

import contract
from drawbridge.operate.account import Account, translate_aws_errors


@dataclass(frozen=True, slots=True)
class Leftover:
    """A resource with the stack's tags or name."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class PendingKey:
    """A KMS key of the stack that AWS deletes by itself, and does not charge for."""

    id: str
    deletion: datetime


def find_leftovers(account: Account) -> list[Leftover]:
    """Return every resource of the stack in the account and region; raises `AwsError`."""
    with translate_aws_errors(account.stack):
        finders = (
            *(_network, _parameters, _find_buckets, _find_identities, _find_logs, _find_zones, _find_keys),
            *(_find_topics, _find_alarms),
        )
        return sorted(
            {leftover for find in finders for leftover in find(account)},
            key=lambda leftover: (leftover.kind, leftover.name),
        )


def find_pending_keys(account: Account) -> list[PendingKey]:
    """Return the stack's KMS keys that wait for their deletion; raises `AwsError`."""
    with translate_aws_errors(account.stack):
        return [
            PendingKey(key["KeyId"], key["DeletionDate"])
            for key in _list_keys(account)
            if key["KeyState"] == _PENDING_DELETION
        ]


#: State of a key that nobody can use any more; AWS deletes it after the waiting period.
_PENDING_DELETION = "PendingDeletion"

#: Kinds of EC2 resources: the call that lists them, the key of the list, the key of the id.
_EC2_KINDS = {
    "address": ("describe_addresses", "Addresses", "AllocationId"),
    "egress-only gateway": ("describe_egress_only_internet_gateways", "EgressOnlyInternetGateways",
                            "EgressOnlyInternetGatewayId"),
    "endpoint": ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
    "interface": ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    "internet gateway": ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "network ACL": ("describe_network_acls", "NetworkAcls", "NetworkAclId"),
    "route table": ("describe_route_tables", "RouteTables", "RouteTableId"),
    "security group": ("describe_security_groups", "SecurityGroups", "GroupId"),
    "subnet": ("describe_subnets", "Subnets", "SubnetId"),
    "volume": ("describe_volumes", "Volumes", "VolumeId"),
    "VPC": ("describe_vpcs", "Vpcs", "VpcId"),
}  # fmt: skip


def _network(account: Account) -> Iterator[Leftover]:
    ours = [{"Name": f"tag:{key}", "Values": [value]} for key, value in contract.tags(account.stack).items()]
    yield from (Leftover(resource.kind, resource.id) for resource in list_ec2_resources(account, ours))


@dataclass(frozen=True, slots=True)
class Ec2Resource:
    """A resource of EC2 that is not deleted."""

    kind: str
    id: str
    details: dict[str, Any]
    """EC2's description of it."""

    @property
    def tags(self) -> dict[str, str]:
        """Return its tags."""
        # An interface alone has them under another key.
        tags = self.details.get("Tags") or self.details.get("TagSet") or []
        return {tag["Key"]: tag["Value"] for tag in tags}


def list_ec2_resources(account: Account, filters: list[dict[str, Any]]) -> Iterator[Ec2Resource]:
    """Yield EC2's resources by filters of tags. DescribeTags still shows deleted ones, so each kind is listed."""
    ec2 = account.client("ec2")
    for kind, (call, listed, key) in _EC2_KINDS.items():
        pages = (
            ec2.get_paginator(call).paginate(Filters=filters)
            if ec2.can_paginate(call)
            else [getattr(ec2, call)(Filters=filters)]
        )
        # EC2 lists deleted resources for a while.
        resources = (resource for page in pages for resource in page[listed])
        alive = (resource for resource in resources if resource.get("State") not in ("deleted", "deleting"))
        yield from (Ec2Resource(kind, resource[key], resource) for resource in alive)
    for page in ec2.get_paginator("describe_instances").paginate(Filters=filters):
        for instance in (i for reservation in page["Reservations"] for i in reservation["Instances"]):
            if instance["State"]["Name"] not in ("terminated", "shutting-down"):
                yield Ec2Resource("instance", instance["InstanceId"], instance)


def _parameters(account: Account) -> Iterator[Leftover]:
    # Names only: no value is read.
    pages = (
        account.client("ssm")
        .get_paginator("describe_parameters")
        .paginate(ParameterFilters=[{"Key": "Path", "Option": "Recursive", "Values": [account.names.root]}])
    )
    yield from (Leftover("parameter", parameter["Name"]) for page in pages for parameter in page["Parameters"])


def _find_buckets(account: Account) -> Iterator[Leftover]:
    prefix = f"{contract.PROJECT}-{account.stack}-"
    for bucket in account.client("s3").list_buckets()["Buckets"]:
        # Another stack's name may begin with this one's; an account's number does not.
        if bucket["Name"].startswith(prefix) and bucket["Name"].removeprefix(prefix)[:12].isdigit():
            yield Leftover("bucket", bucket["Name"])


def _find_identities(account: Account) -> Iterator[Leftover]:
    iam, stack_tags = account.client("iam"), contract.tags(account.stack)

    def ours(tags: list[dict[str, str]]) -> bool:
        return stack_tags.items() <= {tag["Key"]: tag["Value"] for tag in tags}.items()

    prefix = contract.resource_name(account.stack, "")
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            if role["RoleName"].startswith(prefix) and ours(iam.list_role_tags(RoleName=role["RoleName"])["Tags"]):
                yield Leftover("role", role["RoleName"])
    for page in iam.get_paginator("list_users").paginate():
        for user in page["Users"]:
            if user["UserName"].startswith(prefix) and ours(iam.list_user_tags(UserName=user["UserName"])["Tags"]):
                yield Leftover("user", user["UserName"])
    for page in iam.get_paginator("list_instance_profiles").paginate():
        for profile in page["InstanceProfiles"]:
            name = profile["InstanceProfileName"]
            gateways = (contract.Names(account.stack, letter) for letter in contract.GATEWAYS)
            region = account.session.region_name
            if name in {f"{gateway.display_name('gateway')}-{region}" for gateway in gateways}:
                yield Leftover("instance profile", name)


def _find_logs(account: Account) -> Iterator[Leftover]:
    try:
        pages = (
            account.client("logs").get_paginator("describe_log_groups").paginate(logGroupNamePrefix=account.names.root)
        )
        groups = [group["logGroupName"] for page in pages for group in page["logGroups"]]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return
        raise
    yield from (Leftover("log group", name) for name in groups if f"{name}/".startswith(f"{account.names.root}/"))


def _find_zones(account: Account) -> Iterator[Leftover]:
    """Find hosted zones by their tags; Route 53 has no regions, so those of another region's stack are left out."""
    stack_tags = contract.tags(account.stack)
    for zone, tags in _list_zones(account):
        if stack_tags.items() <= {tag["Key"]: tag["Value"] for tag in tags}.items() and _is_in_region(account, zone):
            yield Leftover("hosted zone", f"{zone['Name'].rstrip('.')} ({zone['Id'].rpartition('/')[2]})")


def _list_zones(account: Account) -> Iterator[tuple[dict[str, Any], list[dict[str, str]]]]:
    """Yield each hosted zone of the account with its tags."""
    route53 = account.client("route53")
    for page in route53.get_paginator("list_hosted_zones").paginate():
        for zone in page["HostedZones"]:
            id = zone["Id"].rpartition("/")[2]
            answer = route53.list_tags_for_resource(ResourceType="hostedzone", ResourceId=id)
            yield zone, answer["ResourceTagSet"]["Tags"]


def _is_in_region(account: Account, zone: dict[str, Any]) -> bool:
    details = account.client("route53").get_hosted_zone(Id=zone["Id"].rpartition("/")[2])
    regions = {vpc["VPCRegion"] for vpc in details.get("VPCs", [])}
    return not regions or account.session.region_name in regions


def _find_keys(account: Account) -> Iterator[Leftover]:
    """Find the key of the secrets by its tags, and its alias; a key that waits for its deletion is none."""
    yield from (Leftover("key", key["KeyId"]) for key in _list_keys(account) if key["KeyState"] != _PENDING_DELETION)
    alias = contract.key_alias(account.stack)
    for page in account.client("kms").get_paginator("list_aliases").paginate():
        yield from (Leftover("key alias", alias) for row in page["Aliases"] if row["AliasName"] == alias)


def _list_keys(account: Account) -> Iterator[dict[str, Any]]:
    """Yield the metadata of each key with the stack's tags."""
    stack_tags = contract.tags(account.stack)
    for key, tags in _list_tagged_keys(account):
        if stack_tags.items() <= {tag["TagKey"]: tag["TagValue"] for tag in tags}.items():
            yield account.client("kms").describe_key(KeyId=key)["KeyMetadata"]


def _list_tagged_keys(account: Account) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield the ID of each key of the account and region with its tags."""
    kms = account.client("kms")
    for page in kms.get_paginator("list_keys").paginate():
        for key in page["Keys"]:
            try:
                yield key["KeyId"], kms.list_resource_tags(KeyId=key["KeyId"])["Tags"]
            except ClientError as error:
                # The policy of somebody else's key may keep its tags from the account's administrators.
                if error.response["Error"]["Code"] != "AccessDeniedException":
                    raise


def _find_topics(account: Account) -> Iterator[Leftover]:
    for page in account.client("sns").get_paginator("list_topics").paginate():
        names = (topic["TopicArn"].rpartition(":")[2] for topic in page["Topics"])
        yield from (Leftover("topic", name) for name in names if name == contract.topic_name(account.stack))


def _find_alarms(account: Account) -> Iterator[Leftover]:
    yield from (Leftover("alarm", alarm["AlarmName"]) for alarm in list_alarms(account))


def list_alarms(account: Account) -> list[dict[str, Any]]:
    """Return CloudWatch's descriptions of the stack's alarms."""
    prefix = contract.alarm_prefix(account.stack)
    pages = account.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=prefix)
    return [alarm for page in pages for alarm in page["MetricAlarms"]]


def list_tagged_resources(account: Account) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield kind and tags of roles, hosted zones and keys of all stacks of the region."""
    iam, region = account.client("iam"), account.session.region_name
    prefix = f"{contract.PROJECT}-"
    for page in iam.get_paginator("list_roles").paginate():
        names = (role["RoleName"] for role in page["Roles"])
        # IAM has no regions, so a role has its region in its name.
        for name in (name for name in names if name.startswith(prefix) and name.endswith(f"-{region}")):
            yield from _if_ours("role", iam.list_role_tags(RoleName=name)["Tags"])
    for zone, tags in _list_zones(account):
        for kind, values in _if_ours("hosted zone", tags):
            if _is_in_region(account, zone):
                yield kind, values
    for key, tags in _list_tagged_keys(account):
        for kind, values in _if_ours("key", [{"Key": tag["TagKey"], "Value": tag["TagValue"]} for tag in tags]):
            if account.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] != _PENDING_DELETION:
                yield kind, values


def _if_ours(kind: str, tags: list[dict[str, str]]) -> Iterator[tuple[str, dict[str, str]]]:
    values = {tag["Key"]: tag["Value"] for tag in tags}
    if values.get("Project") == contract.PROJECT and "Stack" in values:
        yield kind, values
