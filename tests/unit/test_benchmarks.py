"""The report in docs/benchmarks.md and its plots are those of the figures in benchmarks.json.

Does not measure anything: `make bench` does.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT

PAGE, FIGURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.json"
PICTURES = ROOT / "docs" / "pictures"


def render(figures: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Render figures of a former run."""
    command = [sys.executable, "-m", "bench.throughput", "--figures", str(figures), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.allow_subprocess
def test_the_report_and_the_plots_are_those_of_the_figures(tmp_path: Path) -> None:
    report = render(FIGURES, "--plots", str(tmp_path)).stdout
    assert report.count("\n") > 20
    assert f"<!-- report -->\n\n{report}\n<!-- end of the report -->" in PAGE.read_text()
    rendered = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert rendered == {path.name: path.read_bytes() for path in PICTURES.glob("benchmarks-*.svg")}


@pytest.mark.allow_subprocess
def test_figures_of_an_older_version_are_refused_with_the_remedy(tmp_path: Path) -> None:
    figures = json.loads(FIGURES.read_text())
    del figures["rounds"][0]["ping_median"]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(figures))
    done = render(old, "--plots", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"{old}: no ping_median; measure again: python -m bench.throughput --json {old}\n"
    assert not list(tmp_path.glob("*.svg"))
