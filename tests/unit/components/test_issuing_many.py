"""Issue certificates to many clients: through SSM's quota on a clock that nobody waits for, and in linear time."""

import json
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import botocore.retries.bucket
import pulumi
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.client import BaseClient
from botocore.compat import HTTPHeaders
from moto.core.botocore_stubber import BotocoreStubber, MockRawResponse

from components import progress, register
from components.authority_provider import Issuer
from lab.api.request import ApiRequest
from lab.api.validation.throttling import Throttle
from tests.support.issuing import order_certificates

#: Seconds that a call takes.
ROUND_TRIP = 0.03


def order(clients: int) -> dict[str, Any]:
    return order_certificates({f"client{number:04}": "client\n" for number in range(clients)})


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


@pytest.mark.fault("8.2")
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
    # A bundle each, 10 pages of the register, the owner and 6 keys; 10 of all these go in a burst. The client may leave
    # half of the rate unused.
    ideal = (250 + 10 + 7 - 10) / (3 - others)
    assert 0.9 * ideal < seconds < 2 * ideal
    assert len(lines) > 5
    assert lines[0].startswith("bundles of clients under /drawbridge/dev/clients: ")
    assert lines[0].endswith(" of 250")


@pytest.mark.fault("8.3")
@pytest.mark.parametrize("clients", [5, 40])
def test_a_client_more_and_a_client_less_cost_as_many_writes_among_many_as_among_few(
    aws: None, monkeypatch: pytest.MonkeyPatch, clients: int
) -> None:
    outs = Issuer().create(order(clients)).outs
    assert outs is not None
    calls = record_calls(monkeypatch)
    outs = Issuer().update("", outs, order(clients + 1)).outs
    assert outs is not None
    # A page of the register, and the bundle.
    assert calls["PutParameter"] == 2
    calls.clear()
    outs = Issuer().update("", outs, order(clients)).outs
    assert outs is not None
    assert (calls["PutParameter"], calls["DeleteParameters"]) == (1, 1)
    calls.clear()
    Issuer().update("", outs, order(clients))
    assert calls.keys() == {"GetCallerIdentity", "GetParametersByPath", "DescribeParameters"}


def record_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the calls to AWS by their names from now on."""
    calls: Counter[str] = Counter()
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def count(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        calls[operation] += 1
        # moto returns 10 at a time, whatever it is asked for.
        assert operation != "DescribeParameters" or arguments["MaxResults"] == 50
        return call(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", count)
    return calls


@pytest.mark.fault("8.5")
def test_an_interrupted_run_resumes_where_it_stopped(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most one batch of certificates is lost: it is registered, and its bundles were not written."""
    put, left = register.ParameterStore.put, iter(range(40))

    def put_until_killed(self: register.ParameterStore, name: str, value: str, *, secret: bool) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        put(self, name, value, secret=secret)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(register.ParameterStore, "put", put_until_killed)
        Issuer().create(order(60))
    calls, lines = record_calls(monkeypatch), list[str]()
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    monkeypatch.setattr(pulumi.log, "info", lines.append)
    outs = Issuer().create(order(60)).outs
    assert outs is not None and len(outs["clients"]) == 60
    # The owner, 6 keys, 3 writes of pages and 30 bundles were done, the last 5 of a batch of 25: the other 20 of that
    # batch are lost, and the 30 bundles that are left are written with the pages of both batches.
    assert len(outs["revoked"]) == 20
    assert calls["PutParameter"] <= 30 + 6
    assert lines[0] == "bundles of clients under /drawbridge/dev/clients: 31 of 60"
    assert lines[-1] == "bundles of clients under /drawbridge/dev/clients: 60 of 60"
