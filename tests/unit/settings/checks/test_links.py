"""Refusals of tunnels with several links, in their exact words. Does not prove that AWS and OpenVPN agree."""

from typing import Any

import pytest

from tests.support.refusals import BONDED, find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"tunnel": {**BONDED, "protocol": "tcp"}},
            "tunnel.protocol: tcp is not possible with two links: a packet lost on one would delay all that "
            "follow; use udp, or links: 1",
        ),
        (
            {"tunnel": {**BONDED, "bond": "balance-xor"}},
            "tunnel.bond: balance-xor sends from one hardware address over both links, but the gateway's bridge "
            "expects it on one; use balance-alb or active-backup",
        ),
        ({"tunnel": {**BONDED, "bond": "active-backup"}}, None),
        (
            {"tunnel": {"bond": "balance-alb"}},
            "tunnel.bond: balance-alb is only for two links; leave it out, or use links: 2",
        ),
        (
            {"tunnel": {"links": 2}},
            "tunnel.links: 2 is only possible on a segment; set device: tap and clientToClient: true, or links: 1",
        ),
        (
            {"tunnel": {**BONDED, "clientToClient": False}},
            "tunnel.clientToClient: false keeps bonded hosts apart: they reach each other over the gateway's "
            "bridge; use true",
        ),
        (
            {"tunnel": {**BONDED, "port": 65535}},
            "tunnel.port: 65535 leaves no port for the second link; use 65534 or less",
        ),
        (
            {"tunnel": {**BONDED, "ipv6": "delegated"}},
            "tunnel.ipv6: delegated is not possible with two links: the kit of a bonded host sets up no IPv6; "
            "leave it out, or use links: 1",
        ),
        (
            {"tunnel": BONDED, "clients": [{"name": "a", "at": "203.0.113.9"}]},
            "clients[0].at: 203.0.113.9 is one address, but a bonded host has one for each line; leave it out, "
            "and add all of them to drawbridge:gateway.allowFrom",
        ),
        (
            {"tunnel": BONDED, "clients": [{"name": "a", "lines": ["eth0"]}]},
            "clients[0].lines: [eth0] must be two different interfaces, one for each link; use two, or leave it out",
        ),
        (
            {"clients": [{"name": "a", "lines": ["eth0", "eth1"]}]},
            "clients[0].lines: [eth0, eth1] is only for two links; leave it out, or set drawbridge:tunnel.links: 2",
        ),
    ],
)
def test_refused_links(sections: dict[str, Any], expected: str | None) -> None:
    assert find_problems(**sections) == ([f"drawbridge:{expected}"] if expected else [])
