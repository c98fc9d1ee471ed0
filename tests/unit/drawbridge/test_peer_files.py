"""Files for two peers. Does not prove that OpenVPN takes them: tests/unit/openvpn/test_real_openvpn.py does."""

import stat
from pathlib import Path

from click.testing import CliRunner

from drawbridge.commands.root import cli


def test_each_gets_a_file_of_its_own_that_names_the_other_s_key(tmp_path: Path) -> None:
    asked = ["peer", "new", "home", "cabin", "--remote", "203.0.113.7", "--directory", str(tmp_path)]
    done = CliRunner().invoke(cli, asked, catch_exceptions=False)
    home, cabin = (tmp_path / f"{name}.ovpn" for name in ("home", "cabin"))

    assert done.exit_code == 0 and str(home) in done.output
    assert {stat.S_IMODE(path.stat().st_mode) for path in (home, cabin)} == {0o600}
    assert "tls-server" in home.read_text() and "remote " not in home.read_text()
    assert "remote 203.0.113.7 1194" in cabin.read_text()
    assert home.read_text().count("PRIVATE KEY") == cabin.read_text().count("PRIVATE KEY") == 2
    assert home.read_text().partition("<key>")[2] != cabin.read_text().partition("<key>")[2]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    asked = ["peer", "new", "home", "cabin", "--remote", "203.0.113.7", "--directory", str(tmp_path)]
    (tmp_path / "home.ovpn").write_text("mine")
    done = CliRunner().invoke(cli, asked)

    assert done.exit_code == 1 and "already exists" in done.output
    assert (tmp_path / "home.ovpn").read_text() == "mine"
