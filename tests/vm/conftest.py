"""Worlds on Debian's cloud kernel in virtual machines: `make test-vm`, and the table of what it has shown."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.errors import NotPermitted
from lab.linux import require_privileges

VM_TESTS = Path(__file__).parent
_ROWS = pytest.StashKey[list[tuple[str, str, str, str, float]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        require_privileges()
    except NotPermitted as refused:
        for item in items:
            if VM_TESTS in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=str(refused)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Note a row of the table for each test that ran, and for each that could not be set up."""
    report: pytest.TestReport = yield  # type: ignore[assignment]  # what the other implementations return
    if VM_TESTS in item.path.parents and (report.when == "call" or (report.when == "setup" and report.failed)):
        parameters: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
        title = str(parameters.get("check") or item.name.partition("[")[0].removeprefix("test_").replace("_", " "))
        figure = next((str(value) for key, value in report.user_properties if key == "figure"), "")
        world = str(parameters.get("world", ""))
        item.config.stash[_ROWS].append((title, world, report.outcome, figure, report.duration))
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, as Markdown."""
    rows = config.stash[_ROWS]
    if rows:
        terminalreporter.section("on Debian's cloud kernel")
        terminalreporter.line("| check | world | result | figure | seconds |")
        terminalreporter.line("| --- | --- | --- | --- | --- |")
        for title, world, result, figure, seconds in rows:
            terminalreporter.line(f"| {title} | {world} | {result} | {figure} | {seconds:.0f} |")
