"""A host that bridges its LAN with a segment, by packets: what crosses, and that its admin is never locked out.

Does not prove anything about hosts that NetworkManager sets up, which are refused, nor about switches with spanning
trees of their own.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from drawbridge.operate.bundles import kit_command
from drawbridge.operate.stack_files import find_stack_file
from drawbridge.trial import segment
from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import place_hosts, run_checked
from drawbridge.trial.measure import ping
from drawbridge.trial.routed import wait_report
from drawbridge.trial.segment import DATAGRAMS, SegmentMember, count_multicast, interface_addresses
from lab.errors import LabError
from lab.linux import ip_batch
from lab.region import Host, Region, disposable_region
from openvpn.addressing import derive_link_local
from settings.stack_file import read_stack_file
from tests.support import waiting
from tests.support.foreign_macs import check_flood, check_suspended, is_suspended, members_by_name
from tests.support.frames import arp, count_drops, dhcp_offer, mac, neighbour, udp

TUNNEL = 60.0
GROUP, GROUP6 = ("239.255.0.1", 7400), ("ff02::ffff:efff:1", 7400)
SPARE = IPv4Address("192.168.1.40")
BRIDGE = "/usr/local/lib/drawbridge/bridge.py"
#: Somebody's file that comes before the kit's own and leaves the bridge without an address.
IN_THE_WAY = "/etc/systemd/network/00-another.network"


def stack(**bridge: object) -> dict[str, Any]:
    raw = deepcopy(read_stack_file(find_stack_file("bridge")))
    raw["drawbridge:clients"][0]["bridge"] |= bridge
    return raw


def bring(region: Region, raw: dict[str, Any]) -> Deployment:
    made = deploy(region, "bridge", raw, lambda _: None)
    place_hosts(made, lambda _: None)
    assert wait_report(made, made.outputs["release"])["state"] == "ready"
    return made


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    with disposable_region() as region:
        yield bring(region, stack(timeout=10))


@pytest.fixture
def here(deployed: Deployment) -> dict[str, SegmentMember]:
    """All who are on the segment, by name."""
    found = {one.name: one for one in segment.find_members(deployed)}
    assert ping(found["laptop"].host, found["home-hidden"].address, TUNNEL) is not None
    return found


def install(deployed: Deployment, host: Host) -> str:
    """Set a host up by the kit, with the credentials that are on the first one."""
    keys = run_checked(deployed.region.host("home"), "cat", "/root/.aws/credentials")
    run_checked(host, "install", "-D", "-m", "0600", "/dev/stdin", "/root/.aws/credentials", stdin=keys)
    return run_checked(host, "sh", "-c", kit_command(deployed.account, "home"), timeout=180)


def write(host: Host, path: str, text: str) -> None:
    """Have a file on a machine that its services may read."""
    run_checked(host, "install", "-m", "0644", "/dev/stdin", path, stdin=text)


def routes(host: Host) -> dict[str, str]:
    lines = run_checked(host, "ip", "-4", "route", "show").splitlines()
    return {line.split()[0]: line.strip() for line in lines}


def ports(host: Host) -> list[str]:
    done = host.run(["ip", "-json", "link", "show", "master", "br0"])
    return sorted(port["ifname"] for port in json.loads(done.stdout or "[]"))


def details(host: Host, device: str) -> dict[str, Any]:
    (link,) = json.loads(run_checked(host, "ip", "-json", "-details", "link", "show", "dev", device))
    found: dict[str, Any] = link
    return found


def bare(host: Host) -> None:
    """Leave a machine that is off without what a real one would not come up with."""
    gone = ["link delete br0", "link delete tap0", "address flush dev eth0", "link set eth0 down"]
    ip_batch(host.namespace, gone, force=True)


@pytest.mark.seed("2.1")
def test_the_bridge_has_the_interfaces_addresses_and_the_interface_none(
    deployed: Deployment, here: dict[str, SegmentMember]
) -> None:
    home = here["home"].host
    bridge = details(home, "br0")

    assert interface_addresses(home, "eth0") == []
    assert "192.168.1.10/24" in interface_addresses(home, "br0")
    assert bridge["address"] == details(home, "eth0")["address"]
    assert (bridge["linkinfo"]["info_data"]["forward_delay"], bridge["linkinfo"]["info_data"]["stp_state"]) == (0, 0)
    assert ports(home) == ["eth0", "tap0"]
    assert routes(home)["default"].startswith("default via 192.168.1.1 dev br0")
    assert routes(home)["10.1.0.0/16"].startswith("10.1.0.0/16 via 192.168.1.193 dev br0")
    # The VPC's interface is in no bridge, here as on any segment.
    assert ports(deployed.gateway) == ["tap0"]


@pytest.mark.seed("2.1")
def test_a_client_elsewhere_and_a_host_of_the_lan_are_on_one_wire(here: dict[str, SegmentMember]) -> None:
    laptop, hidden, home = here["laptop"], here["home-hidden"], here["home"]
    run_checked(laptop.host, "ip", "neighbour", "flush", "dev", "tap0")
    with segment.FrameListener(hidden.host, "count", "eth0", "2", (b"\x08\x06" + bytes.fromhex("0001")).hex()) as asked:
        assert ping(laptop.host, hidden.address, 5) is not None
    assert asked() > 0
    (known,) = json.loads(run_checked(laptop.host, "ip", "-json", "neighbour", "show", "to", str(hidden.address)))
    assert bytes.fromhex(known["lladdr"].replace(":", "")) == mac(hidden)
    # As large as the LAN's own.
    run_checked(laptop.host, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1472", str(hidden.address))
    for group in (GROUP, GROUP6):
        assert count_multicast(laptop, hidden, *group) == DATAGRAMS
        assert count_multicast(hidden, laptop, *group) == DATAGRAMS

    # The control: without the tunnel there is none of it, and the host is in its LAN as ever.
    run_checked(home.host, "systemctl", "stop", "openvpn-client@home")
    try:
        assert count_multicast(laptop, hidden, *GROUP, seconds=1) == 0
        assert ping(laptop.host, hidden.address, 2) is None
        assert ping(hidden.host, home.address, 5) is not None
    finally:
        run_checked(home.host, "systemctl", "start", "openvpn-client@home")


def passing(speaker: SegmentMember, device: str, listener: SegmentMember, *frames: bytes) -> list[bool]:
    """Which of some frames arrive that a machine sends as they are, in their order."""
    ear = segment.FrameListener(listener.host, "count", listener.device, "2", *(frame[6:].hex() for frame in frames))
    with ear:
        segment.send_frames(speaker.host, device, *frames, times=3)
    return [count > 0 for count in ear.counts]


@pytest.mark.seed("9.4")
def test_the_lans_hosts_have_its_addresses_and_nobody_elses(
    deployed: Deployment, here: dict[str, SegmentMember]
) -> None:
    """Frames made by hand, each beside one that differs only in being true; all from hosts behind one certificate."""
    gateway, laptop, hidden = here["gateway"], here["laptop"], here["home-hidden"]
    own, nobody = mac(hidden), bytes.fromhex("020000000099")
    local, everyone6 = derive_link_local(":".join(f"{b:02x}" for b in own)), IPv6Address("ff02::1")
    theirs = derive_link_local(":".join(f"{b:02x}" for b in mac(laptop)))
    # The hardware addresses last: the LAN itself believes whom it hears, as any does.
    tried = {
        "network address of a client": (udp(own, hidden, gateway, b"A1"), udp(own, laptop, gateway, b"A2")),
        "ARP for a client": (arp(own, own, hidden), arp(own, own, laptop)),
        "ARP for the gateway": (arp(own, own, hidden, 2), arp(own, own, gateway, 2)),
        "ARP with a client's hardware address": (arp(own, own, hidden), arp(own, mac(laptop), hidden, 2)),
        "IPv6 from a client": (
            neighbour(own, local, local, everyone6, b"B1"),
            neighbour(own, theirs, local, everyone6, b"B2"),
        ),
        "a router's word": (
            neighbour(own, local, local, everyone6, b"C1"),
            neighbour(own, local, local, everyone6, b"C2", kind=134),
        ),
        "any hardware address": (udp(nobody, hidden, gateway, b"D1"), udp(mac(laptop), hidden, gateway, b"D2")),
        "the gateway's hardware address": (udp(own, hidden, gateway, b"E1"), udp(mac(gateway), hidden, gateway, b"E2")),
    }
    true, false = zip(*tried.values(), strict=True)
    passed = passing(hidden, "eth0", gateway, *true, *false)

    assert dict(zip(tried, passed[: len(tried)], strict=True)) == dict.fromkeys(tried, True)
    assert dict(zip(tried, passed[len(tried) :], strict=True)) == dict.fromkeys(tried, False)
    # Now the LAN hears whose they are.
    for one in (gateway, laptop):
        assert ping(one.host, hidden.address, 5) is not None


@pytest.mark.seed("9.4")
def test_no_other_client_passes_for_a_host_of_the_lan(deployed: Deployment, here: dict[str, SegmentMember]) -> None:
    gateway, laptop, hidden = here["gateway"], here["laptop"], here["home-hidden"]
    own, nobody = mac(laptop), bytes.fromhex("020000000098")
    foreign = udp(nobody, hidden, gateway, b"F1"), udp(own, hidden, gateway, b"F2"), arp(own, own, hidden, 2)
    assert passing(laptop, "tap0", gateway, udp(own, laptop, gateway, b"F0"), *foreign) == [True, False, False, False]
    # The control: the same frame comes in by the bridge.
    assert passing(hidden, "eth0", gateway, foreign[0]) == [True]
    assert count_drops(deployed)["spoofed"] >= 2


def test_a_gateway_that_was_taken_over_does_not_speak_for_the_lan(here: dict[str, SegmentMember]) -> None:
    """The bridging host has a filter of its own."""
    gateway, hidden, home = here["gateway"], here["home-hidden"], here["home"]
    own = mac(gateway)
    true = arp(own, own, gateway, 2), udp(own, gateway, hidden, b"G1")
    false = arp(own, own, home, 2), udp(own, home, hidden, b"G2"), dhcp_offer(own, gateway, hidden)
    assert passing(gateway, "tap0", hidden, *true, *false) == [True, True, False, False, False]


@contextmanager
def silent(one: SegmentMember, other: SegmentMember) -> Iterator[None]:
    """A host that only answers, and another one; each knows the other's hardware address and asks nobody."""
    ip = "type filter hook output priority 0\nicmp type != echo-reply drop\nmeta nfproto ipv6 drop"
    arp = "type filter hook output priority 0\narp operation request drop"
    tables = f"table inet silent {{\nchain out {{\n{ip}\n}}\n}}\ntable arp silent {{\nchain out {{\n{arp}\n}}\n}}\n"
    run_checked(one.host, "nft", "-f", "-", stdin=tables)
    for who, whom in ((one, other), (other, one)):
        known = [str(whom.address), "lladdr", mac(whom).hex(":"), "dev", who.device]
        run_checked(who.host, "ip", "neighbour", "replace", *known, "nud", "permanent")
    try:
        yield
    finally:
        for who, whom in ((one, other), (other, one)):
            run_checked(who.host, "ip", "neighbour", "delete", str(whom.address), "dev", who.device)
        run_checked(one.host, "nft", "delete table inet silent; delete table arp silent")


@pytest.mark.seed("2.3")
def test_the_tap_is_bridged_before_openvpn_and_removed_after_it(here: dict[str, SegmentMember]) -> None:
    home, laptop, hidden = here["home"].host, here["laptop"], here["home-hidden"]
    note = "[Service]\nExecStartPre=/bin/sh -c 'ip -json -details link show dev tap0 >/run/before-openvpn'\n"
    write(home, "/etc/systemd/system/openvpn-client@home.service.d/note.conf", note)
    run_checked(home, "systemctl", "daemon-reload")
    with silent(hidden, laptop):
        run_checked(home, "systemctl", "stop", "openvpn-client@home")
        assert ports(home) == ["eth0"]
        assert home.run(["ip", "link", "show", "dev", "tap0"]).returncode != 0
        run_checked(home, "systemctl", "start", "openvpn-client@home")
        assert ping(laptop.host, hidden.address, 30) is not None, "the LAN's hosts were not announced"
    (tap,) = json.loads(run_checked(home, "cat", "/run/before-openvpn"))
    assert tap["master"] == "br0" and "UP" in tap["flags"] and tap["promiscuity"] > 0
    assert tap["linkinfo"]["info_data"]["persist"] is True
    assert "NO-CARRIER" in tap["flags"], "nobody holds it yet"
    run_checked(home, "rm", "/etc/systemd/system/openvpn-client@home.service.d/note.conf")
    run_checked(home, "systemctl", "daemon-reload")


@pytest.mark.seed("2.2")
def test_it_survives_a_reboot(deployed: Deployment, here: dict[str, SegmentMember]) -> None:
    home, laptop, hidden = here["home"].host, here["laptop"], here["home-hidden"]
    before = interface_addresses(home, "br0"), routes(home)
    deployed.region.cut_power("home")
    bare(home)
    assert ping(hidden.host, "192.168.1.10", 1) is None
    home = deployed.region.power_on("home")
    home.wait_booted()

    assert ping(hidden.host, "192.168.1.10", 30) is not None
    assert ping(laptop.host, hidden.address, TUNNEL) is not None
    assert (interface_addresses(home, "br0"), routes(home)) == before
    assert interface_addresses(home, "eth0") == []
    assert details(home, "br0")["linkinfo"]["info_data"]["forward_delay"] == 0


# A bridge that costs the way in


@contextmanager
def session(host: Host, server: Host, address: IPv4Address) -> Iterator[Callable[[], str]]:
    """A TCP connection that is open before the block and used after it; called, the value is what came back."""
    echo = "systemd-run --quiet --collect --unit=echo socat TCP-LISTEN:2222,fork,reuseaddr EXEC:cat"
    run_checked(server, "sh", "-c", f"systemctl is-active --quiet echo || {echo}")
    script = (
        "import socket, sys\n"
        "def said(word):\n"
        "    line.sendall(word)\n"
        "    return line.recv(16).decode()\n"
        f"for _ in range(50):\n"
        f"    try:\n        line = socket.create_connection(('{address}', 2222), 1)\n        break\n"
        "    except OSError:\n        pass\n"
        "line.settimeout(30)\n"
        "print(said(b'before'), flush=True)\n"
        "open('/run/session-open', 'w').close()\n"
        "import os, time\n"
        "while not os.path.exists('/run/session-go'):\n    time.sleep(0.1)\n"
        "print(said(b'after'))\n"
    )
    host.run(["rm", "-f", "/run/session-open", "/run/session-go"])
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.append(host.run(["python3", "-c", script], timeout=120).stdout))
    thread.start()
    waiting.until(lambda: host.run(["test", "-e", "/run/session-open"]).returncode == 0, 20)

    def ended() -> str:
        run_checked(host, "touch", "/run/session-go")
        thread.join()
        return heard[0]

    try:
        yield ended
    finally:
        run_checked(host, "touch", "/run/session-go")
        thread.join()


@contextmanager
def broken(deployed: Deployment) -> Iterator[None]:
    """A host on which the bridge will have no address."""
    write(deployed.region.host("spare"), IN_THE_WAY, "[Match]\nName=br0\n\n[Network]\nLinkLocalAddressing=no\n")
    yield
    spare = deployed.region.host("spare")
    run_checked(spare, "rm", "-f", IN_THE_WAY)
    run_checked(spare, "networkctl", "reload")


def is_back(spare: Host) -> bool:
    """Whether a host has the network that it had before any bridge."""
    gone = spare.run(["test", "-e", "/sys/class/net/br0"]).returncode != 0
    default = routes(spare).get("default", "")
    return (
        gone
        and f"{SPARE}/24" in interface_addresses(spare, "eth0")
        and default.startswith("default via 192.168.1.1 dev eth0")
    )


@dataclass(frozen=True)
class Try:
    """What came of the kit's `install` on a host where the bridge costs the way in."""

    said: str
    back: bool
    heard: list[str]
    """On a connection that was open before."""


@pytest.fixture(scope="module")
def tried(deployed: Deployment) -> Try:
    """Another Debian host in the LAN, whose address systemd-networkd sets."""
    network = f"[Match]\nName=eth0\n\n[Network]\nAddress={SPARE}/24\nGateway=192.168.1.1\nDNS=192.0.2.53\n"
    files = {"/etc/systemd/network/20-lan.network": network}
    spare = deployed.region.add_host("spare", site="home-home", address=SPARE, files=files)
    spare.wait_booted()
    run_checked(spare, "systemctl", "enable", "--now", "systemd-networkd")
    waiting.until(lambda: "proto static" in routes(spare).get("default", ""), 20)
    with broken(deployed), session(deployed.region.host("home-hidden"), spare, SPARE) as ended:
        with pytest.raises(LabError) as failure:
            install(deployed, spare)
        return Try(str(failure.value), is_back(spare), ended().split())


@pytest.fixture
def spare(deployed: Deployment, tried: Try) -> Host:
    """It as it is now."""
    return deployed.region.host("spare")


@pytest.mark.seed("2.2")
def test_a_bridge_that_costs_the_way_in_is_taken_back_and_the_session_goes_on(
    here: dict[str, SegmentMember], tried: Try, spare: Host
) -> None:
    assert f"br0 does not have the address {SPARE}; the former network is restored" in tried.said
    assert tried.back
    assert tried.heard == ["before", "after"]
    assert ping(here["home-hidden"].host, SPARE, 5) is not None
    assert "inactive" in spare.run(["systemctl", "is-active", "openvpn-client@home"]).stdout


@pytest.mark.seed("2.2")
@pytest.mark.parametrize("end", ["the installer is killed", "the watcher is killed", "the power fails"])
def test_it_is_taken_back_however_the_try_ends(
    deployed: Deployment, here: dict[str, SegmentMember], spare: Host, end: str
) -> None:
    run_checked(spare, "sh", "-c", "sed -i s/TIMEOUT=.*/TIMEOUT=3/ /etc/drawbridge/bridge.env")
    with broken(deployed):
        run_checked(spare, "systemd-run", "--quiet", "--collect", "--unit=try", "python3", BRIDGE, "try")
        waiting.until(lambda: ports(spare) == ["eth0"], 20)
        assert ping(here["home-hidden"].host, SPARE, 1) is None  # the control: the way in is lost by now
        if end == "the power fails":
            deployed.region.cut_power("spare")
            bare(spare)
            spare = deployed.region.power_on("spare")
            spare.wait_booted()
        else:
            unit = "try" if end == "the installer is killed" else "drawbridge-bridge.service"
            run_checked(spare, "systemctl", "kill", "--signal=KILL", unit)

        waiting.until(lambda: is_back(spare), 30)
    assert ping(here["home-hidden"].host, SPARE, 10) is not None


@pytest.mark.seed("2.2")
def test_a_leased_address_stays_the_same_and_removal_gives_all_back(
    here: dict[str, SegmentMember], spare: Host
) -> None:
    """Another host of the LAN leases addresses; who asks by another name gets another one."""
    hidden = here["home-hidden"].host
    server = (
        f"[Match]\nName=eth0\n\n[Network]\nAddress={here['home-hidden'].address}/24\nGateway=192.168.1.1\n"
        "DHCPServer=yes\n\n[DHCPServer]\nPoolOffset=100\nPoolSize=20\nEmitRouter=yes\nRouter=192.168.1.1\n"
    )
    write(hidden, "/etc/systemd/network/20-lan.network", server)
    run_checked(hidden, "systemctl", "restart", "systemd-networkd")
    client = "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\n"
    write(spare, "/etc/systemd/network/20-lan.network", client)
    run_checked(spare, "networkctl", "reload")
    run_checked(spare, "networkctl", "reconfigure", "eth0")

    def leased(device: str) -> str | None:
        return next((one for one in interface_addresses(spare, device) if one.startswith("192.168.1.1")), None)

    address = waiting.until(lambda: leased("eth0"), 20)
    waiting.until(lambda: "default" in routes(spare), 10)
    run_checked(spare, "python3", BRIDGE, "try")
    assert leased("br0") == address and interface_addresses(spare, "eth0") == []
    assert ping(hidden, address.partition("/")[0], 5) is not None
    run_checked(spare, "python3", BRIDGE, "try")  # again, and nothing happens

    run_checked(spare, "sh", "/opt/drawbridge-kit/install", "--remove")
    waiting.until(lambda: leased("eth0") == address, 20)
    assert spare.run(["test", "-e", "/sys/class/net/br0"]).returncode != 0
    assert run_checked(spare, "sh", "-c", "ls /run/systemd/network").split() == []


@pytest.mark.seed("2.4")
def test_a_tap_that_openvpn_makes_is_added_by_a_script(deployed: Deployment, here: dict[str, SegmentMember]) -> None:
    home = here["home"].host
    bring(deployed.region, stack(timeout=10, tap="dynamic"))
    install(deployed, home)
    assert ping(here["laptop"].host, here["home-hidden"].address, TUNNEL) is not None

    tap = details(home, "tap0")
    assert tap["master"] == "br0" and tap["promiscuity"] > 0
    assert tap["linkinfo"]["info_data"]["persist"] is False
    run_checked(home, "systemctl", "stop", "openvpn-client@home")
    assert ports(home) == ["eth0"]


# Floods: last, as a bridge remembers the addresses for minutes, and a client stays suspended


@pytest.fixture(scope="module")
def restored(deployed: Deployment) -> dict[str, SegmentMember]:
    """All who are on the segment, by name; the bridging host has its first kit again."""
    bring(deployed.region, stack(timeout=10))
    install(deployed, deployed.region.host("home"))
    return members_by_name(deployed)


def reconnect_bridge(home: SegmentMember, peer: SegmentMember) -> None:
    """Give the bridging client a new session."""
    run_checked(home.host, "systemctl", "restart", "openvpn-client@home")
    assert ping(peer.host, home.address, TUNNEL) is not None


@pytest.mark.attack("2.13")
def test_a_host_of_a_bridged_lan_costs_the_others_nothing(
    deployed: Deployment, restored: dict[str, SegmentMember]
) -> None:
    gateway, laptop, home, hidden = (restored[name] for name in ("gateway", "laptop", "home", "home-hidden"))
    for member in (home, hidden):
        assert ping(laptop.host, member.address, TUNNEL) is not None
    frame = udp(mac(hidden), hidden, gateway, b"flood")
    for rate in (10, 50, 400, 1500):
        reconnect_bridge(home, laptop)
        check_flood(laptop.host, home.address, hidden.host, "eth0", rate, "random", frame)
    # The bridging host does not pass on what its LAN sends from an address of the segment.
    check_flood(laptop.host, home.address, hidden.host, "eth0", 400, "own", udp(mac(laptop), hidden, gateway, b"flood"))
    assert not is_suspended(deployed, "home")


@pytest.mark.attack("2.13")
def test_another_client_of_a_bridged_segment_may_be_no_host_of_the_lan(
    deployed: Deployment, restored: dict[str, SegmentMember]
) -> None:
    """Runs last on its region: the client stays suspended for minutes."""
    gateway, laptop, home = (restored[name] for name in ("gateway", "laptop", "home"))
    frame = udp(mac(laptop), laptop, gateway, b"flood")
    assert ping(gateway.host, home.address, TUNNEL) is not None
    check_flood(gateway.host, home.address, laptop.host, "tap0", 400, "random", frame)
    check_suspended(deployed, "laptop")
    assert ping(gateway.host, home.address, 5) is not None
