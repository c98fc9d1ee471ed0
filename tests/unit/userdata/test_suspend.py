"""Suspending clients that send from others' hardware addresses. With OpenVPN: tests/attacks/test_segment.py."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from userdata.files import suspend
from userdata.files.suspend import LIMIT, SUSPENSION, WINDOW, Suspender


@dataclass
class Process:
    """An OpenVPN process's runtime directory, and the sessions that were ended."""

    runtime: Path
    ended: list[str] = field(default_factory=list)
    answers: bool = True

    def __post_init__(self) -> None:
        for name in ("refused", "suspended"):
            (self.runtime / name).mkdir()
        self.suspender = Suspender(self.runtime, self.end_sessions)

    def end_sessions(self, names: Iterable[str]) -> None:
        if not self.answers:
            raise TimeoutError("no answer")
        self.ended += names

    def refuse(self, name: str, count: int) -> None:
        (self.runtime / "refused" / name).write_text(f"{count}\n")

    def names(self, kind: str) -> set[str]:
        return {path.name for path in (self.runtime / kind).iterdir()}


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


def test_a_client_beyond_the_limit_is_suspended_for_a_time(process: Process) -> None:
    process.refuse("mallory", LIMIT)
    process.refuse("robot", LIMIT - 1)
    assert process.suspender.run_once(0)
    assert (process.ended, process.names("suspended")) == (["mallory"], {"mallory"})
    assert process.names("refused") == {"robot"}
    assert process.suspender.run_once(SUSPENSION - 1) and process.names("suspended") == {"mallory"}
    assert not process.suspender.run_once(SUSPENSION) and process.names("suspended") == set()
    # It starts anew.
    process.refuse("mallory", LIMIT - 1)
    process.suspender.run_once(SUSPENSION + 1)
    assert process.ended == ["mallory"]


def test_a_few_refused_frames_are_forgotten_however_the_next_ones_come(process: Process) -> None:
    process.refuse("robot", 1)
    assert process.suspender.run_once(0)
    process.refuse("robot", LIMIT - 1)
    process.suspender.run_once(WINDOW)
    assert process.names("refused") == set()
    assert not process.suspender.run_once(WINDOW + 1)
    process.refuse("robot", 1)
    process.suspender.run_once(WINDOW + 2)
    assert process.names("refused") == {"robot"} and process.ended == []


def test_a_suspended_client_whose_session_is_not_yet_over_is_ended_again(process: Process) -> None:
    process.answers = False
    process.refuse("mallory", LIMIT)
    process.suspender.run_once(0)
    assert process.names("suspended") == {"mallory"} and process.ended == []
    process.answers = True
    process.suspender.run_once(1)
    process.refuse("mallory", 1)
    process.suspender.run_once(2)
    assert process.ended == ["mallory", "mallory"]
    # The suspension counts from the first time.
    process.suspender.run_once(SUSPENSION)
    assert process.names("suspended") == set()


def test_a_suspension_that_another_run_has_begun_ends_too(process: Process) -> None:
    (process.runtime / "suspended/mallory").touch()
    assert process.suspender.run_once(0)
    assert not process.suspender.run_once(SUSPENSION)
    assert process.names("suspended") == set()


def test_a_count_that_is_being_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "count").touch()
    assert suspend.read_count(tmp_path / "count") == 0 == suspend.read_count(tmp_path / "absent")
