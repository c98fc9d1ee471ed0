"""Refusals of pairs of gateways, in their exact words. Does not prove that AWS and OpenVPN agree."""

from typing import Any

import pytest

from tests.support.refusals import find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"pair": {}}, None),
        ({"pair": {}, "tunnel": {"bond": "balance-rr", "pool": "10.0.0.0/30", "device": "tap", "links": 2}}, None),
        (
            {"pair": {}, "tunnel": {"port": 443}},
            "tunnel.port: 443 is a privileged port, which the gateways of a pair must not open; use 1024 or more",
        ),
        (
            {"pair": {}, "tunnel": {"bond": "balance-alb"}},
            "tunnel.bond: balance-alb loses frames between two hosts: each sends to the hardware address of one "
            "link, the other drops them; use balance-xor, active-backup or balance-rr",
        ),
        (
            {"pair": {}, "tunnel": {"port": 65535}},
            "tunnel.port: 65535 leaves no port for the second link; use 65534 or less",
        ),
        (
            {"pair": {}, "tunnel": {"links": 1}},
            "tunnel.links: 1 is not possible in a pair, which has two Ethernet links; use 2, or leave it out",
        ),
        (
            {"pair": {}, "tunnel": {"clientToClient": True}},
            "tunnel.clientToClient: true is not possible in a pair, whose gateways serve only each other; leave it out",
        ),
        (
            {"pair": {}, "clients": [{"name": "alice"}]},
            "clients: 1 client is not possible in a pair, whose gateways serve only each other; leave it out",
        ),
        (
            {"pair": {}, "gateway": {"allowFrom": ["203.0.113.0/24"]}},
            "gateway.allowFrom: [203.0.113.0/24] is not possible in a pair, where each gateway accepts only the "
            "other's address; leave it out",
        ),
        (
            {"pair": {}, "gateway": {"adminAt": "203.0.113.9"}},
            "gateway.adminAt: 203.0.113.9 opens only one gateway, but a pair has two; use adminFrom: [203.0.113.9/32]",
        ),
        (
            {"pair": {}, "network": {"domain": "x.internal"}},
            "network.domain: x.internal is not possible in a pair, whose gateways serve only each other; leave it out",
        ),
        (
            {"pair": {"vpcId": "vpc-1", "subnetId": "subnet-1"}},
            "pair.routeTableIds: (missing) is required for an existing VPC in a pair; write the IDs of the route "
            "tables that need routes to the other VPC (rtb-…), or set drawbridge:tunnel.vpc: false",
        ),
        ({"pair": {"vpcId": "vpc-1", "subnetId": "subnet-1"}, "tunnel": {"vpc": False}}, None),
    ],
)
def test_refused_pairs(sections: dict[str, Any], expected: str | None) -> None:
    assert find_problems(**sections) == ([f"drawbridge:{expected}"] if expected else [])
