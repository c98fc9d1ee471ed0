"""Apply each remedy that an error of the settings names: they accept it. That AWS accepts it is not shown here."""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from settings.problems import FORMATS, LIST_EXAMPLES, SECTION_EXAMPLES, Problem
from tests.support.refusals import find_problems
from tests.unit.settings.remedies import REMEDIES

ROOT = Path(__file__).parents[3]

#: Problems with the stack file as a text, which `test_stack_file.py` goes through; and warnings, which
#: `test_inputs.py` does.
NOT_SETTINGS = (ROOT / "settings/stack_file.py", ROOT / "settings/notices.py")


@dataclass(frozen=True, slots=True)
class Site:
    """Lines of the source that create a problem."""

    path: Path
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.first}"

    def contains(self, frame: FrameType) -> bool:
        return self.first <= frame.f_lineno <= self.last and frame.f_code.co_filename == str(self.path)


def list_sites() -> Iterator[Site]:
    for path in sorted(ROOT.glob("settings/**/*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls if path not in NOT_SETTINGS else ():
            if isinstance(call.func, ast.Name) and call.func.id in ("Problem", "problem_at", "not_a_list"):
                yield Site(path, call.lineno, call.end_lineno or call.lineno)


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Problem, set[Site]]]:
    """Every problem that is created, with the sites on its stack."""
    problems: list[tuple[Problem, set[Site]]] = []
    sites = list(list_sites())
    create = Problem.__init__

    def record(problem: Problem, *args: Any, **kwargs: Any) -> None:
        create(problem, *args, **kwargs)
        frame, found = sys._getframe(1), set[Site]()
        while frame.f_back and frame.f_code.co_filename.startswith(str(ROOT / "settings")):
            found |= {site for site in sites if site.contains(frame)}
            frame = frame.f_back
        problems.append((problem, found))

    monkeypatch.setattr(Problem, "__init__", record)
    return problems


def matches(remedy: str, line: str) -> bool:
    return remedy in line.rpartition("; ")[2]


@pytest.mark.parametrize(("wrong", "remedy", "right"), REMEDIES)
def test_a_remedy_is_accepted(wrong: dict[str, Any], remedy: str, right: dict[str, Any]) -> None:
    lines = find_problems(**wrong)
    assert any(matches(remedy, line) for line in lines), lines
    assert find_problems(**right) == []


def test_every_error_has_a_row(created: list[tuple[Problem, set[Site]]]) -> None:
    tested = set[Site]()
    for wrong, remedy, _ in REMEDIES:
        created.clear()
        find_problems(**wrong)
        tested |= {site for problem, sites in created if remedy in problem.remedy for site in sites}
    assert [str(site) for site in list_sites() if site not in tested] == []


def test_every_way_that_a_remedy_names_has_a_row() -> None:
    ways: dict[tuple[str, str], bool] = {}
    for wrong, remedy, _ in REMEDIES:
        for line in find_problems(**wrong):
            if matches(remedy, line):
                for way in re.split(", or |, (?=use )", line.rpartition("; ")[2]):
                    ways[line, way] = ways.get((line, way), False) or remedy in way or way in remedy
    assert [f"{line}: {way}" for (line, way), tested in ways.items() if not tested] == []


def test_every_example_has_a_row() -> None:
    remedies = [remedy for _, remedy, _ in REMEDIES]
    examples = [*LIST_EXAMPLES.values(), *SECTION_EXAMPLES.values(), *(form.remedy for form in FORMATS.values())]
    assert [text for text in examples if not any(remedy in text for remedy in remedies)] == []
