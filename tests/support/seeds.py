"""A pytest plugin: which numbered behaviours (`seeds.toml`) the tests of a run have shown.

A behaviour holds when at least one test carries its number and every test that carries it passed. A skipped, deselected
or expectedly failing test shows nothing, so its behaviours do not hold. The last line of every run is
``seeds: N of M hold``.
"""

import tomllib
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

DATA = Path(__file__).parents[1] / "seeds.toml"

Verdict = Literal["holds", "FAILS", "not run"]


@dataclass(frozen=True)
class Ledger:
    """What the tests carrying each number came to."""

    titles: Mapping[str, str]
    outcomes: dict[str, dict[str, bool | None]] = field(default_factory=dict)
    """number -> test id -> True passed, False failed, None not run to an end."""

    def expect(self, number: str, test: str) -> None:
        """A test was collected that carries `number`; raises KeyError where there is no such behaviour."""
        if number not in self.titles:
            raise KeyError(number)
        self.outcomes.setdefault(number, {}).setdefault(test, None)

    def record(self, number: str, test: str, passed: bool) -> None:
        """One phase (setup, call, teardown) of the test ended. A failure is never taken back."""
        if self.outcomes[number].get(test) is not False:
            self.outcomes[number][test] = passed

    def merge(self, outcomes: Mapping[str, Mapping[str, bool | None]]) -> None:
        """Take over what another process recorded of the same tests: a failure stands, then a pass."""
        for number, tests in outcomes.items():
            for test, passed in tests.items():
                self.expect(number, test)
                if passed is not None:
                    self.record(number, test, passed)

    def verdict(self, number: str) -> Verdict | None:
        """None where no test carries the number."""
        outcomes = self.outcomes.get(number)
        if not outcomes:
            return None
        if False in outcomes.values():
            return "FAILS"
        return "holds" if all(outcomes.values()) else "not run"

    def rows(self) -> list[str]:
        """One line for each number that a test carries."""
        return [
            f"  {verdict:<8} {number:>5}  {title}  ({len(self.outcomes[number])})"
            for number, title in self.titles.items()
            if (verdict := self.verdict(number))
        ]

    def untouched(self) -> list[str]:
        """Numbers that no test of this run carries."""
        return [number for number in self.titles if self.verdict(number) is None]

    def summary(self) -> str:
        """The last line."""
        return f"seeds: {sum(self.verdict(number) == 'holds' for number in self.titles)} of {len(self.titles)} hold"


def read_titles() -> dict[str, str]:
    """Every number with its title, in order."""
    seeds: dict[str, str] = tomllib.loads(DATA.read_text())["seeds"]
    return seeds


def seed_numbers(item: pytest.Item) -> Iterable[str]:
    """The numbers a test carries by itself, its class or its module."""
    return {str(number) for mark in item.iter_markers("seed") for number in mark.args}


def format_ranges(these: Iterable[str]) -> str:
    """Numbers in short: neighbours of a world as one range.

    >>> runs(["0.1", "0.2", "0.3", "0.5", "1.6"])
    '0.1-3 0.5 1.6'
    """
    found: list[tuple[str, int, int]] = []
    for world, number in ((world, int(number)) for world, _, number in (this.partition(".") for this in these)):
        if found and found[-1][0] == world and found[-1][2] == number - 1:
            found[-1] = (world, found[-1][1], number)
        else:
            found.append((world, number, number))
    return " ".join(f"{world}.{first}" + (f"-{last}" if last > first else "") for world, first, last in found)


LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger(read_titles())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # First, so that what -k and -m deselect afterwards still counts as not run.
    for item in items:
        for number in seed_numbers(item):
            try:
                config.stash[LEDGER].expect(number, item.nodeid)
            except KeyError:
                raise pytest.UsageError(f"{item.nodeid}: seed {number!r} is not in {DATA.name}") from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_to_fail = hasattr(report, "wasxfail")
    for number in seed_numbers(item):
        if report.failed:
            item.config.stash[LEDGER].record(number, item.nodeid, passed=False)
        elif report.when == "call" and report.passed and not expected_to_fail:
            item.config.stash[LEDGER].record(number, item.nodeid, passed=True)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ledger = config.stash[LEDGER]
    if rows := ledger.rows():
        terminalreporter.section("seeds", sep="-")
        for row in rows:
            terminalreporter.write_line(row)
        if untouched := ledger.untouched():
            terminalreporter.write_line(f"  no test in this run: {format_ranges(untouched)}")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist ended: its part of the tests goes into this process's ledger."""
    node.config.stash[LEDGER].merge(getattr(node, "workeroutput", {}).get("seeds", {}))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    # Outermost, so that the line comes after pytest's own last one.
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["seeds"] = session.config.stash[LEDGER].outcomes
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and told is None:
        reporter.write_line(session.config.stash[LEDGER].summary())
    return result
