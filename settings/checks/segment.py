"""Check keys that differ between a routed tunnel and an Ethernet segment."""

from collections.abc import Iterator
from typing import assert_never

from settings.draft import Draft, Topology
from settings.model import Client, Multicast, Tunnel
from settings.problems import NAMESPACE, Problem, problem_at

#: Why a system joins no segment.
_WITHOUT_TAP = {
    "android": "it has no TAP devices",
    "ios": "it has no TAP devices",
    "macos": "it has no TAP devices without a kernel extension",
    "networkmanager": "it does not set the hardware address that the gateway lets a client send from",
}


def check_device(draft: Draft) -> Iterator[Problem]:
    """Check the keys of the tunnel and its clients that depend on the device."""
    tunnel = draft.tunnel
    if tunnel is None or draft.topology is None:
        return
    match draft.topology:
        case Topology.ROUTED:
            yield from _check_routed(tunnel, draft)
        case Topology.SEGMENT:
            yield from _check_segment(tunnel, draft, "use none, or device: tun")
        case Topology.BONDED:
            yield from _check_segment(tunnel, draft, "use none")
        case Topology.PAIR:
            return
        case _:
            assert_never(draft.topology)


def _check_routed(tunnel: Tunnel, draft: Draft) -> Iterator[Problem]:
    for key in ("broadcasts", "multicast", "multicasts"):
        if key in tunnel.model_fields_set:
            remedy = f"leave it out, or set {NAMESPACE}:tunnel.device: tap"
            yield problem_at(f"tunnel.{key}", getattr(tunnel, key), "is only for a segment", remedy)
    for i, client in draft.clients.items():
        if client.mac:
            yield problem_at(f"clients[{i}].mac", client.mac, "is only for a segment", "leave it out")


def _check_segment(tunnel: Tunnel, draft: Draft, remedy: str) -> Iterator[Problem]:
    if tunnel.redirect == "all":
        yield problem_at("tunnel.redirect", "all", "is not possible on a segment", remedy)
    for n, multicast in enumerate(tunnel.multicast):
        yield from _check_multicast(f"tunnel.multicast[{n}]", multicast)
    for i, client in draft.clients.items():
        yield from _check_client(f"clients[{i}]", client, tunnel)


def _check_multicast(key: str, multicast: Multicast) -> Iterator[Problem]:
    if not multicast.group.is_multicast:
        remedy = "use a part of 224.0.0.0/4 or ff00::/8"
        yield problem_at(f"{key}.group", multicast.group, "is not a multicast range", remedy)
    first, last = multicast.ports
    if first > last:
        yield problem_at(f"{key}.ports", multicast.ports, "must be [first, last]", f"use [{last}, {first}]")


def _check_client(key: str, client: Client, tunnel: Tunnel) -> Iterator[Problem]:
    if reason := _WITHOUT_TAP.get(client.system):
        remedy = f"{'use device: tun, or ' if tunnel.links == 1 else ''}leave the client out"
        yield problem_at(f"{key}.system", client.system, f"cannot join a segment: {reason}", remedy)
    if client.system == "windows" and not client.mac and tunnel.links == 1:
        reason, remedy = (
            "is required on Windows: the bundle cannot set it",
            "use the TAP adapter's address, as `getmac /v` shows it",
        )
        yield problem_at(f"{key}.mac", None, reason, remedy)
    if client.lan and not client.bridge:
        remedy = "leave it out" + (", use device: tun, or make the client a bridge" if tunnel.links == 1 else "")
        yield problem_at(f"{key}.lan", client.lan, "cannot be routed to on a segment", remedy)


CHECKS = (check_device,)
