"""The lab and the engine know nothing of Drawbridge: no path, message or name of theirs says it."""

from collections.abc import Iterator
from pathlib import Path

from tests.support.sources import ROOT

PACKAGES = ("lab", "engine")
PRODUCT = "drawbridge"


def mentions(root: Path) -> Iterator[str]:
    """Yield ``file:line`` of each mention of the product."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
                    if PRODUCT in line.lower():
                        yield f"{path.relative_to(root)}:{number}"


def test_neither_names_the_product() -> None:
    assert list(mentions(ROOT)) == []


def test_a_planted_mention_is_found(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a.py").write_text("\nMESSAGE = 'run `Drawbridge lab down`'\n")
    assert list(mentions(tmp_path)) == ["lab/a.py:2"]
