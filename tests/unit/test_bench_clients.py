"""A few clients of the load generator get in at a real gateway of two processes, and its report is that of the figures.

Does not measure anything: `make bench` does.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT

PAGE = ROOT / "docs/benchmarks.md"


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("module", ["clients", "scaling", "waits"])
def test_the_report_is_that_of_the_figures(module: str, tmp_path: Path) -> None:
    page, figures = tmp_path / "page.md", ROOT / f"docs/benchmarks-{module}.json"
    page.write_text(PAGE.read_text())
    argv = [sys.executable, "-m", f"bench.{module}", "--figures", str(figures), "--page", str(page)]
    report = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert report.count("\n") > 5
    assert page.read_text() == PAGE.read_text()


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("module", ["bench", "bench.clients", "bench.throughput"])
def test_a_missing_program_is_one_line_with_the_remedy(module: str, tmp_path: Path) -> None:
    argv, environment = [sys.executable, "-m", module], {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    remedy = "not installed: openvpn, nft, ip, nsenter, setpriv, ping; as root: tools/setup bench\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", remedy)


@pytest.mark.allow_subprocess
def test_a_few_clients_get_in_at_a_gateway_of_two_processes(tmp_path: Path) -> None:
    missing = [tool for tool in ("openvpn", "nft", "ip", "nsenter", "setpriv") if not shutil.which(tool)]
    if os.geteuid() or missing or not Path("/dev/net/tun").exists():
        pytest.skip(f"needs root, /dev/net/tun and {', '.join(missing) or 'its programs'}")
    figures = tmp_path / "figures.json"
    argv = [sys.executable, "-m", "bench.clients", "--clients", "6", "--processes", "2", "--json", str(figures)]
    subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
    [rush] = json.loads(figures.read_text())
    assert len(rush["times"]) == 6 and not rush["errors"]
    assert sum(rush["sessions"]) == 6 and len(rush["sessions"]) == 2
