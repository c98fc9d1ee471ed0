"""Refusals of stacks that exceed AWS's quotas, in their exact words. The quotas themselves are AWS's documentation."""

from ipaddress import IPv4Network
from typing import Any

import pytest

from tests.support.refusals import find_problems


def ranges(count: int, first: str = "198.18.0.0/24") -> list[str]:
    """Return ranges of which no two make a larger one."""
    start = IPv4Network(first)
    return [str(IPv4Network((int(start[0]) + (n << 9), start.prefixlen))) for n in range(count)]


def clients(count: int, **keys: Any) -> list[dict[str, Any]]:
    return [{"name": f"c{n}", **{key: value(n) for key, value in keys.items()}} for n in range(count)]


def lan(number: int) -> list[str]:
    return [ranges(number + 1, "172.16.0.0/24")[-1]]


def at(number: int) -> str:
    return f"192.0.2.{number}"


ROUTED = {"nat": False}
DELEGATED = {"ipv6": "delegated"}
EXISTING = {"vpcId": "vpc-1", "subnetId": "subnet-1", "routeTableIds": ["rtb-1"]}
OPEN6 = [f"2001:db8:{2 * n:x}::/48" for n in range(80)]

GROUP = "the gateway's security group to {} inbound rules, but AWS allows 60"


@pytest.mark.parametrize(
    ("wrong", "expected", "right"),
    [
        (
            {"gateway": {"allowFrom": ranges(38)}},
            [f"gateway.allowFrom: 38 separate ranges bring {GROUP.format(77)}; use at most 29, such as larger ones"],
            {"gateway": {"allowFrom": ranges(29)}},
        ),
        (
            {"gateway": {"adminFrom": ranges(59), "adminAt": "203.0.113.7"}},
            [f"gateway.adminFrom: 59 separate ranges bring {GROUP.format(63)}; use at most 56, such as larger ones"],
            {"gateway": {"adminFrom": ranges(56), "adminAt": "203.0.113.7"}},
        ),
        (
            {"gateway": {"allowFrom": []}, "clients": clients(60, at=at)},
            [f"clients: 60 clients with `at` bring {GROUP.format(61)}; give `at` to at most 59"],
            {"gateway": {"allowFrom": []}, "clients": clients(59, at=at)},
        ),
        (
            {"gateway": {"allowFrom": ranges(70), "adminFrom": ranges(80)}},
            [
                f"gateway.allowFrom: 70 separate ranges bring {GROUP.format(221)}; use at most 1, such as larger ones",
                f"gateway.adminFrom: 80 separate ranges bring {GROUP.format(221)}; use at most 57, such as larger ones",
            ],
            {"gateway": {"allowFrom": ranges(1), "adminFrom": ranges(57)}},
        ),
        (
            {"tunnel": ROUTED, "clients": clients(20, lan=lan)},
            [
                "clients: 20 separate networks in `lan` bring the private subnets' network ACL to 24 entries, but "
                "AWS allows 20; use at most 16, such as larger ones"
            ],
            {"tunnel": ROUTED, "clients": clients(16, lan=lan)},
        ),
        (
            {"tunnel": DELEGATED, "clients": clients(14, lan=lan, reachable=lan)},
            [
                "clients: 14 separate networks in `reachable` bring the private subnets' network ACL to 22 entries, "
                "but AWS allows 20; use at most 12, such as larger ones"
            ],
            {"tunnel": DELEGATED, "clients": clients(12, lan=lan, reachable=lan)},
        ),
        (
            {"tunnel": ROUTED, "network": EXISTING, "clients": clients(60, lan=lan)},
            [
                "clients: 60 separate networks in `lan` bring each route table to 62 routes, but AWS allows 50; use "
                "at most 48, such as larger ones"
            ],
            {"tunnel": ROUTED, "network": EXISTING, "clients": clients(48, lan=lan)},
        ),
        (
            {"tunnel": {**DELEGATED, "openTo": OPEN6[:11]}},
            [
                "tunnel.openTo: 11 separate ranges bring the public subnets' network ACL to 21 entries, but AWS "
                "allows 20; use at most 10, such as larger ones"
            ],
            {"tunnel": {**DELEGATED, "openTo": OPEN6[:10]}},
        ),
        (
            {"network": EXISTING, "tunnel": {**DELEGATED, "openTo": OPEN6[:60]}},
            [f"tunnel.openTo: 60 separate ranges bring {GROUP.format(61)}; use at most 59, such as larger ones"],
            {"network": EXISTING, "tunnel": {**DELEGATED, "openTo": OPEN6[:59]}},
        ),
    ],
)
def test_refused_quotas_and_their_remedies(wrong: dict[str, Any], expected: list[str], right: dict[str, Any]) -> None:
    assert find_problems(**wrong) == [f"drawbridge:{line}" for line in expected]
    assert find_problems(**right) == []


def test_ranges_that_are_neighbours_count_once() -> None:
    neighbours = [f"198.18.{n}.0/24" for n in range(64)]
    assert find_problems(gateway={"allowFrom": neighbours, "adminFrom": neighbours}) == []


def test_an_address_that_is_also_a_range_counts_once() -> None:
    """28 ranges for the tunnel, two for SSH and one for ICMP make 59 rules; the addresses add none."""
    allowed = [*ranges(27), "192.0.2.0/32"]
    gateway = {"allowFrom": allowed, "adminFrom": [*ranges(1), "203.0.113.7/32"], "adminAt": "203.0.113.7"}
    assert find_problems(gateway=gateway, clients=clients(1, at=at)) == []
    elsewhere = find_problems(gateway=gateway, clients=clients(2, at=lambda number: f"192.0.2.{number + 8}"))
    assert [line.partition(" bring ")[0] for line in elsewhere] == ["drawbridge:gateway.allowFrom: 28 separate ranges"]
