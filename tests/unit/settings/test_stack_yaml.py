"""Scalars are those of Pulumi's CLI, and each error in a stack file's YAML has a cause of its own."""

from datetime import UTC, datetime

import pytest

from settings.stack_yaml import StackYamlError, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Words of YAML 1.1 are texts.
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        # Sexagesimal numbers of YAML 1.1 are texts: they look like hardware addresses and times.
        ("12:34:56:12:34:56", "12:34:56:12:34:56"),
        ("12:34:56", "12:34:56"),
        ("190:20:30.15", "190:20:30.15"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("", None),
        ("~", None),
        ("Null", None),
        ("1194", 1194),
        ("-1", -1),
        ("+1", 1),
        ("0", 0),
        ("1_194", 1194),
        ("0x4aa", 1194),
        ("0b101", 5),
        ("0o17", 15),
        ("017", 15),
        ("-017", -15),
        ("08", 8.0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("1.2.3.4", "1.2.3.4"),
        ("10.8.0.0/24", "10.8.0.0/24"),
        ("=", "="),
        ("'yes'", "yes"),
        ("2026-11-28T08:10:00Z", datetime(2026, 11, 28, 8, 10, tzinfo=UTC)),
        ("2026-13-45", "2026-13-45"),
        ("sun:03:00-sun:04:00", "sun:03:00-sun:04:00"),
    ],
)
def test_values_are_those_of_the_cli(text: str, value: object) -> None:
    assert load_yaml(f"key: {text}") == {"key": value}
    assert load_yaml(f"[{text}]" if text else "[~]") == [value]


def test_anchors_and_merged_keys_are_read() -> None:
    text = "base: &base {port: 1, verb: 3}\nother: {<<: *base, port: 2}\nsame: *base"
    assert load_yaml(text) == {
        "base": {"port": 1, "verb": 3},
        "other": {"port": 2, "verb": 3},
        "same": {"port": 1, "verb": 3},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n\tb: 2", "line 2 has a tab where spaces must be; indent by spaces"),
        ("a:\n\tb: 2", "line 2 has a tab where spaces must be; indent by spaces"),
        ("a: 1\n  b: 2", "line 2 is indented further than the key before it; indent keys of one section alike"),
        ("a:\n  b: 1\n c: 2", "line 3 is indented differently from its section; indent all its keys alike"),
        ("a: b: c", "line 1 has two keys; begin a line for each, or put the value in quotes"),
        ("a: *.ci.example.com", "line 1 has a value that begins with *; put the value in quotes"),
        ("a: &.x", "line 1 has a value that begins with &; put the value in quotes"),
        ("a: *b", "line 1 has a reference (*) to an anchor (&) that does not exist; put it in quotes"),
        ("a: @b", "line 1 has a value that begins with @; put the value in quotes"),
        ("a: `b`", "line 1 has a value that begins with `; put the value in quotes"),
        ("a: %b", "line 1 has a value that begins with %; put the value in quotes"),
        ("a: !b c", "line 1 has a tag (!) that Pulumi does not read; put the value in quotes"),
        ("a: !!python/name:os.system x", "line 1 has a tag (!) that Pulumi does not read; put the value in quotes"),
        ("a: !<x c", "line 1 has a value that begins with !; put the value in quotes"),
        ("a: >x", "line 1 has a value that begins with | or >; put the value in quotes"),
        ('a: "b\nc: 1', "line 1 has a quote that is not closed; close it"),
        ('a: "C:\\d"', "line 1 has a \\ that begins no escape; write \\\\, or use '…'"),
        ("a: [b\nc: d", "line 1 has a [ that is not closed; close it, or add a comma between values"),
        ("a: {b: 1\nc: d", "line 1 has a { that is not closed; close it, or add a comma between keys"),
        ("a: {b: [1, 2}", "line 1 has a [ that is not closed; close it, or add a comma between values"),
        ("a: 1\nb\nc: 2", "line 2 has no colon after its key; write `key: value`"),
        ("a: 1\n---\nb: 2", "line 2 begins a second document; remove the line `---`"),
        ("{{ a }}: 1", "line 1 has a list or a section as a key; put the key in quotes"),
        ("a: {<<: 3}", "line 1 merges (<<) a value that is not a section; use a reference to one"),
        ("a: &x\n  b: *x", "line 2 has a reference (*) to a section that it is part of; write the values there"),
        ("a: 1\nb: \x01", "line 2 has a control character (U+0001); remove it"),
        (
            "a: " + "[" * 5000,
            "line 1 begins values that are nested too deeply; close the brackets before the next ones",
        ),
        ("a: 1\nb: 2\na: 3", "line 3 has the key a again, which is on line 1 already; keep only one of them"),
        ("a: {b: 1, b: 2}", "line 1 has the key b again, which is on line 1 already; keep only one of them"),
        ("a: 1\n'a': 1", "line 2 has the key a again, which is on line 1 already; keep only one of them"),
        (f"a: 1\nb: {'1' * 5000}", "line 2 has a number that is not valid; put it in quotes"),
        (f"a: 1\nb: 0x{'f' * 5000}", "line 2 has a number that is not valid; put it in quotes"),
        ("a: 1\nb: ._", "line 2 has a number that is not valid; put it in quotes"),
        ("a: 1\nb: 0x_", "line 2 has a number that is not valid; put it in quotes"),
        (
            "a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> x",
            "line 2 has a conflict marker of Git's; resolve the conflict",
        ),
    ],
)
def test_each_error_has_its_cause(text: str, message: str) -> None:
    with pytest.raises(StackYamlError) as refusal:
        load_yaml(text)
    assert str(refusal.value) == message


def nest_lists(depth: int) -> str:
    """Return a document in which each list has ten references to the one before."""
    lists = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, depth)]
    return f"l0: &l0 [x]\n{''.join(lists)}"


def test_references_that_make_a_document_huge_are_refused() -> None:
    message = r"line 6 has references \(\*\) that repeat more than 100000 values; write them without references"
    with pytest.raises(StackYamlError, match=message):
        load_yaml(nest_lists(100))
    assert isinstance(load_yaml(nest_lists(4)), dict), "the control"


def test_merged_keys_that_make_a_document_huge_are_refused() -> None:
    merges = [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}\n" for n in range(1, 30)]
    with pytest.raises(StackYamlError, match="that repeat more than"):
        load_yaml(f"m0: &m0 {{x: 1}}\n{''.join(merges)}")
