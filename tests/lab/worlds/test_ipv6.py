"""World `ipv6` by packets: addresses out of a delegated prefix that the IPv6 Internet sees, and reaches where it may.

Does not prove that AWS hands a prefix to an interface as the lab does.
"""

import json
import re
import threading
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from drawbridge.trial import ipv6
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import fetch_bundle, run_checked
from drawbridge.trial.ipv6 import SERVER6, global_address
from drawbridge.trial.measure import packets_arrive, ping, wait_until
from drawbridge.trial.segment import SegmentMember, find_members
from lab.region import Host, Region, disposable_region
from openvpn import bundle as openvpn_bundle
from openvpn.addressing import derive_link_local
from pki.authority import CertificateAuthority
from tests.support import ipv6_attacks, stacks
from tests.support.attempts import count_arrivals, scan
from tests.support.every_segment import EverySegment
from tests.support.ipv6_attacks import Station6, Stations6
from tests.support.promises import World

TUNNEL = 60.0
RAW = stacks.world_config("ipv6")


def bring(region: Region, raw: dict[str, Any]) -> Deployment:
    return stacks.deploy_world(region, "ipv6", raw)


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    with disposable_region() as region:
        # EC2 sees the gateway's instance profile only some seconds after IAM has created it.
        region.set_rules(profile_delay=5)
        yield bring(region, RAW)


@pytest.fixture(scope="module")
def server(deployed: Deployment) -> Host:
    return ipv6.start_internet_host(deployed)


@pytest.fixture
def cabin(deployed: Deployment, server: Host) -> Host:
    host = deployed.region.host("cabin")
    global_address(host, "tap0")
    assert ping(host, SERVER6, TUNNEL) is not None
    return host


@pytest.fixture
def restored(deployed: Deployment) -> Iterator[None]:
    yield
    bring(deployed.region, RAW)


def interface(deployed: Deployment) -> dict[str, Any]:
    found = deployed.client("ec2").describe_network_interfaces(
        NetworkInterfaceIds=[deployed.outputs["gatewayInterfaceId"]]
    )
    one: dict[str, Any] = found["NetworkInterfaces"][0]
    return one


def prefix(deployed: Deployment) -> IPv6Network:
    (held,) = interface(deployed)["Ipv6Prefixes"]
    return IPv6Network(held["Ipv6Prefix"])


@pytest.mark.seed("2.5")
def test_clients_get_addresses_of_the_prefix_by_push(deployed: Deployment, cabin: Host) -> None:
    block = prefix(deployed)
    addresses = {name: global_address(deployed.region.host(name), "tap0") for name in ("cabin", "barn")}
    pushed = re.findall(
        r"PUSH_REPLY,([^']*)", run_checked(cabin, "journalctl", "--no-pager", "-u", "openvpn-client@cabin")
    )[-1]

    assert block.prefixlen == 80 and all(address in block for address in addresses.values())
    assert addresses["cabin"] == block[0x10] != addresses["barn"]
    assert f"ifconfig-ipv6 {block[0x10]}/80 {block[1]}" in pushed and "route-ipv6 2000::/3" in pushed


@pytest.mark.seed("2.6")
def test_the_internet_sees_the_client_s_own_address_and_reaches_it(
    deployed: Deployment, cabin: Host, server: Host
) -> None:
    address = global_address(cabin, "tap0")

    assert packets_arrive(server, f"icmp6 and src {address} and dst {SERVER6}", partial(ping, cabin, SERVER6, 5))
    assert ping(server, address, 5) is not None
    run_checked(cabin, "systemctl", "stop", "openvpn-client@cabin")
    try:
        assert ping(cabin, SERVER6, 2) is None
        assert ping(server, address, 2) is None
    finally:
        run_checked(cabin, "systemctl", "start", "openvpn-client@cabin")


@pytest.mark.seed("2.8")
def test_the_interface_has_the_prefix_and_is_in_no_bridge(deployed: Deployment, cabin: Host) -> None:
    gateway, block = deployed.gateway, prefix(deployed)
    ports = json.loads(run_checked(gateway, "ip", "-json", "link", "show", "master", "br0"))

    assert interface(deployed)["SourceDestCheck"] is False
    assert run_checked(gateway, "sysctl", "-n", "net.ipv6.conf.all.forwarding").strip() == "1"
    assert f"{block} dev br0" in run_checked(gateway, "ip", "-6", "route")
    assert [port["ifname"] for port in ports] == ["tap0"]


@pytest.mark.seed("2.9")
def test_only_the_tunnel_is_forwarded_for_and_only_as_far_as_it_is_open(
    deployed: Deployment, cabin: Host, server: Host, restored: None
) -> None:
    gateway, address = deployed.gateway, global_address(cabin, "tap0")
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        assert run_checked(gateway, "sysctl", "-n", key).strip() == "1"
    # From outside to where no client is: the filter lets it in, and nobody answers; to the VPC it is dropped.
    assert ping(server, address, 5) is not None
    raw = deepcopy(RAW)
    del raw["drawbridge:tunnel"]["openTo"]
    bring(deployed.region, raw)
    assert ping(cabin, SERVER6, TUNNEL) is not None
    assert ping(server, address, 2) is None


def test_a_client_sends_from_its_own_ipv6_address_only(deployed: Deployment, cabin: Host, server: Host) -> None:
    block, own = prefix(deployed), global_address(cabin, "tap0")
    other = block[0xBAD]
    run_checked(cabin, "ip", "address", "add", f"{other}/128", "dev", "tap0", "nodad")
    try:
        for source, passes in ((own, True), (other, False)):
            say = partial(cabin.run, ["ping", "-n", "-c", "2", "-W", "1", "-I", str(source), str(SERVER6)])
            assert packets_arrive(server, f"icmp6 and src {source}", say, timeout=2) == passes
    finally:
        run_checked(cabin, "ip", "address", "delete", f"{other}/128", "dev", "tap0")


@pytest.mark.attack("3.1")
def test_clients_do_not_reach_the_metadata_by_ipv6(deployed: Deployment, cabin: Host) -> None:
    run_checked(cabin, "ip", "-6", "route", "add", "fd00:ec2::254/128", "via", str(prefix(deployed)[1]), "dev", "tap0")
    try:
        asked = cabin.run(["curl", "-s", "-m", "2", "-g", "http://[fd00:ec2::254]/latest/meta-data/"])
        assert (asked.returncode, asked.stdout) == (28, "")
    finally:
        run_checked(cabin, "ip", "-6", "route", "delete", "fd00:ec2::254/128")
    assert ping(cabin, SERVER6, 5) is not None


@pytest.fixture(scope="module")
def members(deployed: Deployment) -> list[SegmentMember]:
    """The gateway, cabin, who attacks, and barn."""
    return find_members(deployed)


@pytest.fixture(scope="module")
def stations(members: list[SegmentMember]) -> Stations6:
    gateway, cabin, barn = map(Station6.of, members)
    return Stations6(cabin, barn, gateway, str(SERVER6))


@pytest.mark.attack("3.1", "3.2", "3.6")
def test_no_packet_of_an_attack_leaves_the_gateway(
    deployed: Deployment, members: list[SegmentMember], stations: Stations6, server: Host
) -> None:
    gateway, cabin, _ = members
    attempts = ipv6_attacks.leaving(stations, str(prefix(deployed)[0xBAD]))
    controls = ipv6_attacks.leaving_controls(stations)
    uplink = json.loads(run_checked(gateway.host, "ip", "-6", "-json", "route", "show", "default"))[0]["dev"]
    left = count_arrivals(
        [*attempts, *controls],
        sender=cabin.host,
        device=cabin.device,
        listener=gateway.host,
        listener_device=uplink,
        forwarded=True,
    )
    assert {name for name, frames in left.items() if frames} == {control.name for control in controls}


@pytest.mark.attack("3.2", "3.3", "3.4", "3.6")
def test_no_frame_of_an_attack_reaches_another_client(
    deployed: Deployment, members: list[SegmentMember], stations: Stations6
) -> None:
    _, cabin, barn = members
    attempts = ipv6_attacks.crossing(stations, str(prefix(deployed)[0xBAD]))
    controls = ipv6_attacks.crossing_controls(stations)
    arrived = count_arrivals(
        [*attempts, *controls],
        sender=cabin.host,
        device=cabin.device,
        listener=barn.host,
        listener_device=barn.device,
    )
    assert {name for name, frames in arrived.items() if frames} == {control.name for control in controls}


@pytest.mark.attack("3.5")
def test_a_client_opens_no_port_of_the_gateway_by_ipv6(members: list[SegmentMember], stations: Stations6) -> None:
    gateway, cabin, _ = members
    for member, expected in ((cabin, []), (gateway, [22])):
        assert scan(member.host, stations.gateway.address) == expected, "the gateway itself is the control"
        assert scan(member.host, f"{stations.gateway.link_local}%{member.device}") == expected


@pytest.mark.seed("2.12")
def test_a_second_client_comes_and_goes_and_the_first_loses_nothing(deployed: Deployment, cabin: Host) -> None:
    barn, said = deployed.region.host("barn"), list[str]()
    pings = ["ping", "-n", "-i", "0.1", "-c", "60", "-W", "1", str(SERVER6)]
    watch = threading.Thread(target=lambda: said.append(cabin.run(pings, timeout=60).stdout))
    watch.start()
    run_checked(barn, "systemctl", "restart", "openvpn-client@barn")
    again = ping(barn, SERVER6, TUNNEL)
    watch.join()

    assert again is not None
    assert "60 packets transmitted, 60 received" in said[0]


@pytest.mark.seed("2.10")
def test_without_keys_it_does_not_start_and_with_wrong_ones_it_carries_nothing(
    deployed: Deployment, cabin: Host
) -> None:
    bundle = run_checked(cabin, "cat", "/etc/openvpn/client/cabin.conf").replace("dev tap", "dev tap9\ndev-type tap")
    bare = re.sub(r"<(ca|cert|key|tls-crypt-v2)>.*?</\1>\n", "", bundle, flags=re.DOTALL)
    refused = cabin.run(["openvpn", "--config", "/dev/stdin"], stdin=bare)
    assert refused.returncode == 1 and "Options error" in refused.stdout

    now = datetime.now(UTC)
    stranger = CertificateAuthority.create("stranger", timedelta(days=1), now)
    leaf = stranger.issue_client("cabin", timedelta(days=1), now)
    profile, ca, tls = bundle.partition("<ca>")[0], openvpn_bundle.ca_of(bundle), openvpn_bundle.tls_crypt_of(bundle)
    wrong = openvpn_bundle.render_bundle(profile, ca, leaf.certificate, leaf.key, tls)
    tried = cabin.run(["timeout", "10", "openvpn", "--config", "/dev/stdin", "--connect-retry-max", "1"], stdin=wrong)
    assert "Initialization Sequence Completed" not in tried.stdout
    assert "VERIFY ERROR" in run_checked(deployed.gateway, "journalctl", "--no-pager", "-u", "openvpn-server@server")
    # The control: with the right ones, it is the same file that the service runs on.
    assert ping(cabin, SERVER6, TUNNEL) is not None


@pytest.mark.seed("2.5")
def test_where_a_whole_64_is_the_segment_s_clients_make_addresses_of_its_advertisements(
    deployed: Deployment, server: Host
) -> None:
    """The last one in this region: its stack is then another."""
    members = [deployed.region.host(name) for name in ("cabin", "barn")]
    cabin = members[0]
    assert '"dynamic":true' not in run_checked(cabin, "ip", "-json", "-6", "address", "show", "dev", "tap0"), (
        "the control"
    )
    raw = deepcopy(RAW)
    raw["drawbridge:tunnel"]["ipv6"] = "advertised"
    stack = bring(deployed.region, raw)
    for host in members:
        fetch_bundle(stack, host, host.name)  # a client takes no other addresses than its bundle lists
        run_checked(host, "systemctl", "restart", f"openvpn-client@{host.name}")
    mine = {host.name: global_address(host, "tap0", dynamic=True) for host in members}
    given = global_address(cabin, "tap0")
    block = IPv6Network((int(mine["cabin"]) & ~(2**64 - 1), 64))

    assert given == block[0x10] and mine["barn"] in block and interface(stack)["Ipv6Prefixes"] == []
    macs = {host.name: run_checked(host, "cat", "/sys/class/net/tap0/address").strip() for host in members}
    ends = {name: int(derive_link_local(mac)) & (2**64 - 1) for name, mac in macs.items()}
    assert {name: int(address) & (2**64 - 1) for name, address in mine.items()} == ends
    assert "default via fe80::" in run_checked(cabin, "ip", "-6", "route", "show", "dev", "tap0", "proto", "ra")
    for host in members:
        say = partial(host.run, ["ping", "-n", "-c", "3", "-W", "1", "-I", str(mine[host.name]), str(SERVER6)])
        assert packets_arrive(server, f"icmp6 and src {mine[host.name]}", say)
        assert ping(server, mine[host.name], 10) is not None
    # What another one has made is that one's.
    run_checked(cabin, "ip", "address", "add", f"{mine['barn']}/128", "dev", "tap0", "nodad")
    forged = partial(cabin.run, ["ping", "-n", "-c", "2", "-W", "1", "-I", str(mine["barn"]), str(SERVER6)])
    assert not packets_arrive(server, f"icmp6 and src {mine['barn']}", forged, timeout=2)


def test_a_routed_stack_has_ipv6_by_the_same_setting(deployed: Deployment, server: Host) -> None:
    """In a region of its own: dual stack on tun, a client with a fixed address and one without."""
    raw = deepcopy(RAW)
    raw["drawbridge:tunnel"] = {"device": "tun", "ipv6": "delegated", "redirect": "ipv6"}
    raw["drawbridge:clients"] = [{"name": "fixed", "address": "10.8.0.7"}, {"name": "any"}]
    with disposable_region() as region:
        stack = bring(region, raw)
        checks = list(ipv6.check_ipv6(stack))
        block = prefix(stack)
        addresses = [global_address(region.host(name), "tun0") for name in ("fixed", "any")]
        assert [check for check in checks if not check.ok] == []
        assert addresses[0] == block[7] and addresses[1] in IPv6Network((int(block[0x10000]), 112))
        assert stack.settings.tunnel.pool == IPv4Network("10.8.0.0/24")
        assert wait_until(lambda: ping(region.host("fixed"), stack.outputs["privateIp"], 2), 10)

        # With two processes each client has an address that its name leads to, whichever process it is at.
        stack = bring(region, {**raw, "drawbridge:gateway": {**raw["drawbridge:gateway"], "processes": 2}})
        assert wait_until(lambda: block[7] == global_address(region.host("fixed"), "tun0"), TUNNEL)
        assert [check for check in ipv6.check_ipv6(stack) if not check.ok] == []
        assert f"{block[7]} dev tun1" in run_checked(stack.gateway, "ip", "-6", "route")


@pytest.fixture(scope="module")
def world(deployed: Deployment) -> World:
    """The stack as its file has it, for what changes it for good: those tests come last."""
    return World(bring(deployed.region, RAW), RAW)


class TestEverySegment(EverySegment):
    client = "cabin"
