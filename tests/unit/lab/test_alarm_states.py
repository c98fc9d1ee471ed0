"""Alarms change their states as in the tables of CloudWatch's page on missing data. Does not prove that AWS does."""

from datetime import UTC, datetime, timedelta

import pytest

from lab.alarm_states import AlarmState, MetricAlarm, Sample, evaluate, read_points

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC).replace(tzinfo=None)
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
#: Data points of five periods (`0` within the threshold, `X` breaching, `-` missing), and the state by treatment of
#: missing data; `keep` for the current state. The two tables of "Configuring how CloudWatch alarms treat missing data".
THREE_OF_THREE = {
    "0-X-X": ("OK", "OK", "OK", "OK"),
    "----0": ("OK", "OK", "OK", "OK"),
    "-----": ("INSUFFICIENT_DATA", "keep", "ALARM", "OK"),
    "0XX-X": ("ALARM", "ALARM", "ALARM", "ALARM"),
    "--X--": ("ALARM", "keep", "ALARM", "OK"),
}
TWO_OF_THREE = {
    "0-X-X": ("ALARM", "ALARM", "ALARM", "ALARM"),
    "00X0X": ("ALARM", "ALARM", "ALARM", "ALARM"),
    "0-X--": ("OK", "OK", "ALARM", "OK"),
    "----0": ("OK", "OK", "ALARM", "OK"),
    "---X-": ("ALARM", "keep", "ALARM", "OK"),
}
ROWS = [
    (needed, points, treatment, state)
    for needed, table in ((3, THREE_OF_THREE), (2, TWO_OF_THREE))
    for points, states in table.items()
    for treatment, state in zip(TREATMENTS, states, strict=True)
]


def create_alarm(
    *, periods: int = 1, needed: int = 0, treatment: str = "missing", statistic: str = "Sum"
) -> MetricAlarm:
    return MetricAlarm(
        statistic=statistic,
        comparison_operator="GreaterThanThreshold",
        threshold=5,
        period=60,
        evaluation_periods=periods,
        datapoints_to_alarm=needed or periods,
        treat_missing_data=treatment,
    )


@pytest.mark.parametrize("current", list(AlarmState))
@pytest.mark.parametrize(("needed", "points", "treatment", "state"), ROWS)
def test_a_row_of_awss_tables(needed: int, points: str, treatment: str, state: str, current: AlarmState) -> None:
    alarm = create_alarm(periods=3, needed=needed, treatment=treatment)
    values = [{"0": False, "X": True, "-": None}[point] for point in points]
    assert evaluate(alarm, values, current) == (current if state == "keep" else state)


def test_a_breach_that_is_too_new_for_an_alarm_waits_for_more() -> None:
    alarm = create_alarm(periods=3)
    assert evaluate(alarm, [None, None, None, None, True], AlarmState.OK) is AlarmState.OK


def test_data_is_taken_together_by_periods_that_end_now() -> None:
    def sample(seconds: int, value: float) -> Sample:
        return Sample(NOW - timedelta(seconds=seconds), value, value, value)

    samples = [
        sample(0, 100),
        sample(1, 3),
        sample(60, 3),
        sample(61, 2),
        sample(120, 4),
        sample(130, 5),
        sample(181, 9),
    ]
    assert read_points(create_alarm(), samples, NOW) == [False, True, True]


@pytest.mark.parametrize(
    ("statistic", "breaches"), [("Sum", True), ("Maximum", False), ("Minimum", False), ("SampleCount", False)]
)
def test_a_statistic_of_a_period(statistic: str, breaches: bool) -> None:
    samples = [Sample(NOW - timedelta(seconds=seconds), 3, 3, 3) for seconds in (10, 20)]
    assert read_points(create_alarm(statistic=statistic), samples, NOW)[-1] is breaches
