"""Check the words of every file: secrets, paths and mirrors that may not be there, names and phrases that say nothing.

Does not read the history. Does not prove that a sentence is good, only that it has none of the listed phrases.
"""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.sources import ROOT, is_python

#: Spelt in parts, so that this file does not hold them.
FORBIDDEN = {
    "a package index, which is the user's to choose": r"(^|--)(extra-)?index"
    + r"-url\b|\bpypi"
    + r"\.org|python"
    + r"hosted\.org",
    "a package mirror, which is the user's to choose": r"\b(deb|security)"
    + r"\.debian\.org|^deb "
    + r"https?:|^URIs"
    + r":",
    "a path of somebody's machine": r"\.\./shared" + r"/|(?<![\w./-])/(home|Users|root|work)" + r"/\w",
    "a private key": "-----BEGIN " + r"([A-Z]+ )*PRIVATE KEY-----\s*\n\s*[A-Za-z0-9+/=]{40}",
    "an AWS key that is not the lab's": r"\bAKIA" + r"(?!LAB)[0-9A-Z]{16}\b",
}


def finds(text: str) -> list[str]:
    """Return the keys of `FORBIDDEN` whose pattern is in a text."""
    return [key for key, pattern in FORBIDDEN.items() if re.search(pattern, text, re.MULTILINE)]


def tracked_files() -> list[Path]:
    """Return every file that git tracks or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return sorted(path for path in paths if path.is_file())


@pytest.mark.allow_subprocess  # git knows which files are the project's.
def test_no_file_holds_a_forbidden_word() -> None:
    paths = tracked_files()
    assert ROOT / "pyproject.toml" in paths
    violations = {
        str(path.relative_to(ROOT)): words for path in paths if (words := finds(path.read_text(errors="replace")))
    }
    assert violations == {}


@pytest.mark.parametrize(
    "planted",
    [
        "--index" + "-url https://example.com",
        "see https://pypi" + ".org/project/x",
        "deb " + "http://example.com/debian trixie main",
        "read ../sha" + "red/x",
        "cd /home" + "/me/project",
        "-----BEGIN EC " + "PRIVATE KEY-----\n" + "A" * 64,
        "AKIA" + "A" * 16,
    ],
)
def test_a_planted_word_is_found(planted: str) -> None:
    assert finds(f"some text\n{planted}\nmore") != []


def test_ordinary_text_passes() -> None:
    assert finds("the index of hosts, /etc/hosts, tests/lab, https://www.pulumi.com/docs, 'PRIVATE KEY'") == []


#: Turns of phrase that a reader has to solve like a riddle, with what to write. Lists are of what has stood here.
RIDDLES = {
    r"(?<!there\s)(?<!There\s)\b(?:is|are|was|were) no (?!longer\b|more\b)": "is not a …, must be …",
    r"\btold\b": "reported, shown, sent, configured",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair, patch, restore",
    r"\bdoom(?:s|ed)?\b": "pending deletion",
    r"(?<!systemd-udev-)(?<!udevadm )\bsettle[sd]?\b": "wait until …",
    r"\bthrow[-_ ]away\b": "disposable",
    r"\bof all of\b": "of the whole …",
    r"\bWhat of\b": "a noun: the part of …",
    r"\bnobody's\b": "not used by any …",
    r"\b(?:is|are) also \S+'s\b": "is already used by …",
    r"\bas \S+ has it\b": "see …",
    r"\bthat is none\b": "that is not a …",
    r"\bin the place of\b": "instead of",
    r"\bgoodbyes?\b": "exit notification",
}

#: Names that could stand for anything: a variable, a parameter or a function says what it is.
PLACEHOLDERS = frozenset(
    """
    asked beyond found given here held inside kept known made one ones other own said taken there thing things told
    wanted what whole
    """.split()  # noqa: SIM905 -- a list of words, as one reads it
)

#: First words of docstrings that are a relative clause, or that tell of a function instead of saying what it does.
CLAUSES = frozenset({"What", "Who", "Whose", "Where", "Which", "How", "Whether", "When", "Why"})

#: Rooms whose words are still to be cleaned.
EXEMPT = frozenset({"tests/lab", "tests/program", "tests/support", "tests/unit"})


def room_of(path: str) -> str:
    """Return the directory a file belongs to, at most two deep: `lab/api`, `lab`, or `.` for the root."""
    return "/".join(Path(path).parent.parts[:2]) or "."


def riddles(text: str) -> list[str]:
    """Return `line: phrase (better)` for every phrase of `RIDDLES` in a text."""
    return [
        f"{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r} ({better})"
        for pattern, better in RIDDLES.items()
        for match in re.finditer(pattern, text)
    ]


def placeholders(tree: ast.AST) -> list[str]:
    """Return `line: name` for every variable, parameter, field and function that has a name of `PLACEHOLDERS`."""
    names = []
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.alias(asname=str(name)):
                names.append((getattr(node, "lineno", 0), name))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.append((node.lineno, name))
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.append((node.lineno, name))
    return [f"{line}: {name}" for line, name in sorted(names) if name.strip("_").lower() in PLACEHOLDERS]


def clauses(tree: ast.Module) -> list[str]:
    """Return `line: first words` for every docstring that begins with a word of `CLAUSES`."""
    return [
        f"{getattr(node, 'lineno', 1)}: {docstring[:40]!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (docstring := ast.get_docstring(node))
        and docstring.partition(" ")[0] in CLAUSES
    ]


def judged_files() -> list[Path]:
    """Return the files whose words are judged: all but the lists of words here, and the rooms of `EXEMPT`."""
    rooms = ((path, room_of(path.relative_to(ROOT).as_posix())) for path in tracked_files())
    return [path for path, room in rooms if room not in EXEMPT and path != Path(__file__)]


@pytest.mark.allow_subprocess
def test_no_text_holds_a_riddle() -> None:
    texts = {path: path.read_text(errors="replace") for path in judged_files()}
    assert {path: phrases for path, text in texts.items() if (phrases := riddles(text))} == {}


@pytest.mark.allow_subprocess
def test_no_name_is_a_placeholder_and_no_docstring_a_clause() -> None:
    trees = {path: ast.parse(path.read_text()) for path in judged_files() if is_python(path)}
    assert ROOT / "contract.py" in trees
    assert {path: names for path, tree in trees.items() if (names := placeholders(tree) + clauses(tree))} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "10.1.0.0/24 is no size for the VPC",
        "x is no AWS region",
        "Mistakes are told all at once.",
        "it mends what moto lacks",
        "the doomed resource",
        "wait until it has settled",
        "a throw-away region",
        "prefix of all of the parameters",
        "What of a stack there is",
        "an address that is nobody's",
        "alice is also clients[0]'s",
        "as `contract.Names` has it",
        "a text that is none",
        "in the place of one on Windows",
        "it says goodbye",
    ],
)
def test_a_planted_riddle_is_found(planted: str) -> None:
    assert riddles(f"A first line.\n{planted}")[0].startswith("2: ")


def test_plain_sentences_are_no_riddles() -> None:
    text = (
        "There is no such key, and there\nis no other; it is no longer used. There are no rules; the mode is not valid."
    )
    assert riddles(text) == []


@pytest.mark.parametrize(
    "planted",
    [
        "made = 1",
        "for one in ():\n    pass",
        "def f(told): ...",
        "def f(*, wanted=1): ...",
        "def held(): ...",
        "class Thing: ...",
        "class A:\n    known: str",
        "x = [found for found in ()]",
        "if (said := f()): ...",
        "with f() as _given: ...",
        "try: ...\nexcept E as what: ...",
        "import a as other",
        "match x:\n    case [taken, *_]: ...",
    ],
)
def test_a_planted_placeholder_is_found(planted: str) -> None:
    assert len(placeholders(ast.parse(planted))) == 1


def test_other_names_and_uses_are_no_placeholders() -> None:
    text = "client = owner.found\ndef create(region): ...\nprint(other, made=1)"
    assert placeholders(ast.parse(text)) == []


@pytest.mark.parametrize("planted", ['"""What a stack needs."""', 'def f():\n    """Whether it is up."""'])
def test_a_planted_clause_is_found(planted: str) -> None:
    assert len(clauses(ast.parse(planted))) == 1
    assert clauses(ast.parse(planted.replace("What", "Return what").replace("Whether", "Return whether"))) == []
