"""The values that a `Tunnel` derives. Does not prove: that the settings refuse a tunnel that makes no sense."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvpn.addressing import dynamic_range
from openvpn.listener import Listener
from openvpn.model import ServerProcess, Tunnel, TunnelClient
from openvpn.paths import Paths
from openvpn.syntax import spell_network
from openvpn.topology import BondedSegment, BridgedSegment, PairLink, Routed, Segment, Topology, lay_out

POOL = IPv4Network("10.8.0.0/24")


def fixed(*addresses: str) -> tuple[TunnelClient, ...]:
    return tuple(TunnelClient(name=f"c{i}", address=IPv4Address(a)) for i, a in enumerate(addresses))


def unfixed(count: int) -> tuple[TunnelClient, ...]:
    return tuple(TunnelClient(name=f"d{i}") for i in range(count))


@pytest.mark.parametrize(
    ("pool", "address", "sessions"),
    [("10.8.0.0/29", "10.8.0.1", 256), ("10.8.0.0/24", "10.8.0.1", 1012), ("10.8.0.0/16", "10.8.0.1", 4096)],
)
def test_server_takes_the_first_address_and_has_room_for_half_open_sessions(
    pool: str, address: str, sessions: int
) -> None:
    tunnel = Tunnel(pool=IPv4Network(pool))
    assert (str(tunnel.layout.address), tunnel.max_sessions) == (address, sessions)


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        ((), ("10.8.0.128", "10.8.0.254")),
        (fixed("10.8.0.2", "10.8.0.127"), ("10.8.0.128", "10.8.0.254")),
        (fixed("10.8.0.200"), ("10.8.0.2", "10.8.0.199")),
        (fixed("10.8.0.10", "10.8.0.254"), ("10.8.0.11", "10.8.0.253")),
        (unfixed(200), ("10.8.0.2", "10.8.0.254")),
        (fixed(*(f"10.8.0.{i}" for i in range(2, 255))), None),
    ],
    ids=["none", "lower half", "upper half", "both", "many without", "full"],
)
def test_dynamic_range(clients: tuple[TunnelClient, ...], expected: tuple[str, str] | None) -> None:
    dynamic = dynamic_range(Tunnel(pool=POOL, clients=clients))
    assert (dynamic and tuple(map(str, dynamic))) == expected


@given(st.sets(st.integers(2, 62)), st.integers(0, 62))
def test_dynamic_range_is_free_and_inside(offsets: set[int], others: int) -> None:
    pool = IPv4Network("10.8.0.0/26")
    addresses = [pool.network_address + i for i in sorted(offsets)]
    tunnel = Tunnel(pool=pool, clients=(*fixed(*map(str, addresses)), *unfixed(others)))
    dynamic = dynamic_range(tunnel)
    if dynamic is None:
        assert len(addresses) == 61
        return
    first, last = dynamic
    assert pool.network_address < tunnel.layout.address < first <= last < pool.broadcast_address
    assert not any(first <= address <= last for address in addresses)


def test_networks_behind_clients_are_merged() -> None:
    lan = tuple(map(IPv4Network, ("192.168.0.0/24", "192.168.1.0/24")))
    reachable = (IPv4Network("192.168.1.128/25"),)
    tunnel = Tunnel(pool=POOL, clients=(TunnelClient(name="home", lan=lan, reachable=reachable),))
    merged = IPv4Network("192.168.0.0/23")
    assert tunnel.lans == (merged,)
    assert tunnel.sources == (POOL, merged)
    assert tunnel.reachable == reachable


def test_only_what_keeps_its_address_needs_routes() -> None:
    home = TunnelClient(name="home", lan=(IPv4Network("192.168.1.0/24"),), reachable=(IPv4Network("192.168.1.128/25"),))
    assert Tunnel(pool=POOL, nat=True).vpc_routes == ()
    assert Tunnel(pool=POOL, nat=False).vpc_routes == (POOL,)
    assert Tunnel(pool=POOL, nat=True, clients=(home,)).vpc_routes == home.reachable
    assert Tunnel(pool=POOL, nat=False, clients=(home,)).vpc_routes == (POOL, *home.lan)


def test_paths_of_two_instances_differ_where_they_must() -> None:
    first, second = Paths("server"), Paths("second")
    for name in ("config", "runtime", "management", "status", "addresses"):
        assert getattr(first, name) != getattr(second, name)
    assert first.secrets == second.secrets == "/etc/openvpn/server/secrets"


def test_netmask() -> None:
    assert spell_network(IPv4Network("192.168.1.128/25")) == "192.168.1.128 255.255.255.128"


@pytest.mark.parametrize(
    ("pool", "seconds", "buffer"),
    [("10.8.0.0/28", 15, None), ("10.8.0.0/24", 15, None), ("10.8.0.0/23", 15, 1 << 20), ("10.8.0.0/22", 30, 2 << 20),
     ("10.8.0.0/21", 60, 4 << 20), ("10.8.0.0/16", 60, 4 << 20)],
)  # fmt: skip
def test_a_larger_pool_has_more_room_for_clients_that_come_at_once(pool: str, seconds: int, buffer: int | None) -> None:
    tunnel = Tunnel(pool=IPv4Network(pool))
    assert (tunnel.hand_window, tunnel.receive_buffer) == (seconds, buffer)


def test_each_port_of_the_listener_has_a_process_of_its_own() -> None:
    tunnel = Tunnel(pool=POOL, topology=BondedSegment(), listener=Listener.consecutive("udp", 5000, 2))
    assert tunnel.processes == (ServerProcess("server", "tap0", 5000), ServerProcess("server1", "tap1", 5001))
    assert Tunnel(pool=POOL).processes == (ServerProcess("server", "tun0", 1194),)
    assert Tunnel(pool=POOL, topology=PairLink()).processes == ()


@pytest.mark.parametrize(
    ("topology", "device", "interface", "address", "network"),
    [
        (Routed(), "tun", "tun0", "10.8.0.1", "10.8.0.0/24"),
        (Segment(), "tap", "br0", "10.8.0.1", "10.8.0.0/24"),
        (BridgedSegment("home", IPv4Network("10.8.0.0/16")), "tap", "br0", "10.8.0.1", "10.8.0.0/16"),
        (BondedSegment(), "tap", "br0", "10.8.0.254", "10.8.0.0/24"),
        (PairLink(), "tun", "bond0", "10.8.0.1", "10.8.0.0/24"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_topology_decides_the_gateways_side(
    topology: Topology, device: str, interface: str, address: str, network: str
) -> None:
    layout = lay_out(topology, POOL)
    assert (layout.device, layout.interface) == (device, interface)
    assert (layout.address, layout.network) == (IPv4Address(address), IPv4Network(network))


def test_a_packet_fits_a_pppoe_line_unless_the_hosts_use_no_smaller_one() -> None:
    assert Tunnel(pool=POOL).mtu + 20 + 8 + 24 == 1492
    assert Tunnel(pool=POOL, topology=Segment()).mtu + 14 + 20 + 8 + 24 <= 1492
    assert Tunnel(pool=POOL, topology=BondedSegment(), fixed_mtu=1500).mtu == 1500
