"""Check that no log group and no topic of others has a name that the stack needs, before AWS refuses it.

CloudWatch Logs refuses a group whose name exists, and SNS a topic whose name exists with other tags. CloudWatch refuses
no alarm for its name or their number. Sources: Amazon CloudWatch Logs API Reference, "CreateLogGroup"; Amazon SNS API
Reference, "CreateTopic"; Amazon CloudWatch User Guide, "CloudWatch service quotas".
"""

from collections.abc import Iterable, Mapping
from typing import Any

import boto3
import pulumi
from botocore.exceptions import BotoCoreError, ClientError

import contract


def check_log_groups(region: str, gateways: Iterable[contract.Names]) -> None:
    """Raise `pulumi.RunError` if a log group of gateways, given by their names, exists and is not the stack's."""
    logs = boto3.Session(region_name=region).client("logs")
    for names in gateways:
        try:
            tags = _find_group_tags(logs, names.connections)
        except (BotoCoreError, ClientError) as error:
            pulumi.log.warn(f"whether log group {names.connections} exists cannot be read: {error}")
            continue
        if _is_foreign(tags, names.stack):
            raise pulumi.RunError(
                f"drawbridge:log: log group {names.connections} exists in {region} and is not stack {names.stack}'s; "
                f"delete it (aws logs delete-log-group --log-group-name {names.connections} --region {region}), or "
                "switch the connection log off: drawbridge:log.retention: none"
            )


def check_topic(region: str, stack: str) -> None:
    """Raise `pulumi.RunError` if the topic of the stack's alarms exists and is not the stack's."""
    session = boto3.Session(region_name=region)
    name = contract.topic_name(stack)
    try:
        _, partition, _, _, account, _ = session.client("sts").get_caller_identity()["Arn"].split(":", 5)
        topic = f"arn:{partition}:sns:{region}:{account}:{name}"
        tags = _find_topic_tags(session.client("sns"), topic)
    except (BotoCoreError, ClientError) as error:
        pulumi.log.warn(f"whether topic {name} exists cannot be read: {error}")
        return
    if _is_foreign(tags, stack):
        raise pulumi.RunError(
            f"drawbridge:alerts: topic {name} exists in {region} and is not stack {stack}'s; delete it (aws sns "
            f"delete-topic --topic-arn {topic} --region {region}), or leave drawbridge:alerts out"
        )


def _find_group_tags(logs: Any, name: str) -> Mapping[str, str] | None:
    """Return a log group's tags, None if there is no such group."""
    pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
    arns = [group["arn"] for page in pages for group in page["logGroups"] if group["logGroupName"] == name]
    # The group's own ARN ends in `:*`, which stands for its streams.
    return dict(logs.list_tags_for_resource(resourceArn=arns[0].removesuffix(":*"))["tags"]) if arns else None


def _find_topic_tags(sns: Any, topic: str) -> Mapping[str, str] | None:
    """Return a topic's tags, None if there is no such topic."""
    try:
        tags = sns.list_tags_for_resource(ResourceArn=topic)["Tags"]
    except sns.exceptions.ResourceNotFoundException:
        return None
    return {tag["Key"]: tag["Value"] for tag in tags}


def _is_foreign(tags: Mapping[str, str] | None, stack: str) -> bool:
    """Return whether something exists, so has tags, and these are not the stack's."""
    return tags is not None and not contract.tags(stack).items() <= tags.items()
