"""The namespaces that tests create without names: nothing of them stays. Does not prove that tests use them."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.network_namespace import network_namespace
from tests.support.waiting import until

pytestmark = [
    pytest.mark.allow_subprocess,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv"),
]

#: Creates a namespace with a program in it, prints the ids of both processes, and waits.
TESTS = """
import subprocess, time
from tests.support.network_namespace import network_namespace
with network_namespace() as namespace:
    program = subprocess.Popen(namespace.enter("sh", "-c", "echo; exec sleep 60"), stdout=subprocess.PIPE)
    program.stdout.readline()  # until then nothing ends it with this process
    print(namespace.holder, program.pid, flush=True)
    time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


def test_a_namespace_has_a_network_of_its_own_that_is_gone_after_the_block() -> None:
    with network_namespace() as namespace:
        assert namespace.path.readlink() != Path("/proc/self/ns/net").readlink()
        links = subprocess.run(namespace.enter("ip", "-o", "link"), capture_output=True, text=True, check=True).stdout
        assert [line.split()[1] for line in links.splitlines() if "UP" in line] == ["lo:"]
    assert not is_alive(namespace.holder)


def test_nothing_stays_of_tests_that_are_killed() -> None:
    argv = [sys.executable, "-c", TESTS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as tests:
        assert tests.stdout
        pids = [int(pid) for pid in tests.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_alive, pids)), "control"
        tests.send_signal(signal.SIGKILL)
    until(lambda: not any(map(is_alive, pids)), 10)
