"""What the stand-in for nft makes of its arguments. That rulesets are judged: see tests/lab/worlds/test_pair.py."""

import io
import sys
from pathlib import Path

import pytest

from lab.machines.uml_nft import with_input


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["-f", "{}"], ["-f", "-"]),
        (["--check", "--file", "{}"], ["--check", "--file", "-"]),
        (["--file={}", "--json"], ["--file", "-", "--json"]),
        (["-cf", "{}", "-a"], ["-cf", "-", "-a"]),
    ],
)
def test_a_file_is_read_here_and_handed_on_as_input(tmp_path: Path, before: list[str], after: list[str]) -> None:
    path = tmp_path / "rules"
    path.write_text("table inet x {\n}\n")
    assert with_input([word.format(path) for word in before]) == (after, "table inet x {\n}\n")


def test_input_stays_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("flush ruleset\n"))
    assert with_input(["-f", "-"]) == (["-f", "-"], "flush ruleset\n")


@pytest.mark.parametrize("words", [["list", "ruleset"], ["list", "table", "inet", "drawbridge"], ["--version"]])
def test_a_command_is_left_alone(words: list[str]) -> None:
    assert with_input(words) == (words, None)
