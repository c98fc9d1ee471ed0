"""The lab itself: two at once, a taken port, interrupts and kills, and what is left of it afterwards: nothing.

Does not prove that a first build of the image succeeds: `make lab` on a fresh machine does.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from drawbridge.commands.root import cli
from drawbridge.operate.stack_files import CHECKOUT
from lab import region
from lab.errors import AlreadyUp, InTransition, PortInUse
from lab.linux import NETNS, Process
from lab.machines import image
from lab.paths import CACHE_VARIABLE, PATHS
from tests.support import waiting

NAME = "life"
DRAWBRIDGE = [sys.executable, "-m", "drawbridge"]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    region.down(NAME)
    assert traces(NAME) == []


def traces(name: str) -> list[str]:
    """What there is of a lab on this machine."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    directory = str(PATHS.directory(name))
    found = [f"namespace {path.name}" for path in NETNS.glob(f"{name}-*")]
    found += [f"note {path.name}" for path in PATHS.run.glob(f"{name}-*")]
    found += [f"mount {m}" for m in mounts if m.startswith(f"{directory}/")]
    found += [f"file {p}" for p in (Path(directory), PATHS.lock(name)) if p.exists()]
    found += [f"file {p}" for p in Path("/run/systemd/nspawn").glob(f"*/{name}-*")]
    found += [f"group {p}" for p in Path("/sys/fs/cgroup").glob(f"**/aws-lab/{name}")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word == directory or f"={directory}/" in word for word in command):
            found.append(f"process {' '.join(command)}")
    return found


def test_a_lab_leaves_traces_while_it_runs_and_none_after() -> None:
    running = region.start(NAME)
    running.add_site("home", public="203.0.113.5", lan="192.168.9.0/24")  # type: ignore[arg-type]  # as JSON has them
    running.add_host("guest", site="home").wait_booted()

    assert len(traces(NAME)) >= 5  # the control: namespaces, mount, directory, processes
    region.down(NAME)
    assert traces(NAME) == []


def test_a_second_one_of_the_same_name_is_refused() -> None:
    region.start(NAME)

    with pytest.raises(AlreadyUp, match="the lab life is up already"):
        region.start(NAME)


def test_two_commands_at_once_do_not_make_one_lab_together() -> None:
    with region._locked(NAME), pytest.raises(InTransition, match="another command is bringing the lab life up or down"):
        region.start(NAME)


def test_a_taken_port_is_named_and_nothing_is_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} of 127.0.0.1 is already in use"):
            region.start(NAME, port=port)

    assert traces(NAME) == []
    assert region.start(NAME, port=port).endpoint == f"http://127.0.0.1:{port}"


@pytest.mark.fault("9.1")
def test_a_killed_region_takes_its_machines_along_and_the_next_one_starts_well() -> None:
    running = region.start(NAME)
    running.add_site("home", public="203.0.113.5", lan="192.168.9.0/24")  # type: ignore[arg-type]  # as JSON has them
    guest = running.add_host("guest", site="home")
    guest.wait_booted()
    _kill_server()

    waiting.until(lambda: not Path(f"/proc/{guest.leader}").exists(), 10)
    assert region.connect(NAME) is None
    assert traces(NAME)  # namespaces and mounts stay until the next command
    assert region.start(NAME).status()["hosts"] == []


@pytest.mark.fault("9.1")
def test_a_region_killed_while_a_machine_starts_is_cleaned_up_too() -> None:
    running = region.start(NAME)
    running.add_site("home", public="203.0.113.5", lan="192.168.9.0/24")  # type: ignore[arg-type]  # as JSON has them
    guest = running.add_host("guest", site="home")
    _kill_server()

    assert region.down(NAME)
    assert Process.of(guest.leader) is None


@pytest.mark.fault("9.1")
def test_a_region_that_does_not_end_by_itself_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region, "_STOP_SECONDS", 1)
    region.start(NAME)
    _kill_server(signal.SIGSTOP)

    assert region.down(NAME)
    assert traces(NAME) == []


def _kill_server(number: signal.Signals = signal.SIGKILL) -> None:
    [server] = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if _is_server(p)]
    os.kill(server, number)


def _is_server(cmdline: Path) -> bool:
    try:
        words = cmdline.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return "lab.server" in words and str(PATHS.directory(NAME)) in words


@pytest.mark.fault("9.5")
@pytest.mark.parametrize("moment", ["the region is up", "a machine runs"])
def test_an_interrupted_trial_leaves_nothing(moment: str, tmp_path: Path) -> None:
    told = tmp_path / "stderr"  # a pipe that is read line by line keeps back what has come after the line
    with told.open("w") as stderr:
        trial = subprocess.Popen([*DRAWBRIDGE, "lab", "try", "lab"], cwd=CHECKOUT, stderr=stderr)
    with trial:
        name = waiting.until(lambda: _lab_of(trial.pid), 120)
        if moment == "a machine runs":
            waiting.until(lambda: (found := region.connect(name)) and found.status()["instances"], 120)
        trial.send_signal(signal.SIGINT)
        waiting.until(lambda: "taking the region down" in told.read_text(), 60)
        if moment == "a machine runs":  # else it may be over by now
            trial.send_signal(signal.SIGINT)  # impatience changes nothing
        trial.wait(timeout=60)

    assert trial.returncode == 130
    assert "Traceback" not in told.read_text()
    assert "its region is removed" in told.read_text()
    assert traces(name) == []


@pytest.mark.fault("9.5")
def test_a_killed_trial_leaves_nothing_either() -> None:
    trial = subprocess.Popen([*DRAWBRIDGE, "lab", "try", "lab"], cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    with trial:
        name = waiting.until(lambda: _lab_of(trial.pid), 120)
        waiting.until(lambda: (found := region.connect(name)) and found.status()["instances"], 120)
        trial.kill()

    waiting.until(lambda: traces(name) == [], 120)  # by itself: nobody takes it down


def _lab_of(parent: int) -> str | None:
    """Name of the lab whose region a process started."""
    for child in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in child.read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if "lab.server" in words:
                return Path(words[words.index("lab.server") + 1]).name
    return None


def test_a_stack_file_with_errors_is_told_whole_and_starts_no_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StartedError(Exception):
        """A lab would start."""

    def start(*_: object, **__: object) -> None:
        raise StartedError

    monkeypatch.setattr(region, "start", start)
    bad = tmp_path / "Pulumi.bad.yaml"
    bad.write_text(
        "config:\n  aws:region: eu-west-1\n  drawbridge:tunnel: {pool: 10.1.0.0/24}\n"
        "  drawbridge:network: {cidr: 10.1.0.0/16}\n  drawbridge:gateway: {diskSiz: 9}\n"
    )
    done = CliRunner().invoke(cli, ["lab", "try", str(bad)])

    assert done.exit_code == 1
    assert "drawbridge:tunnel.pool: 10.1.0.0/24 overlaps drawbridge:network.cidr 10.1.0.0/16" in done.output
    assert "drawbridge:gateway: diskSiz is not a known key; did you mean diskSize?" in done.output
    assert isinstance(done.exception, SystemExit)
    good = CliRunner().invoke(cli, ["lab", "try", "lab"])
    assert isinstance(good.exception, StartedError)


@pytest.mark.fault("9.6")
def test_an_image_build_cut_off_is_never_taken_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build that is cut off is a real one; the one after it is a stand-in, for time."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    command = [sys.executable, "-c", "from lab.machines import image; image.ensure(print)"]
    build = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waiting.until(lambda: next(tmp_path.glob("building-*/base/*"), None), 60)
    build.kill()
    build.wait()

    assert list(tmp_path.glob("image-*")) == []
    waiting.until(lambda: not _mentions(str(tmp_path)), 10)  # what the build had started is gone with it

    def stand_in(target: Path, progress: object) -> None:
        (target / "base").mkdir()

    monkeypatch.setattr(image, "_build", stand_in)
    made = image.ensure(lambda _: None)
    assert made.base.is_dir()
    assert list(tmp_path.glob("building-*")) == []


def test_a_region_takes_its_image_from_the_cache_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(PATHS.cache))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert region.start(NAME, boots=False).status()["boots"] is False
    assert list(tmp_path.iterdir()) == []


def _mentions(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in command and "pytest" not in command:
            found.append(command)
    return found
