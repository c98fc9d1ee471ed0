"""Evaluate a metric alarm as CloudWatch does: which state follows from data points, and from those that are missing.

Source: Amazon CloudWatch User Guide, "Alarm evaluation" and "Configuring how CloudWatch alarms treat missing data".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

#: Periods that CloudWatch looks at beyond an alarm's own, to fill gaps. AWS's page says that it depends and shows two.
MORE_PERIODS = 2


class AlarmState(StrEnum):
    """State of an alarm, in CloudWatch's words."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@dataclass(frozen=True, slots=True)
class Sample:
    """Data that a metric got at one moment: a single value, or the statistics of several."""

    time: datetime
    sum: float
    minimum: float
    maximum: float
    count: float = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricAlarm:
    """A metric alarm's configuration, in the words of PutMetricAlarm."""

    statistic: str
    comparison_operator: str
    threshold: float
    period: int
    evaluation_periods: int
    datapoints_to_alarm: int
    treat_missing_data: str = "missing"


_STATISTICS: Mapping[str, Callable[[Sequence[Sample]], float]] = {
    "SampleCount": lambda samples: sum(sample.count for sample in samples),
    "Sum": lambda samples: sum(sample.sum for sample in samples),
    "Average": lambda samples: sum(sample.sum for sample in samples) / sum(sample.count for sample in samples),
    "Minimum": lambda samples: min(sample.minimum for sample in samples),
    "Maximum": lambda samples: max(sample.maximum for sample in samples),
}

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}


def read_points(alarm: MetricAlarm, samples: Sequence[Sample], now: datetime) -> list[bool | None]:
    """Return for each period of the evaluation range, the oldest first, whether its data breaches the threshold.

    A period without data is None. The last period ends at `now`.
    """
    points: list[bool | None] = []
    for number in range(alarm.evaluation_periods + MORE_PERIODS, 0, -1):
        start = now - timedelta(seconds=alarm.period * number)
        end = start + timedelta(seconds=alarm.period)
        in_period = [sample for sample in samples if start <= sample.time < end]
        if in_period:
            value = _STATISTICS[alarm.statistic](in_period)
            points.append(_COMPARISONS[alarm.comparison_operator](value, alarm.threshold))
        else:
            points.append(None)
    return points


def evaluate(alarm: MetricAlarm, points: Sequence[bool | None], current: AlarmState) -> AlarmState:
    """Return the state that follows from an evaluation range's data points (`read_points`).

    Real data points count before missing ones: only if there are fewer than the evaluation periods, missing ones are
    filled in, as many as are needed.
    """
    real = [point for point in points if point is not None]
    needed = alarm.evaluation_periods
    if len(real) >= needed:
        return AlarmState.ALARM if sum(real[-needed:]) >= alarm.datapoints_to_alarm else AlarmState.OK
    if alarm.treat_missing_data in ("breaching", "notBreaching"):
        filled = (needed - len(real)) if alarm.treat_missing_data == "breaching" else 0
        return AlarmState.ALARM if sum(real) + filled >= alarm.datapoints_to_alarm else AlarmState.OK
    ignores = alarm.treat_missing_data == "ignore"
    if not real:
        return current if ignores else AlarmState.INSUFFICIENT_DATA
    if sum(real) >= alarm.datapoints_to_alarm:
        return AlarmState.ALARM
    if all(real):
        # AWS's page calls it a premature alarm: the oldest breaching point is old enough, and nothing better followed.
        age = len(points) - next(number for number, point in enumerate(points) if point)
        return AlarmState.ALARM if age >= alarm.datapoints_to_alarm and not ignores else current
    return AlarmState.OK
