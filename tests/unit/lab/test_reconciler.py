"""When Linux follows: the order of requests and reconciles, with parts that only count. Does not prove what they do."""

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab import reconciler
from lab.network.state import State
from lab.reconciler import Reconciler


@dataclass
class Parts:
    """Stands for network, services and instances; notes each AWS region it is given."""

    regions: list[str] = field(default_factory=list)
    failures: int = 0
    may_go_on: threading.Event = field(default_factory=threading.Event)

    def routers(self) -> list[str]:
        return []

    def update(self, region: str, state: State) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("a part fails")

    def reconcile(self, region: str, state: State) -> None:
        assert self.may_go_on.wait(10)
        self.regions.append(region)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setattr(reconciler, "read_state", lambda _: State())
    return Parts()


def started(parts: Any) -> Reconciler:
    made = Reconciler(lambda region: region, parts, parts, parts)
    made.start()
    return made


def test_it_waits_for_all_that_was_requested(parts: Parts) -> None:
    running = started(parts)
    assert running.wait(0), "nothing was requested"
    running.request("eu-west-1")
    assert not running.wait(0.05), "it is at work"
    running.request("eu-west-1")
    parts.may_go_on.set()
    assert running.wait(10)
    running.stop()
    assert 1 <= len(parts.regions) <= 2, "requests that come together are served together"


def test_it_rests_when_nothing_is_requested(parts: Parts) -> None:
    parts.may_go_on.set()
    running = started(parts)
    running.request("eu-west-1")
    assert running.wait(10)
    count = len(parts.regions)
    assert not threading.Event().wait(0.2) and len(parts.regions) == count
    running.stop()


def test_every_region_in_use_is_looked_at(parts: Parts) -> None:
    """What is changed in one, such as a role, may be used in another."""
    parts.may_go_on.set()
    running = started(parts)
    running.request("eu-west-1")
    assert running.wait(10)
    running.request("us-east-1")
    assert running.wait(10)
    running.stop()
    assert parts.regions == ["eu-west-1", "eu-west-1", "us-east-1"]


@pytest.mark.parametrize(("failures", "reconciled"), [(1, 1), (2, 0)])
def test_a_region_is_tried_twice_and_then_left(parts: Parts, failures: int, reconciled: int) -> None:
    parts.may_go_on.set()
    parts.failures = failures
    running = started(parts)
    running.request("eu-west-1")
    assert running.wait(10), "a failure stops nobody who waits"
    running.stop()
    assert len(parts.regions) == reconciled
