"""Refusals of clients, in their exact words. Does not prove that AWS and OpenVPN agree."""

from typing import Any

import pytest

from tests.support.refusals import find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"clients": [{"name": "a", "at": "203.0.113.7"}, {"name": "b", "at": "203.0.113.7"}]},
            "clients[1].at: 203.0.113.7 is already used by clients[0]; leave it out here: "
            "drawbridge:gateway.allowFrom lets it in",
        ),
        (
            {
                "tunnel": {"device": "tap"},
                "clients": [{"name": "a", "mac": "02-00-5E-00-53-01"}, {"name": "b", "mac": "02-00-5E-00-53-01"}],
            },
            "clients[1].mac: 02:00:5e:00:53:01 is already used by clients[0]; hardware addresses must be unique",
        ),
        (
            {"clients": [{"name": "a", "system": "windows", "lan": ["192.168.1.0/24"]}]},
            "clients[0].system: windows cannot route for a LAN: the kit is for Debian; use linux, or leave lan out",
        ),
        (
            {"clients": [{"name": "a"}, {"name": "a"}]},
            "clients[1].name: a is already used by clients[0]; names must be unique",
        ),
        (
            {"clients": [{"name": "a", "address": "10.8.0.5"}, {"name": "b", "address": "10.8.0.5"}]},
            "clients[1].address: 10.8.0.5 is already used by clients[0]; addresses must be unique",
        ),
        (
            {"clients": [{"name": "a", "lan": ["192.168.1.0/24"], "reachable": ["192.168.2.0/25"]}]},
            "clients[0].reachable[0]: 192.168.2.0/25 is outside drawbridge:clients[0].lan [192.168.1.0/24]; use a "
            "part of lan, or add it to lan",
        ),
        (
            {"clients": [{"name": "a", "reachable": ["192.168.2.0/25"]}]},
            "clients[0].reachable[0]: 192.168.2.0/25 is outside drawbridge:clients[0].lan []; leave it out, or "
            "add it to lan",
        ),
    ],
)
def test_refused_clients(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]


@pytest.mark.parametrize("reachable", ["10.8.0.10/32", "10.1.1.0/24"])
def test_no_remedy_leads_into_an_overlap(reachable: str) -> None:
    """Adding the pool's or the VPC's addresses to `lan` would be the next error."""
    assert find_problems(clients=[{"name": "a", "reachable": [reachable]}]) == [
        f"drawbridge:clients[0].reachable[0]: {reachable} is outside drawbridge:clients[0].lan []; leave it out"
    ]
