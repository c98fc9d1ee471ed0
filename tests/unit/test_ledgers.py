"""The table of behaviours. Does not prove that a test which carries a number deserves it: whoever reads it must."""

import re
from pathlib import Path

import pytest

from tests.support import ledgers
from tests.support.ledgers import Ledger

pytest_plugins = ["pytester"]


def test_the_data_numbers_every_world_without_a_gap() -> None:
    counts: dict[str, int] = {}
    for number in ledgers.read_titles():
        world, _, place = number.partition(".")
        counts[world] = counts.get(world, 0) + 1
        assert int(place) == counts[world]
    assert counts == {"0": 18, "1": 14, "2": 15, "3": 14, "4": 18, "9": 8}


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ({}, None),
        ({"a": True}, "shown"),
        ({"a": True, "b": True}, "shown"),
        ({"a": True, "b": False}, "FAILS"),
        ({"a": True, "b": None}, "not run"),
        ({"a": None}, "not run"),
    ],
)
def test_a_behaviour_holds_only_when_every_test_of_it_passed(outcomes: dict[str, bool | None], verdict: str) -> None:
    ledger = Ledger({"0.1": "title"})
    for test, passed in outcomes.items():
        ledger.expect("0.1", test)
        if passed is not None:
            ledger.record("0.1", test, passed)
    assert ledger.verdict("0.1") == verdict
    assert ledger.summary() == f"seeds: {int(verdict == 'shown')} of 1 hold"


def test_a_failed_teardown_is_a_failure() -> None:
    ledger = Ledger({"0.1": "title"})
    ledger.expect("0.1", "a")
    ledger.record("0.1", "a", passed=True)
    ledger.record("0.1", "a", passed=False)
    ledger.record("0.1", "a", passed=True)
    assert ledger.verdict("0.1") == "FAILS"


def test_neighbours_are_told_as_ranges() -> None:
    assert ledgers.format_ranges(["0.1", "0.2", "0.3", "0.5", "1.6", "1.7"]) == "0.1-3 0.5 1.6-7"
    assert ledgers.format_ranges([]) == ""


def run(pytester: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    pytester.makeini("[pytest]\nmarkers =\n seed\n attack\n fault")
    pytester.makepyfile(text)
    return pytester.runpytest_inprocess("-p", "tests.support.ledgers", *arguments)


ALL_OUTCOMES = """
    import pytest

    @pytest.mark.seed("0.1")
    def test_passes(): pass

    @pytest.mark.seed("0.2", "0.3")
    def test_passes_too(): pass

    @pytest.mark.seed("0.3")
    def test_fails(): assert False

    @pytest.mark.seed("0.4")
    def test_skips(): pytest.skip("why")

    @pytest.mark.seed("0.5")
    @pytest.mark.xfail
    def test_expected_to_fail(): assert False

    @pytest.fixture
    def broken(): raise OSError

    @pytest.mark.seed("0.6")
    def test_setup_fails(broken): pass

    @pytest.fixture
    def leaky():
        yield
        raise OSError

    @pytest.mark.seed("0.7")
    def test_teardown_fails(leaky): pass
"""


def test_the_run_ends_with_the_count(pytester: pytest.Pytester) -> None:
    lines = run(pytester, ALL_OUTCOMES).outlines
    assert lines[-1] == f"seeds: 2 of {len(ledgers.read_titles())} hold"
    rows = (re.match(r"  (holds|FAILS|not run) +(\d\.\d+) ", line) for line in lines)
    verdicts = {row[2]: row[1] for row in rows if row}
    assert verdicts == {
        "0.1": "holds",
        "0.2": "holds",
        "0.3": "FAILS",
        "0.4": "not run",
        "0.5": "not run",
        "0.6": "FAILS",
        "0.7": "FAILS",
    }


def test_what_was_deselected_does_not_hold(pytester: pytest.Pytester) -> None:
    lines = run(pytester, ALL_OUTCOMES, "-k", "test_passes").outlines
    assert lines[-1] == f"seeds: 2 of {len(ledgers.read_titles())} hold"
    assert any(re.match(r"  not run +0\.3 ", line) for line in lines)


def test_attacks_are_counted_beside_the_seeds(pytester: pytest.Pytester) -> None:
    text = """
        import pytest

        @pytest.mark.attack("1.1")
        def test_a(): pass

        @pytest.mark.attack("1.2")
        def test_b(): assert False
    """
    *lines, attacks, seeds = run(pytester, text).outlines
    refused, allowed = ledgers.read_titles("attacks"), ledgers.read_titles("attacks", "allowed")
    assert attacks == f"attacks: 1 of {len(refused) + len(allowed)} refused, {len(allowed)} allowed"
    assert [row.split()[1] for row in lines if row.startswith("  allowed ")] == list(allowed)
    assert seeds.startswith("seeds: 0 of ")


def test_faults_are_counted_like_attacks(pytester: pytest.Pytester) -> None:
    *_, faults, attacks, _ = run(
        pytester, "import pytest\n@pytest.mark.fault('1.1', '1.2')\ndef test_a(): pass\n"
    ).outlines
    survived, unshown = ledgers.read_titles("faults"), ledgers.read_titles("faults", "open")
    exceptions = f", {len(unshown)} open" if unshown else ""
    assert faults == f"faults: 2 of {len(survived) + len(unshown)} survived{exceptions}"
    assert attacks.startswith("attacks: 0 of ")


#: Table, section of its exceptions, marker; the page with their reasons, and its heading.
EXCEPTIONS = [
    ("attacks", "allowed", "attack", "docs/security.md", "## What stays allowed"),
    ("faults", "open", "fault", "docs/gateway.md", "## Faults that no test shows"),
]


@pytest.mark.parametrize(("table", "section", "page", "heading"), [(*row[:2], *row[3:]) for row in EXCEPTIONS])
def test_exceptions_have_their_reasons(table: str, section: str, page: str, heading: str) -> None:
    _, _, text = (ledgers.TESTS.parent / page).read_text().partition(heading)
    exceptions = ledgers.read_titles(table, section)
    reasons = text.partition("\n## ")[0]
    assert sorted(re.findall(r"^\| (\d+\.\d+) \|", reasons, re.MULTILINE)) == sorted(exceptions)
    assert exceptions.keys().isdisjoint(ledgers.read_titles(table))


@pytest.mark.parametrize(
    ("marker", "number"),
    [(marker, number) for table, section, marker, *_ in EXCEPTIONS for number in ledgers.read_titles(table, section)],
)
def test_no_test_shows_an_exception(pytester: pytest.Pytester, marker: str, number: str) -> None:
    result = run(pytester, f"import pytest\n@pytest.mark.{marker}({number!r})\ndef test_a(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_every_fault_has_a_test() -> None:
    texts = [path.read_text() for path in ledgers.TESTS.rglob("*.py") if path != Path(__file__)]
    marks = [match[1] for text in texts for match in re.finditer(r"pytest\.mark\.fault\(([^)]*)\)", text)]
    numbers = {number for mark in marks for number in re.findall(r'"([\d.]+)"', mark)}
    assert sorted(ledgers.read_titles("faults").keys() - numbers) == []


def test_an_unknown_number_stops_the_run(pytester: pytest.Pytester) -> None:
    text = """
        import pytest

        @pytest.mark.seed("7.1")
        def test_a(): pass
    """
    result = run(pytester, text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "seed '7.1' is not in seeds.toml" in result.stderr.str() + result.stdout.str()
