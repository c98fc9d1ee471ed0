"""Refusals of IPv6 prefixes and addresses, in their exact words. Does not prove that AWS and OpenVPN agree."""

from typing import Any

import pytest

from tests.support.refusals import find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"tunnel": {"ipv6": "2001:db8:0:0:9::/80"}, "gateway": {"ipv6Prefix": "2001:db8:0:0:1::/80"}},
            "tunnel.ipv6: 2001:db8:0:0:9::/80 is outside drawbridge:gateway.ipv6Prefix 2001:db8:0:0:1::/80; use a "
            "part of it, or delegated for all of it",
        ),
        (
            {"tunnel": {"ipv6": "2001:db8:0:0:9::/80"}},
            "gateway.ipv6Prefix: (missing) is required because drawbridge:tunnel.ipv6 2001:db8:0:0:9::/80 must be "
            "a part of it; add it, or set drawbridge:tunnel.ipv6: delegated to use the prefix that AWS chooses",
        ),
        (
            {"tunnel": {"ipv6": "2001:db8:0:0:1::/112"}, "gateway": {"ipv6Prefix": "2001:db8:0:0:1::/80"}},
            "tunnel.ipv6: 2001:db8:0:0:1::/112 is too small for the clients; use a prefix between /80 and /108",
        ),
        (
            {"tunnel": {"ipv6": "delegated"}, "gateway": {"ipv6Prefix": "2001:db8::/64"}},
            "gateway.ipv6Prefix: 2001:db8::/64 must be a /80, as AWS delegates them; use a /80",
        ),
        (
            {"tunnel": {"openTo": ["::/0"]}},
            "tunnel.openTo: [::/0] needs IPv6; leave it out, or set drawbridge:tunnel.ipv6: delegated",
        ),
        (
            {"tunnel": {"ipv6": "delegated"}, "clients": [{"name": "a", "address6": "2001:db8::10"}]},
            "clients[0].address6: 2001:db8::10 is a whole address, but no prefix is configured; write only its "
            "end, such as ::10",
        ),
        (
            {"tunnel": {"ipv6": "delegated"}, "clients": [{"name": "a", "address6": "::1"}]},
            "clients[0].address6: ::1 is reserved for the gateway; use ::2 or above",
        ),
        (
            {
                "tunnel": {"ipv6": "delegated"},
                "clients": [{"name": "a", "address6": "::10"}, {"name": "b", "address6": "::10"}],
            },
            "clients[1].address6: ::10 is already used by clients[0]; IPv6 addresses must be unique",
        ),
        (
            {"tunnel": {"ipv6": "advertised"}},
            "tunnel.ipv6: advertised needs a segment: router advertisements do not cross a tun device; use "
            "delegated, or device: tap",
        ),
        (
            {"tunnel": {"device": "tap", "ipv6": "advertised"}, "network": {"vpcId": "vpc-1", "subnetId": "subnet-1"}},
            "tunnel.ipv6: advertised needs a new subnet and route table, which an existing VPC does not get; use "
            "delegated, or leave vpcId and subnetId out",
        ),
        (
            {"tunnel": {"device": "tap", "ipv6": "advertised"}, "gateway": {"ipv6Prefix": "2001:db8:1:2:3::/80"}},
            "gateway.ipv6Prefix: 2001:db8:1:2:3::/80 is not used with drawbridge:tunnel.ipv6 advertised, which "
            "gives the segment a whole subnet; leave it out, or use ipv6: delegated",
        ),
    ],
)
def test_refused_ipv6(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]
