"""World `pair` as a user has it: its stack file, deployed; two gateways with kernels of their own, and no hand on them.

Does not prove that AWS itself accepts what is deployed. On kernels that lack its families the gateways' nftables table
is checked and not in force: that it filters is shown in the other worlds, that the security groups do is shown here.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from drawbridge.operate.stack_files import find_stack_file
from drawbridge.trial import pair as trial
from drawbridge.trial.bond_measure import link_states
from drawbridge.trial.bonded import TAPS, check_bond
from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import run_checked, start_private_host
from drawbridge.trial.measure import packets_arrive, send_datagram
from drawbridge.trial.routed import wait_report
from lab.region import Host, disposable_region
from settings.stack_file import read_stack_file
from tests.support.waiting import wait_lossless

A, B = "10.0.0.1", "10.0.0.2"
#: Seconds; booted with a kernel of its own on a machine that has other things to do.
READY = 420.0


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    with disposable_region() as region:
        region.use_own_kernels(True)
        stack = deploy(region, "pair", read_stack_file(find_stack_file("pair")), lambda _: None)
        region.use_own_kernels(False)
        for number, end in enumerate((stack, stack.second)):
            start_private_host(end, f"private-host{number}")
        region.add_internet_host("stranger", address=IPv4Address("198.51.100.66"))
        for end in (stack, stack.second):
            said = wait_report(end, end.outputs["release"], READY)
            assert said.get("state") == "ready", said
        yield stack


@pytest.fixture(scope="module")
def hosts(deployed: Deployment) -> tuple[Host, Host]:
    """Both gateways, bonded."""
    found = trial.find_gateways(deployed)
    for host in found:
        assert check_bond(host).ok, link_states(host)
    return found


@pytest.mark.seed("1.3")
@pytest.mark.seed("1.5")
def test_both_links_are_in_the_bond_and_no_ping_is_lost(hosts: tuple[Host, Host]) -> None:
    for host, other in zip(hosts, (B, A), strict=True):
        state = run_checked(host, "cat", "/proc/net/bonding/bond0")
        assert "load balancing (xor)" in state and link_states(host) == dict.fromkeys(TAPS, "up")
        for _ in range(4):  # of which each may take another link
            wait_lossless(host, other, 25)


def test_either_listens_on_its_own_links_port_alone(hosts: tuple[Host, Host]) -> None:
    for number, host in enumerate(hosts):
        listening = run_checked(host, "ss", "--no-header", "--udp", "--listening", "--numeric", "--processes")
        own = [line for line in listening.splitlines() if '"openvpn"' in line and f":{1194 + number} " in line]
        assert len(own) == 1, listening
        assert f":{1195 - number} " not in listening


def test_hosts_of_the_two_vpcs_reach_each_other_by_their_own_addresses(deployed: Deployment) -> None:
    for check in trial.check_between_vpcs(deployed, ["private-host0", "private-host1"]):
        assert check.ok, check


def test_a_port_is_open_to_the_other_gateway_alone(deployed: Deployment, hosts: tuple[Host, Host]) -> None:
    """The security group: a stranger's packet does not arrive, and the other gateway's do."""
    stranger = deployed.region.host("stranger")
    for number, (host, end) in enumerate(zip(hosts, (deployed, deployed.second), strict=True)):
        public, port = end.outputs["publicIp"], 1194 + number
        far = (deployed.second, deployed)[number].outputs["publicIp"]

        def send(public: str = public, port: int = port) -> None:
            for _ in range(3):
                send_datagram(stranger, public, port)

        assert not packets_arrive(host, f"udp and dst port {port} and src {stranger.address}", send)
        assert packets_arrive(host, f"udp and dst port {port} and src {far}", lambda: None), (
            "the control: it pings each second"
        )


def test_a_filter_that_is_not_in_force_says_so(hosts: tuple[Host, Host]) -> None:
    """The lab's stand-in for nft: real rulesets are known to it, wrong ones refused, and nobody is deceived."""
    for host in hosts:
        told = run_checked(host, "journalctl", "--no-pager", "-u", "drawbridge-nftables.service")
        assert "NOT IN FORCE" in told
        assert 'iifname != "bond0" ip saddr @allowed' in run_checked(host, "nft", "list", "table", "inet", "drawbridge")
        wrong = host.run(["nft", "-f", "-"], stdin="table inet x { chain y { nonsense } }\n")
        assert wrong.returncode == 1 and "nonsense" in wrong.stderr
        run_checked(host, "nft", "-f", "-", stdin="table bridge x {\n}\n")
        assert "table bridge x" in run_checked(host, "nft", "list", "tables"), (
            "what its own kernel knows is in force there"
        )
