"""Refusals of who may reach the gateway, in their exact words. Does not prove that AWS and OpenVPN agree."""

from typing import Any

import pytest

from tests.support.refusals import find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"gateway": {"allowFrom": []}, "clients": [{"name": "a", "at": "203.0.113.7"}, {"name": "b"}]},
            "gateway.allowFrom: [] keeps these clients from the tunnel: b; add a range, or give each client `at`, "
            "its public address",
        ),
        (
            {"gateway": {"adminFrom": ["0.0.0.0/0"]}},
            "gateway.adminFrom: [0.0.0.0/0] opens SSH to the world; use your own addresses, or confirm with "
            "adminFromAnywhere: true",
        ),
        (
            {"gateway": {"adminFrom": ["0.0.0.0/1", "128.0.0.0/1"]}},
            "gateway.adminFrom: [0.0.0.0/1, 128.0.0.0/1] opens SSH to the world; use your own addresses, or "
            "confirm with adminFromAnywhere: true",
        ),
        ({"gateway": {"adminFrom": ["0.0.0.0/0"], "adminFromAnywhere": True}}, None),
        (
            {"gateway": {"instanceType": "c7g.medium", "credits": "standard"}},
            "gateway.credits: standard has no meaning for c7g.medium, which is not burstable; remove the key, or use "
            "a type such as t4g.nano",
        ),
        ({"gateway": {"instanceType": "c7g.medium"}}, None),
        (
            {"gateway": {"maintenanceWindow": "sun:03:00-sun:03:20"}},
            "gateway.maintenanceWindow: sun:03:00-sun:03:20 is too short for a reboot; use 30 minutes or more",
        ),
        (
            {"gateway": {"maintenanceWindow": "sun:3-4"}},
            "gateway.maintenanceWindow: sun:3-4 is not a valid maintenance window; use one such as "
            "sun:03:00-sun:04:00, or 03:00-04:00 for every day, in UTC",
        ),
        (
            {"gateway": {"maintenanceWindow": "03:00-03:45"}, "pair": {}},
            "gateway.maintenanceWindow: 03:00-03:45 is too short for two gateways; use 60 minutes or more",
        ),
        ({"gateway": {"maintenanceWindow": "23:45-00:15"}}, None),
        *(({"gateway": {"processes": number}}, None) for number in (1, 16, "auto")),
        *(
            (
                {"gateway": {"processes": number}},
                f"gateway.processes: {number} is not a valid number of processes; use auto, or 1 to 16",
            )
            for number in (0, 17, "all")
        ),
        ({"gateway": {"processes": 2}, "tunnel": {"device": "tap"}}, None),
        (
            {
                "gateway": {"processes": "auto"},
                "tunnel": {"device": "tap", "links": 2, "clientToClient": True},
                "clients": [{"name": "a"}],
            },
            "gateway.processes: auto is not possible with two links, which have a process each; leave it out",
        ),
        (
            {"gateway": {"processes": 2}, "pair": {}},
            "gateway.processes: 2 is not possible in a pair, whose two links have a process each; leave it out",
        ),
        (
            {"gateway": {"processes": 4}, "tunnel": {"port": 65533}},
            "tunnel.port: 65533 leaves no ports for 4 processes on the gateway; use 65532 or less",
        ),
        (
            {"gateway": {"processes": 2}, "tunnel": {"port": 52}},
            "tunnel.port: 53 is already used by the resolver on the gateway; use 1194 or another free port",
        ),
        ({"gateway": {"instanceType": "t3a.nano", "credits": "unlimited"}}, None),
    ],
)
def test_refused_access(sections: dict[str, Any], expected: str | None) -> None:
    assert find_problems(**sections) == ([f"drawbridge:{expected}"] if expected else [])
