"""`drawbridge stack check`: what it prints, and that it needs nothing but the file."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from drawbridge.commands.root import cli
from tests.unit.drawbridge.test_root import SLOW, imported_by


def check(path: Path, text: str) -> Result:
    path.write_text(text)
    return CliRunner().invoke(cli, ["stack", "check", str(path)])


def test_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    result = check(path, "config: {aws:region: eu-west-1, clients: [{name: alice}]}")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}: valid\n", "")


def test_warnings_leave_a_file_valid(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    result = check(path, "config: {aws:region: eu-west-1}")
    assert (result.exit_code, result.stdout) == (0, f"{path}: valid\n")
    assert result.stderr == (
        "warning: drawbridge:clients: [] has nobody who may connect; add clients, such as {name: alice}\n"
    )


def test_every_error_at_once(tmp_path: Path) -> None:
    result = check(tmp_path / "Pulumi.dev.yaml", "config: {aws:region: nowhere, tunnel: {port: 0}}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "aws:region: nowhere is not a valid AWS region" in result.stderr
    assert "drawbridge:tunnel.port: 0 is too small; use 1 or more" in result.stderr


@pytest.mark.allow_subprocess
def test_it_imports_no_slow_library(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text("config: {aws:region: eu-west-1, clients: [{name: alice}]}")
    assert imported_by("stack", "check", str(path)) & SLOW == set()
