"""World `bonded` as a user has it: its stack file, deployed; two hosts with two lines each, set up by their kits.

Does not prove that AWS itself accepts what is deployed, nor that a kernel other than User-Mode Linux's does so too.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address

import pytest

from drawbridge.operate.stack_files import find_stack_file
from drawbridge.trial import bonded
from drawbridge.trial.bond_measure import link_states, measure_loss, wait_links
from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.link_faults import end_silence, silence
from drawbridge.trial.routed import wait_report
from lab.region import Host, disposable_region
from settings.stack_file import read_stack_file
from tests.support.waiting import Lateness, until, wait_lossless

LEFT, RIGHT, GATEWAY = "10.0.0.1", "10.0.0.2", "10.0.0.254"
#: Seconds of silence after which a link leaves the bond; 1 more is the goal, the rest the driver and measuring add.
KEEPALIVE, SLACK = 5.0, 1.5 + bonded.DRIVER_DELAY


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    with disposable_region() as region:
        stack = deploy(region, "bonded", read_stack_file(find_stack_file("bonded")), lambda _: None)
        hosts = [bonded.boot_host(stack, number, name) for number, name in enumerate(("left", "right"))]
        assert wait_report(stack, stack.outputs["release"])["state"] == "ready"
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda host: bonded.set_up_host(stack, host), hosts))
        yield stack


@pytest.fixture
def hosts(deployed: Deployment) -> tuple[Host, Host]:
    """Both hosts, bonded."""
    found = deployed.region.host("left"), deployed.region.host("right")
    for host in found:
        run_checked(host, "systemctl", "start", *(f"drawbridge-link@{tap}" for tap in bonded.TAPS))
    for host in found:
        assert bonded.check_bond(host).ok, link_states(host)
    return found


@pytest.mark.seed("1.6")
def test_no_ping_is_lost_with_balance_alb_through_the_gateways_bridge(hosts: tuple[Host, Host]) -> None:
    for host, other in zip(hosts, (RIGHT, LEFT), strict=True):
        assert "balance-alb" in run_checked(host, "cat", "/sys/class/net/bond0/bonding/mode")
        for _ in range(3):
            wait_lossless(host, other, 100)
        with Lateness() as late:
            steady = measure_loss(host, GATEWAY, 2)
        assert steady.gap <= 0.5 + late.seconds, (steady, late.seconds)


def test_control_with_its_links_down_a_host_is_out_of_reach(hosts: tuple[Host, Host]) -> None:
    run_checked(hosts[0], "systemctl", "stop", *(f"drawbridge-link@{tap}" for tap in bonded.TAPS))
    assert hosts[1].run(["ping", "-n", "-c", "2", "-W", "1", LEFT]).returncode == 1


@pytest.mark.fault("6.1")
def test_a_line_that_falls_silent_costs_at_most_the_keepalive_time(
    deployed: Deployment, hosts: tuple[Host, Host], record_property: Callable[[str, object], None]
) -> None:
    router = f"{deployed.region.name}-left-ovn0-gw"
    try:
        with Lateness() as late:
            silent = measure_loss(hosts[0], RIGHT, 14, meanwhile=lambda: silence(router))
        assert wait_links(hosts[0], {"ovn1"}, bonded.BONDED) == {"ovn0": "down", "ovn1": "up"}
    finally:
        end_silence(router)
    record_property("gap", str(silent))
    print(f"a line falls silent: {silent}")
    assert silent.gap <= KEEPALIVE + SLACK + late.seconds, (silent, late.seconds)
    assert bonded.check_bond(hosts[0]).ok


@pytest.mark.fault("6.2")
@pytest.mark.seed("1.14")
def test_a_host_that_changes_networks_comes_back_by_itself(deployed: Deployment, hosts: tuple[Host, Host]) -> None:
    """All of its links call the gateway: either line may get another address, here the first, then the second."""
    for line, address in (("right-ovn0", "203.0.113.190"), ("right-ovn1", "203.0.113.191")):
        move = functools.partial(deployed.region.move_site, line, IPv4Address(address))
        with Lateness() as late:
            during = measure_loss(hosts[0], RIGHT, 10, meanwhile=move)
        assert during.gap <= KEEPALIVE + SLACK + late.seconds, (during, late.seconds)
        assert bonded.check_bond(hosts[1]).ok


def test_the_gateways_filter_knows_each_host_by_its_addresses_alone(
    deployed: Deployment, hosts: tuple[Host, Host]
) -> None:
    """9.4 for bonded hosts: a frame from an address that is another host's does not cross."""
    run_checked(hosts[0], "ip", "address", "add", "10.0.0.77/24", "dev", "bond0")
    try:
        done = hosts[0].run(["ping", "-n", "-c", "2", "-W", "1", "-I", "10.0.0.77", RIGHT])
        assert done.returncode == 1
    finally:
        run_checked(hosts[0], "ip", "address", "delete", "10.0.0.77/24", "dev", "bond0")
    assert measure_loss(hosts[0], RIGHT, 1).lost == 0


@pytest.mark.fault("3.8")
def test_the_gateway_reboots_and_the_hosts_are_bonded_again_by_themselves(
    deployed: Deployment, hosts: tuple[Host, Host]
) -> None:
    deployed.client("ec2").reboot_instances(InstanceIds=[deployed.outputs["gatewayInstanceId"]])

    until(lambda: all(state == "down" for state in link_states(hosts[0]).values()), 40)
    for host in hosts:
        assert bonded.check_bond(host).ok, link_states(host)
    assert measure_loss(hosts[0], RIGHT, 2).lost == 0
