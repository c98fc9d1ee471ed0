"""What a segment (tap) stack promises, as checks: its members meet, also by multicast, and are not led astray."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from itertools import permutations
from pathlib import Path

from drawbridge.trial import hosts, routed
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import MACHINES, run_checked, site_hosts
from drawbridge.trial.measure import format_rtt, ping, wait_until
from lab import region as labs
from lab.errors import LabError
from settings.model import Settings

_SCRIPT = Path(__file__).with_name("frames.py").read_text()
_PLACE = "/run/frames.py"
_TUNNEL_SECONDS = 60
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
    """The gateway and each client that has a machine, once its tunnel is up; raises LabError after a minute.

    With a bridge come hosts of its LAN, who have no tunnel.
    """
    found = [find_member("gateway", deployed.gateway, "br0")]
    for client in deployed.settings.clients[:MACHINES]:
        host, lan = deployed.region.host(client.name), client.name if client.bridge else ""
        found.append(find_member(client.name, host, "br0" if lan else "tap0", lan))
        for name in site_hosts(client, deployed.settings.tunnel.pool):
            found.append(find_member(name, deployed.region.host(name), "eth0", lan))
    return found


def find_member(name: str, host: labs.Host, device: str, lan: str = "") -> SegmentMember:
    """A machine with its address on the segment, waited for."""
    found = list[str]()

    def up() -> bool:
        done = host.run(["ip", "-json", "-4", "address", "show", "dev", device, "up"])
        links = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        found[:] = [one["local"] for link in links for one in link.get("addr_info", [])]
        return bool(found)

    if not wait_until(up, _TUNNEL_SECONDS):
        raise LabError(f"{name} has no address on {device} after {_TUNNEL_SECONDS} s")
    return SegmentMember(name, host, device, IPv4Address(found[0]), lan)


def check_segment(deployed: Deployment) -> list[Check]:
    """Every pair of members that may meet does; what is pushed leaves the clients' own network alone."""
    here = find_members(deployed)
    meet = deployed.settings.tunnel.client_to_client
    made = []
    for one, other in permutations(here, 2):
        if one.lan and one.lan == other.lan:
            continue  # They meet without us.
        what = f"{one.name} -> {other.name}"
        may = meet or "gateway" in (one.name, other.name)
        if not may:
            made.append(Check(ping(one.host, other.address, 2) is None, f"{what} kept apart", "no answer"))
            continue
        found = ping(one.host, other.address, _TUNNEL_SECONDS)
        made.append(Check(found is not None, f"{what} {other.address}", format_rtt(found)))
        for group, port in multicast_groups(deployed):
            heard = count_multicast(one, other, group, port)
            made.append(Check(heard == DATAGRAMS, f"{what} multicast {group}:{port}", f"{heard} of {DATAGRAMS}"))
    by_tunnel = [one for one in here if one.device != "eth0"]
    made += [*(_own_way(deployed, one) for one in here[1:]), *map(check_no_warnings, by_tunnel)]
    for client in deployed.settings.clients[:MACHINES]:
        if client.bridge:
            made += check_bridge(deployed.region.host(client.name))
            made += routed.check_site(deployed, client) if deployed.settings.tunnel.vpc else []
    return made


def check_bridge(host: labs.Host) -> list[Check]:
    """A bridging host's addresses are its bridge's, whose ports are the interface in its LAN and the tunnel."""
    shown = {device: interface_addresses(host, device) for device in ("eth0", "br0")}
    ports = json.loads(run_checked(host, "ip", "-json", "link", "show", "master", "br0"))
    names = sorted(port["ifname"] for port in ports)
    told = f"eth0 {', '.join(shown['eth0']) or '(none)'}, br0 {', '.join(shown['br0'])}"
    moved = Check(not shown["eth0"] and bool(shown["br0"]), f"{host.name}'s bridge has the addresses", told)
    return [moved, Check(names == ["eth0", "tap0"], f"{host.name}'s bridge joins LAN and tunnel", ", ".join(names))]


def interface_addresses(host: labs.Host, device: str) -> list[str]:
    """All addresses that an interface has, link-local ones too."""
    links = json.loads(run_checked(host, "ip", "-json", "address", "show", "dev", device))
    return [f"{one['local']}/{one['prefixlen']}" for link in links for one in link["addr_info"]]


def multicast_groups(deployed: Deployment) -> Iterator[tuple[str, int]]:
    """A group and port of each range that may cross."""
    if not (named := deployed.settings.tunnel.multicast):
        yield from ((group, _DISCOVERY_PORT) for group in DISCOVERY)
    for one in named:
        yield pick_group(one.group), one.ports[0] or _DISCOVERY_PORT


def pick_group(network: IPv4Network | IPv6Network) -> str:
    """A group of a range: the one of discovery if it is in there, else the first that is nobody's."""
    inside = [group for group in DISCOVERY if ip_address(group) in network]
    return inside[0] if inside else str(network[min(1, network.num_addresses - 1)])


def count_multicast(speaker: SegmentMember, listener: SegmentMember, group: str, port: int, seconds: float = 3) -> int:
    """How many of ten datagrams that one member sends to a group another one hears."""
    copy_script(speaker.host)
    if ":" in group:
        wait_link_local(speaker)
    with FrameListener(listener.host, "hear", listener.device, group, str(port), str(seconds)) as heard:
        run_checked(speaker.host, "python3", _PLACE, "say", speaker.device, group, str(port))
    return heard()


def wait_link_local(one: SegmentMember) -> None:
    """Until a member has found that its link-local address is its own (RFC 4862, 5.4), a second after it came up."""
    show = ["ip", "-6", "-oneline", "address", "show", "dev", one.device, "scope", "link", "-tentative"]
    if not wait_until(lambda: one.host.run(show).stdout, 5):
        raise LabError(f"{one.name} has no link-local address on {one.device}")


def send_frames(host: labs.Host, device: str, *frames: bytes, times: int = 1) -> None:
    """Have a machine send Ethernet frames as they are."""
    copy_script(host)
    run_checked(host, "python3", _PLACE, "send", device, str(times), *(frame.hex() for frame in frames))


def copy_script(host: labs.Host) -> None:
    """Have the script on a machine."""
    run_checked(host, "cp", "/dev/stdin", _PLACE, stdin=_SCRIPT)


class FrameListener:
    """While the block runs, from its very beginning, a machine listens; called then, the value is how many came.

    Where several things are counted, `counts` has the number of each.
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
        if not wait_until(lambda: "ready" in self._host.run(["cat", self._place]).stdout, 10):
            raise LabError(f"{self._host.name} does not listen: {' '.join(self._arguments)}")
        return lambda: self.counts[0]

    @property
    def counts(self) -> list[int]:
        """How many came, once the block has ended."""
        return [int(word) for word in self._said]

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._said = self._host.run(["cat", self._place]).stdout.split()[1:]


def check_no_warnings(one: SegmentMember) -> Check:
    """OpenVPN has nothing to warn of."""
    unit = "openvpn-server@server" if one.name == "gateway" else f"openvpn-client@{one.name}"
    said = one.host.run(["journalctl", "--no-pager", "-o", "cat", "-u", unit]).stdout
    lines = [line for line in said.splitlines() if "WARNING" in line]
    return Check(not lines, f"{one.name} logs no warning", lines[0] if lines else "none")


def _own_way(deployed: Deployment, one: SegmentMember) -> Check:
    """The default route and the resolvers are the client's own."""
    default = one.host.run(["ip", "route", "show", "default"]).stdout.strip()
    words = [line.split() for line in one.host.run(["cat", "/etc/resolv.conf"]).stdout.splitlines()]
    resolvers = [ip_address(word[1]) for word in words if word[:1] == ["nameserver"]]
    ours = (deployed.settings.tunnel.pool, deployed.settings.network.cidr)
    via = [ip_address(word) for word in default.split()[2:3]]
    astray = "dev tap0" in default or any(address in net for address in (*resolvers, *via) for net in ours)
    return Check(not astray, f"{one.host.name} keeps its own default route and resolvers", default)
