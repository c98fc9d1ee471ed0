"""A pytest plugin: which numbered rows of a table the tests of a run have shown.

There are three tables: behaviours (`seeds.toml`), which hold, attacks (`attacks.toml`), which are refused, and faults
(`faults.toml`), which are survived. A row is shown when at least one test carries its number and every test that
carries it passed. A skipped, deselected or expectedly failing test shows nothing. Attacks that are allowed and faults
that are open count among the M, and no test carries their numbers.
The last lines of every run are ``faults: N of M survived, L open``, ``attacks: N of M refused, L allowed`` and
``seeds: N of M hold``.
"""

import tomllib
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

TESTS = Path(__file__).parents[1]

Verdict = Literal["shown", "FAILS", "not run"]


@dataclass(frozen=True)
class Ledger:
    """What the tests carrying each number of a table came to."""

    titles: Mapping[str, str]
    table: str = "seeds"
    """Name of the table and of its file."""
    marker: str = "seed"
    """pytest's marker of a test that shows a row."""
    holds: str = "holds"
    """What a row does that is shown."""
    hold: str = "hold"
    """The same of many rows."""
    exception: str = "allowed"
    """Name of the rows that do not do so, and of their section of the table's file."""
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """Titles of those rows; `titles` does not have them."""
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
        return "shown" if all(outcomes.values()) else "not run"

    def rows(self) -> list[str]:
        """One line for each number that a test carries, and for each exception."""
        rows = [
            f"  {self.holds if verdict == 'shown' else verdict:<8} {number:>5}  {title}  ({len(self.outcomes[number])})"
            for number, title in self.titles.items()
            if (verdict := self.verdict(number))
        ]
        return rows + [f"  {self.exception:<8} {number:>5}  {title}" for number, title in self.exceptions.items()]

    def untouched(self) -> list[str]:
        """Numbers that no test of this run carries."""
        return [number for number in self.titles if self.verdict(number) is None]

    def summary(self) -> str:
        """The last line."""
        shown = sum(self.verdict(number) == "shown" for number in self.titles)
        exceptions = f", {len(self.exceptions)} {self.exception}" if self.exceptions else ""
        return f"{self.table}: {shown} of {len(self.titles) + len(self.exceptions)} {self.hold}{exceptions}"


def read_titles(table: str = "seeds", section: str = "") -> dict[str, str]:
    """Every number of a table with its title, in order; or of another section of its file."""
    titles: dict[str, str] = tomllib.loads((TESTS / f"{table}.toml").read_text())[section or table]
    return titles


def create_ledgers() -> tuple[Ledger, ...]:
    """Return an empty ledger for each table; the summary of the last one is the last line of a run."""
    return (
        _ledger_with_exceptions("faults", "fault", "survived", "open"),
        _ledger_with_exceptions("attacks", "attack", "refused", "allowed"),
        Ledger(read_titles("seeds")),
    )


def _ledger_with_exceptions(table: str, marker: str, holds: str, exception: str) -> Ledger:
    return Ledger(read_titles(table), table, marker, holds, holds, exception, read_titles(table, exception))


def row_numbers(item: pytest.Item, ledger: Ledger) -> Iterable[str]:
    """The numbers of a table that a test carries by itself, its class or its module."""
    return {str(number) for mark in item.iter_markers(ledger.marker) for number in mark.args}


def format_ranges(these: Iterable[str]) -> str:
    """Numbers in short: neighbours of a world as one range.

    >>> format_ranges(["0.1", "0.2", "0.3", "0.5", "1.6"])
    '0.1-3 0.5 1.6'
    """
    found: list[tuple[str, int, int]] = []
    for world, number in ((world, int(number)) for world, _, number in (this.partition(".") for this in these)):
        if found and found[-1][0] == world and found[-1][2] == number - 1:
            found[-1] = (world, found[-1][1], number)
        else:
            found.append((world, number, number))
    return " ".join(f"{world}.{first}" + (f"-{last}" if last > first else "") for world, first, last in found)


LEDGERS = pytest.StashKey[tuple[Ledger, ...]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGERS] = create_ledgers()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # First, so that what -k and -m deselect afterwards still counts as not run.
    for item in items:
        for ledger in config.stash[LEDGERS]:
            for number in row_numbers(item, ledger):
                try:
                    ledger.expect(number, item.nodeid)
                except KeyError:
                    raise pytest.UsageError(
                        f"{item.nodeid}: {ledger.marker} {number!r} is not in {ledger.table}.toml"
                    ) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_to_fail = hasattr(report, "wasxfail")
    for ledger in item.config.stash[LEDGERS]:
        for number in row_numbers(item, ledger):
            if report.failed:
                ledger.record(number, item.nodeid, passed=False)
            elif report.when == "call" and report.passed and not expected_to_fail:
                ledger.record(number, item.nodeid, passed=True)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for ledger in config.stash[LEDGERS]:
        if ledger.outcomes:
            terminalreporter.section(ledger.table, sep="-")
            for row in ledger.rows():
                terminalreporter.write_line(row)
            if untouched := ledger.untouched():
                terminalreporter.write_line(f"  no test in this run: {format_ranges(untouched)}")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist ended: its part of the tests goes into this process's ledgers."""
    outcomes = getattr(node, "workeroutput", {}).get("ledgers", {})
    for ledger in node.config.stash[LEDGERS]:
        ledger.merge(outcomes.get(ledger.table, {}))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    # Outermost, so that the lines come after pytest's own last one.
    ledgers = session.config.stash[LEDGERS]
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["ledgers"] = {ledger.table: ledger.outcomes for ledger in ledgers}
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and output is None:
        for ledger in ledgers:
            reporter.write_line(ledger.summary())
    return result
