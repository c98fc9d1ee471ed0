"""Two hosts with kernels of their own hold one address over two tunnels, each server of one and client of the other.

Does not prove that a kernel other than User-Mode Linux's does the same, nor anything of AWS: no gateway takes part.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from drawbridge.trial.bond_measure import link_states, measure_loss, measure_throughput
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.link_faults import end_silence, silence
from lab.linux import nft, run
from lab.region import Host, disposable_region
from openvpn.topology import BondMode
from tests.support import pair as pairs
from tests.support.pair import Pair, read_boot_id, wait_bonded, wait_links
from tests.support.waiting import Lateness, until, wait_lossless

LEFT, RIGHT = "10.0.0.1", "10.0.0.2"
#: Seconds of silence after which a link leaves the bond (`Bond.keepalive`). The goal is 1 more, the rest is measuring;
#: what a busy machine is late comes on top (`Lateness`).
KEEPALIVE, SLACK = 5.0, 1.5
UNITS = ("drawbridge-link@ovn0", "drawbridge-link@ovn1")


@pytest.fixture(scope="module")
def made() -> Iterator[Pair]:
    with disposable_region() as region:
        yield pairs.build_pair(region)


@pytest.fixture
def pair(made: Pair) -> Pair:
    """Both links up at both ends, whatever the test before left."""
    for host in made.hosts:
        run_checked(host, "systemctl", "start", *UNITS)
    wait_bonded(made)
    return made


def drop(pair: Pair, line: str) -> None:
    """Have a line's router drop all that passes, without a word to anybody."""
    silence(f"{pair.region.name}-{line}-gw")


def pass_again(pair: Pair, line: str) -> None:
    end_silence(f"{pair.region.name}-{line}-gw")


def journal(host: Host, unit: str, since: str) -> str:
    return run_checked(host, "journalctl", "--no-pager", "-u", unit, "--since", since)


def main_pid(host: Host, unit: str) -> str:
    return run_checked(host, "systemctl", "show", "--property", "MainPID", "--value", unit)


def now(host: Host) -> str:
    return run_checked(host, "date", "+%Y-%m-%d %H:%M:%S").strip()


@pytest.mark.seed("1.1")
def test_the_bond_and_its_address_are_there_before_any_link(pair: Pair) -> None:
    for host in pair.hosts:
        run_checked(host, "systemctl", "stop", *UNITS)
    for host, address in zip(pair.hosts, (LEFT, RIGHT), strict=True):
        wait_links(host)
        bond = run_checked(host, "ip", "address", "show", "bond0")
        assert f"inet {address}/24" in bond and "mtu 1500" in bond and ",UP" in bond
        assert measure_loss(host, RIGHT if address == LEFT else LEFT, 1).gap > 0.5, "control: no link, no answer"


@pytest.mark.seed("1.2")
def test_hardware_addresses_are_the_pinned_ones_and_survive_a_restart(pair: Pair) -> None:
    def found(host: Host) -> list[str]:
        permanent = re.findall(r"Permanent HW addr: (\S+)", run_checked(host, "cat", "/proc/net/bonding/bond0"))
        return sorted([*permanent, run_checked(host, "cat", "/sys/class/net/bond0/address").strip()])

    before = [found(host) for host in pair.hosts]
    for host, bond, macs in zip(pair.hosts, pairs.pair_bonds(pairs.NAMES, "balance-xor"), before, strict=True):
        assert macs == sorted(bond.mac(device) for device in ("bond0", "ovn0", "ovn1"))
        run_checked(host, "systemctl", "restart", *UNITS)
    wait_bonded(pair)
    assert [found(host) for host in pair.hosts] == before
    assert not set(before[0]) & set(before[1])


def test_with_both_links_up_no_ping_is_lost_either_way(pair: Pair) -> None:
    for host, other in ((pair.left, RIGHT), (pair.right, LEFT)):
        assert set(link_states(host)) == {"ovn0", "ovn1"}
        wait_lossless(host, other, 100)
        assert measure_loss(host, other, 4).lost == 0


@pytest.mark.fault("1.9")
@pytest.mark.seed("1.4")
@pytest.mark.seed("1.7")
@pytest.mark.parametrize("unit", UNITS)
def test_a_link_that_is_stopped_leaves_the_bond_and_traffic_goes_on(
    pair: Pair, unit: str, record_property: Callable[[str, object], None]
) -> None:
    tap = unit.rpartition("@")[2]
    other = "ovn0" if tap == "ovn1" else "ovn1"

    with Lateness() as late_stop:
        stopped = measure_loss(pair.left, RIGHT, 6, meanwhile=lambda: run_checked(pair.left, "systemctl", "stop", unit))
    for host in pair.hosts:
        wait_links(host, other)
    with Lateness() as late_start:
        started = measure_loss(
            pair.left, RIGHT, 8, meanwhile=lambda: run_checked(pair.left, "systemctl", "start", unit)
        )

    record_property("gap", f"{tap} stopped: {stopped}; started: {started}")
    assert stopped.gap <= 1.0 + 0.2 + late_stop.seconds, (stopped, late_stop.seconds)
    assert started.gap <= 1.0 + late_start.seconds, (started, late_start.seconds)
    wait_bonded(pair)


@pytest.mark.fault("6.1")
@pytest.mark.seed("1.8")
@pytest.mark.parametrize(("line", "tap"), [("left0", "ovn0"), ("right1", "ovn1")])
def test_a_far_end_that_falls_silent_is_out_of_the_bond_within_the_keepalive_time(
    pair: Pair, line: str, tap: str, record_property: Callable[[str, object], None]
) -> None:
    other = "ovn0" if tap == "ovn1" else "ovn1"
    try:
        with Lateness() as late:
            silent = measure_loss(pair.left, RIGHT, 12, meanwhile=lambda: drop(pair, line))
        for host in pair.hosts:
            wait_links(host, other)
    finally:
        pass_again(pair, line)
    record_property("gap", f"{tap} silent: {silent}")
    assert 1.0 < silent.gap <= KEEPALIVE + SLACK + late.seconds, (silent, late.seconds)
    wait_bonded(pair)


@pytest.mark.fault("1.9")
def test_a_tunnel_killed_at_one_end_costs_at_most_the_keepalive_time(pair: Pair) -> None:
    kill = ["sh", "-c", f"kill -9 $(systemctl show --property MainPID --value {UNITS[1]})"]

    with Lateness() as late:
        killed = measure_loss(pair.left, RIGHT, 10, meanwhile=lambda: run_checked(pair.right, *kill))

    assert killed.gap <= KEEPALIVE + SLACK + late.seconds, (killed, late.seconds)
    wait_bonded(pair)


@pytest.mark.seed("1.12")
@pytest.mark.seed("1.13")
def test_a_watcher_sees_its_own_link_dead_though_the_bond_answers(pair: Pair) -> None:
    """The far end's tunnel runs on and answers OpenVPN's own pings, but its tap takes no frame."""
    start = now(pair.left)
    healthy = run_checked(pair.left, "systemctl", "show", "--property", "MainPID", UNITS[1])
    run_checked(pair.right, "ip", "link", "set", "ovn0", "down")
    try:
        until(lambda: "restarting the tunnel" in journal(pair.left, "drawbridge-watch@ovn0", start), 40)
        answered = [pair.left.run(["ping", "-n", "-c", "1", "-W", "1", RIGHT]).returncode == 0 for _ in range(12)]
        assert any(answered), "the bond carries on over ovn1, which is what hides the dead link from who pings the bond"
    finally:
        run_checked(pair.right, "ip", "link", "set", "ovn0", "up")
    assert "starting" not in journal(pair.left, "drawbridge-watch@ovn1", start)
    assert run_checked(pair.left, "systemctl", "show", "--property", "MainPID", UNITS[1]) == healthy
    wait_bonded(pair)


@pytest.mark.seed("1.9")
def test_one_host_without_any_way_in_still_has_the_other_link(pair: Pair) -> None:
    router = f"{pair.region.name}-left0-gw"
    rules = run("ip", "netns", "exec", router, "nft", "list", "chain", "inet", "home", "forwarded")
    run("ip", "netns", "exec", router, "nft", "flush", "chain", "inet", "home", "forwarded")
    try:
        for host in pair.hosts:
            run_checked(host, "systemctl", "restart", UNITS[0])
        run("ip", "netns", "exec", router, "conntrack", "--flush")
        for host in pair.hosts:
            wait_links(host, "ovn1")
        assert measure_loss(pair.left, RIGHT, 3).lost == 0
        assert measure_loss(pair.right, LEFT, 3).lost == 0
    finally:
        nft(router, rules)
    wait_bonded(pair)


@pytest.mark.seed("1.10")
@pytest.mark.parametrize("order", [(0, 0, 1, 1), (1, 0, 0, 1), (1, 1, 0, 0)])
def test_any_order_of_starting_ends_bonded(pair: Pair, order: tuple[int, ...]) -> None:
    for host in pair.hosts:
        run_checked(host, "systemctl", "stop", *UNITS)
    begun = {0: 0, 1: 0}
    for host_number in order:
        host = pair.hosts[host_number]
        run_checked(host, "systemctl", "start", UNITS[(begun[host_number] + host_number) % 2])
        begun[host_number] += 1
    wait_bonded(pair)
    assert measure_loss(pair.left, RIGHT, 2).lost == 0


@pytest.mark.fault("6.2")
@pytest.mark.seed("1.14")
def test_a_host_that_changes_networks_comes_back_by_itself(pair: Pair) -> None:
    """The left host calls over its second line: that line gets another public address."""
    region = pair.region
    moved = IPv4Address("203.0.113.90")
    during = measure_loss(pair.left, RIGHT, 10, meanwhile=lambda: region.move_site("left1", moved))
    try:
        wait_bonded(pair)
        assert during.lost, "control: the line carried them"
        assert measure_loss(pair.left, RIGHT, 3).lost == 0
    finally:
        region.move_site("left1", pairs.public_address(0, 1))
        # It has not noticed yet that it moved again: a test that came now would meet a link about to fall silent.
        run_checked(pair.left, "systemctl", "restart", UNITS[1])
        wait_bonded(pair)
    wait_bonded(pair)


@pytest.mark.seed("1.11")
def test_eight_streams_use_both_lines(pair: Pair, record_property: Callable[[str, object], None]) -> None:
    """What each line carried is judged, not how fast: a machine with other work to do carries less over both."""
    both, shares = carried(pair)
    assert min(shares) > 0.1, shares
    run_checked(pair.left, "systemctl", "stop", UNITS[1])
    for host in pair.hosts:
        wait_links(host, "ovn0")
    one, shares_of_one = carried(pair)
    assert shares_of_one[1] < 0.02, f"control: the second line carries nothing, {shares_of_one}"

    figures = f"Mbit/s of 8 streams: two lines {both:.1f} {shares}, one line {one:.1f} {shares_of_one}"
    record_property("figures", figures)
    print(figures)


def carried(pair: Pair) -> tuple[float, tuple[float, float]]:
    """Mbit/s of eight streams from left to right, and the share of the bytes that went out over each of left's lines.

    Twice eight, on ports of the kernel's choosing: that all of them fall to one line happens once in 30,000 times.
    """
    before = sent(pair)
    rate = max(measure_throughput(pair.left, pair.right, RIGHT, 8, seconds=3) for _ in range(2))
    first, second = (now - then for now, then in zip(sent(pair), before, strict=True))
    return rate, (round(first / (first + second), 3), round(second / (first + second), 3))


def sent(pair: Pair) -> tuple[int, int]:
    """Bytes that the left host's two routers have sent towards the Internet."""

    def of(line: str) -> int:
        shown = run("ip", "-json", "-stats", "-n", f"{pair.region.name}-{line}-gw", "link", "show", "wan0")
        return int(json.loads(shown)[0]["stats64"]["tx"]["bytes"])

    return of("left0"), of("left1")


@pytest.mark.fault("3.8")
def test_a_reboot_of_either_end_ends_bonded(pair: Pair) -> None:
    boot = read_boot_id(pair.right)
    pair.region.reboot_host("right")
    until(lambda: read_boot_id(pair.right) not in ("", boot), pairs.BOOT)
    pair.right.wait_booted(pairs.BOOT)
    wait_bonded(pair)
    assert measure_loss(pair.left, RIGHT, 2).lost == 0


def test_both_links_down_and_back(pair: Pair) -> None:
    for line in ("left0", "left1"):
        drop(pair, line)
    try:
        wait_links(pair.left)
        assert measure_loss(pair.left, RIGHT, 1).gap > 0.5
    finally:
        for line in ("left0", "left1"):
            pass_again(pair, line)
    wait_bonded(pair)


@pytest.mark.fault("5.2", "5.4")
def test_a_clock_a_day_slow_is_what_the_log_names_and_the_right_time_ends_bonded(pair: Pair) -> None:
    start = now(pair.left)
    try:
        run_checked(pair.left, "sh", "-c", f"date --set '1 day ago' && systemctl restart {' '.join(UNITS)}")
        said = ["journalctl", "--no-pager", "--boot", "-u", "drawbridge-link@*", "--grep", "not yet valid"]
        until(lambda: pair.left.run(said).stdout, 40)
    finally:
        run_checked(pair.left, "date", "--set", start)
    wait_bonded(pair)


def test_a_kit_installed_on_both_hosts_is_told_by_the_watchers(pair: Pair) -> None:
    """Two hosts of one name have the same hardware addresses, and then a switch or a peer cannot tell them apart."""
    start = now(pair.right)
    left, _ = pairs.pair_bonds(pairs.NAMES, "balance-xor")
    pairs.install_kit(pair.left, replace(left, host="right"))
    try:
        until(lambda: "the same kit is installed on both hosts" in journal(pair.right, "drawbridge-watch@*", start), 60)
    finally:
        pairs.install_kit(pair.left, left)
    wait_bonded(pair)


@pytest.mark.parametrize("mode", ["active-backup", "balance-rr"])
def test_other_modes_lose_nothing_either(pair: Pair, mode: BondMode) -> None:
    """Runs last: it leaves the pair in the last mode."""
    pairs.change_mode(pair, mode)
    for host, other in ((pair.left, RIGHT), (pair.right, LEFT)):
        assert mode in run_checked(host, "cat", "/sys/class/net/bond0/bonding/mode")
        assert measure_loss(host, other, 4).lost == 0
    with Lateness() as late:
        stopped = measure_loss(
            pair.left, RIGHT, 6, meanwhile=lambda: run_checked(pair.left, "systemctl", "stop", UNITS[0])
        )
    assert stopped.gap <= 1.0 + 0.2 + late.seconds, (stopped, late.seconds)
    run_checked(pair.left, "systemctl", "start", UNITS[0])
    wait_bonded(pair)
    # Killed, a tunnel is gone at one end alone: this one takes the other link, the far end may stay with the old.
    for unit in UNITS if mode == "active-backup" else ():
        before = main_pid(pair.left, unit)
        run_checked(pair.left, "kill", "-9", before.strip())
        until(lambda unit=unit, old=(before, "0\n"): main_pid(pair.left, unit) not in old, 30)  # type: ignore[misc]
        wait_bonded(pair)
        until(lambda: measure_loss(pair.left, RIGHT, 1).lost == 0, 20)
