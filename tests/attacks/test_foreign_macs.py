"""A member of a segment, or a host of a bridged LAN, sends from hardware addresses that are not its own.

Others' pings during the flood are compared with pings of the seconds before it. Does not prove how long a suspension
lasts: see tests/unit/userdata/test_suspend.py.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest

from drawbridge.trial import run
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.measure import ping
from drawbridge.trial.segment import SegmentMember, find_members
from lab.region import Host
from tests.support import stacks, waiting
from tests.support.frames import mac, udp

TUNNEL = 60.0
SECONDS = 6
PINGS = SECONDS * 10
#: Pings that may be lost beyond the control's, a second's worth. A client costs the others some runs of the script, at
#: most until it is suspended; while OpenVPN waits for these, the kernel queues a second of such traffic and may then
#: drop some. Before, all pings were lost from 50 frames a second on.
SLACK = 10

#: Sends a frame so many times a second: as it is, or each time from another hardware address that nobody has.
FLOOD = """
import os, socket, sys, time
device, rate, seconds, kind, text = sys.argv[1:]
frame, rate = bytes.fromhex(text), int(rate)
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind((device, 0))
    begin = time.monotonic()
    for number in range(rate * int(seconds)):
        time.sleep(max(0, begin + number / rate - time.monotonic()))
        source = b"\\x02" + os.urandom(5) if kind == "random" else frame[6:12]
        try:
            wire.send(frame[:6] + source + frame[12:])
        except OSError:
            pass
"""


@contextmanager
def flood(host: Host, device: str, rate: int, kind: str, frame: bytes) -> Iterator[None]:
    """Have a machine send frames while the block runs."""
    argv = ["python3", "-c", FLOOD, device, str(rate), str(SECONDS), kind, frame.hex()]
    thread = threading.Thread(target=lambda: host.run(argv, timeout=SECONDS * 10))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def count_lost(host: Host, address: IPv4Address) -> int:
    """Return how many of `PINGS` pings are not answered within two seconds."""
    done = host.run(["ping", "-n", "-q", "-i", "0.1", "-c", str(PINGS), "-W", "2", str(address)], timeout=60)
    match = re.search(r"(\d+) received", done.stdout)
    assert match, done.stdout + done.stderr
    return PINGS - int(match[1])


def check_flood(
    victim: Host, address: IPv4Address, attacker: Host, device: str, rate: int, kind: str, frame: bytes
) -> None:
    """Check that a flood costs others no more pings than they lose without it."""
    before = count_lost(victim, address)
    with flood(attacker, device, rate, kind, frame):
        during = count_lost(victim, address)
    print(f"{attacker.name} {rate}/s {kind}: {during} of {PINGS} pings lost, {before} before")
    assert during <= before + SLACK


@pytest.fixture(scope="module")
def bridged() -> Iterator[Deployment]:
    """World `bridge`: a LAN is part of the segment."""
    with run.disposable_region() as region:
        yield stacks.deploy_world(region, "bridge", stacks.world_config("bridge"))


def members_by_name(deployed: Deployment) -> dict[str, SegmentMember]:
    return {member.name: member for member in find_members(deployed)}


def reconnect(member: SegmentMember, peer: SegmentMember) -> None:
    """Give a client a new session, of which OpenVPN has learned nothing."""
    run_checked(member.host, "systemctl", "restart", f"openvpn-client@{member.name}")
    assert ping(member.host, peer.address, TUNNEL) is not None


def is_suspended(deployed: Deployment, name: str) -> bool:
    return deployed.gateway.run(["test", "-e", f"/run/openvpn-server/suspended/{name}"]).returncode == 0


@pytest.mark.attack("2.13")
def test_addresses_that_nobody_has_cost_the_others_nothing(segment: Deployment) -> None:
    members = members_by_name(segment)
    gateway, desktop, robot, mallory = (members[name] for name in ("gateway", "ros_desktop", "ros_robot", "mallory"))
    frame = udp(mac(mallory), mallory, gateway, b"flood")
    assert ping(desktop.host, robot.address, TUNNEL) is not None
    check_flood(desktop.host, robot.address, mallory.host, "tap0", 400, "own", frame)
    for rate in (10, 50, 200, 400, 1500):
        reconnect(mallory, gateway)
        check_flood(desktop.host, robot.address, mallory.host, "tap0", rate, "random", frame)
    # Nor the sender: this is what a client does that has virtual machines on its tap.
    assert not is_suspended(segment, "mallory")
    assert ping(mallory.host, robot.address, 5) is not None


@pytest.mark.attack("2.13")
def test_another_s_address_ends_the_sender_s_session(segment: Deployment) -> None:
    """Runs last on its region: the client stays suspended for minutes."""
    members = members_by_name(segment)
    gateway, desktop, robot, mallory = (members[name] for name in ("gateway", "ros_desktop", "ros_robot", "mallory"))
    reconnect(mallory, gateway)
    frame = udp(mac(robot), mallory, gateway, b"flood")
    check_flood(desktop.host, robot.address, mallory.host, "tap0", 400, "own", frame)
    check_suspended(segment, "mallory")
    assert ping(mallory.host, gateway.address, 3) is None
    # A new session is refused, whatever it would send.
    run_checked(mallory.host, "systemctl", "restart", "openvpn-client@mallory")
    assert ping(mallory.host, gateway.address, 10) is None
    for member in (desktop, robot):
        assert ping(member.host, gateway.address, 5) is not None


@pytest.mark.attack("2.13")
def test_a_host_of_a_bridged_lan_costs_the_others_nothing(bridged: Deployment) -> None:
    members = members_by_name(bridged)
    gateway, laptop, home, hidden = (members[name] for name in ("gateway", "laptop", "home", "home-hidden"))
    for member in (home, hidden):
        assert ping(laptop.host, member.address, TUNNEL) is not None
    frame = udp(mac(hidden), hidden, gateway, b"flood")
    for rate in (10, 50, 400, 1500):
        reconnect_bridge(home, laptop)
        check_flood(laptop.host, home.address, hidden.host, "eth0", rate, "random", frame)
    # The bridging host does not pass on what its LAN sends from an address of the segment.
    check_flood(laptop.host, home.address, hidden.host, "eth0", 400, "own", udp(mac(laptop), hidden, gateway, b"flood"))
    assert not is_suspended(bridged, "home")


@pytest.mark.attack("2.13")
def test_another_client_of_a_bridged_segment_may_be_no_host_of_the_lan(bridged: Deployment) -> None:
    """Runs last on its region: the client stays suspended for minutes."""
    members = members_by_name(bridged)
    gateway, laptop, home = (members[name] for name in ("gateway", "laptop", "home"))
    frame = udp(mac(laptop), laptop, gateway, b"flood")
    assert ping(gateway.host, home.address, TUNNEL) is not None
    check_flood(gateway.host, home.address, laptop.host, "tap0", 400, "random", frame)
    check_suspended(bridged, "laptop")
    assert ping(gateway.host, home.address, 5) is not None


def reconnect_bridge(home: SegmentMember, peer: SegmentMember) -> None:
    """Give the bridging client a new session."""
    run_checked(home.host, "systemctl", "restart", "openvpn-client@home")
    assert ping(peer.host, home.address, TUNNEL) is not None


def check_suspended(deployed: Deployment, name: str) -> None:
    """Check that a client was suspended, and that the journal says so."""
    waiting.until(lambda: is_suspended(deployed, name), 10)
    journal = run_checked(deployed.gateway, "journalctl", "--no-pager", "-o", "cat", "-u", "drawbridge-suspend@server")
    assert f"{name} sends from the hardware addresses of others: suspended for 300 s" in journal
