"""Test that files of a machine's root are read and written inside of it, whatever links the machine has put there."""

from pathlib import Path

import pytest

from lab import rooted_files
from lab.machines.uml import read_nft_arguments


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    return root


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory of the host's, with a file in it."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "file").write_text("the host's")
    return host


def test_a_file_is_written_with_its_directories_and_mode(root: Path) -> None:
    rooted_files.write_file(root, "/usr/local/lib/a", "text", 0o755)
    assert (root / "usr/local/lib/a").read_text() == "text"
    assert (root / "usr/local/lib/a").stat().st_mode & 0o777 == 0o755
    assert rooted_files.read_file(root, "/usr/local/lib/a") == b"text"


def test_a_file_of_the_same_content_stays(root: Path) -> None:
    rooted_files.write_file(root, "/etc/a", "text")
    before = (root / "etc/a").stat().st_ino
    rooted_files.write_file(root, "/etc/a", "text")
    assert (root / "etc/a").stat().st_ino == before
    rooted_files.write_file(root, "/etc/a", "other")
    assert (root / "etc/a").read_text() == "other"


@pytest.mark.attack("10.6")
@pytest.mark.parametrize("absolute", [True, False])
def test_a_directory_that_is_a_link_leads_nowhere_but_into_the_root(root: Path, host: Path, absolute: bool) -> None:
    (root / "lib").symlink_to(host if absolute else "../../../../../../../../../../.." + str(host))
    inside = root / str(host).lstrip("/")
    inside.mkdir(parents=True)
    rooted_files.write_file(root, "/lib/file", "the machine's")
    assert (host / "file").read_text() == "the host's"
    assert (inside / "file").read_text() == "the machine's"
    assert rooted_files.remove_file(root, "/lib/file")
    assert (host / "file").exists()


@pytest.mark.attack("10.6")
def test_a_directory_that_is_a_link_to_nothing_inside_is_refused(root: Path, host: Path) -> None:
    (root / "lib").symlink_to(host)
    with pytest.raises(FileNotFoundError):
        rooted_files.write_file(root, "/lib/file", "the machine's")
    assert (host / "file").read_text() == "the host's"


@pytest.mark.attack("10.6")
def test_a_file_that_is_a_link_is_replaced(root: Path, host: Path) -> None:
    (root / "etc/resolv.conf").symlink_to(host / "file")
    assert rooted_files.read_file(root, "/etc/resolv.conf") is None
    rooted_files.write_file(root, "/etc/resolv.conf", "nameserver 10.1.0.2\n")
    assert (host / "file").read_text() == "the host's"
    assert not (root / "etc/resolv.conf").is_symlink()


def test_a_link_of_the_machine_is_followed_inside(root: Path) -> None:
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("/usr/lib")
    rooted_files.write_file(root, "/lib/a", "text")
    assert (root / "usr/lib/a").read_text() == "text"


def test_what_is_not_there_is_none(root: Path) -> None:
    assert rooted_files.read_file(root, "/no/such") is None
    assert rooted_files.read_file(root, "/etc") is None
    assert not rooted_files.remove_file(root, "/no/such")


def test_a_file_gets_another_name(root: Path) -> None:
    rooted_files.write_file(root, "/etc/a", "text")
    rooted_files.rename_file(root, "/etc/a", "b")
    assert (root / "etc/b").read_text() == "text"


@pytest.mark.attack("10.7")
@pytest.mark.parametrize(
    ("argv", "stdin"),
    [
        (["-f", "/etc/shadow"], None),
        (["--file", "/etc/shadow"], None),
        (["-cf", "/etc/shadow"], None),
        (["-f/etc/shadow"], None),
        (["-I", "/etc", "-f", "-"], ""),
        (["-cI/etc"], ""),
        (["--includepath=/etc"], ""),
        (["-i"], None),
        (["-D", "a=b"], ""),
        (["-f", "-"], 'include "/etc/shadow"'),
        (["-f", "-"], 'include"/etc/shadow"'),
        (["include", '"/etc/shadow"'], None),
    ],
)
def test_the_nft_judge_reads_no_file_of_the_host(argv: list[str], stdin: str | None) -> None:
    with pytest.raises(ValueError, match="lab"):
        read_nft_arguments(argv, stdin)


def test_control_the_nft_judge_takes_rulesets_and_listings() -> None:
    assert read_nft_arguments(["-cf", "-"], "flush ruleset") == (["-c"], "flush ruleset")
    assert read_nft_arguments(["-j", "list", "table", "inet", "t"], None) == (["-j"], "list table inet t")
