"""Send floods from hardware addresses that are not the sender's, and check what they cost the others.

Others' pings during the flood are compared with pings of the seconds before it. Does not prove how long a suspension
lasts: see tests/unit/userdata/test_suspend.py.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.measure import ping
from drawbridge.trial.segment import SegmentMember, find_members
from lab.region import Host
from tests.support import waiting

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


def members_by_name(deployed: Deployment) -> dict[str, SegmentMember]:
    """Return the members of a segment by name."""
    return {member.name: member for member in find_members(deployed)}


def reconnect(member: SegmentMember, peer: SegmentMember) -> None:
    """Give a client a new session, of which OpenVPN has learned nothing."""
    run_checked(member.host, "systemctl", "restart", f"openvpn-client@{member.name}")
    assert ping(member.host, peer.address, TUNNEL) is not None


def is_suspended(deployed: Deployment, name: str) -> bool:
    """Return whether the gateway has a client suspended."""
    return deployed.gateway.run(["test", "-e", f"/run/openvpn-server/suspended/{name}"]).returncode == 0


def check_suspended(deployed: Deployment, name: str) -> None:
    """Check that a client was suspended, and that the journal says so."""
    waiting.until(lambda: is_suspended(deployed, name), 10)
    journal = run_checked(deployed.gateway, "journalctl", "--no-pager", "-o", "cat", "-u", "drawbridge-suspend@server")
    assert f"{name} sends from the hardware addresses of others: suspended for 300 s" in journal
