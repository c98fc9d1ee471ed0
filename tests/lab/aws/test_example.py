"""The examples of docs/lab.md: thirty lines of plain boto3 that deploy something else, and another project's test."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from drawbridge.commands.root import cli
from lab import region as labs
from lab.region import Region

PAGE = Path(__file__).parents[3] / "docs" / "lab.md"


def run_example(number: int) -> dict[str, Any]:
    """Run one of the page's blocks of Python, and return its names."""
    text = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[number]
    assert len([line for line in text.splitlines() if line.strip()]) <= 34, "thirty lines, and the imports"
    names: dict[str, Any] = {}
    exec(compile(text, str(PAGE), "exec"), names)
    return names


def test_the_example_of_the_docs_serves_its_page_and_leaves_the_status_readable(
    aws_region: Region, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(labs, "connect", lambda *_: aws_region)
    run_example(0)
    page = capsys.readouterr().out.strip()
    assert page.startswith("ip-10-9-0-")
    status = CliRunner().invoke(cli, ["lab", "status"])
    assert status.exit_code == 0 and "t3.nano, running" in status.output and "visitor" in status.output


def test_a_test_of_another_project_has_a_region(aws_region: Region) -> None:
    test = run_example(1)["test_instances_of_a_group_reach_each_other"]
    test(aws_region)
