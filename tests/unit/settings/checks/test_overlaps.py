"""Refusals of networks that overlap, in their exact words. Does not prove that AWS and OpenVPN agree."""

from ipaddress import IPv4Network
from typing import Any

import pytest

from settings.checks.overlaps import check_vpc_overlap
from settings.parse import parse
from settings.problems import SettingsError
from tests.support.refusals import find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"tunnel": {"pool": "10.1.9.0/24"}},
            "tunnel.pool: 10.1.9.0/24 overlaps drawbridge:network.cidr 10.1.0.0/16; use a range that does not "
            "overlap it",
        ),
        (
            {"tunnel": {"routes": ["10.8.0.0/16"]}},
            "tunnel.routes[0]: 10.8.0.0/16 overlaps drawbridge:tunnel.pool 10.8.0.0/24; use a range that does not "
            "overlap it",
        ),
        (
            {"tunnel": {"pool": "169.254.8.0/24"}},
            "tunnel.pool: 169.254.8.0/24 includes link-local addresses, which AWS uses for metadata; use another range",
        ),
        (
            {"clients": [{"name": "a", "lan": ["10.1.3.0/24"]}]},
            "clients[0].lan[0]: 10.1.3.0/24 overlaps drawbridge:network.cidr 10.1.0.0/16; use a range that does "
            "not overlap it",
        ),
        (
            {"clients": [{"name": "a", "lan": ["192.168.1.0/24"]}, {"name": "b", "lan": ["192.168.0.0/16"]}]},
            "clients[1].lan[0]: 192.168.0.0/16 overlaps drawbridge:clients[0].lan[0] 192.168.1.0/24; use a range "
            "that does not overlap it",
        ),
        (
            {"pair": {"cidr": "10.1.128.0/17"}},
            "pair.cidr: 10.1.128.0/17 overlaps drawbridge:network.cidr 10.1.0.0/16; use a range that does not "
            "overlap it",
        ),
        (
            {"pair": {}, "tunnel": {"pool": "10.2.9.0/24"}},
            "tunnel.pool: 10.2.9.0/24 overlaps drawbridge:pair.cidr 10.2.0.0/16; use a range that does not overlap it",
        ),
    ],
)
def test_refused_overlaps(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]


def test_the_range_of_an_existing_vpc_is_checked_when_it_is_known() -> None:
    network = {"vpcId": "vpc-1", "subnetId": "subnet-1"}
    settings = parse({"aws:region": "eu-west-1", "drawbridge:network": network}, stack="dev", endpoint=None)
    check_vpc_overlap(settings, {"network": (IPv4Network("172.31.0.0/16"),)})
    with pytest.raises(
        SettingsError, match=r"^drawbridge:tunnel\.pool: 10\.8\.0\.0/24 overlaps drawbridge:network\.vpcId "
    ):
        check_vpc_overlap(settings, {"network": (IPv4Network("172.31.0.0/16"), IPv4Network("10.8.0.0/16"))})


SITES = [{"name": "a", "lan": ["192.168.1.0/24"], "reachable": ["192.168.1.128/25"]}]


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({"clients": [*SITES, {"name": "b", "lan": ["192.168.1.0/24"]}]}, ["clients[1].lan[0]"]),
        ({"clients": [*SITES, {"name": "b", "lan": ["192.168.0.0/16"]}]}, ["clients[1].lan[0]"]),
        ({"clients": SITES, "network": {"cidr": "192.168.0.0/16"}}, ["clients[0].lan[0]"]),
        ({"clients": SITES, "tunnel": {"pool": "192.168.1.0/24"}}, ["clients[0].lan[0]"]),
        ({"network": {"cidr": "10.1.0.0/16"}, "tunnel": {"pool": "10.1.2.0/24"}}, ["tunnel.pool"]),
        ({"clients": [{**SITES[0], "reachable": ["192.168.2.0/25"]}]}, ["clients[0].reachable[0]"]),
        ({"clients": [{**SITES[0], "reachable": ["192.168.0.0/16"]}]}, ["clients[0].reachable[0]"]),
        ({"clients": [{**SITES[0], "address": "10.9.0.1"}]}, ["clients[0].address"]),
        ({"clients": [{**SITES[0], "address": "10.8.0.1"}]}, ["clients[0].address"]),
        ({"clients": [{**SITES[0], "address": "10.8.0.255"}]}, ["clients[0].address"]),
    ],
)
def test_a_site_that_cannot_be_routed_is_refused(sections: dict[str, Any], keys: list[str]) -> None:
    assert [line.split(": ")[0] for line in find_problems(**sections)] == [f"drawbridge:{key}" for key in keys]
    # The control: the site itself is valid.
    assert find_problems(clients=SITES) == []
