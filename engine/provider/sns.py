"""Manage SNS topics, their policies and their subscriptions."""

import json
from typing import Any

from engine.provider.resource_type import (
    ClientError,
    ResourceType,
    differs,
    not_found,
    register,
    tag_changes,
    tag_list,
    tag_map,
)
from engine.provider.values import Props
from engine.provider.vpc import document


class _Sns(ResourceType):
    @property
    def sns(self) -> Any:
        """The SNS client."""
        return self.aws.client("sns")

    def topic_attributes(self, arn: str) -> dict[str, str] | None:
        """Return a topic's attributes, or None if it does not exist."""
        try:
            return dict(self.sns.get_topic_attributes(TopicArn=arn)["Attributes"])
        except ClientError as error:
            if not_found(error):
                return None
            raise

    def set_topic_attribute(self, arn: str, name: str, value: str | None) -> None:
        """Set one attribute of a topic."""
        self.sns.set_topic_attributes(TopicArn=arn, AttributeName=name, AttributeValue=value)


#: Attributes that Pulumi's provider sets to 0 on every new topic whose inputs do not have them.
_SAMPLE_RATES = tuple(
    f"{endpoint}SuccessFeedbackSampleRate" for endpoint in ("Application", "Firehose", "HTTP", "Lambda", "SQS")
)


@register
class Topic(_Sns):
    token = "aws:sns/topic:Topic"
    replace_on_change = frozenset({"name"})
    updatable = frozenset({"displayName", "tags"})
    autoname = "name"
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        arn = str(self.sns.create_topic(Name=inputs["name"], Tags=tag_list(inputs.get("tags")))["TopicArn"])
        if inputs.get("displayName"):
            self.set_topic_attribute(arn, "DisplayName", inputs["displayName"])
        for rate in _SAMPLE_RATES:
            self.set_topic_attribute(arn, rate, "0")
        return arn

    def read(self, id: str, inputs: Props) -> Props | None:
        attributes = self.topic_attributes(id)
        if attributes is None:
            return None
        tags = tag_map(self.sns.list_tags_for_resource(ResourceArn=id)["Tags"])
        return {"arn": id, "owner": attributes.get("Owner", ""), "tags": tags, "tagsAll": tags}

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "displayName"):
            self.set_topic_attribute(id, "DisplayName", news.get("displayName") or "")
        removed, changed = tag_changes(olds, news)
        if removed:
            self.sns.untag_resource(ResourceArn=id, TagKeys=removed)
        if changed:
            self.sns.tag_resource(ResourceArn=id, Tags=tag_list(changed))

    def delete(self, id: str, outputs: Props) -> None:
        self.sns.delete_topic(TopicArn=id)

    def find(self, inputs: Props) -> list[str]:
        arn = self.aws.arn("sns", inputs["name"])
        return [arn] if self.topic_attributes(arn) is not None else []


@register
class TopicPolicy(_Sns):
    token = "aws:sns/topicPolicy:TopicPolicy"
    replace_on_change = frozenset({"arn"})
    updatable = frozenset({"policy"})
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        self.set_topic_attribute(inputs["arn"], "Policy", document(inputs["policy"]))
        return str(inputs["arn"])

    def read(self, id: str, inputs: Props) -> Props | None:
        attributes = self.topic_attributes(id)
        return None if attributes is None else {"owner": attributes.get("Owner", "")}

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "policy"):
            self.set_topic_attribute(id, "Policy", document(news["policy"]))

    def delete(self, id: str, outputs: Props) -> None:
        # No topic is without a policy; Pulumi's provider puts AWS's own back.
        self.set_topic_attribute(id, "Policy", default_policy(id))

    def find(self, inputs: Props) -> list[str]:
        return [inputs["arn"]] if self.topic_attributes(inputs["arn"]) is not None else []


def default_policy(topic: str) -> str:
    """Return the policy that a new topic has: its account may do everything (Amazon SNS API Reference)."""
    actions = (
        *("GetTopicAttributes", "SetTopicAttributes", "AddPermission", "RemovePermission", "DeleteTopic"),
        *("Subscribe", "ListSubscriptionsByTopic", "Publish", "Receive"),
    )
    statement = {
        "Sid": "__default_statement_ID",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": [f"SNS:{action}" for action in actions],
        "Resource": topic,
        "Condition": {"StringEquals": {"AWS:SourceOwner": topic.split(":")[4]}},
    }
    return json.dumps({"Version": "2008-10-17", "Id": "__default_policy_ID", "Statement": [statement]})


@register
class TopicSubscription(_Sns):
    token = "aws:sns/topicSubscription:TopicSubscription"
    replace_on_change = frozenset({"topic", "protocol", "endpoint"})

    def create(self, inputs: Props) -> str:
        # The recipient of an e-mail confirms later, and AWS gives a subscription that waits for that an ARN as well.
        response = self.sns.subscribe(
            TopicArn=inputs["topic"],
            Protocol=inputs["protocol"],
            Endpoint=inputs["endpoint"],
            ReturnSubscriptionArn=True,
        )
        return str(response["SubscriptionArn"])

    def read(self, id: str, inputs: Props) -> Props | None:
        try:
            attributes = self.sns.get_subscription_attributes(SubscriptionArn=id)["Attributes"]
        except ClientError as error:
            if not_found(error):
                return None
            raise
        return {"arn": id, "pendingConfirmation": attributes.get("PendingConfirmation") == "true"}

    def delete(self, id: str, outputs: Props) -> None:
        try:
            self.sns.unsubscribe(SubscriptionArn=id)
        except ClientError as error:
            # AWS forgets such a subscription by itself, with its topic or after a few days.
            if "pending confirmation" not in str(error):
                raise
