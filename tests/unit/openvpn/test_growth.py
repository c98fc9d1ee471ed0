"""The files of twice as many clients cost twice as much: no file looks at all other clients again.

Calls are counted and not seconds, so a machine under load gives the same figures.
"""

import math
import sys
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network

import pytest

from openvpn.model import Tunnel, TunnelClient, TunnelIPv6
from openvpn.profile import render_profile
from openvpn.server import render_ccd
from openvpn.topology import BondedSegment, Routed, Segment, Topology

POOL = IPv4Network("10.96.0.0/19")
IPV6 = TunnelIPv6(pool=IPv6Network("2001:db8::/80"))

#: The most that the exponent of the calls may be; 1 would be exactly proportional.
SLOPE = 1.1

#: Numbers of clients that are compared.
FEW, MANY = 100, 400


def create_tunnel(clients: int, topology: Topology, *, ipv6: bool = False, lans: bool = False) -> Tunnel:
    members = tuple(
        TunnelClient(
            name=f"client{number:04}",
            address=POOL[2 + number] if number % 2 else None,
            lan=(IPv4Network(f"10.{number // 256}.{number % 256}.0/24"),) if lans else (),
        )
        for number in range(clients)
    )
    return Tunnel(topology=topology, pool=POOL, clients=members, client_to_client=lans, ipv6=IPV6 if ipv6 else None)


def count_calls(work: Callable[[], object]) -> int:
    """Return how many functions, Python's own among them, were called or resumed."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def render_all(tunnel: Tunnel) -> None:
    for client in tunnel.clients:
        render_profile(tunnel, "192.0.2.1", "dev.drawbridge", client.name)
        render_ccd(client, tunnel)


@pytest.mark.parametrize(
    ("topology", "options"),
    [
        (Routed(), {}),
        (Routed(), {"ipv6": True}),
        (Routed(), {"lans": True}),
        (Segment(), {"ipv6": True}),
        (BondedSegment(), {}),
    ],
    ids=["routed", "IPv6", "networks behind clients", "segment", "bonded"],
)
def test_clients_files_cost_in_proportion_to_their_number(topology: Topology, options: dict[str, bool]) -> None:
    few, many = (
        count_calls(lambda clients=clients: render_all(create_tunnel(clients, topology, **options)))  # type: ignore[misc]
        for clients in (FEW, MANY)
    )
    assert math.log(many / few) / math.log(MANY / FEW) < SLOPE


def test_a_tunnel_with_a_client_more_derives_its_own_addresses() -> None:
    """What is kept belongs to one tunnel, also where it was copied with changes."""
    small, large = create_tunnel(2, Segment()), create_tunnel(3, Segment())
    render_all(small)
    render_all(large)
    assert set(large.clients_by_name) - set(small.clients_by_name) == {"client0002"}
    assert "ifconfig-push" in render_ccd(large.clients[2], large)
    assert small == create_tunnel(2, Segment())
