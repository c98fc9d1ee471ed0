"""Machines with a kernel of their own: what the lab promises of them, apart from any stack.

Does not prove anything of bonds: tests/lab/worlds/test_links_pair.py and test_links_bonded.py do.
"""

import json
import os
import signal
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from drawbridge.trial.hosts import run_checked
from lab.errors import LabError
from lab.network.fabric import MIRROR
from lab.region import Host, Region, disposable_region
from tests.support.pair import read_boot_id
from tests.support.waiting import take_down, until

BOOT = 90.0


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    with disposable_region() as made:
        for line in (0, 1):
            lan = IPv4Network(f"192.168.{70 + line}.0/24")
            made.add_site(f"line{line}", public=IPv4Address("203.0.113.70") + line, lan=lan)
        yield made


@pytest.fixture(scope="module")
def host(region: Region) -> Host:
    made = region.add_host("own", site="line0", second_site="line1", own_kernel=True)
    made.wait_booted(BOOT)
    return made


def test_its_kernel_is_its_own_and_has_what_this_machines_may_lack(host: Host) -> None:
    assert run_checked(host, "uname", "-r").strip() != os.uname().release
    run_checked(host, "modprobe", "--all", "bonding", "tun")
    assert "bonding_masters" in run_checked(host, "ls", "/sys/class/net")
    assert run_checked(host, "hostname").strip() == "own"


def test_either_line_leads_to_the_internet(host: Host) -> None:
    for nic in ("eth0", "eth1"):
        run_checked(host, "ping", "-n", "-c", "1", "-W", "2", "-I", nic, MIRROR)
        # TCP too: what a virtual wire leaves to do to a checksum is done.
        fetch = run_checked(host, "curl", "--silent", "--fail", "--interface", nic, f"http://{MIRROR}/debian/Packages")
        assert "Package: openvpn" in fetch


def test_the_way_in_is_no_part_of_the_machine(host: Host) -> None:
    links = [line.split(":")[1].strip() for line in run_checked(host, "ip", "-oneline", "link").splitlines()]
    assert {"lo", "eth0", "eth1"} <= set(links) and not any(name.startswith("vec") for name in links)
    run_checked(host, "ip", "link", "set", "eth0", "down")
    try:
        run_checked(host, "true")
    finally:
        run_checked(host, "ip", "link", "set", "eth0", "up")


def test_a_command_has_input_output_exit_code_and_a_bound(host: Host) -> None:
    done = host.run(["sh", "-c", "cat; echo oops >&2; exit 3"], stdin="hello")
    assert (done.stdout, done.stderr, done.returncode) == ("hello", "oops\n", 3)
    with pytest.raises(LabError, match="did not end within"):
        host.run(["sleep", "30"], timeout=1)


def test_what_it_wrote_outlives_a_power_cut(region: Region, host: Host) -> None:
    run_checked(host, "sh", "-c", "echo kept >/var/lib/kept && sync")
    region.cut_power("own")
    again = region.power_on("own")
    again.wait_booted(BOOT)
    assert run_checked(again, "cat", "/var/lib/kept") == "kept\n"


def test_it_reboots_and_has_its_lines_again(region: Region, host: Host) -> None:
    boot = run_checked(host, "cat", "/proc/sys/kernel/random/boot_id")
    region.reboot_host("own")
    until(lambda: read_boot_id(host) not in ("", boot), BOOT)
    host.wait_booted(BOOT)
    for nic in ("eth0", "eth1"):
        run_checked(host, "ping", "-n", "-c", "1", "-W", "2", "-I", nic, MIRROR)


def test_a_power_off_is_none(region: Region) -> None:
    made = region.add_host("off", site="line0", own_kernel=True)
    made.wait_booted(BOOT)
    take_down(made, "poweroff")
    until(lambda: not next(h for h in region.status()["hosts"] if h["name"] == "off")["leader"], 40)
    region.remove_host("off")


def test_it_dies_with_its_region() -> None:
    def kernels(directory: Path) -> list[str]:
        found = []
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = line.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if f"rootflags={directory}/" in text:
                found.append(text)
        return found

    with disposable_region() as region:
        region.add_site("line0", public=IPv4Address("203.0.113.70"), lan=IPv4Network("192.168.70.0/24"))
        region.add_host("own", site="line0", own_kernel=True).run(["true"])
        assert kernels(region.directory)
        os.kill(_server_of(region), signal.SIGKILL)
        until(lambda: not kernels(region.directory), 10)


def _server_of(region: Region) -> int:
    return int(json.loads((region.directory / "region.json").read_text())["pid"])
