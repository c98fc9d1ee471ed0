"""Read alarms, metrics and instances out of moto, and write what their evaluation changes."""

import json
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from moto.cloudwatch.models import Alarm, MetricAggregatedDatum, MetricDatum, cloudwatch_backends
from moto.ec2.models import ec2_backends
from moto.sns.models import sns_backends

from lab.alarm_states import AlarmState, MetricAlarm, Sample
from lab.alarms import CHECKS, Metric, WatchedAlarm
from lab.api.iam import ACCOUNT, Call, is_allowed_by_resource

_EC2 = "AWS/EC2"
#: How long EC2's own metrics are kept; CloudWatch keeps them for 15 days.
_RETENTION = timedelta(hours=3)


class MotoAlarmStore:
    """Implements `lab.alarms.AlarmStore`; `lock` is held while moto's objects are read or changed."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock

    def regions(self) -> list[str]:
        """Return the AWS regions with alarms."""
        with self._lock:
            return [region for region, backend in cloudwatch_backends[ACCOUNT].items() if backend.alarms]

    def list_alarms(self, region: str) -> list[WatchedAlarm]:
        """Return a region's alarms of one metric and statistic; others are not evaluated."""
        with self._lock:
            alarms = cloudwatch_backends[ACCOUNT][region].alarms.values()
            return [_convert_alarm(alarm) for alarm in alarms if alarm.metric_name and alarm.statistic]

    def read_samples(self, region: str) -> dict[Metric, list[Sample]]:
        """Return a region's data by metric."""
        samples: dict[Metric, list[Sample]] = {}
        with self._lock:
            for datum in cloudwatch_backends[ACCOUNT][region].metric_data:
                metric = (datum.namespace, datum.name, _sort_dimensions(datum.dimensions))
                samples.setdefault(metric, []).append(_convert_datum(datum))
        return samples

    def put_status_checks(self, region: str, now: datetime, failed: Callable[[str, str], bool]) -> None:
        """Send EC2's metrics of each running instance; `failed` says so by instance and check."""
        with self._lock:
            backend = cloudwatch_backends[ACCOUNT][region]
            # A clock that is set forward by days would make them many.
            backend.metric_data[:] = [
                datum for datum in backend.metric_data if datum.namespace != _EC2 or _time(datum) >= now - _RETENTION
            ]
            for reservation in ec2_backends[ACCOUNT][region].all_reservations():
                for instance in (i for i in reservation.instances if i.state == "running"):
                    dimensions = [{"Name": "InstanceId", "Value": instance.id}]
                    for check in CHECKS:
                        value = float(failed(instance.id, check))
                        name = f"StatusCheckFailed_{check}"
                        backend.metric_data.append(MetricDatum(_EC2, name, value, dimensions, now, "Count"))

    def set_state(self, region: str, alarm: WatchedAlarm, state: AlarmState, reason: str) -> None:
        """Put an alarm into another state."""
        with self._lock:
            cloudwatch_backends[ACCOUNT][region].set_alarm_state(alarm.name, reason, "{}", str(state))

    def publish(self, topic: str, alarm: WatchedAlarm, subject: str, message: str) -> None:
        """Publish to a topic; raises `PermissionError` if its policy does not let the alarm."""
        region = topic.split(":")[3]
        with self._lock:
            backend = sns_backends[ACCOUNT][region]
            context = {"aws:SourceArn": alarm.arn, "aws:SourceAccount": ACCOUNT, "aws:SourceOwner": ACCOUNT}
            call = Call("sns", "sns:Publish", (topic,), context)
            policy = json.loads(backend.get_topic(topic).policy)
            if not is_allowed_by_resource(policy, {"*", "cloudwatch.amazonaws.com"}, call):
                raise PermissionError(f"the policy of {topic} does not let CloudWatch publish for {alarm.arn}")
            backend.publish(message=message, arn=topic, subject=subject[:100])


def _convert_alarm(alarm: Alarm) -> WatchedAlarm:
    enabled = alarm.actions_enabled
    return WatchedAlarm(
        name=alarm.name,
        arn=alarm.alarm_arn,
        description=alarm.description or "",
        configuration=MetricAlarm(
            statistic=alarm.statistic,
            comparison_operator=alarm.comparison_operator,
            threshold=float(alarm.threshold),
            period=int(alarm.period),
            evaluation_periods=int(alarm.evaluation_periods),
            datapoints_to_alarm=int(alarm.datapoints_to_alarm or alarm.evaluation_periods),
            treat_missing_data=alarm.treat_missing_data or "missing",
        ),
        metric=(alarm.namespace, alarm.metric_name, _sort_dimensions(alarm.dimensions)),
        state=AlarmState(alarm.state_value),
        actions={
            AlarmState.ALARM: tuple(alarm.alarm_actions or ()) if enabled else (),
            AlarmState.OK: tuple(alarm.ok_actions or ()) if enabled else (),
            AlarmState.INSUFFICIENT_DATA: tuple(alarm.insufficient_data_actions or ()) if enabled else (),
        },
    )


def _sort_dimensions(dimensions: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(dimension.name), str(dimension.value)) for dimension in dimensions))


def _convert_datum(datum: Any) -> Sample:
    if isinstance(datum, MetricAggregatedDatum):
        return Sample(_time(datum), datum.sum, datum.min, datum.max, datum.sample_count)
    return Sample(_time(datum), datum.value, datum.value, datum.value)


def _time(datum: Any) -> datetime:
    time: datetime = datum.timestamp
    return time.replace(tzinfo=None)
