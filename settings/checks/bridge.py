"""Check bridges between the segment and a LAN: one network on both sides, and one bridge between them."""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Address

from settings.checks.tunnel import pool_prefixes
from settings.draft import Draft, Topology
from settings.model import Client, Tunnel
from settings.problems import NAMESPACE, Problem, problem_at

#: The interface that has the addresses of a bridging host; OpenVPN's TAP and the LAN's interface are its ports.
BRIDGE = "br0"


def check_bridges(draft: Draft) -> Iterator[Problem]:
    """Check each client that is a bridge; a pair has no clients."""
    tunnel = draft.client_tunnel
    if tunnel is None:
        return
    bridges = {i: client for i, client in draft.clients.items() if client.bridge}
    for i, client in bridges.items():
        if tunnel.device == "tun":
            remedy = f"set {NAMESPACE}:tunnel.device: tap, or leave it out to route to `lan`"
            yield problem_at(f"clients[{i}].bridge", client.bridge, "needs a segment", remedy)
            continue
        if i != (first := next(iter(bridges))):
            reason = f"is a second bridge beside that of clients[{first}]: two bridges form a loop or mix two LANs"
            yield problem_at(f"clients[{i}].bridge", client.bridge, reason, "keep one of them")
        yield from _check_bridge(f"clients[{i}]", client, tunnel)
        yield from _check_lan(f"clients[{i}].lan", client.lan, tunnel.pool)
        yield from _check_router(f"clients[{i}].bridge.gateway6", client.bridge.gateway6 if client.bridge else None)


def _check_bridge(key: str, client: Client, tunnel: Tunnel) -> Iterator[Problem]:
    if tunnel.links > 1:
        reason = "is not possible with two links: a kit sets up either a bridge or a bond"
        yield problem_at(f"{key}.bridge", client.bridge, reason, "use links: 1, or leave it and lan out")
    if client.system != "linux":
        reason = "cannot be a bridge: its kit is for Debian"
        # No system but these two joins a segment.
        remedy = "use linux" + (", or leave bridge and lan out" if client.system == "windows" else "")
        yield problem_at(f"{key}.system", client.system, reason, remedy)
    for name in ("address", "mac"):
        if value := getattr(client, name):
            reason = "cannot be set on a bridge: it and the hosts of its LAN keep the addresses they have there"
            yield problem_at(f"{key}.{name}", value, reason, "leave it out")


def _check_lan(key: str, lans: tuple[IPv4Network, ...], pool: IPv4Network) -> Iterator[Problem]:
    if len(lans) != 1:
        reason, remedy = "must be exactly one range, the bridged LAN's", "use one, such as [192.168.1.0/24]"
        yield problem_at(key, lans or None, reason, remedy)
        return
    (lan,) = lans
    _, shortest, longest = pool_prefixes(Topology.SEGMENT)
    if lan.prefixlen >= longest:
        yield problem_at(f"{key}[0]", lan, "is too small to have the pool in it", f"use a prefix up to /{longest - 1}")
        return
    # The last part is the farthest from the router, which usually has the first address.
    *_, example = lan.subnets(new_prefix=min(max(lan.prefixlen + 2, shortest), longest))
    if not lan.supernet_of(pool) or lan == pool:
        reason = f"must be a part of the bridged LAN {lan}"
        remedy = f"use addresses that its router assigns to no host, such as {example}"
        yield problem_at("tunnel.pool", pool, reason, remedy)
    elif lan[1] in pool:
        reason = f"includes {lan[1]}, which is usually the router of the bridged LAN {lan}"
        yield problem_at("tunnel.pool", pool, reason, f"use another part of it, such as {example}")


def _check_router(key: str, router: IPv6Address | None) -> Iterator[Problem]:
    """Check that a link-local address has its interface: each interface has a network of that range (RFC 4007, 6)."""
    if router is None:
        return
    address, _, interface = str(router).partition("%")
    if router.is_multicast or router.is_unspecified or router.is_loopback:
        remedy = "use one such as fe80::254%br0, or leave it out"
        yield problem_at(key, router, "is not a valid address of a router", remedy)
    elif router.is_link_local and interface != BRIDGE:
        reason = (
            "names an interface that is a port of the bridge" if interface else "is link-local without an interface"
        )
        yield problem_at(key, router, reason, f"use {address}%{BRIDGE}")
    elif interface and not router.is_link_local:
        yield problem_at(key, router, "must not name an interface: it is not link-local", f"use {address}")


CHECKS = (check_bridges,)
