"""A region that is killed, at any point: nothing of it stays, and the next one starts well.

Does not prove a machine that loses power: then Linux forgets namespaces and processes by itself.
"""

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import region as labs
from lab.linux import namespaces
from lab.region import ROOT
from tests.lab.cloud import ALL, Cloud


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"t{secrets.token_hex(3)}"
    yield chosen
    labs.down(chosen)


def left_of(name: str) -> list[str]:
    """What a lab has on this machine: processes, namespaces, mounts, files."""
    processes = [
        path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if f"/{name}/".encode() in _read(path) + b"/"
    ]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/{name}/" in line]
    files = [str(ROOT / name)] if (ROOT / name).exists() else []
    return [*processes, *namespaces(f"{name}-"), *mounts, *files]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().replace(b"\0", b"/")
    except OSError:
        return b""


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
    region = json.loads((ROOT / name / "region.json").read_text())["pid"]
    time.sleep(moment)  # the moment is what is tried
    os.kill(region, signal.SIGKILL)

    assert labs.down(name)
    assert left_of(name) == []

    again = Cloud(labs.start(name, boots=False))
    vpc = again.vpc()
    subnet, group = vpc.subnet(), vpc.group([ALL])
    assert again.instance(subnet, group).pings(again.instance(subnet, group).address)
