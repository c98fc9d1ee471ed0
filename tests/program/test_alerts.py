"""What the program makes of `drawbridge:alerts`. That each alarm goes off is shown in tests/unit/lab/test_alarms.py.

Does not prove that AWS sends e-mails.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

import contract
from components.alarms import CONDITIONS
from drawbridge.operate.account import Account
from drawbridge.operate.leftovers import Leftover, find_leftovers
from engine.engine import Engine
from lab.api.moto_patches import patched
from lab.api.rules import Rules
from lab.api.validation.validator import Validator
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT, Deploy, Deployment
from tests.support.lab_api import Api, serve_lab_api
from tests.support.promises import OTHER_KEY
from tools import policies

EMAIL = {"drawbridge:alerts": {"email": "operator@example.com"}}
CHECKS = ("instance-check", "system-check")
ALARMS = sorted([*(condition.name for condition in CONDITIONS), *CHECKS])
DEPLOYER = (policies.POLICIES / "deployer.json").read_text()
TOPIC = f"arn:aws:sns:{REGION}:123456789012:drawbridge-dev-alerts"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The lab's API, which judges each call, and credentials with the deployer's policy."""
    with patched(), serve_lab_api(Validator(Rules(throttle_writes=False))) as api:
        for name, value in {"AWS_ENDPOINT_URL": api.endpoint, "AWS_DEFAULT_REGION": REGION}.items():
            monkeypatch.setenv(name, value)
        for key, value in api.create_user("deployer", DEPLOYER).items():
            monkeypatch.setenv(key.upper(), value)
        yield api


def list_alarms(aws: Api | Deployment) -> dict[str, dict[str, Any]]:
    """Return each alarm by the part of its name that follows the stack's."""
    cloudwatch = aws.client("cloudwatch") if isinstance(aws, Api) else aws.cloudwatch
    alarms = cloudwatch.describe_alarms()["MetricAlarms"]
    return {alarm["AlarmName"].partition("-alarm-")[2]: alarm for alarm in alarms}


def find_watched(alarms: dict[str, dict[str, Any]]) -> set[str]:
    """Return the instances whose status checks have alarms."""
    return {dimension["Value"] for name in CHECKS for dimension in alarms[name]["Dimensions"]}


def test_alarms_come_follow_the_instance_and_leave_with_the_stack(api: Api, tmp_path: Path) -> None:
    """The address has not confirmed when the stack is destroyed."""

    def engine(**gateway: str) -> Engine:
        config = {"aws:region": REGION, **EMAIL, "drawbridge:gateway": gateway}
        return Engine(ROOT, project="drawbridge", stack="dev", config=config, state=tmp_path / "state.json")

    before = engine().up()
    alarms, sns = list_alarms(api), api.client("sns")
    assert sorted(alarms) == ALARMS
    assert {alarm["StateValue"] for alarm in alarms.values()} == {"INSUFFICIENT_DATA"}
    assert find_watched(alarms) == {before.outputs["gatewayInstanceId"]}
    (subscription,) = sns.list_subscriptions()["Subscriptions"]
    attributes = sns.get_subscription_attributes(SubscriptionArn=subscription["SubscriptionArn"])["Attributes"]
    assert (attributes["PendingConfirmation"], attributes["Endpoint"]) == ("true", "operator@example.com")
    with pytest.raises(sns.exceptions.InvalidParameterException, match="pending confirmation"):
        sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])

    after = engine(sshKey=OTHER_KEY).up()  # another cloud-config, which only a new instance reads
    assert after.outputs["gatewayInstanceId"] != before.outputs["gatewayInstanceId"]
    assert find_watched(list_alarms(api)) == {after.outputs["gatewayInstanceId"]}
    changed = {(str(step.operation), step.name) for step in after.steps if step.name.startswith("alarms-")}
    assert changed - {("same", f"alarms-{condition.name}") for condition in CONDITIONS} == {
        ("update", f"alarms-{name}") for name in CHECKS
    }, "an alarm is not replaced: it keeps its state"

    session = boto3.Session(api.keys.lab_key, api.keys.lab_secret, region_name=REGION)
    account = Account(stack="dev", session=session, endpoint=api.endpoint)
    monitored = {leftover for leftover in find_leftovers(account) if leftover.kind in ("alarm", "topic")}
    names = [f"drawbridge-dev-alarm-{name}" for name in ALARMS]
    assert monitored == {Leftover("topic", "drawbridge-dev-alerts"), *(Leftover("alarm", name) for name in names)}
    engine(sshKey=OTHER_KEY).destroy()
    assert {leftover.kind for leftover in find_leftovers(account)} & {"alarm", "topic"} == set()
    assert sns.list_subscriptions()["Subscriptions"] == []


def test_actions_and_who_may_publish(deploy: Deploy) -> None:
    stack = deploy({"aws:region": REGION, **EMAIL})
    alarms = list_alarms(stack)
    assert {action for alarm in alarms.values() for action in alarm["AlarmActions"] if ":sns:" in action} == {TOPIC}
    assert alarms["system-check"]["AlarmActions"] == [TOPIC, f"arn:aws:automate:{REGION}:ec2:recover"]
    assert alarms["instance-check"]["AlarmActions"] == [TOPIC, f"arn:aws:automate:{REGION}:ec2:reboot"]
    assert {alarm["Namespace"] for name, alarm in alarms.items() if name not in CHECKS} == {"Drawbridge/dev"}
    attributes = stack.sns.get_topic_attributes(TopicArn=TOPIC)["Attributes"]
    (statement,) = json.loads(attributes["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    pattern = f"arn:aws:cloudwatch:{REGION}:123456789012:alarm:drawbridge-dev-alarm-*"
    assert statement["Condition"]["ArnLike"] == {"aws:SourceArn": pattern}
    assert attributes["DisplayName"] == "Drawbridge dev"


def test_an_instance_that_cannot_move_to_another_host_is_only_reported(deploy: Deploy) -> None:
    stack = deploy({"aws:region": REGION, **EMAIL, "drawbridge:gateway": {"instanceType": "m6gd.medium"}})
    assert list_alarms(stack)["system-check"]["AlarmActions"] == [TOPIC]


def test_a_pair_has_one_topic_and_alarms_on_each_gateway(deploy: Deploy) -> None:
    stack = deploy(read_stack_file(ROOT / "stacks/Pulumi.pair.yaml") | EMAIL, "duo")
    alarms = list_alarms(stack)
    assert sorted(alarms) == sorted([*ALARMS, *(f"{name}-b" for name in ALARMS)])
    assert alarms["heartbeat-b"]["Namespace"] == contract.Names("duo", "b").metrics
    instances = [stack.outputs["gatewayInstanceId"], stack.outputs["pair"]["gatewayInstanceId"]]
    assert [alarms[name]["Dimensions"][0]["Value"] for name in ("system-check", "system-check-b")] == instances
    assert len(stack.sns.list_topics()["Topics"]) == 1
