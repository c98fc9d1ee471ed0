"""Each alarm of a stack goes off once, by what the gateway's own script sends, and reaches the topic's subscribers.

CloudWatch is the lab's: moto, and the lab's evaluation on a clock that is set forward. Does not prove that AWS's own
evaluates so; tests/unit/lab/test_alarm_states.py has the tables of its page.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto.cloudwatch.models import cloudwatch_backends

from components.alarms import Alarms, AlarmsArgs
from components.alerts import Alerts, AlertsArgs
from contract import Names
from lab import alarms as evaluation
from lab.api.iam import ACCOUNT
from lab.api.moto_alarms import MotoAlarmStore
from lab.api.moto_patches import keep_alarm_states, patched, stamp_metrics
from lab.clock import Clock
from tests.program.conftest import REGION, deploy_into_moto, empty_aws
from tests.support.sources import load_script
from userdata.cloud_config import FILES

#: The gateway's script.
METRICS = load_script(FILES / "metrics.py")

NAMESPACE = "Drawbridge/dev"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:drawbridge-dev-alerts"
READY = {"MetricName": "Ready", "Value": 1, "Unit": "None"}

Entries = list[dict[str, Any]]


@dataclass
class Watched:
    """A deployed stack with alarms, and who listens to its topic."""

    instance: str
    clock: Clock
    alarms: evaluation.Alarms
    queue: str
    actions: list[tuple[str, str]]
    """What EC2 was told: action and instance."""

    def send(self, entries: Entries) -> None:
        cloudwatch = boto3.client("cloudwatch", region_name=REGION)
        if entries:
            cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=entries)

    def run(self, minutes: int, entries: Entries | None = None) -> None:
        """Let some minutes pass, with the gateway's entries every five of them."""
        for _ in range(0, minutes, 5):
            self.send([READY] if entries is None else entries)
            self.alarms.set_forward(timedelta(minutes=5))

    def read_mail(self) -> list[tuple[str, str]]:
        """Return alarm and state of each message since the last time."""
        sqs, messages = boto3.client("sqs", region_name=REGION), []
        while batch := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                published = json.loads(json.loads(message["Body"])["Message"])
                messages.append((published["AlarmName"].partition("-alarm-")[2], published["NewStateValue"]))
                assert "docs/alarms.md" in published["AlarmDescription"]
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return sorted(messages)


def create_alarms(instance: str) -> None:
    """Declare the topic and the alarms as the program does for a gateway."""
    topic = Alerts("alerts", AlertsArgs(stack="dev", region=REGION, email="operator@example.com")).topic
    names = Names("dev")
    Alarms("alarms", AlarmsArgs(names=names, region=REGION, topic=topic, instance_id=instance, recoverable=True))


@pytest.fixture(scope="module")
def deployed() -> Iterator[Watched]:
    clock = Clock()
    with empty_aws(), patched(keep_alarm_states, stamp_metrics(clock.now)):
        ec2 = boto3.client("ec2", region_name=REGION)
        image = ec2.describe_images()["Images"][0]["ImageId"]
        instance = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
        stack = deploy_into_moto({"aws:region": REGION}, "dev", lambda: create_alarms(instance))
        actions: list[tuple[str, str]] = []
        alarms = evaluation.Alarms(
            MotoAlarmStore(threading.RLock()),
            clock,
            recover=lambda instance: actions.append(("recover", instance)),
            reboot=lambda instance: actions.append(("reboot", instance)),
        )
        queue = stack.sqs.create_queue(QueueName="mail")["QueueUrl"]
        arn = stack.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        stack.sns.subscribe(TopicArn=TOPIC, Protocol="sqs", Endpoint=arn)
        yield Watched(instance, clock, alarms, queue, actions)


@pytest.fixture
def healthy(deployed: Watched) -> Watched:
    """The stack after half an hour without a fault, whatever was before."""
    backend = cloudwatch_backends[ACCOUNT][REGION]
    backend.metric_data.clear()
    for alarm in backend.alarms.values():
        alarm.state_value = "INSUFFICIENT_DATA"
    deployed.run(30)
    assert {state for _, state in deployed.read_mail()} == {"OK"}
    deployed.actions.clear()
    return deployed


def days_left(days: int) -> Entries:
    """Return what the script sends once a day for a client whose certificate ends then."""
    now = datetime.now(UTC)
    certificates = METRICS.client_metrics((now + timedelta(days=days)).isoformat(), now)
    return list(METRICS.earliest_end(certificates))


#: What the gateway sends in a healthy state that is near to an alarm, and what sets the alarm off.
CASES: dict[str, tuple[Entries, Entries]] = {
    "not-ready": ([READY], [{**READY, "Value": int(METRICS.is_ready('{"state": "degraded"}', datetime.now(UTC)))}]),
    "certificate": ([READY, *days_left(31)], [READY, *days_left(29)]),
    "fix-waiting": (
        [READY, {"MetricName": "DaysFixWaiting", "Value": 7}],
        [READY, {"MetricName": "DaysFixWaiting", "Value": 8}],
    ),
    "displaced-sessions": (
        [READY],
        [READY, {"MetricName": "DisplacedSessions", "Value": 6, "Unit": "Count"}],
    ),
    "connection-table": (
        [READY, *METRICS.table_metrics("52000", "65536")],
        [READY, *METRICS.table_metrics("53000", "65536")],
    ),
    "drops": ([READY, *METRICS.drop_metrics(29_000, 0, 300)], [READY, *METRICS.drop_metrics(31_000, 0, 300)]),
}


@pytest.mark.parametrize("alarm", CASES)
def test_an_alarm_goes_off_once_and_not_before(alarm: str, healthy: Watched) -> None:
    quiet, loud = CASES[alarm]
    healthy.run(15, quiet)
    assert healthy.read_mail() == [], "the control"
    healthy.run(15, loud)
    assert healthy.read_mail() == [(alarm, "ALARM")]
    healthy.run(15, loud)
    assert healthy.read_mail() == []


def test_a_gateway_that_falls_silent_is_reported_and_so_is_its_return(healthy: Watched) -> None:
    healthy.run(10, [])
    assert healthy.read_mail() == [], "the control"
    healthy.run(15, [])
    assert healthy.read_mail() == [("heartbeat", "ALARM")]
    healthy.run(60, [])
    assert healthy.read_mail() == []
    healthy.run(10)
    assert healthy.read_mail() == [("heartbeat", "OK")]


def test_a_gateway_that_is_ready_again_is_reported(healthy: Watched) -> None:
    healthy.run(15, [{**READY, "Value": 0}])
    healthy.run(15)
    assert healthy.read_mail() == [("not-ready", "ALARM"), ("not-ready", "OK")]


@pytest.mark.parametrize(("check", "action"), [("System", "recover"), ("Instance", "reboot")])
def test_a_failed_status_check_is_reported_and_cured(check: str, action: str, healthy: Watched) -> None:
    healthy.alarms.fail_check(healthy.instance, check)
    healthy.run(15)
    assert healthy.actions == [(action, healthy.instance)]
    assert healthy.read_mail() == [(f"{check.lower()}-check", "ALARM")]


def test_a_topic_takes_nothing_from_others(healthy: Watched) -> None:
    """The control of the topic's policy: an alarm of another name is evaluated, and may not publish."""
    boto3.client("cloudwatch", region_name=REGION).put_metric_alarm(
        AlarmName="somebody-elses",
        AlarmDescription="docs/alarms.md",
        Namespace=NAMESPACE,
        MetricName="Ready",
        Statistic="Maximum",
        Period=300,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[TOPIC],
    )
    healthy.run(10)
    cloudwatch = boto3.client("cloudwatch", region_name=REGION)
    (alarm,) = cloudwatch.describe_alarms(AlarmNames=["somebody-elses"])["MetricAlarms"]
    cloudwatch.delete_alarms(AlarmNames=["somebody-elses"])
    assert alarm["StateValue"] == "ALARM"
    assert healthy.read_mail() == []
