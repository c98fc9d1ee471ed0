"""Refusals of bridges between a segment and a LAN, in their exact words. Does not prove that OpenVPN agrees."""

from typing import Any

import pytest

from tests.support.refusals import find_problems

BRIDGED = {"device": "tap", "pool": "192.168.1.192/26", "clientToClient": True}
HOME: dict[str, Any] = {"name": "home", "lan": ["192.168.1.0/24"], "bridge": {}}


def home(**changed: Any) -> list[dict[str, Any]]:
    return [{**HOME, **changed}]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"clients": home(), "tunnel": {"pool": "10.8.0.0/24"}},
            "clients[0].bridge: {} needs a segment; set drawbridge:tunnel.device: tap, or leave it out to route "
            "to `lan`",
        ),
        (
            {"clients": home(system="windows")},
            "clients[0].system: windows cannot be a bridge: its kit is for Debian; use linux, or leave bridge and "
            "lan out",
        ),
        (
            {"clients": home(address="192.168.1.200")},
            "clients[0].address: 192.168.1.200 cannot be set on a bridge: it and the hosts of its LAN keep the "
            "addresses they have there; leave it out",
        ),
        (
            {"clients": home(mac="02:00:00:00:00:01")},
            "clients[0].mac: 02:00:00:00:00:01 cannot be set on a bridge: it and the hosts of its LAN keep the "
            "addresses they have there; leave it out",
        ),
        (
            {"clients": home(lan=[])},
            "clients[0].lan: (missing) must be exactly one range, the bridged LAN's; use one, such as [192.168.1.0/24]",
        ),
        (
            {"clients": home(lan=["192.168.1.0/24", "192.168.2.0/24"])},
            "clients[0].lan: [192.168.1.0/24, 192.168.2.0/24] must be exactly one range, the bridged LAN's; use "
            "one, such as [192.168.1.0/24]",
        ),
        (
            {"clients": home(lan=["192.168.7.0/24"])},
            "tunnel.pool: 192.168.1.192/26 must be a part of the bridged LAN 192.168.7.0/24; use addresses that "
            "its router assigns to no host, such as 192.168.7.192/26",
        ),
        (
            {"clients": home(), "tunnel": {**BRIDGED, "pool": "192.168.1.0/24"}},
            "tunnel.pool: 192.168.1.0/24 must be a part of the bridged LAN 192.168.1.0/24; use addresses that its "
            "router assigns to no host, such as 192.168.1.192/26",
        ),
        (
            {"clients": home(), "tunnel": {**BRIDGED, "pool": "192.168.1.0/26"}},
            "tunnel.pool: 192.168.1.0/26 includes 192.168.1.1, which is usually the router of the bridged LAN "
            "192.168.1.0/24; use another part of it, such as 192.168.1.192/26",
        ),
        (
            {"clients": [*home(), {**HOME, "name": "lab", "lan": ["192.168.1.0/25"]}]},
            "clients[1].bridge: {} is a second bridge beside that of clients[0]: two bridges form a loop or mix "
            "two LANs; keep one of them",
        ),
        (
            {"clients": home(), "network": {"cidr": "192.168.0.0/16"}},
            "clients[0].lan[0]: 192.168.1.0/24 overlaps drawbridge:network.cidr 192.168.0.0/16; use a range that "
            "does not overlap it",
        ),
        (
            {"clients": home(), "tunnel": {**BRIDGED, "redirect": "all"}},
            "tunnel.redirect: all is not possible on a segment; use none, or device: tun",
        ),
        ({"clients": home(bridge={"timeout": 5})}, "clients[0].bridge.timeout: 5 is too small; use 10 or more"),
        (
            {"clients": home(bridge={"nic": "eth0"})},
            "clients[0].bridge: nic is not a known key; known keys are gateway6, interface, tap, timeout",
        ),
        (
            {"clients": [{"name": "home", "lan": ["192.168.9.0/24"]}]},
            "clients[0].lan: [192.168.9.0/24] cannot be routed to on a segment; leave it out, use device: tun, or "
            "make the client a bridge",
        ),
        (
            {"clients": home(lan=["192.168.1.0/29"]), "tunnel": {**BRIDGED, "pool": "192.168.1.0/29"}},
            "clients[0].lan[0]: 192.168.1.0/29 is too small to have the pool in it; use a prefix up to /28",
        ),
        (
            {"clients": home(lan=["10.0.0.0/16"])},
            "tunnel.pool: 192.168.1.192/26 must be a part of the bridged LAN 10.0.0.0/16; "
            "use addresses that its router assigns to no host, such as 10.0.240.0/20",
        ),
    ],
)
def test_refused_bridges(sections: dict[str, Any], expected: str) -> None:
    assert f"drawbridge:{expected}" in find_problems(**{"tunnel": BRIDGED, **sections})
    # The control: the bridge itself is valid, and so is its reachable part.
    assert find_problems(tunnel=BRIDGED, clients=home(reachable=["192.168.1.128/27"])) == []


@pytest.mark.seed("2.7")
@pytest.mark.parametrize(
    ("router", "expected"),
    [
        ("fe80::254", "is link-local without an interface; use fe80::254%br0"),
        ("fe80::254%eth0", "names an interface that is a port of the bridge; use fe80::254%br0"),
        ("2001:db8::1%br0", "must not name an interface: it is not link-local; use 2001:db8::1"),
        ("ff02::2", "is not a valid address of a router; use one such as fe80::254%br0, or leave it out"),
        ("::", "is not a valid address of a router; use one such as fe80::254%br0, or leave it out"),
        ("192.168.1.1", "is not a valid IPv6 address; use one such as fe80::254%br0 or 2001:db8::1"),
        ("fe80::254%br0", None),
        ("2001:db8::1", None),
    ],
)
def test_a_router_without_its_interface_is_refused(router: str, expected: str | None) -> None:
    lines = [f"drawbridge:clients[0].bridge.gateway6: {router} {expected}"] if expected else []
    assert find_problems(tunnel=BRIDGED, clients=home(bridge={"gateway6": router})) == lines
