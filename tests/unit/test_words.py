"""What no file of the project may hold. Does not read the history."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

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
    """What of `FORBIDDEN` a text holds."""
    return [what for what, pattern in FORBIDDEN.items() if re.search(pattern, text, re.MULTILINE)]


@pytest.mark.allow_subprocess  # git knows which files are the project's.
def test_no_file_holds_a_forbidden_word() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert ROOT / "pyproject.toml" in paths
    found = {
        str(path.relative_to(ROOT)): words
        for path in paths
        if path.is_file() and (words := finds(path.read_text(errors="replace")))
    }
    assert found == {}


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
