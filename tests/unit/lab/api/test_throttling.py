"""Token buckets, by a clock that the test holds."""

import pytest

from lab.api.errors import ApiError
from lab.api.request import ApiRequest
from lab.api.rules import Rules
from lab.api.validation.throttling import Throttle
from lab.api.validation.validator import Validator


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def call(throttle: Throttle, action: str, service: str = "ssm") -> str | None:
    refusal = throttle.check(ApiRequest(service, action, "eu-west-1"))
    return refusal.code if refusal else None


def test_put_parameter_has_a_burst_and_then_three_a_second() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    assert [call(throttle, "PutParameter") for _ in range(10)] == [None] * 10
    assert call(throttle, "PutParameter") == "ThrottlingException"
    clock.now = 1.0
    assert [call(throttle, "PutParameter") for _ in range(4)] == [None] * 3 + ["ThrottlingException"]
    clock.now = 1000.0
    assert [call(throttle, "PutParameter") for _ in range(11)].count(None) == 10


def test_the_actions_that_get_parameters_share_a_bucket() -> None:
    throttle = Throttle(Clock())
    answers = [call(throttle, action) for action in ("GetParameter", "GetParameters") * 20]
    assert answers == [None] * 40
    assert call(throttle, "GetParametersByPath") == "ThrottlingException"


@pytest.mark.parametrize(("throttled", "codes"), [(False, set()), (True, {"ThrottlingException"})])
def test_reads_are_throttled_once_it_is_switched_on(throttled: bool, codes: set[str]) -> None:
    validator = Validator(Rules(throttle_reads=throttled), Clock())
    refusals = set()
    for _ in range(100):
        try:
            validator.check(ApiRequest("ssm", "GetParameters", "eu-west-1", {"Names": ["/a"]}))
        except ApiError as refusal:
            refusals.add(refusal.code)
    assert refusals == codes


@pytest.mark.parametrize(("action", "burst"), [("CreateSubnet", 50), ("RunInstances", 5), ("DescribeSubnets", 100)])
def test_each_of_ec2s_actions_has_a_bucket_of_its_own(action: str, burst: int) -> None:
    throttle = Throttle(Clock())
    answers = [call(throttle, action, "ec2") for _ in range(burst + 1)]
    assert answers == [None] * burst + ["RequestLimitExceeded"]
    assert call(throttle, "CreateVpc", "ec2") is None


@pytest.mark.parametrize(("action", "rate"), [("CreateLogStream", 50), ("CreateLogGroup", 10), ("FilterLogEvents", 5)])
def test_logs_takes_as_many_calls_of_an_action_in_each_second(action: str, rate: int) -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for clock.now in (0.0, 1.0):
        answers = [call(throttle, action, "logs") for _ in range(rate + 1)]
        assert answers == [None] * rate + ["ThrottlingException"]
    assert call(throttle, "PutLogEvents", "logs") is None


def test_a_search_of_logs_is_a_read_and_throttled_once_that_is_switched_on() -> None:
    for throttled in (False, True):
        validator = Validator(Rules(throttle_reads=throttled), Clock())
        search = ApiRequest("logs", "FilterLogEvents", "eu-west-1", {"logGroupName": "/a"})
        refused = 0
        for _ in range(20):
            try:
                validator.check(search)
            except ApiError:
                refused += 1
        assert refused == (15 if throttled else 0)
