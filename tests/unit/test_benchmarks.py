"""The tables of docs/benchmarks.md are those of the figures in benchmarks.json.

Does not measure anything: `make bench` does.
"""

import json
import subprocess
import sys

import pytest

from tests.support.sources import ROOT

PAGE, FIGURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.json"


@pytest.mark.allow_subprocess
def test_the_table_of_throughput_is_that_of_the_figures() -> None:
    command = [sys.executable, "-m", "bench.throughput", "--figures", str(FIGURES)]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert table.count("\n") > 2
    assert table in PAGE.read_text()


def test_the_page_names_the_version_that_was_measured() -> None:
    version = json.loads(FIGURES.read_text())["machine"]["openvpn"].split()[1]
    assert f"OpenVPN {version}" in PAGE.read_text()
