"""The SNS topic that a stack's alarms are sent to, and the address that it forwards them to."""

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertsArgs:
    stack: str
    region: str
    email: str
    """Who gets the alarms. AWS asks there first, and sends nothing until that is confirmed."""


class Alerts(pulumi.ComponentResource):
    """A topic, to which only the stack's alarms may publish, with one e-mail subscription."""

    topic: pulumi.Output[str]
    """ARN."""

    def __init__(self, name: str, args: AlertsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Alerts", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        topic = aws.sns.Topic(
            f"{name}-topic",
            name=contract.topic_name(args.stack),
            # The sender's name in the e-mails.
            display_name=f"Drawbridge {args.stack}",
            tags=contract.tags(args.stack, "alerts"),
            opts=child,
        )
        aws.sns.TopicPolicy(
            f"{name}-policy",
            arn=topic.arn,
            policy=topic.arn.apply(lambda arn: render_topic_policy(args, arn)),
            opts=child,
        )
        aws.sns.TopicSubscription(f"{name}-email", topic=topic.arn, protocol="email", endpoint=args.email, opts=child)
        self.topic = topic.arn
        self.register_outputs({"topic": self.topic})


def render_topic_policy(args: AlertsArgs, topic: str) -> str:
    """Return the topic's policy as JSON: alarms of the stack may publish, as CloudWatch.

    Source: Amazon SNS Developer Guide, "Allow any AWS resource to publish"; Amazon CloudWatch User Guide, "Notifying
    users on alarm changes".
    """
    partition, account = topic.split(":")[1], topic.split(":")[4]
    alarms = f"arn:{partition}:cloudwatch:{args.region}:{account}:alarm:{contract.alarm_prefix(args.stack)}*"
    statement = {
        "Sid": "Alarms",
        "Effect": "Allow",
        "Principal": {"Service": "cloudwatch.amazonaws.com"},
        "Action": "sns:Publish",
        "Resource": topic,
        "Condition": {"ArnLike": {"aws:SourceArn": alarms}, "StringEquals": {"aws:SourceAccount": account}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
