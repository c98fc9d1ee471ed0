"""World `ros2` by packets: one segment in the cloud, what may cross it and what may not.

Does not prove anything about ROS 2 itself, only about Cyclone DDS, which it discovers with; nor about Windows clients.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from ipaddress import IPv6Address
from typing import Any

import pytest

from drawbridge.trial import segment
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.measure import ping, wait_until
from drawbridge.trial.segment import DATAGRAMS, SegmentMember, count_multicast
from lab.region import Host, disposable_region
from openvpn.addressing import derive_link_local
from tests.support import stacks, waiting
from tests.support.every_segment import EverySegment
from tests.support.frames import arp, count_drops, mac, neighbour, udp
from tests.support.processes import (
    add_neighbour,
    count_connections,
    find_process,
    move_client,
    read_route_log,
    wait_process,
)
from tests.support.promises import World
from userdata.files.agent import without_dynamic_elements

TUNNEL = 60.0
GROUP = ("239.255.0.1", 7400)
GROUP6 = ("ff02::ffff:efff:1", 7400)
#: The only interface it is to use, and ports as the standard counts them (RTPS 2.2, 9.6.1.4.1).
CYCLONE = (
    "CYCLONEDDS_URI=<General><Interfaces><NetworkInterface name='tap0'/></Interfaces></General>"
    "<Discovery><ParticipantIndex>auto</ParticipantIndex></Discovery>"
)


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    with disposable_region() as region:
        yield bring(region, RAW)


RAW = stacks.world_config("ros2")


def bring(region: Any, raw: dict[str, Any]) -> Deployment:
    return stacks.deploy_world(region, "ros2", raw)


@pytest.fixture
def here(deployed: Deployment) -> tuple[SegmentMember, SegmentMember, SegmentMember]:
    """The gateway, the desktop and the robot, each with its address."""
    gateway, desktop, robot = segment.find_members(deployed)
    assert ping(desktop.host, robot.address, TUNNEL) is not None
    return gateway, desktop, robot


@pytest.fixture(scope="module")
def changed(deployed: Deployment) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Deploys the stack with other keys of its tunnel; afterwards it is as it was."""

    def change(tunnel: dict[str, Any]) -> None:
        raw = deepcopy(RAW)
        raw["drawbridge:tunnel"] |= tunnel
        bring(deployed.region, raw)

    yield change


@pytest.fixture
def restored(deployed: Deployment) -> Iterator[None]:
    yield
    bring(deployed.region, RAW)


@pytest.mark.seed("0.6")
def test_a_segment_and_nothing_of_the_client_s_own_network_is_pushed(
    deployed: Deployment, here: tuple[SegmentMember, SegmentMember, SegmentMember]
) -> None:
    _, desktop, _ = here
    config = run_checked(deployed.gateway, "cat", "/etc/openvpn/server/server.conf").splitlines()
    pushed = re.findall(r"PUSH_REPLY,([^']*)", journal(desktop.host, "openvpn-client@ros_desktop"))[-1].split(",")

    assert {"dev tap0", "dev-type tap"} <= set(config)
    assert str(deployed.settings.tunnel.pool) == "192.168.255.0/24"
    assert {option.split()[0] for option in pushed} <= {
        *(
            "route-gateway",
            "route",
            "ping",
            "ping-restart",
            "ifconfig",
            "peer-id",
            "cipher",
            "protocol-flags",
            "tun-mtu",
        )
    }
    assert [option for option in pushed if option.startswith("route ")] == ["route 10.1.0.0 255.255.0.0"]


@pytest.mark.seed("0.7")
def test_default_route_and_resolvers_are_the_same_with_and_without_the_tunnel(
    here: tuple[SegmentMember, SegmentMember, SegmentMember],
) -> None:
    def own() -> tuple[str, str]:
        return run_checked(here[1].host, "ip", "route", "show", "default"), run_checked(
            here[1].host, "cat", "/etc/resolv.conf"
        )

    inside = own()
    run_checked(here[1].host, "systemctl", "stop", "openvpn-client@ros_desktop")
    try:
        outside = own()
    finally:
        run_checked(here[1].host, "systemctl", "start", "openvpn-client@ros_desktop")
    assert inside == outside
    assert "default via" in inside[0] and "nameserver" in inside[1]


@pytest.mark.seed("0.8")
def test_both_ends_are_up_and_are_ethernet(here: tuple[SegmentMember, SegmentMember, SegmentMember]) -> None:
    gateway, desktop, _ = here
    for one in (gateway, desktop):
        (link,) = json.loads(run_checked(one.host, "ip", "-json", "link", "show", "dev", one.device))
        assert {"BROADCAST", "MULTICAST", "UP", "LOWER_UP"} <= set(link["flags"])
    assert str(gateway.address) == "192.168.255.1"


def test_only_tunnels_are_ports_of_the_bridge(
    deployed: Deployment, here: tuple[SegmentMember, SegmentMember, SegmentMember]
) -> None:
    """The VPC's interface is never one, so that the gateway keeps its address."""
    ports = json.loads(run_checked(deployed.gateway, "ip", "-json", "link", "show", "master", "br0"))
    assert [port["ifname"] for port in ports] == ["tap0"]


@pytest.mark.seed("0.9")
def test_ping_both_ways(here: tuple[SegmentMember, SegmentMember, SegmentMember]) -> None:
    gateway, desktop, robot = here
    for one, other in ((gateway, desktop), (desktop, gateway), (desktop, robot), (robot, desktop)):
        assert ping(one.host, other.address, 5) is not None, (one.name, other.name)


@pytest.mark.seed("0.10")
def test_neither_log_has_a_warning(
    deployed: Deployment, here: tuple[SegmentMember, SegmentMember, SegmentMember]
) -> None:
    """Runs before the tests that give reasons for one."""
    logs = {
        one.name: journal(one.host, f"openvpn-{'server@server' if one.name == 'gateway' else f'client@{one.name}'}")
        for one in here
    }
    for name, said in logs.items():
        assert "Initialization Sequence Completed" in said  # the control: it is the log, and from the start
        assert not re.search("warning", said.replace("WARNINGS", ""), re.IGNORECASE), name


@pytest.mark.seed("0.11")
@pytest.mark.parametrize("group", [GROUP, GROUP6], ids=["IPv4", "IPv6"])
def test_multicast_reaches_everybody(
    here: tuple[SegmentMember, SegmentMember, SegmentMember], group: tuple[str, int]
) -> None:
    gateway, desktop, robot = here
    for one, other in ((desktop, robot), (robot, desktop), (gateway, desktop), (desktop, gateway)):
        assert count_multicast(one, other, *group) == DATAGRAMS, (one.name, other.name)


@pytest.mark.seed("0.13")
def test_dds_participants_find_each_other_and_talk(here: tuple[SegmentMember, SegmentMember, SegmentMember]) -> None:
    """Cyclone DDS on both: discovery by multicast to port 7400, then unicast on 7410 and up."""
    _, desktop, robot = here
    for one in (desktop, robot):
        run_checked(one.host, "apt-get", "-q", "update")
        run_checked(one.host, "apt-get", "-q", "-y", "--no-install-recommends", "install", "cyclonedds-tools")
    wanted = ["-Qminmatch:1", "-Qmaxwait:10", "-Qroundtrips:100"]
    with segment.FrameListener(desktop.host, "count", "tap0", "6", b"RTPS".hex()) as frames:
        other = threading.Thread(
            target=lambda: robot.host.run(["env", CYCLONE, "ddsperf", "-D", "6", "pong"], timeout=60)
        )
        other.start()
        try:
            capture = ["timeout", "5", "tcpdump", "-n", "-c", "400", "-i", "tap0", f"udp and src host {robot.address}"]
            seen: list[str] = []
            watcher = threading.Thread(target=lambda: seen.append(desktop.host.run(capture, timeout=60).stdout))
            watcher.start()
            done = desktop.host.run(["env", CYCLONE, "ddsperf", "-D", "5", *wanted, "ping"], timeout=60)
        finally:
            other.join()
            watcher.join()
    assert done.returncode == 0, done.stdout
    assert re.search(r"participant ros-robot:\d+: new", done.stdout)
    assert frames() > 100
    ports = {tuple(found) for found in re.findall(r"> ([\d.]+)\.(\d+): UDP", seen[0])}
    assert ("239.255.0.1", "7400") in ports
    assert any(host == str(desktop.address) and 7410 <= int(port) < 7500 for host, port in ports)


@pytest.mark.seed("0.14")
def test_one_file_without_a_passphrase(
    deployed: Deployment, here: tuple[SegmentMember, SegmentMember, SegmentMember]
) -> None:
    bundle = run_checked(here[1].host, "cat", "/etc/openvpn/client/ros_desktop.conf")

    assert run_checked(here[1].host, "ls", "/etc/openvpn/client").split() == ["ros_desktop.conf"]
    assert "-----BEGIN PRIVATE KEY-----" in bundle and "ENCRYPTED" not in bundle
    for tag in ("ca", "cert", "key", "tls-crypt-v2"):
        assert f"<{tag}>" in bundle
    assert not re.search(r"^(ca|cert|key|tls-crypt-v2|auth-user-pass|askpass)\b", bundle, re.MULTILINE)
    assert f"remote {deployed.outputs['publicIp']} 1194" in bundle


@pytest.mark.seed("0.4")
def test_all_of_the_gateway_s_services_fit_its_memory(
    deployed: Deployment,
    here: tuple[SegmentMember, SegmentMember, SegmentMember],
    record_property: Callable[[str, object], None],
) -> None:
    """Proportional set sizes: a page that several processes share counts once. The kernel's own is not among them."""
    stacks.run_agent(deployed.gateway)
    script = "cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ {sum += $2} END {print sum}'"
    resident = int(run_checked(deployed.gateway, "sh", "-c", script)) / 1024
    peak = int(run_checked(deployed.gateway, "systemctl", "show", "-P", "MemoryMax", "drawbridge-agent")) / 2**20
    record_property("gateway resident MiB", round(resident))
    print(f"all services {resident:.0f} MiB, the agent at most {peak:.0f} MiB more while it runs")
    assert resident + peak < 512


@pytest.mark.seed("9.8")
def test_the_gateway_reboots_into_the_same_segment(
    deployed: Deployment, here: tuple[SegmentMember, SegmentMember, SegmentMember]
) -> None:
    before, leader = configuration(deployed.gateway), deployed.gateway.leader
    deployed.client("ec2").reboot_instances(InstanceIds=[deployed.outputs["gatewayInstanceId"]])
    again = waiting.until(lambda: rebooted(deployed, leader), 30)
    again.wait_booted(60)

    assert ping(here[1].host, here[2].address, TUNNEL) is not None
    assert wait_until(lambda: count_multicast(here[1], here[2], *GROUP) == DATAGRAMS, 20)
    assert configuration(again) == before


# What is not one's own


@pytest.mark.seed("9.4")
def test_a_client_sends_from_its_own_addresses_only(
    deployed: Deployment, here: tuple[SegmentMember, SegmentMember, SegmentMember]
) -> None:
    """Frames made by hand, each beside one that differs only in being true."""
    gateway, desktop, robot = here
    own, other = mac(desktop), mac(robot)
    nobody = bytes.fromhex("020000000099")
    local, others_local = (derive_link_local(":".join(f"{b:02x}" for b in one)) for one in (own, other))
    everyone6 = IPv6Address("ff02::1")
    tried = {
        "hardware address of another": (udp(own, desktop, gateway, b"A1"), udp(other, desktop, gateway, b"A2")),
        "hardware address of nobody": (udp(own, desktop, gateway, b"B1"), udp(nobody, desktop, gateway, b"B2")),
        "network address of another": (udp(own, desktop, gateway, b"C1"), udp(own, robot, gateway, b"C2")),
        "the gateway's": (udp(own, desktop, gateway, b"D1"), udp(own, gateway, gateway, b"D2")),
        "ARP for another": (arp(own, own, desktop), arp(own, own, robot)),
        "ARP with another's hardware address": (arp(own, own, desktop, 2), arp(own, other, robot)),
        "neighbour of another": (
            neighbour(own, local, local, everyone6, b"E1"),
            neighbour(own, local, others_local, everyone6, b"E2"),
        ),
        "IPv6 from another": (
            neighbour(own, local, local, everyone6, b"F1"),
            neighbour(own, others_local, local, everyone6, b"F2"),
        ),
        "a router's word": (
            neighbour(own, local, local, everyone6, b"G1"),
            neighbour(own, local, local, everyone6, b"G2", kind=134),
        ),
    }
    for what, (true, false) in tried.items():
        for frame, passes in ((true, True), (false, False)):
            with segment.FrameListener(gateway.host, "count", "br0", "1.5", frame[6:].hex()) as arrived:
                segment.send_frames(desktop.host, "tap0", frame, times=3)
            assert (arrived() > 0) == passes, what
    dropped = count_drops(deployed)
    assert dropped["spoofed"] >= 3 and dropped["foreign"] >= 3
    # It had no effect on the other: nobody's way to it is bent.
    assert ping(gateway.host, robot.address, 5) is not None
    assert ping(robot.host, desktop.address, 5) is not None


def test_multicast_that_is_not_named_stays_where_it_is(
    deployed: Deployment,
    here: tuple[SegmentMember, SegmentMember, SegmentMember],
    changed: Callable[[dict[str, Any]], None],
    restored: None,
) -> None:
    _, desktop, robot = here
    refused = [("239.1.2.3", 7400), ("239.255.0.1", 7399), ("ff02::1:2", 547), ("ff05::7", 7400)]
    for group in refused:
        assert count_multicast(desktop, robot, *group, seconds=1) == 0, group
    assert count_drops(deployed)["multicast"] >= len(refused) * DATAGRAMS
    # The control: where nothing is named, it crosses.
    changed({"multicast": []})
    for group in refused:
        assert count_multicast(desktop, robot, *group) == DATAGRAMS, group


@pytest.mark.attack("2.14")
def test_a_client_keeps_its_hardware_address_when_udev_sets_another_one_later(
    here: tuple[SegmentMember, SegmentMember, SegmentMember],
) -> None:
    """On a busy machine udev handles OpenVPN's device after OpenVPN did; here it always does, and sets an address."""
    gateway, desktop, robot = here
    late = {
        "/etc/udev/rules.d/79-late.rules": 'SUBSYSTEM=="net", KERNEL=="tap0", PROGRAM="/usr/bin/sleep 2"\n',
        "/etc/systemd/network/10-late.link": "[Match]\nOriginalName=tap0\n\n[Link]\nMACAddress=02:00:5e:00:53:01\n",
    }
    for path, text in late.items():
        run_checked(robot.host, "install", "-D", "-m", "0644", "/dev/stdin", path, stdin=text)
    try:
        run_checked(robot.host, "udevadm", "control", "--reload")
        run_checked(robot.host, "systemctl", "restart", "openvpn-client@ros_robot")
        assert ping(robot.host, gateway.address, TUNNEL) is not None
        run_checked(robot.host, "udevadm", "settle")
        assert mac(robot).hex(":") != "02:00:5e:00:53:01"
        assert ping(desktop.host, robot.address, TUNNEL) is not None
    finally:
        run_checked(robot.host, "rm", *late)
        run_checked(robot.host, "udevadm", "control", "--reload")


def test_broadcasts_pass_at_their_rate_and_no_faster(
    deployed: Deployment, here: tuple[SegmentMember, SegmentMember, SegmentMember]
) -> None:
    gateway, desktop, _ = here
    frame = arp(mac(desktop), mac(desktop), desktop)
    with segment.FrameListener(gateway.host, "count", "br0", "2", frame.hex()) as arrived:
        segment.send_frames(desktop.host, "tap0", frame, times=1000)
    rate = deployed.settings.tunnel.broadcasts
    assert rate <= arrived() <= 3 * rate
    # Not 1,000 less what passed: a busy tunnel loses some of such a burst before the filter sees it.
    assert count_drops(deployed)["broadcast"] >= rate


def test_two_processes_serve_one_segment(
    deployed: Deployment, here: tuple[SegmentMember, SegmentMember, SegmentMember], restored: None
) -> None:
    """Each client has one of the processes, by its address; the bridge is between them, and so is its filter."""
    gateway, desktop, robot = here
    raw = deepcopy(RAW)
    raw["drawbridge:gateway"]["processes"] = 2
    made = bring(deployed.region, raw)
    assert ping(desktop.host, robot.address, TUNNEL) is not None
    places = {member.name: find_process(made, member.name) for member in (desktop, robot)}
    assert {*places.values()} == {"server", "server1"}, places  # where the hash leads their homes' addresses
    ports = json.loads(run_checked(made.gateway, "ip", "-json", "link", "show", "master", "br0"))
    assert {port["ifname"] for port in ports} == {"tap0", "tap1"}

    for one, other in ((desktop, robot), (robot, desktop), (gateway, robot), (robot, gateway), (desktop, gateway)):
        assert ping(one.host, other.address, 5) is not None, (one.name, other.name)
        for group in (GROUP, GROUP6):
            assert count_multicast(one, other, *group) == DATAGRAMS, (one.name, other.name, group)
    # Nobody takes what is at the other process: not its hardware address, and not its network address.
    own = mac(desktop)
    for true, false in (
        (udp(own, desktop, gateway, b"A1"), udp(mac(robot), desktop, gateway, b"A2")),
        (udp(own, desktop, gateway, b"B1"), udp(own, robot, gateway, b"B2")),
        (arp(own, own, desktop), arp(own, own, robot)),
    ):
        for frame, passes in ((true, True), (false, False)):
            with segment.FrameListener(gateway.host, "count", "br0", "1.5", frame[6:].hex()) as arrived:
                segment.send_frames(desktop.host, "tap0", frame, times=3)
            assert (arrived() > 0) == passes
    assert ping(gateway.host, robot.address, 5) is not None

    # A process that is killed costs its own clients only.
    before = {member.name: count_connections(member.host, member.name) for member in (desktop, robot)}
    run_checked(made.gateway, "systemctl", "kill", "--signal=KILL", f"openvpn-server@{places[robot.name]}")
    waiting.until(lambda: count_connections(robot.host, robot.name) > before[robot.name], TUNNEL)
    assert ping(desktop.host, robot.address, TUNNEL) is not None
    assert count_connections(desktop.host, desktop.name) == before[desktop.name]

    # From the other one's home a client gets the other process; the bridge follows it, and its former session ends.
    home = add_neighbour(made, desktop.name, "moved")
    move_client(robot.name, robot.host, home)
    assert ping(home, desktop.address, TUNNEL) is not None
    assert ping(desktop.host, robot.address, 5) is not None
    wait_process(made, robot.name, places[desktop.name])
    ended = f"to {places[desktop.name]} has ended its session with {places[robot.name]}"
    assert f"new connection by client '{robot.name}' {ended}" in (said := read_route_log(made.gateway)), said
    run_checked(home, "systemctl", "stop", f"openvpn-client@{robot.name}")
    run_checked(robot.host, "systemctl", "restart", f"openvpn-client@{robot.name}")
    assert ping(robot.host, desktop.address, TUNNEL) is not None

    # Apart, nothing crosses between the processes either.
    raw["drawbridge:tunnel"]["clientToClient"] = False
    made = bring(deployed.region, raw)
    shown = ["bridge", "-d", "link", "show"]
    waiting.until(lambda: run_checked(made.gateway, *shown).count("hairpin off") == 2, 10)
    assert ping(desktop.host, gateway.address, TUNNEL) is not None
    assert ping(robot.host, gateway.address, TUNNEL) is not None
    assert ping(desktop.host, robot.address, 2) is None
    for group in (GROUP, GROUP6):
        assert count_multicast(desktop, robot, *group) == 0
        assert count_multicast(desktop, gateway, *group) == DATAGRAMS


@pytest.mark.seed("0.12")
def test_control_without_a_way_between_clients_nothing_of_it_is_heard(
    deployed: Deployment,
    here: tuple[SegmentMember, SegmentMember, SegmentMember],
    changed: Callable[[dict[str, Any]], None],
    restored: None,
) -> None:
    gateway, desktop, robot = here
    changed({"clientToClient": False})
    waiting.until(
        lambda: "hairpin off" in run_checked(deployed.gateway, "bridge", "-d", "link", "show", "dev", "tap0"), 10
    )

    for group in (GROUP, GROUP6):
        assert count_multicast(desktop, robot, *group) == 0
        assert count_multicast(desktop, gateway, *group) == DATAGRAMS
    assert ping(desktop.host, robot.address, 2) is None


def journal(host: Host, unit: str) -> str:
    return run_checked(host, "journalctl", "--no-pager", "-o", "cat", "-u", unit)


def rebooted(deployed: Deployment, leader: int | None) -> Host | None:
    host = deployed.gateway
    return host if host.leader != leader else None


def configuration(gateway: Host) -> str:
    """What makes the segment: devices, their places, the filter without what it counted."""
    rules = without_dynamic_elements(run_checked(gateway, "nft", "list", "ruleset"))
    bridge = run_checked(gateway, "bridge", "-d", "link", "show")
    address = run_checked(gateway, "cat", "/sys/class/net/br0/address")
    return re.sub(r"packets \d+ bytes \d+|^\d+: ", "", rules + bridge + address)


@pytest.fixture(scope="module")
def world(deployed: Deployment) -> World:
    """The stack as its file has it, for what changes it for good: those tests come last."""
    return World(bring(deployed.region, RAW), RAW)


class TestEverySegment(EverySegment):
    client = "ros_desktop"
