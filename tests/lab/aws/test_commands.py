"""Commands in machines that go down: each ends within seconds, and the machine's next boot answers.

Does not prove it of machines with a kernel of their own beyond a power cut.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network

import pytest

from lab.errors import MachineDown
from lab.region import Host, Region
from tests.support import waiting

#: A system takes a few seconds to shut down, and more on a busy machine.
SECONDS = 20.0


@pytest.fixture(scope="module")
def host(region: Region) -> Iterator[Host]:
    region.add_site("home", public=IPv4Address("203.0.113.30"), lan=IPv4Network("192.168.30.0/24"))
    host = region.add_host("guest", site="home")
    host.wait_booted()
    yield host


def reboot(region: Region) -> None:
    region.reboot_host("guest")


def lose_power(region: Region) -> None:
    region.cut_power("guest")
    region.power_on("guest")


@pytest.mark.parametrize("go_down", [reboot, lose_power])
def test_a_command_ends_with_its_machine_and_the_next_boot_takes_the_next_one(
    region: Region, host: Host, go_down: Callable[[Region], None]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        command = pool.submit(host.run, ["sleep", "infinity"], timeout=300)
        waiting.until(lambda: host.run(["pgrep", "-x", "sleep"]).returncode == 0, 10)
        begin = time.monotonic()
        go_down(region)
        with pytest.raises(MachineDown):
            command.result(60)
    assert time.monotonic() - begin < SECONDS

    assert host.wait_booted() in ("running", "degraded")
    assert host.run(["pgrep", "-x", "sleep"]).returncode == 1


def test_commands_at_any_moment_of_a_reboot_end_soon(region: Region, host: Host) -> None:
    boot = boot_of(host)
    slowest = 0.0

    def run_for_a_while(_: int) -> None:
        nonlocal slowest
        while not ended:
            begin = time.monotonic()
            try:
                host.run(["true"])
            except MachineDown:
                time.sleep(0.02)
            slowest = max(slowest, time.monotonic() - begin)

    ended: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        try:
            commands = [pool.submit(run_for_a_while, number) for number in range(4)]
            reboot(region)
            waiting.until(lambda: boot_of(host) != boot, 60)
        finally:
            ended.append("the test")
    for command in commands:
        command.result()
    assert slowest < SECONDS


def test_a_machine_that_is_off_says_so_at_once(region: Region, host: Host) -> None:
    region.cut_power("guest")
    begin = time.monotonic()
    with pytest.raises(MachineDown, match="guest is down"):
        host.run(["true"])
    assert time.monotonic() - begin < 5
    region.power_on("guest")
    host.wait_booted()


def boot_of(host: Host) -> str:
    return host.run(["cat", "/proc/1/stat"]).stdout.split(")")[-1].split()[19]
