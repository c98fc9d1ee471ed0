"""A region that is killed, at any point: nothing of it stays, and the next one starts well.

Does not prove a machine that loses power: then Linux forgets namespaces and processes by itself.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import region as labs
from lab.linux import NETNS, Process
from lab.paths import PATHS
from tests.support import waiting
from tests.support.cloud import ALL, Cloud


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"t{secrets.token_hex(3)}"
    yield chosen
    labs.down(chosen)


def left_of(name: str) -> list[str]:
    """What a lab has on this machine: processes, namespaces, mounts, files."""
    told = [path for what in ("cmdline", "environ") for path in Path("/proc").glob(f"[0-9]*/{what}")]
    processes = [path.parent.name for path in told if f"/{name}/".encode() in _read(path) + b"/"]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/{name}/" in line]
    files = [str(PATHS.directory(name))] if (PATHS.directory(name)).exists() else []
    return [*processes, *(path.name for path in NETNS.glob(f"{name}-*")), *mounts, *files]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().replace(b"\0", b"/")
    except OSError:
        return b""


@pytest.mark.fault("9.1")
@pytest.mark.parametrize("moment", [0.0, 0.3, 2.0])
def test_a_region_killed_while_instances_start_leaves_nothing(name: str, moment: float) -> None:
    running = labs.start(name)
    cloud = Cloud(running)
    vpc = cloud.vpc(online=True)
    subnet, group = vpc.subnet(), vpc.group([ALL])
    for _ in range(2):
        cloud.instance(subnet, group, public=True)
    cloud.follow()
    assert len(left_of(name)) > 3, "control: there is something to leave"
    leaders = [found["leader"] for found in running.status()["instances"] if found["leader"]]
    time.sleep(moment)  # the moment is what is tried
    os.kill(_server(name), signal.SIGKILL)

    assert labs.down(name)
    assert left_of(name) == []
    assert [leader for leader in leaders if Process.of(leader)] == []
    _starts_well(name)


@pytest.mark.fault("9.2")
@pytest.mark.parametrize("noted", ["settings.json", "processes.json"])
def test_a_region_killed_while_it_starts_leaves_nothing(name: str, noted: str) -> None:
    begin = f"from lab import region; region.start({name!r}, boots=False)"
    starting = subprocess.Popen([sys.executable, "-c", begin], stderr=subprocess.DEVNULL)
    waiting.until((PATHS.directory(name) / noted).exists, 30)
    starting.kill()  # whoever starts it could end it
    starting.wait()
    _kill_all(name)

    assert labs.connect(name) is None
    labs.down(name)
    assert left_of(name) == []


@pytest.mark.fault("9.3")
@pytest.mark.parametrize("moment", [0.05, 0.3])
def test_a_region_killed_while_packets_follow_leaves_nothing(name: str, moment: float) -> None:
    running = labs.start(name, boots=False)
    running.set_rules(throttle_writes=False)  # EC2 launches five at once, and two a second after that
    cloud = Cloud(running)
    for _ in range(3):
        vpc = cloud.vpc(online=True)
        subnet, group = vpc.subnet(), vpc.group([ALL])
        for _ in range(3):
            cloud.instance(subnet, group, public=True)
    time.sleep(moment)  # the moment is what is tried
    os.kill(_server(name), signal.SIGKILL)

    assert labs.down(name)
    assert left_of(name) == []


@pytest.mark.fault("9.4")
@pytest.mark.parametrize("moment", [0.1])
def test_a_region_killed_while_it_is_taken_down_leaves_nothing(name: str, moment: float) -> None:
    cloud = Cloud(labs.start(name, boots=False))
    vpc = cloud.vpc(online=True)
    subnet, group = vpc.subnet(), vpc.group([ALL])
    for _ in range(4):
        cloud.instance(subnet, group)
    cloud.follow()
    server = _server(name)
    os.kill(server, signal.SIGTERM)
    time.sleep(moment)  # the moment is what is tried
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, signal.SIGKILL)

    assert labs.down(name)
    assert left_of(name) == []


@pytest.mark.fault("9.4")
def test_a_region_whose_owner_is_killed_while_it_takes_it_down_leaves_nothing(name: str) -> None:
    script = (
        "import json, os, signal, sys\n"
        "from lab import region\n"
        "from lab.paths import PATHS\n"
        f"running = region.start({name!r}, boots=False, disposable=True)\n"
        f"server = json.loads((PATHS.directory({name!r}) / 'region.json').read_text())['pid']\n"
        "os.kill(server, signal.SIGTERM)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL

    waiting.until(lambda: left_of(name) == [] or None, 60)


def _server(name: str) -> int:
    return int(json.loads((PATHS.directory(name) / "region.json").read_text())["pid"])


def _kill_all(name: str) -> None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if f"lab.server/{PATHS.directory(name)}/".encode() in _read(path):
            os.kill(int(path.parent.name), signal.SIGKILL)


def _starts_well(name: str) -> None:
    again = Cloud(labs.start(name, boots=False))
    vpc = again.vpc()
    subnet, group = vpc.subnet(), vpc.group([ALL])
    assert again.instance(subnet, group).pings(again.instance(subnet, group).address)
