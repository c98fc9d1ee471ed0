"""Destroy what stacks that are past their end have in the account, by tags and names and without Pulumi's state.

It deletes only what `leftovers` lists as the stack's, so whatever else is in its VPC stays, and with it the VPC.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

import contract
from drawbridge.operate.account import DENIED_CODES, Account, translate_aws_errors
from drawbridge.operate.claims import list_claims, parse_moment, release_claims
from drawbridge.operate.leftovers import Leftover, find_leftovers

#: Seconds between two rounds, and without progress until it gives up: an instance takes some minutes to terminate.
POLL, TIMEOUT = 5.0, 15 * 60.0

#: Days for which KMS keeps a key that is to be deleted (AWS KMS API Reference, ScheduleKeyDeletion: at least 7).
KEY_WINDOW = 7

#: Codes of what has been deleted meanwhile.
_GONE_CODES = ("NotFound", "NoSuchEntity", "NoSuchBucket", "NoSuchHostedZone", "ResourceNotFoundException")

Progress = Callable[[str], None]
Delete = Callable[[Account, str], object]


@dataclass(frozen=True, slots=True)
class Remainder:
    """A resource that could not be deleted."""

    resource: Leftover
    reason: str


def reap_stack(
    account: Account, progress: Progress, *, poll: float = POLL, timeout: float = TIMEOUT
) -> list[Remainder]:
    """Delete all resources of the stack `account.stack`, and release its claims; return what could not be deleted.

    Whoever calls it knows that the stack is past its end. `poll` is the time between two rounds and `timeout` the one
    without progress after which it gives up, in seconds. Raises `AwsError` if the stack cannot be looked at.
    """
    deadline, count = time.monotonic() + timeout, 0
    remainders: list[Remainder] | None = None
    while resources := list(_list_deletable(account)):
        if remainders is not None:
            is_denied = bool(remainders) and all(_is_denied(entry.reason) for entry in remainders)
            if len(resources) < count:
                deadline = time.monotonic() + timeout
            elif is_denied or time.monotonic() > deadline:
                return remainders or [Remainder(resource, "AWS still lists it") for resource in resources]
            time.sleep(poll)
        count = len(resources)
        remainders = _delete_round(account, resources, progress)
    release_claims(account, [claim for claim in list_claims(account) if claim.stack == account.stack])
    return []


def _list_deletable(account: Account) -> Iterable[Leftover]:
    """Yield the stack's resources of this region; IAM's are listed with those of all regions."""
    for resource in find_leftovers(account):
        if resource.kind == "role" and not resource.name.endswith(f"-{account.session.region_name}"):
            continue
        if resource.kind == "user" and not _is_user_past(account, resource.name):
            continue
        yield resource


def _is_user_past(account: Account, name: str) -> bool:
    """Return whether a user itself is past its end: it may be that of a stack of this name in another region."""
    with translate_aws_errors(account.stack):
        tags = account.client("iam").list_user_tags(UserName=name)["Tags"]
    ends = [tag["Value"] for tag in tags if tag["Key"] == contract.END_TAG]
    try:
        return bool(ends) and parse_moment(ends[0]) <= datetime.now(UTC)
    except ValueError:
        return False


def _delete_round(account: Account, resources: list[Leftover], progress: Progress) -> list[Remainder]:
    """Try to delete each resource, in an order in which AWS takes it; return those that AWS refused."""
    remainders: list[Remainder] = []
    for stage in STAGES:
        for kind, delete in stage.items():
            for resource in (resource for resource in resources if resource.kind == kind):
                progress(f"deleting {resource.kind} {resource.name}")
                if reason := _try(delete, account, resource.name):
                    remainders.append(Remainder(resource, reason))
        # What bears the stack's tags last says until the end that the stack is past its end.
        if any(resource.kind in stage for resource in resources):
            break
    return remainders


def _try(delete: Delete, account: Account, name: str) -> str:
    """Return why AWS refused to delete a resource, empty if it is gone."""
    try:
        delete(account, name)
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        return "" if code.endswith(_GONE_CODES) else f"{code}: {message}"
    return ""


def _is_denied(reason: str) -> bool:
    return reason.partition(":")[0] in DENIED_CODES


def _delete_address(account: Account, name: str) -> None:
    ec2 = account.client("ec2")
    for address in ec2.describe_addresses(AllocationIds=[name])["Addresses"]:
        if "AssociationId" in address:
            ec2.disassociate_address(AssociationId=address["AssociationId"])
    ec2.release_address(AllocationId=name)


def _delete_interface(account: Account, name: str) -> None:
    """Delete an interface, and the routes that lead to it, which the tables of an existing VPC have too."""
    ec2 = account.client("ec2")
    (interface,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[name])["NetworkInterfaces"]
    filters = [{"Name": "vpc-id", "Values": [interface["VpcId"]]}]
    for table in ec2.describe_route_tables(Filters=filters)["RouteTables"]:
        for route in (route for route in table["Routes"] if route.get("NetworkInterfaceId") == name):
            keys = ("DestinationCidrBlock", "DestinationIpv6CidrBlock")
            destination = {key: route[key] for key in keys if route.get(key)}
            ec2.delete_route(RouteTableId=table["RouteTableId"], **destination)
    ec2.delete_network_interface(NetworkInterfaceId=name)


def _delete_route_table(account: Account, name: str) -> None:
    ec2 = account.client("ec2")
    for table in ec2.describe_route_tables(RouteTableIds=[name])["RouteTables"]:
        for association in table["Associations"]:
            ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
    ec2.delete_route_table(RouteTableId=name)


def _delete_internet_gateway(account: Account, name: str) -> None:
    ec2 = account.client("ec2")
    for gateway in ec2.describe_internet_gateways(InternetGatewayIds=[name])["InternetGateways"]:
        for attachment in gateway["Attachments"]:
            ec2.detach_internet_gateway(InternetGatewayId=name, VpcId=attachment["VpcId"])
    ec2.delete_internet_gateway(InternetGatewayId=name)


def _delete_zone(account: Account, name: str) -> None:
    """Delete a hosted zone by the name and ID that `leftovers` shows, with all records but those of the zone itself."""
    route53 = account.client("route53")
    apex, _, id = name.rstrip(")").partition(" (")
    for page in route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=id):
        changes = [
            {"Action": "DELETE", "ResourceRecordSet": record}
            for record in page["ResourceRecordSets"]
            if record["Type"] not in ("NS", "SOA") or record["Name"].rstrip(".") != apex
        ]
        if changes:
            route53.change_resource_record_sets(HostedZoneId=id, ChangeBatch={"Changes": changes})
    route53.delete_hosted_zone(Id=id)


def _delete_topic(account: Account, name: str) -> None:
    sns = account.client("sns")
    for page in sns.get_paginator("list_topics").paginate():
        for arn in (topic["TopicArn"] for topic in page["Topics"]):
            if arn.rpartition(":")[2] == name:
                sns.delete_topic(TopicArn=arn)


def _delete_bucket(account: Account, name: str) -> None:
    s3 = account.client("s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        versions = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        objects = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in versions]
        if objects:
            s3.delete_objects(Bucket=name, Delete={"Objects": objects, "Quiet": True})
    s3.delete_bucket(Bucket=name)


def _delete_user(account: Account, name: str) -> None:
    iam = account.client("iam")
    for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    for policy in iam.list_user_policies(UserName=name)["PolicyNames"]:
        iam.delete_user_policy(UserName=name, PolicyName=policy)
    iam.delete_user(UserName=name)


def _delete_profile(account: Account, name: str) -> None:
    iam = account.client("iam")
    for role in iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]:
        iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=role["RoleName"])
    iam.delete_instance_profile(InstanceProfileName=name)


def _delete_role(account: Account, name: str) -> None:
    iam = account.client("iam")
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=name, PolicyName=policy)
    iam.delete_role(RoleName=name)


def _call(service: str, method: str, key: str, *, is_list: bool = False, **options: Any) -> Delete:
    """Return a function that deletes a resource by one call, which has its name under `key`."""

    def delete(account: Account, name: str) -> object:
        return getattr(account.client(service), method)(**{key: [name] if is_list else name}, **options)

    return delete


#: Kinds of resources with what deletes them, in the order in which AWS takes it. A later stage begins once nothing of
#: an earlier one is left.
STAGES: tuple[dict[str, Delete], ...] = (
    {
        "alarm": _call("cloudwatch", "delete_alarms", "AlarmNames", is_list=True),
        "instance": _call("ec2", "terminate_instances", "InstanceIds", is_list=True),
        "topic": _delete_topic,
        "parameter": _call("ssm", "delete_parameter", "Name"),
        "log group": _call("logs", "delete_log_group", "logGroupName"),
        "user": _delete_user,
        "address": _delete_address,
        "interface": _delete_interface,
        "endpoint": _call("ec2", "delete_vpc_endpoints", "VpcEndpointIds", is_list=True),
        "volume": _call("ec2", "delete_volume", "VolumeId"),
        "hosted zone": _delete_zone,
        "security group": _call("ec2", "delete_security_group", "GroupId"),
        "subnet": _call("ec2", "delete_subnet", "SubnetId"),
        "route table": _delete_route_table,
        "network ACL": _call("ec2", "delete_network_acl", "NetworkAclId"),
        "egress-only gateway": _call("ec2", "delete_egress_only_internet_gateway", "EgressOnlyInternetGatewayId"),
        "internet gateway": _delete_internet_gateway,
        "VPC": _call("ec2", "delete_vpc", "VpcId"),
        "bucket": _delete_bucket,
        "instance profile": _delete_profile,
    },
    {"role": _delete_role, "key alias": _call("kms", "delete_alias", "AliasName")},
    {"key": _call("kms", "schedule_key_deletion", "KeyId", PendingWindowInDays=KEY_WINDOW)},
)
