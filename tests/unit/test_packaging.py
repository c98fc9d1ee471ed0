"""How Drawbridge is installed: in place. Runs the build backend as pip does, without pip and without a network."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.sources import ROOT

pytestmark = pytest.mark.allow_subprocess


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy with what the build backend reads, so that the build leaves nothing in this checkout."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "contract.py", "endpoint.py"):
        shutil.copy(ROOT / name, copy)
    return copy


def build(checkout: Path, hook: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Call a hook of the build backend (PEP 517, PEP 660)."""
    script = f"import sys; from setuptools import build_meta; print('built', build_meta.{hook}(sys.argv[1]))"
    directory.mkdir()
    return subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        cwd=checkout,
        env={**os.environ, "SETUPTOOLS_USE_DISTUTILS": "local"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_wheel_is_refused_in_one_sentence_with_its_remedy(checkout: Path, tmp_path: Path) -> None:
    done = build(checkout, "build_wheel", tmp_path / "wheel")
    assert done.returncode != 0
    assert "cannot be packed into a wheel" in done.stderr and "pip install --editable ." in done.stderr
    assert "Traceback" not in done.stderr.rpartition("drawbridge is a Pulumi program")[2]
    assert list((tmp_path / "wheel").glob("*.whl")) == []


def test_an_editable_install_is_built(checkout: Path, tmp_path: Path) -> None:
    done = build(checkout, "build_editable", tmp_path / "editable")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "editable").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("entry_points.txt") for name in names)
    assert "drawbridge/__main__.py" not in names, "it points to the checkout and holds no copy"
