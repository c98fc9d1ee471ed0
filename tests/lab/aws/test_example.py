"""The example of docs/lab.md: thirty lines of plain boto3 that deploy something else into a lab."""

import re
from pathlib import Path

import pytest

from lab import region as labs
from lab.region import Region

PAGE = Path(__file__).parents[3] / "docs" / "lab.md"


def test_the_example_of_the_docs_serves_its_page(
    region: Region, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    lines = [line for line in found[1].splitlines() if line.strip()]
    assert len(lines) <= 34, "thirty lines, and the imports"
    monkeypatch.setattr(labs, "connect", lambda: region)
    exec(compile(found[1], str(PAGE), "exec"), {})
    assert capsys.readouterr().out.strip().startswith("ip-10-9-0-")
