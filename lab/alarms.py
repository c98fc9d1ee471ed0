"""Evaluate the alarms of a region once a minute, and do what they are for: publish to topics, recover and reboot.

Sources: Amazon CloudWatch User Guide, "Alarm evaluation" and "Alarm actions"; Amazon EC2 User Guide, "Status checks for
Amazon EC2 instances".
"""

import json
import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from lab.alarm_states import AlarmState, MetricAlarm, Sample, evaluate, read_points
from lab.clock import Clock

LOG = logging.getLogger("lab")
MINUTE = timedelta(minutes=1)

#: EC2's status checks, by the end of their metrics' names.
CHECKS = ("System", "Instance")


#: A metric: its namespace, its name, and its dimensions in the order of their names.
Metric = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchedAlarm:
    """An alarm of a region, with its actions."""

    name: str
    arn: str
    description: str
    configuration: MetricAlarm
    metric: Metric
    state: AlarmState
    actions: dict[AlarmState, tuple[str, ...]]
    """ARNs by the state that they are for; none while the alarm's actions are disabled."""


class AlarmStore(Protocol):
    """The alarms, metrics, topics and instances of an API."""

    def regions(self) -> list[str]:
        """Return the AWS regions with alarms."""

    def list_alarms(self, region: str) -> list[WatchedAlarm]:
        """Return a region's metric alarms."""

    def read_samples(self, region: str) -> Mapping[Metric, Sequence[Sample]]:
        """Return a region's data by metric."""

    def put_status_checks(self, region: str, now: datetime, failed: Callable[[str, str], bool]) -> None:
        """Send EC2's metrics of each running instance; `failed` says so by instance and check."""

    def set_state(self, region: str, alarm: WatchedAlarm, state: AlarmState, reason: str) -> None:
        """Put an alarm into another state."""

    def publish(self, topic: str, alarm: WatchedAlarm, subject: str, message: str) -> None:
        """Publish to a topic, if its policy lets the alarm; raises `PermissionError`."""


class Alarms:
    """Evaluates alarms on the clock's minutes.

    Args:
        store: has the alarms and metrics.
        clock: the time of CloudWatch.
        recover: moves an instance to other hardware.
        reboot: reboots an instance.
    """

    def __init__(
        self,
        store: AlarmStore,
        clock: Clock,
        *,
        recover: Callable[[str], None],
        reboot: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._ec2_actions = {"recover": (recover, "System"), "reboot": (reboot, "Instance")}
        self._failed: set[tuple[str, str]] = set()
        self._lock = threading.RLock()
        self._evaluated = clock.now()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)

    def start(self) -> None:
        """Evaluate from now on once a minute."""
        self._thread.start()

    def stop(self) -> None:
        """Evaluate no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def fail_check(self, instance: str, check: str) -> None:
        """Have a status check of an instance fail until the action that cures it; raises ValueError."""
        if check not in CHECKS:
            raise ValueError(f"{check} is not a status check; use one of {', '.join(CHECKS)}")
        self._failed.add((instance, check))

    def set_forward(self, duration: timedelta) -> None:
        """Set the clock forward, and evaluate at each minute on the way."""
        with self._lock:
            self._clock.set_forward(duration)
            self.evaluate_due()

    def evaluate_due(self) -> None:
        """Evaluate at each minute since the last evaluation."""
        with self._lock:
            while self._evaluated + MINUTE <= self._clock.now():
                self._evaluated += MINUTE
                for region in self._store.regions():
                    self._evaluate_region(region, self._evaluated)

    def _run(self) -> None:
        while not self._stopped.wait(1):
            try:
                self.evaluate_due()
            except Exception:
                LOG.error("the alarms could not be evaluated: %s", traceback.format_exc())

    def _evaluate_region(self, region: str, now: datetime) -> None:
        self._store.put_status_checks(
            region, now - MINUTE / 2, lambda instance, check: (instance, check) in self._failed
        )
        samples = self._store.read_samples(region)
        for alarm in self._store.list_alarms(region):
            points = read_points(alarm.configuration, samples.get(alarm.metric, ()), now)
            state = evaluate(alarm.configuration, points, alarm.state)
            if state is not alarm.state:
                self._change(region, alarm, state, points, now)

    def _change(
        self, region: str, alarm: WatchedAlarm, state: AlarmState, points: list[bool | None], now: datetime
    ) -> None:
        words = {True: "breaching", False: "not breaching", None: "missing"}
        reason = f"Data points from the oldest on: {', '.join(words[point] for point in points)}"
        self._store.set_state(region, alarm, state, reason)
        LOG.info("alarm %s: %s to %s (%s)", alarm.name, alarm.state, state, reason)
        for action in alarm.actions[state]:
            try:
                self._act(region, alarm, state, action, reason, now)
            except Exception as error:
                # CloudWatch does not check actions beforehand, and notes a failure in the alarm's history.
                LOG.error("alarm %s: the action %s failed: %s", alarm.name, action, error)

    def _act(
        self, region: str, alarm: WatchedAlarm, state: AlarmState, action: str, reason: str, now: datetime
    ) -> None:
        service = action.split(":")[2]
        if service == "sns":
            message = render_message(region, alarm, state, reason, now)
            self._store.publish(action, alarm, f'{state}: "{alarm.name}" in {region}', message)
        elif service == "automate":
            act, check = self._ec2_actions[action.rpartition(":")[2]]
            instance = dict(alarm.metric[2])["InstanceId"]
            act(instance)
            self._failed.discard((instance, check))


def render_message(region: str, alarm: WatchedAlarm, state: AlarmState, reason: str, now: datetime) -> str:
    """Return the JSON that CloudWatch publishes when an alarm changes its state."""
    configuration = alarm.configuration
    namespace, name, dimensions = alarm.metric
    return json.dumps(
        {
            "AlarmName": alarm.name,
            "AlarmDescription": alarm.description,
            "AWSAccountId": alarm.arn.split(":")[4],
            "NewStateValue": state,
            "NewStateReason": reason,
            "StateChangeTime": f"{now.isoformat(timespec='milliseconds')}+0000",
            "Region": region,
            "AlarmArn": alarm.arn,
            "OldStateValue": alarm.state,
            "Trigger": {
                "MetricName": name,
                "Namespace": namespace,
                "Statistic": configuration.statistic.upper(),
                "Dimensions": [{"name": key, "value": value} for key, value in dimensions],
                "Period": configuration.period,
                "EvaluationPeriods": configuration.evaluation_periods,
                "ComparisonOperator": configuration.comparison_operator,
                "Threshold": configuration.threshold,
                "TreatMissingData": configuration.treat_missing_data,
            },
        }
    )
