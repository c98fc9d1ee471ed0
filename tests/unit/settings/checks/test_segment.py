"""Refusals of keys that the device rules out, in their exact words. Does not prove that AWS and OpenVPN agree."""

from typing import Any

import pytest

from tests.support.refusals import find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": "a", "system": "ios"}]},
            "clients[0].system: ios cannot join a segment: it has no TAP devices; use device: tun, or leave the client "
            "out",
        ),
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": "a", "system": "networkmanager"}]},
            "clients[0].system: networkmanager cannot join a segment: it does not set the hardware address that the "
            "gateway lets a client send from; use device: tun, or leave the client out",
        ),
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": "a", "system": "windows"}]},
            "clients[0].mac: (missing) is required on Windows: the bundle cannot set it; use the TAP adapter's "
            "address, as `getmac /v` shows it",
        ),
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": "a", "lan": ["192.168.7.0/24"]}]},
            "clients[0].lan: [192.168.7.0/24] cannot be routed to on a segment; leave it out, use device: tun, or "
            "make the client a bridge",
        ),
        (
            {"tunnel": {"device": "tap", "redirect": "all"}},
            "tunnel.redirect: all is not possible on a segment; use none, or device: tun",
        ),
        (
            {"tunnel": {"device": "tap", "multicast": [{"group": "10.0.0.0/8"}]}},
            "tunnel.multicast[0].group: 10.0.0.0/8 is not a multicast range; use a part of 224.0.0.0/4 or ff00::/8",
        ),
        (
            {"tunnel": {"device": "tap", "multicast": [{"group": "239.0.0.0/8", "ports": [9, 8]}]}},
            "tunnel.multicast[0].ports: [9, 8] must be [first, last]; use [8, 9]",
        ),
        (
            {"tunnel": {"multicast": [{"group": "239.0.0.0/8"}]}},
            "tunnel.multicast: [{group: 239.0.0.0/8}] is only for a segment; leave it out, or set "
            "drawbridge:tunnel.device: tap",
        ),
        (
            {"clients": [{"name": "a", "mac": "02:00:5e:00:53:01"}]},
            "clients[0].mac: 02:00:5e:00:53:01 is only for a segment; leave it out",
        ),
    ],
)
def test_refused_on_this_device(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]
