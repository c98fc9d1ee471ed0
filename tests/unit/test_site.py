"""The check of the documentation's site finds what is wrong with it. Does not build the site: `make docs` does."""

from pathlib import Path

import pytest

from tools import site
from tools.site import copy_pages, find_faults, indent_lists


def test_links_that_lead_nowhere_and_pictures_without_a_text_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "style.css").touch()
    (tmp_path / "index.html").write_text(
        '<link href="style.css"><a href="a/">x</a><a href="a/#part">x</a><a href="https://example.com/x">x</a>'
        '<a href="a/#gone">x</a><a href="b/">x</a><img src="style.css" alt="a style"><img src="style.css">'
    )
    (tmp_path / "a" / "index.html").write_text('<h1 id="part">x</h1><a href="..">x</a><a href="../..#part">x</a>')
    assert list(find_faults(tmp_path)) == [
        "a/index.html: ../..#part leads nowhere",
        "index.html: style.css has no text",
        "index.html: a/#gone leads nowhere",
        "index.html: b/ leads nowhere",
    ]


def test_pages_are_copied_with_their_style_and_the_files_that_they_link_to(tmp_path: Path) -> None:
    root, target = tmp_path / "root", tmp_path / "target"
    (root / "docs").mkdir(parents=True)
    (root / "README.md").write_text("1. a\n\n   ```sh\n   b\n   ```\n\n[x](docs/x.svg) [y](docs/y.md) [z](https://z)\n")
    (root / "docs" / "y.md").write_text("[r](../README.md)\n")
    (root / "docs" / "x.svg").write_text("<svg/>")
    (root / "docs" / "other.svg").write_text("<svg/>")
    (root / "docs" / "site.css").touch()
    copy_pages(root, target)
    copied = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert copied == {"README.md", "docs/site.css", "docs/x.svg", "docs/y.md"}
    assert "\n    ```sh\n    b\n    ```\n" in (target / "README.md").read_text()


def test_only_the_content_of_numbered_items_is_indented() -> None:
    text = "   code\n\n1. a\n   b\n\n   - c\n\nd\n   e\n"
    assert indent_lists(text) == "   code\n\n1. a\n    b\n\n    - c\n\nd\n   e\n"


@pytest.mark.allow_subprocess
def test_a_browser_that_stands_still_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "BROWSER_LIMIT", 1)
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!/bin/sh\nif mkdir {tmp_path}/started; then exec sleep 60; fi\n"
        """echo '<pre id="result">{"visited": 1, "empty": 0, "missing": []}</pre>'\n"""
    )
    browser.chmod(0o755)
    assert site.visit(str(browser), tmp_path) == []
    browser.write_text("#!/bin/sh\nexec sleep 60\n")
    assert site.visit(str(browser), tmp_path) == [f"{browser} has not visited all pages within 1 s, 3 times"]
