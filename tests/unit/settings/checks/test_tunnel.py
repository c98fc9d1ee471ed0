"""Refusals of the tunnel's addresses, port and pings, in exact words. Does not prove that AWS and OpenVPN agree."""

from typing import Any

import pytest

from tests.support.refusals import BONDED, find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"tunnel": {"device": "tap", "pool": "192.168.0.0/16"}},
            "tunnel.pool: 192.168.0.0/16 is too large for the pool of one segment; use a prefix between /20 and /29",
        ),
        (
            {"tunnel": {"protocol": "tcp", "port": 22}},
            "tunnel.port: 22 is already used by SSH on the gateway; use 443 or another free port",
        ),
        (
            {"tunnel": {"port": 53}},
            "tunnel.port: 53 is already used by the resolver on the gateway; use 1194 or another free port",
        ),
        (
            {"tunnel": {**BONDED, "port": 67}},
            "tunnel.port: 68 is already used by DHCP on the gateway; use 1194 or another free port",
        ),
        (
            {"tunnel": {"pool": "10.8.0.0/30"}},
            "tunnel.pool: 10.8.0.0/30 is too small for a pool; use a prefix between /16 and /29",
        ),
        (
            {
                "tunnel": {"pool": "10.8.0.0/29"},
                "clients": [
                    {"name": "c0"},
                    {"name": "c1"},
                    {"name": "c2"},
                    {"name": "c3"},
                    {"name": "c4"},
                    {"name": "c5"},
                ],
            },
            "tunnel.pool: 10.8.0.0/29 has addresses for 5 clients, but there are 6; use a prefix between /16 and /28",
        ),
        (
            {"clients": [{"name": "a", "address": "10.8.0.0"}]},
            "clients[0].address: 10.8.0.0 is not a client address in drawbridge:tunnel.pool 10.8.0.0/24; use one "
            "from 10.8.0.2 to 10.8.0.254",
        ),
        (
            {"clients": [{"name": "a", "address": "10.8.0.1"}]},
            "clients[0].address: 10.8.0.1 is not a client address in drawbridge:tunnel.pool 10.8.0.0/24; use one "
            "from 10.8.0.2 to 10.8.0.254",
        ),
        (
            {"clients": [{"name": "a", "address": "10.8.0.255"}]},
            "clients[0].address: 10.8.0.255 is not a client address in drawbridge:tunnel.pool 10.8.0.0/24; use "
            "one from 10.8.0.2 to 10.8.0.254",
        ),
        (
            {"clients": [{"name": "a", "address": "10.9.0.5"}]},
            "clients[0].address: 10.9.0.5 is not a client address in drawbridge:tunnel.pool 10.8.0.0/24; use one "
            "from 10.8.0.2 to 10.8.0.254",
        ),
        (
            {"tunnel": BONDED, "clients": [{"name": "a", "address": "192.168.255.254"}]},
            "clients[0].address: 192.168.255.254 is not a client address in drawbridge:tunnel.pool "
            "192.168.255.0/24; use one from 192.168.255.1 to 192.168.255.253",
        ),
        (
            {"tunnel": {"keepalive": [10, 15]}},
            "tunnel.keepalive: [10, 15] must have a second number of at least twice the first; use [10, 20] or more",
        ),
        (
            {"tunnel": {"keepalive": [0, 7]}},
            "tunnel.keepalive[0]: 0 is too small; use 1 or more",
        ),
        (
            {"tunnel": {"keepalive": [61, 180]}},
            "tunnel.keepalive[0]: 61 is too large; use 60 or less",
        ),
        (
            {"tunnel": {"keepalive": [10]}},
            "tunnel.keepalive[1]: (missing) is required; use the interval of pings and a time of silence, such as "
            "[10, 120]",
        ),
        (
            {"tunnel": {**BONDED, "keepalive": [1, 7]}},
            "tunnel.keepalive: [1, 7] is not possible with two links: a silent one leaves the bond after 5 seconds; "
            "leave it out, or use links: 1",
        ),
        (
            {"pair": {}, "tunnel": {"pool": "10.0.0.0/31"}},
            "tunnel.pool: 10.0.0.0/31 is too small for a pair; use a prefix between /16 and /30",
        ),
    ],
)
def test_refused_pools_ports_and_pings(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]
