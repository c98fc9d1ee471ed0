"""Issue certificates to many clients: through SSM's quota on a clock that nobody waits for, and in linear time."""

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import botocore.retries.bucket
import pulumi
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber, MockRawResponse

import contract
from components import progress, register
from components.authority_provider import Issuer
from lab.api.request import ApiRequest
from lab.api.validation.throttling import Throttle

#: Seconds that a call takes.
ROUND_TRIP = 0.03


def order(clients: int) -> dict[str, Any]:
    return {
        "stack": "dev",
        "region": "eu-west-1",
        "account": "123456789012",
        "serverName": "dev.drawbridge",
        "profiles": {f"client{number:04}": "client\n" for number in range(clients)},
        "lifetimes": {"ca": 3650.0, "server": 825.0, "client": 365.0},
    }


class VirtualClock:
    """A clock on which sleeping takes no time."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        # A millisecond at least: less can be lost in the clock's rounding, and a loop that waits would not end.
        self.now += max(seconds, 0.001)

    def condition(self, lock: Any) -> Any:
        """Return a condition whose `wait` is a sleep."""
        waiting = threading.Condition(lock)
        waiting.wait = self.sleep  # type: ignore[method-assign, assignment]
        return waiting


class ThrottledSsm:
    """Moto's SSM behind the lab's token buckets.

    Args:
        others: PutParameter calls per second that the account makes beside the test.
    """

    def __init__(self, clock: VirtualClock, others: float) -> None:
        self._clock, self._others = clock, others
        self._throttle = Throttle(clock)
        self._answer = BotocoreStubber.__call__
        self._called, self._due = clock.now, 0.0
        self.refused = 0

    def answer(
        self, stubber: BotocoreStubber, event_name: str, request: AWSPreparedRequest, **kwargs: Any
    ) -> AWSResponse | None:
        """Answer in the place of `BotocoreStubber.__call__`."""
        self._clock.sleep(ROUND_TRIP)
        if event_name.startswith("before-send.ssm."):
            self._make_other_calls()
            refusal = self._throttle.check(ApiRequest("ssm", event_name.rpartition(".")[2], "eu-west-1"))
            if refusal:
                self.refused += 1
                body = json.dumps({"__type": refusal.code, "message": str(refusal)}).encode()
                return AWSResponse(request.url, 400, HTTPHeaders(), MockRawResponse(body))
        return self._answer(stubber, event_name, request, **kwargs)

    def _make_other_calls(self) -> None:
        self._due += self._others * (self._clock.now - self._called)
        self._called = self._clock.now
        while self._due >= 1:
            self._due -= 1
            self._throttle.check(ApiRequest("ssm", "PutParameter", "eu-west-1"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    clock = VirtualClock()
    virtual = SimpleNamespace(time=clock, monotonic=clock, sleep=clock.sleep)
    monkeypatch.setattr(botocore.endpoint, "time", virtual)
    monkeypatch.setattr(botocore.retries.bucket, "time", virtual)
    locks = SimpleNamespace(Lock=threading.Lock, Condition=clock.condition)
    monkeypatch.setattr(botocore.retries.bucket, "threading", locks)
    monkeypatch.setattr(progress, "time", virtual)
    return clock


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside others"])
def test_250_clients_go_through_ssms_quota_in_one_run(
    aws: None, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, others: float
) -> None:
    ssm, lines = ThrottledSsm(clock, others), list[str]()
    monkeypatch.setattr(
        BotocoreStubber,
        "__call__",
        lambda stubber, event_name, request, **kw: ssm.answer(stubber, event_name, request, **kw),
    )
    monkeypatch.setattr(pulumi.log, "info", lines.append)
    begin = clock.now
    outs = Issuer().create(order(250)).outs
    seconds = clock.now - begin
    assert outs is not None and len(outs["clients"]) == 250
    assert ssm.refused > 0
    # 506 parameters, 10 of them in a burst. The client may leave half of the rate unused.
    ideal = (506 - 10) / (3 - others)
    assert 0.9 * ideal < seconds < 2 * ideal
    assert len(lines) > 10
    assert lines[0].startswith("bundles of clients under /drawbridge/dev/clients: ")
    assert lines[0].endswith(" of 250")


@pytest.mark.parametrize("clients", [5, 40])
def test_the_register_is_parsed_as_often_for_many_clients_as_for_few(
    aws: None, monkeypatch: pytest.MonkeyPatch, clients: int
) -> None:
    outs = Issuer().create(order(clients)).outs
    assert outs is not None
    parses = 0
    under = register.ParameterStore.under

    def count(self: register.ParameterStore, path: str) -> dict[str, str]:
        nonlocal parses
        parses += path == contract.Names("dev").issued
        return under(self, path)

    monkeypatch.setattr(register.ParameterStore, "under", count)
    Issuer().update("", outs, order(clients + 1))
    assert parses == 4
