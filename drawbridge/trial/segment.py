"""Check what a segment (tap) stack promises: members reach each other, also by multicast, and keep their own routes."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from pathlib import Path

from drawbridge.trial import hosts, routed
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import run_checked, site_hosts
from drawbridge.trial.measure import format_rtt, ping, wait_until
from lab import region as labs
from lab.errors import LabError
from settings.model import Settings

_SCRIPT = Path(__file__).with_name("frames.py").read_text()
_PLACE = "/run/frames.py"
_TUNNEL_SECONDS = 60
#: Time for all datagrams to arrive; listening ends with the last one.
_MULTICAST_SECONDS = 20
#: Time for a machine to start a program.
_START_SECONDS = 60
#: As many as `frames.py say` sends.
DATAGRAMS = 10
#: DDS's discovery (RTPS 2.2, 9.6.1.4.1), where a stack names no groups of its own.
DISCOVERY = ("239.255.0.1", "ff02::ffff:efff:1")
_DISCOVERY_PORT = 7400


@dataclass(frozen=True, slots=True)
class SegmentMember:
    """A machine on the segment."""

    name: str
    host: labs.Host
    device: str
    address: IPv4Address
    lan: str = ""
    """Of a host in a bridged LAN: the client that bridges it."""


def applies(settings: Settings) -> bool:
    """Return whether a stack has this trial: clients on one L2 segment (tap)."""
    return hosts.applies(settings) and settings.tunnel.device == "tap"


def find_members(deployed: Deployment) -> list[SegmentMember]:
    """Return the gateway and each client with a machine, once its tunnel is up; raises LabError after a minute.

    A bridging client adds the hosts of its LAN, which have no tunnel.
    """
    members = [find_member("gateway", deployed.gateway, "br0")]
    for client in deployed.clients:
        host, lan = deployed.host(client.name), client.name if client.bridge else ""
        members.append(find_member(client.name, host, "br0" if lan else "tap0", lan))
        for name in site_hosts(deployed.settings, client):
            members.append(find_member(name, deployed.host(name), "eth0", lan))
    return members


def find_member(name: str, host: labs.Host, device: str, lan: str = "") -> SegmentMember:
    """Wait for a machine's address on the segment and return both; raises LabError after a minute."""
    addresses = list[str]()

    def has_address() -> bool:
        done = host.run(["ip", "-json", "-4", "address", "show", "dev", device, "up"])
        links = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        addresses[:] = [entry["local"] for link in links for entry in link.get("addr_info", [])]
        return bool(addresses)

    if not wait_until(has_address, _TUNNEL_SECONDS):
        raise LabError(f"{name} has no address on {device} after {_TUNNEL_SECONDS} s")
    return SegmentMember(name, host, device, IPv4Address(addresses[0]), lan)


def check_segment(deployed: Deployment) -> Iterator[Check]:
    """Check that members reach each other if they may, and that the clients' own routes stay."""
    members = find_members(deployed)
    meet = deployed.settings.tunnel.client_to_client
    for sender, receiver in routed.list_pairs(members):
        if sender.lan and sender.lan == receiver.lan:
            continue  # They reach each other on their LAN.
        pair = f"{sender.name} -> {receiver.name}"
        may_meet = meet or "gateway" in (sender.name, receiver.name)
        if not may_meet:
            yield Check(ping(sender.host, receiver.address, 2) is None, f"{pair} kept apart", "no answer")
            continue
        rtt = ping(sender.host, receiver.address, _TUNNEL_SECONDS)
        yield Check(rtt is not None, f"{pair} {receiver.address}", format_rtt(rtt))
        for group, port in multicast_groups(deployed):
            received = count_multicast(sender, receiver, group, port, _MULTICAST_SECONDS)
            yield Check(received == DATAGRAMS, f"{pair} multicast {group}:{port}", f"{received} of {DATAGRAMS}")
    by_tunnel = [member for member in members if member.device != "eth0"]
    yield from (_check_own_routes(deployed, member) for member in members[1:])
    yield from map(check_no_warnings, by_tunnel)
    for client in deployed.clients:
        if client.bridge:
            yield from check_bridge(deployed.host(client.name))
            yield from routed.check_site(deployed, client) if deployed.settings.tunnel.vpc else ()


def check_bridge(host: labs.Host) -> list[Check]:
    """Check that a bridging host has its addresses on the bridge, which joins its LAN and the tunnel."""
    addresses = {device: interface_addresses(host, device) for device in ("eth0", "br0")}
    ports = json.loads(run_checked(host, "ip", "-json", "link", "show", "master", "br0"))
    names = sorted(port["ifname"] for port in ports)
    figure = f"eth0 {', '.join(addresses['eth0']) or '(none)'}, br0 {', '.join(addresses['br0'])}"
    moved = Check(not addresses["eth0"] and bool(addresses["br0"]), f"{host.name}'s bridge has the addresses", figure)
    return [moved, Check(names == ["eth0", "tap0"], f"{host.name}'s bridge joins LAN and tunnel", ", ".join(names))]


def interface_addresses(host: labs.Host, device: str) -> list[str]:
    """Return all addresses of an interface, with link-local ones."""
    links = json.loads(run_checked(host, "ip", "-json", "address", "show", "dev", device))
    return [f"{entry['local']}/{entry['prefixlen']}" for link in links for entry in link["addr_info"]]


def multicast_groups(deployed: Deployment) -> Iterator[tuple[str, int]]:
    """Yield a group and port of each multicast range that the segment forwards."""
    if not (ranges := deployed.settings.tunnel.multicast):
        yield from ((group, _DISCOVERY_PORT) for group in DISCOVERY)
    for multicast in ranges:
        yield pick_group(multicast.group), multicast.ports[0] or _DISCOVERY_PORT


def pick_group(network: IPv4Network | IPv6Network) -> str:
    """Return a group of a range: that of DDS discovery if it is in it, else the first one."""
    discovery = [group for group in DISCOVERY if ip_address(group) in network]
    return discovery[0] if discovery else str(network[min(1, network.num_addresses - 1)])


def count_multicast(speaker: SegmentMember, listener: SegmentMember, group: str, port: int, seconds: float = 3) -> int:
    """Return how many of ten datagrams from one member to a group another one receives."""
    copy_script(speaker.host)
    if ":" in group:
        wait_link_local(speaker)
    with FrameListener(listener.host, "hear", listener.device, group, str(port), str(seconds)) as received:
        run_checked(speaker.host, "python3", _PLACE, "say", speaker.device, group, str(port))
    return received()


def wait_link_local(member: SegmentMember) -> None:
    """Wait until duplicate address detection (RFC 4862, 5.4) has accepted a member's link-local address."""
    show = ["ip", "-6", "-oneline", "address", "show", "dev", member.device, "scope", "link", "-tentative"]
    if not wait_until(lambda: member.host.run(show).stdout, _START_SECONDS):
        raise LabError(f"{member.name} has no link-local address on {member.device}")


def send_frames(host: labs.Host, device: str, *frames: bytes, times: int = 1) -> None:
    """Have a machine send Ethernet frames as they are."""
    copy_script(host)
    run_checked(host, "python3", _PLACE, "send", device, str(times), *(frame.hex() for frame in frames))


def copy_script(host: labs.Host) -> None:
    """Copy the script of frames to a machine."""
    run_checked(host, "cp", "/dev/stdin", _PLACE, stdin=_SCRIPT)


class FrameListener:
    """Has a machine listen while the block runs; the block's value is a function that returns the count after it.

    If several patterns are counted, `counts` has the number of each.
    """

    def __init__(self, host: labs.Host, *arguments: str) -> None:
        self._host, self._arguments = host, arguments
        self._said: list[str] = []
        self._place = f"/run/heard-{threading.get_ident()}"

    def __enter__(self) -> Callable[[], int]:
        copy_script(self._host)
        self._host.run(["rm", "-f", self._place])
        command = f'exec python3 {_PLACE} "$@" > {self._place}'
        argv = ["sh", "-c", command, "sh", *self._arguments]
        self._thread = threading.Thread(target=lambda: self._host.run(argv, timeout=120))
        self._thread.start()
        if not wait_until(lambda: "ready" in self._host.run(["cat", self._place]).stdout, _START_SECONDS):
            raise LabError(f"{self._host.name} does not listen: {' '.join(self._arguments)}")
        return lambda: self.counts[0]

    @property
    def counts(self) -> list[int]:
        """Numbers of datagrams or frames, after the block."""
        return [int(word) for word in self._said]

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._said = self._host.run(["cat", self._place]).stdout.split()[1:]


def check_no_warnings(member: SegmentMember) -> Check:
    """Check that a member's OpenVPN logs no warning."""
    unit = "openvpn-server@server" if member.name == "gateway" else f"openvpn-client@{member.name}"
    journal = member.host.run(["journalctl", "--no-pager", "-o", "cat", "-u", unit]).stdout
    lines = [line for line in journal.splitlines() if "WARNING" in line]
    return Check(not lines, f"{member.name} logs no warning", lines[0] if lines else "none")


def _check_own_routes(deployed: Deployment, member: SegmentMember) -> Check:
    """Check that a client keeps its own default route and resolvers."""
    default = member.host.run(["ip", "route", "show", "default"]).stdout.strip()
    words = [line.split() for line in member.host.run(["cat", "/etc/resolv.conf"]).stdout.splitlines()]
    resolvers = [ip_address(word[1]) for word in words if word[:1] == ["nameserver"]]
    ours = (deployed.settings.tunnel.pool, deployed.settings.network.cidr)
    via = [ip_address(word) for word in default.split()[2:3]]
    astray = "dev tap0" in default or any(address in net for address in (*resolvers, *via) for net in ours)
    return Check(not astray, f"{member.host.name} keeps its own default route and resolvers", default)
