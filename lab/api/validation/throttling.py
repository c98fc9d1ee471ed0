"""Throttle calls by token buckets, as AWS does per account, region and action.

Sources: Amazon EC2 Developer Guide, "Request throttling for the Amazon EC2 API"; AWS General Reference, "AWS Systems
Manager endpoints and quotas" (transactions per second of Parameter Store; the burst of PutParameter is an estimate);
Amazon CloudWatch Logs User Guide, "CloudWatch Logs quotas" (a second's transactions are taken as the burst).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.api.errors import ApiError
from lab.api.request import ApiRequest


@dataclass(frozen=True, slots=True)
class Rate:
    """Size of a bucket, and the tokens that it regains each second."""

    burst: float
    per_second: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


_READ_ONLY = ("Describe", "Filter", "Get", "List", "Search")
_PUT_PARAMETER, _GET_PARAMETER = Rate(burst=10, per_second=3), Rate(burst=40, per_second=40)
#: Actions with a bucket, by service; actions of one name in the third column share one. Add a row for another.
RATES: dict[tuple[str, str], tuple[Rate, str]] = {
    ("ssm", "PutParameter"): (_PUT_PARAMETER, "PutParameter"),
    ("ssm", "GetParameter"): (_GET_PARAMETER, "Get"),
    ("ssm", "GetParameters"): (_GET_PARAMETER, "Get"),
    ("ssm", "GetParametersByPath"): (_GET_PARAMETER, "Get"),
    ("logs", "CreateLogGroup"): (Rate(burst=10, per_second=10), "CreateLogGroup"),
    ("logs", "DeleteLogGroup"): (Rate(burst=10, per_second=10), "DeleteLogGroup"),
    ("logs", "PutRetentionPolicy"): (Rate(burst=10, per_second=10), "PutRetentionPolicy"),
    ("logs", "CreateLogStream"): (Rate(burst=50, per_second=50), "CreateLogStream"),
    ("logs", "FilterLogEvents"): (Rate(burst=5, per_second=5), "FilterLogEvents"),
    ("ec2", "RunInstances"): (Rate(burst=5, per_second=2), "RunInstances"),
    ("ec2", "StartInstances"): (Rate(burst=5, per_second=2), "StartInstances"),
    ("ec2", "CreateVpcEndpoint"): (Rate(burst=4, per_second=0.3), "CreateVpcEndpoint"),
}
_EC2_READS, _EC2_WRITES = Rate(burst=100, per_second=20), Rate(burst=50, per_second=5)


def is_read(request: ApiRequest) -> bool:
    """Return whether a call changes nothing."""
    return request.action.startswith(_READ_ONLY)


class Throttle:
    """The buckets of one region.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def check(self, request: ApiRequest) -> ApiError | None:
        """Take a token for a call, or return its refusal."""
        rate, name = RATES.get((request.service, request.action), (None, request.action))
        if rate is None and request.service == "ec2":
            rate = _EC2_READS if is_read(request) else _EC2_WRITES
        if rate is None or self._take(request.service, name, rate):
            return None
        if request.service == "ec2":
            return ApiError("RequestLimitExceeded", "Request limit exceeded.")
        return ApiError("ThrottlingException", "Rate exceeded")

    def _take(self, service: str, name: str, rate: Rate) -> bool:
        now = self._clock()
        bucket = self._buckets.setdefault((service, name), _Bucket(rate.burst, now))
        bucket.tokens = min(rate.burst, bucket.tokens + (now - bucket.filled) * rate.per_second)
        bucket.filled = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
