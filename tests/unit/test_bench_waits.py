"""What the bench prints of waits: each beside its goal and the run before.

Does not measure anything: `make bench` does.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT


@pytest.mark.allow_subprocess
def test_a_wait_stands_beside_its_goal_and_the_run_before(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    slow = {"name": "slow", "seconds": 31.0, "goal": 30.0, "load": 1.5, "before": 29.0}
    broken = {"name": "broken", "seconds": 3.0, "goal": 30.0, "load": 0.5, "failed": True}
    figures.write_text(json.dumps([slow, broken]))
    argv = [sys.executable, "-m", "bench.waits", "--figures", str(figures)]
    report = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert report.splitlines()[2:] == [
        "| slow | 31.0, **short** | 30 | 29.0 | 1.5 |",
        "| broken | 3.0, **a check fails** | 30 | - | 0.5 |",
    ]
