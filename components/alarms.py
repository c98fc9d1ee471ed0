"""CloudWatch alarms on one gateway."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws

import contract

#: Seconds.
DAY, HOUR, FIVE_MINUTES = 86400, 3600, 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """A condition on one of the gateway's own metrics, with an alarm that goes off when it holds.

    `missing` is CloudWatch's word for what a period without data counts as (Amazon CloudWatch User Guide, "Configuring
    how CloudWatch alarms treat missing data").
    """

    name: str
    metric: str
    statistic: Literal["Minimum", "Maximum", "Sum", "SampleCount"]
    comparison: Literal["LessThanThreshold", "GreaterThanThreshold"]
    threshold: float
    period: int
    """Seconds."""
    periods: int = 1
    """Periods in a row in which the threshold is crossed."""
    missing: Literal["breaching", "notBreaching", "ignore"]
    text: str
    """What has happened, for the e-mail."""
    reports_end: bool = False
    """Whether the end of the alarm is sent as well."""


#: The alarms of a gateway's metrics. What is sent seldom, or only if it is remarkable, is not missed.
CONDITIONS = (
    Condition(
        name="heartbeat",
        metric="Ready",
        statistic="SampleCount",
        comparison="LessThanThreshold",
        threshold=1,
        period=FIVE_MINUTES,
        missing="breaching",
        # CloudWatch looks at more periods than it is asked to, and takes data in any of them for enough.
        text="The gateway has sent nothing for about 15 minutes",
        reports_end=True,
    ),
    Condition(
        name="not-ready",
        metric="Ready",
        statistic="Minimum",
        comparison="LessThanThreshold",
        threshold=1,
        period=FIVE_MINUTES,
        periods=2,
        missing="ignore",
        text="The gateway is not ready: it does not run what the stack asks for, or something failed",
        reports_end=True,
    ),
    Condition(
        name="certificate",
        metric="DaysLeft",
        statistic="Minimum",
        comparison="LessThanThreshold",
        threshold=30,
        period=DAY,
        missing="ignore",
        text="A certificate of the server, the authority or a client ends in less than 30 days",
    ),
    Condition(
        name="fix-waiting",
        metric="DaysFixWaiting",
        statistic="Maximum",
        comparison="GreaterThanThreshold",
        threshold=7,
        period=DAY,
        missing="notBreaching",
        text="A security fix has been waiting for more than 7 days on the gateway",
    ),
    Condition(
        name="displaced-sessions",
        metric="DisplacedSessions",
        statistic="Sum",
        comparison="GreaterThanThreshold",
        threshold=5,
        period=HOUR,
        missing="notBreaching",
        text="More than 5 sessions in an hour ended because the client's bundle connected once more: it may be stolen",
    ),
    Condition(
        name="connection-table",
        metric="ConnectionTable",
        statistic="Maximum",
        comparison="GreaterThanThreshold",
        threshold=80,
        period=FIVE_MINUTES,
        missing="notBreaching",
        text="The gateway's connection table is more than 80 % full",
    ),
    Condition(
        name="drops",
        metric="DroppedPackets",
        statistic="Sum",
        comparison="GreaterThanThreshold",
        threshold=30_000,
        period=FIVE_MINUTES,
        missing="notBreaching",
        text="The gateway's filter has dropped more than 100 packets a second for 5 minutes",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AlarmsArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    topic: pulumi.Input[str]
    """ARN of the SNS topic for the alarms."""
    instance_id: pulumi.Input[str]
    """The gateway's instance now."""
    recoverable: bool
    """Whether EC2 can move the instance to other hardware."""


class Alarms(pulumi.ComponentResource):
    """An alarm for each of `CONDITIONS`, and one for each of EC2's status checks, which EC2 then acts upon."""

    def __init__(self, name: str, args: AlarmsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Alarms", name, {}, opts)
        for condition in CONDITIONS:
            self._create_alarm(name, args, condition)
        partition = aws.get_partition(opts=pulumi.InvokeOptions(parent=self)).partition
        actions = f"arn:{partition}:automate:{args.region}:ec2"
        # The numbers of minutes are AWS's advice: so reboot and recovery of an instance do not meet (Amazon EC2 User
        # Guide, "Add reboot actions to Amazon CloudWatch alarms").
        self._create_status_alarm(
            name,
            args,
            check="System",
            minutes=2,
            actions=[f"{actions}:recover"] if args.recoverable else [],
            text="AWS reports a fault of the gateway's host"
            + (", and moves the instance to another one" if args.recoverable else ""),
        )
        self._create_status_alarm(
            name,
            args,
            check="Instance",
            minutes=3,
            actions=[f"{actions}:reboot"],
            text="The gateway's system does not answer AWS, which reboots it",
        )
        self.register_outputs({})

    def _create_alarm(self, name: str, args: AlarmsArgs, condition: Condition) -> None:
        aws.cloudwatch.MetricAlarm(
            f"{name}-{condition.name}",
            name=args.names.alarm(condition.name),
            alarm_description=render_description(args.names, condition.name, condition.text),
            namespace=args.names.metrics,
            metric_name=condition.metric,
            statistic=condition.statistic,
            comparison_operator=condition.comparison,
            threshold=condition.threshold,
            period=condition.period,
            evaluation_periods=condition.periods,
            treat_missing_data=condition.missing,
            alarm_actions=[args.topic],
            ok_actions=[args.topic] if condition.reports_end else None,
            tags=args.names.tags(f"alarm-{condition.name}"),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _create_status_alarm(
        self, name: str, args: AlarmsArgs, *, check: str, minutes: int, actions: Sequence[str], text: str
    ) -> None:
        alarm = f"{check.lower()}-check"
        aws.cloudwatch.MetricAlarm(
            f"{name}-{alarm}",
            name=args.names.alarm(alarm),
            alarm_description=render_description(args.names, alarm, text),
            namespace="AWS/EC2",
            metric_name=f"StatusCheckFailed_{check}",
            # A replaced instance has another ID; the alarm follows it in place.
            dimensions={"InstanceId": args.instance_id},
            statistic="Maximum",
            comparison_operator="GreaterThanOrEqualToThreshold",
            threshold=1,
            period=60,
            evaluation_periods=minutes,
            # AWS advises it for alarms with actions of EC2's.
            treat_missing_data="missing",
            alarm_actions=[args.topic, *actions],
            tags=args.names.tags(f"alarm-{alarm}"),
            opts=pulumi.ResourceOptions(parent=self),
        )


def render_description(names: contract.Names, alarm: str, text: str) -> str:
    """Return an alarm's description, which the e-mail has: what has happened, and where the remedy is."""
    return f"{text} (stack {names.stack}, gateway {names.gateway}). What to do: docs/alarms.md, {alarm}."
