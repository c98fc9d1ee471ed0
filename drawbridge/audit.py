"""What of a stack there is in an account, to show that nothing is left when it is destroyed.

It asks the services themselves, by the stack's tags and names (`contract`), and never Pulumi's state: what a state has
forgotten is what an audit is for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

import contract
from drawbridge.account import Account, telling_aws_errors


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that bears the stack's name."""

    kind: str
    name: str


def things(account: Account) -> list[Thing]:
    """Everything of the stack that is in the account and region; raises `AwsError` where AWS does not tell."""
    with telling_aws_errors(account.stack):
        finders = (_network, _parameters, _buckets, _identities, _logs)
        return sorted(
            {thing for find in finders for thing in find(account)}, key=lambda thing: (thing.kind, thing.name)
        )


def _network(account: Account) -> Iterator[Thing]:
    """All that EC2 keeps, by its tags; an instance that was terminated is told of for an hour more, and is none."""
    ec2 = account.client("ec2")
    tagged: dict[str, set[tuple[str, str]]] = {}
    for key, value in contract.tags(account.stack).items():
        pages = ec2.get_paginator("describe_tags").paginate(
            Filters=[{"Name": "key", "Values": [key]}, {"Name": "value", "Values": [value]}]
        )
        tagged[key] = {(tag["ResourceType"], tag["ResourceId"]) for page in pages for tag in page["Tags"]}
    for kind, name in set.intersection(*tagged.values()):
        if kind != "instance" or not _terminated(ec2, name):
            yield Thing(f"ec2 {kind}", name)


def _terminated(ec2: Any, instance: str) -> bool:
    filters = [{"Name": "instance-id", "Values": [instance]}]
    found = ec2.describe_instances(Filters=filters)["Reservations"]
    return all(i["State"]["Name"] in ("terminated", "shutting-down") for r in found for i in r["Instances"])


def _parameters(account: Account) -> Iterator[Thing]:
    # Only their names are asked for, no value.
    pages = (
        account.client("ssm")
        .get_paginator("describe_parameters")
        .paginate(ParameterFilters=[{"Key": "Path", "Option": "Recursive", "Values": [account.names.root]}])
    )
    yield from (Thing("ssm parameter", found["Name"]) for page in pages for found in page["Parameters"])


def _buckets(account: Account) -> Iterator[Thing]:
    prefix = f"{contract.PROJECT}-{account.stack}-"
    for found in account.client("s3").list_buckets()["Buckets"]:
        # Another stack's name may begin with this one's; an account's number does not.
        if found["Name"].startswith(prefix) and found["Name"].removeprefix(prefix)[:12].isdigit():
            yield Thing("s3 bucket", found["Name"])


def _identities(account: Account) -> Iterator[Thing]:
    iam, wanted = account.client("iam"), contract.tags(account.stack)

    def ours(tags: list[dict[str, str]]) -> bool:
        return wanted.items() <= {tag["Key"]: tag["Value"] for tag in tags}.items()

    prefix = contract.resource_name(account.stack, "")
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            if role["RoleName"].startswith(prefix) and ours(iam.list_role_tags(RoleName=role["RoleName"])["Tags"]):
                yield Thing("iam role", role["RoleName"])
    for page in iam.get_paginator("list_users").paginate():
        for user in page["Users"]:
            if user["UserName"].startswith(prefix) and ours(iam.list_user_tags(UserName=user["UserName"])["Tags"]):
                yield Thing("iam user", user["UserName"])
    for page in iam.get_paginator("list_instance_profiles").paginate():
        for profile in page["InstanceProfiles"]:
            name = profile["InstanceProfileName"]
            if name == contract.resource_name(account.stack, f"gateway-{account.session.region_name}"):
                yield Thing("iam instance profile", name)


def _logs(account: Account) -> Iterator[Thing]:
    try:
        pages = (
            account.client("logs").get_paginator("describe_log_groups").paginate(logGroupNamePrefix=account.names.root)
        )
        groups = [found["logGroupName"] for page in pages for found in page["logGroups"]]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return
        raise
    yield from (Thing("log group", name) for name in groups if f"{name}/".startswith(f"{account.names.root}/"))
