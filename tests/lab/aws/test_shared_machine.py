"""Test a lab on a machine that other people use: it obeys nobody else's files, and removes nobody else's namespaces."""

import json
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from drawbridge.commands.root import cli
from lab import region as labs
from lab.errors import LabError
from lab.linux import NETNS, Process
from lab.paths import LabPaths

NOBODY = 65534


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    """Directories of labs in a place where the test may be another user first."""
    paths = LabPaths(root=tmp_path / "lib", run=tmp_path / "run")
    monkeypatch.setattr(labs, "PATHS", paths)
    return paths


@pytest.fixture
def victim() -> Iterator[Process]:
    """A process that no lab started."""
    with subprocess.Popen(["sleep", "infinity"]) as running:
        process = Process.of(running.pid)
        assert process
        yield process
        running.kill()


def prepare(directory: Path, victim: Process, owner: int) -> None:
    """Write what would make the next command end a process and take another API for the lab's."""
    directory.mkdir(parents=True)
    processes = [{"pid": victim.pid, "started": victim.started}]
    (directory / "processes.json").write_text(json.dumps(processes))
    settings = {"port": 31337, "token": "evil"}
    (directory / "region.json").write_text(json.dumps({"settings": settings, "credentials": {}, "pid": victim.pid}))
    for path in (directory.parent, directory, *directory.iterdir()):
        os.chown(path, owner, -1)


@pytest.mark.attack("10.2", "10.3")
@pytest.mark.parametrize("command", [labs.connect, labs.down, lambda name: labs.start(name, boots=False)])
def test_files_that_another_user_prepared_are_refused(
    paths: LabPaths, victim: Process, command: Callable[[str], object]
) -> None:
    prepare(paths.directory("shared"), victim, NOBODY)
    with pytest.raises(LabError, match="must be a directory that belongs to root"):
        command("shared")
    assert victim.runs
    assert paths.directory("shared").is_dir()


def test_the_same_files_are_obeyed_if_they_are_roots(paths: LabPaths, victim: Process) -> None:
    prepare(paths.directory("shared"), victim, 0)
    connected = labs.connect("shared")
    assert connected
    assert connected.port == 31337


def test_a_region_that_another_command_takes_down_is_noticed(paths: LabPaths, victim: Process) -> None:
    prepare(paths.directory("lab"), victim, 0)
    connected = labs.connect("lab")
    assert connected and not labs.is_going(connected)
    with labs._locked("lab"):
        assert labs.is_going(connected), "it is being taken down"
    victim.end(signal.SIGKILL, 5)
    assert labs.is_going(connected)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


#: Commands that look for a lab.
COMMANDS = ("lab status", "client list", "client fetch alice", "gateway status", "stack audit lab")


@pytest.mark.parametrize("mode", [0o700, 0o755], ids=["directory of all labs is root's alone", "only the lab's"])
def test_a_user_who_may_not_look_into_the_lab_is_told_so_in_one_line(
    victim: Process, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest's own directories are root's alone.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        paths = LabPaths(root=Path(directory) / "lib", run=Path(directory) / "run")
        monkeypatch.setattr(labs, "PATHS", paths)
        prepare(paths.directory("lab"), victim, 0)
        paths.directory("lab").chmod(0o700)
        paths.root.chmod(mode)
        for command in COMMANDS:
            CliRunner().invoke(cli, [*command.split(), "--help"])  # imports what nobody may not read
            with as_nobody():
                result = CliRunner().invoke(cli, command.split())
            assert result.exit_code == 1
            assert result.stderr.splitlines()[0] == "Error: only root may use a lab", command
            assert len(result.stderr.splitlines()) == 2


@pytest.mark.attack("10.4")
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_that_others_may_write_is_refused(paths: LabPaths, mode: int) -> None:
    paths.root.mkdir()
    paths.root.chmod(mode)
    with pytest.raises(LabError, match="nobody else may write"):
        labs.down("shared")


@pytest.mark.attack("10.1")
@pytest.mark.parametrize("link", ["root", "run"])
def test_a_link_in_the_place_of_a_directory_is_refused(paths: LabPaths, tmp_path: Path, link: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    getattr(paths, link).symlink_to(elsewhere)
    with pytest.raises(LabError, match="must be a directory"):
        labs.down("shared")
    assert not list(elsewhere.iterdir())


@pytest.mark.attack("10.1")
def test_a_lock_that_is_a_link_is_not_followed(paths: LabPaths, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    paths.run.mkdir()
    paths.lock("shared").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        labs.down("shared")
    assert precious.read_text() == "precious"


@pytest.fixture
def foreign_namespace() -> Iterator[tuple[str, Process]]:
    """A network namespace of the developer's own with a process in it, whose name begins as a lab's do."""
    lab = f"t{secrets.token_hex(3)}"
    namespace = f"{lab}-internet"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    with subprocess.Popen(["ip", "netns", "exec", namespace, "sleep", "infinity"]) as running:
        process = Process.of(running.pid)
        assert process
        yield lab, process
        running.kill()
    subprocess.run(["ip", "netns", "delete", namespace], check=True)


@pytest.mark.attack("10.5")
def test_a_namespace_that_the_lab_did_not_create_stays(foreign_namespace: tuple[str, Process]) -> None:
    lab, process = foreign_namespace
    labs.down(lab)
    assert process.runs
    assert (NETNS / f"{lab}-internet").exists()


def test_a_region_whose_namespace_is_somebody_elses_says_so(foreign_namespace: tuple[str, Process]) -> None:
    lab, process = foreign_namespace
    with pytest.raises(LabError, match=f"ip netns delete {lab}-internet"):
        labs.start(lab, boots=False)
    assert process.runs
    assert (NETNS / f"{lab}-internet").exists()
