"""The agent's look at the kernel: it puts back what deviates from the release, and reports it.

Does not prove that the kernel and nft print what `gateway.ServicesStub`, their stand-in, prints.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from openvpn.model import Tunnel, TunnelClient
from openvpn.topology import Segment
from tests.support import gateway
from tests.unit.userdata.test_agent_machine import OPENVPN, Clock, World, world  # noqa: F401  # a fixture
from userdata.files import agent

LAN = IPv4Network("192.168.7.0/24")
TUNNEL = Tunnel(pool=gateway.TUNNEL.pool, clients=(TunnelClient(name="home", lan=(LAN,), reachable=(LAN,)),))


def flush(world: World) -> None:  # noqa: F811
    shutil.rmtree(world.services.tables)


def accept_everything(world: World) -> None:  # noqa: F811
    table = world.services.tables / "inet-drawbridge"
    table.write_text(table.read_text().replace("policy drop", "policy accept"))


def stop_forwarding(world: World) -> None:  # noqa: F811
    (world.root / "proc/sys/net/ipv4/ip_forward").write_text("0\n")


DEVIATIONS: dict[str, tuple[Callable[[World], object], str, int]] = {
    "no filter": (flush, "the packet filter was changed", 0),
    "changed filter": (accept_everything, "the packet filter was changed", 0),
    "no forwarding": (stop_forwarding, "changed kernel settings: net.ipv4.ip_forward", 0),
    "no route": (lambda on: on.services.remove_routes("tun0"), f"no route to {LAN}", 0),
    "no device": (lambda on: on.services.remove_device("tun0"), "missing or down: tun0", 1),
    "device down": (lambda on: on.services.set_device("tun0", up=False), "missing or down: tun0", 0),
}


@pytest.mark.fault("3.1", "3.2", "3.3", "3.4", "3.5")
@pytest.mark.parametrize("case", DEVIATIONS)
def test_what_deviates_is_put_back_and_reported(world: World, case: str) -> None:  # noqa: F811
    deviate, text, restarts = DEVIATIONS[case]
    sha = world.publish(gateway.build_release(TUNNEL))
    world.run()
    deviate(world)
    ready = agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))
    report = world.run()
    assert (report.state, report.reason, report.repaired) == ("ready", "", (text,))
    assert world.services.starts == 1 + restarts
    # The next run has nothing to do, and the operator still reads what happened, and when.
    assert world.run() == ready
    (repair,) = world.published_report()["repaired"]
    time, _, said = repair.partition(" ")
    assert said == text
    assert time.endswith("Z")
    assert world.services.starts == 1 + restarts


def test_a_network_behind_a_client_comes_and_goes_without_a_restart(world: World) -> None:  # noqa: F811
    later = IPv4Network("192.168.9.0/24")
    for lans in ((LAN,), (LAN, later), (later,), ()):
        clients = (TunnelClient(name="home", lan=lans, reachable=lans),)
        world.publish(gateway.build_release(Tunnel(pool=gateway.TUNNEL.pool, clients=clients)))
        assert world.run().state == "ready"
        assert agent.read_routes(world.services.routes.read_text(), "tun0") == set(lans)
    assert world.services.starts == 1


def test_with_data_channel_offload_it_says_whether_the_kernel_carries_the_data(world: World) -> None:  # noqa: F811
    home = TunnelClient(name="home", address=IPv4Address("10.8.0.10"), lan=(LAN,), reachable=(LAN,))
    tunnel = Tunnel(pool=gateway.TUNNEL.pool, clients=(home,), data_channel_offload=True)
    world.services.set_device("tun0")  # OpenVPN creates it
    world.publish(gateway.build_release(tunnel))
    assert world.run().state == "ready"
    assert world.published_report()["offloaded"] == ["server"]
    # networkd adds the route when the device comes; should it be gone, the agent does.
    assert world.run().repaired == (f"no route to {LAN}",)
    assert f"ip route replace {LAN} via 10.8.0.10 dev tun0" in world.services.commands

    (world.root / "sys/class/net/tun0/tun_flags").write_text("0x1001\n")
    assert world.run().state == "ready"
    assert world.published_report()["offloaded"] == [], "a device of the tun driver: OpenVPN carries the data itself"

    world.publish(gateway.build_release(replace(tunnel, data_channel_offload=False)))
    assert world.run().state == "ready"
    assert world.published_report()["offloaded"] is None, "nobody asked for it"


@pytest.mark.fault("3.6")
def test_a_segment_s_bridge_is_created_again(world: World) -> None:  # noqa: F811
    world.publish(gateway.build_release(Tunnel(pool=gateway.TUNNEL.pool, topology=Segment())))
    world.run()
    world.services.remove_device("br0")
    assert world.run().repaired == ("missing or down: br0",)
    assert (world.root / "sys/class/net/br0").is_dir()
    assert world.services.starts == 1, "OpenVPN uses the bridge's port, not the bridge"


def test_a_filter_that_does_not_load_is_no_ready_gateway(world: World) -> None:  # noqa: F811
    world.publish(gateway.build_release())
    world.run()
    flush(world)
    world.services.fails[f"systemctl reload-or-restart {agent.FIREWALL}"] = "no memory"
    report = world.run()
    assert (report.state, report.repaired) == ("failed", ())
    assert "no memory" in report.reason


@pytest.mark.fault("1.6")
def test_a_silent_management_socket_degrades_and_restarts_nothing(world: World) -> None:  # noqa: F811
    """Somebody else may hold it: OpenVPN serves one at a time, and carries its clients' packets meanwhile."""
    sha = world.publish(gateway.build_release())
    world.run()
    world.services.silent = True
    report = world.run()
    assert (report.state, report.running, world.services.starts) == ("degraded", sha, 1)
    assert report.reason == f"{OPENVPN} does not answer at its management socket: timed out"
    world.services.silent = False
    assert world.run().state == "ready"


@pytest.mark.fault("1.6")
def test_a_process_that_stays_silent_is_restarted_after_growing_pauses(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever holds the socket comes back at once."""
    sha = world.publish(gateway.build_release())
    world.run()
    clock = Clock(monkeypatch)
    world.services.silent = True
    silence = f"{OPENVPN} does not answer at its management socket: timed out"
    start, restarts = clock.now, []
    for seconds in range(0, 14 * 3600, 600):
        clock.now = start + seconds
        starts = world.services.starts
        report = world.run()
        assert (report.state, report.running, report.reason) == ("degraded", sha, silence)
        if world.services.starts != starts:
            restarts.append(seconds)
    assert restarts == [600, 4200, 25800, 47400]
    world.services.silent = False
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))
    world.services.silent = True
    clock.now += agent.HEARTBEAT
    world.run()
    clock.now += agent.SILENCE_PAUSES[0]
    world.services.releases_socket = True
    assert world.run().repaired == (silence,), "it has answered in between: the first pause again"
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", (OPENVPN,))


def test_a_process_that_has_answered_is_not_asked_again_at_once(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenVPN logs three lines for each question."""
    world.publish(gateway.build_release())
    world.run()
    asked: list[list[str]] = []

    def answer(path: Path, commands: list[str]) -> list[str]:
        asked.append(commands)
        return []

    monkeypatch.setattr(agent, "send_management_commands", answer)
    world.run()
    world.run()
    assert asked == [["pid"]]
    gateway.make_stale(world.root / "run/openvpn-server/answered")
    world.run()
    assert asked == [["pid"], ["pid"]]


def test_after_a_start_of_the_machine_the_filter_is_loaded_again_without_a_word(world: World) -> None:  # noqa: F811
    """Nobody knows what the kernel makes of the rules until the agent has seen it."""
    world.publish(gateway.build_release())
    world.run()
    accept_everything(world)
    world.machine.filter_file.unlink()
    report = world.run()
    assert (report.state, report.repaired) == ("ready", ())
    assert "policy drop" in (world.services.tables / "inet-drawbridge").read_text()


def test_the_last_repairs_are_few_and_none_appears_twice() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    repairs: tuple[str, ...] = ()
    for number, text in enumerate(["a", "b", "a", "c", "d", "x" * 500]):
        repairs = agent.add_repairs(repairs, [text], now.replace(minute=number))
    assert repairs == ("2026-01-01T00:03:00Z c", "2026-01-01T00:04:00Z d", f"2026-01-01T00:05:00Z {'x' * 60}")


@pytest.mark.parametrize(
    ("flags", "elements"),
    [
        ("dynamic,timeout\n\ttimeout 1m", "10.0.0.1 limit rate over 1/second timeout 1m expires 5s, 10.0.0.2"),
        ("interval,timeout", "10.0.0.1 timeout 5m : goto path_1472, 10.0.1.0/24 timeout 5m : goto path_1400"),
    ],
)
def test_elements_that_come_and_go_do_not_change_the_filter(flags: str, elements: str) -> None:
    """Those of another set are the rules'."""
    listing = f"set a {{{{\n\tflags {flags}{{}}\n}}}}\nset b {{{{\n\tflags interval{{}}\n}}}}\n"
    plain = agent.without_dynamic_elements(listing.format("", ""))
    elements = f"\n\telements = {{ {elements} }}"
    assert agent.without_dynamic_elements(listing.format(elements, "")) == plain
    assert agent.without_dynamic_elements(listing.format("", elements)) != plain


def test_routes_are_read_as_the_kernel_prints_them() -> None:
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "ens5\t00000000\t0100010A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        "tun0\t0007A8C0\t0200080A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert agent.read_routes(table, "tun0") == {LAN}
    assert agent.read_routes(table, "ens5") == {IPv4Network("0.0.0.0/0")}
    assert agent.read_routes("", "tun0") == set()
