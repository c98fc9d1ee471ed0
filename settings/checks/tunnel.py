"""Check the tunnel's addresses, port and pings."""

from collections.abc import Iterator
from typing import assert_never

from images import IMAGES, PREPARED, PREPARED_BACKPORTS
from settings.draft import Draft, Topology
from settings.model import Tunnel
from settings.problems import NAMESPACE, Problem, problem_at

#: Ports on which the gateway listens for its own services.
USED_PORTS = {
    ("tcp", 22): "SSH",
    ("tcp", 53): "the resolver",
    ("udp", 53): "the resolver",
    ("udp", 68): "DHCP",
    ("udp", 546): "DHCP",
}


def pool_prefixes(topology: Topology) -> tuple[str, int, int]:
    """Return what a pool of this topology is for, and its shortest and longest prefix."""
    match topology:
        case Topology.ROUTED:
            return "a pool", 16, 29
        case Topology.SEGMENT | Topology.BONDED:
            # Every host of a segment receives all broadcasts.
            return "the pool of one segment", 20, 29
        case Topology.PAIR:
            return "a pair", 16, 30
        case _:
            assert_never(topology)


def check_pool(draft: Draft) -> Iterator[Problem]:
    """Check the pool's size, and that it has an address for each client."""
    topology, tunnel = draft.topology, draft.effective_tunnel
    if topology is None or tunnel is None:
        return
    purpose, shortest, longest = pool_prefixes(topology)
    if not shortest <= tunnel.pool.prefixlen <= longest:
        size = "large" if tunnel.pool.prefixlen < shortest else "small"
        remedy = f"use a prefix between /{shortest} and /{longest}"
        yield problem_at("tunnel.pool", tunnel.pool, f"is too {size} for {purpose}", remedy)
    elif topology is not Topology.PAIR:
        yield from _check_capacity(tunnel, len(draft.clients), shortest)
        yield from _check_addresses(tunnel, draft)


def _check_capacity(tunnel: Tunnel, clients: int, shortest: int) -> Iterator[Problem]:
    if clients <= tunnel.capacity:
        return
    prefix = 32 - (clients + 2).bit_length()
    remedy = f"use a prefix between /{shortest} and /{prefix}" if prefix >= shortest else "use fewer clients"
    reason = f"has addresses for {tunnel.capacity} clients, but there are {clients}"
    yield problem_at("tunnel.pool", tunnel.pool, reason, remedy)


def _check_addresses(tunnel: Tunnel, draft: Draft) -> Iterator[Problem]:
    # The gateway has the first address, and with several links the last.
    first, last = tunnel.pool.network_address + 1, tunnel.pool.broadcast_address - 1
    first, last = (first + 1, last) if tunnel.links == 1 else (first, last - 1)
    for i, client in draft.clients.items():
        if client.address is not None and not first <= client.address <= last:
            reason = f"is not a client address in {NAMESPACE}:tunnel.pool {tunnel.pool}"
            yield problem_at(f"clients[{i}].address", client.address, reason, f"use one from {first} to {last}")


def check_data_channel_offload(draft: Draft) -> Iterator[Problem]:
    """Check that the kernel can carry what the tunnel carries, and that the image may have such a kernel."""
    tunnel, key = draft.tunnel, "tunnel.dataChannelOffload"
    if tunnel is None or not tunnel.data_channel_offload:
        return
    if draft.topology is not Topology.ROUTED:
        reason = "is not possible on a segment, whose frames the kernel's part of OpenVPN does not carry"
        yield problem_at(key, True, reason, "leave it out" if draft.has_pair else "leave it out, or use device: tun")
    elif draft.gateway is not None and draft.gateway.image in (*IMAGES, PREPARED):
        reason = f"needs OpenVPN 2.7 and a kernel with ovpn, which image {draft.gateway.image} lacks"
        remedy = (
            f"set {NAMESPACE}:gateway.image: {PREPARED_BACKPORTS}, which `drawbridge image build --backports` makes"
        )
        yield problem_at(key, True, reason, remedy)
    elif draft.gateway is not None and draft.gateway.processes != 1:
        reason = "is not possible with data channel offload: the kernel uses all processors by itself"
        yield problem_at("gateway.processes", draft.gateway.processes, reason, "leave it out")


def check_port(draft: Draft) -> Iterator[Problem]:
    """Check that no service of the gateway uses a port of the tunnel for clients."""
    tunnel = draft.client_tunnel
    if tunnel is None:
        return
    processes = draft.gateway.processes if draft.gateway else 1
    for port in range(tunnel.port, tunnel.port + max(tunnel.links, processes if isinstance(processes, int) else 1)):
        if service := USED_PORTS.get((tunnel.protocol, port)):
            remedy = f"use {443 if tunnel.protocol == 'tcp' else 1194} or another free port"
            yield problem_at("tunnel.port", port, f"is already used by {service} on the gateway", remedy)


def check_keepalive(draft: Draft) -> Iterator[Problem]:
    """Check that a client hears at least two pings before it takes silence for a dead gateway.

    Source: openvpn(8), `--keepalive interval timeout`: the timeout is at least twice the interval.
    """
    tunnel = draft.client_tunnel
    if tunnel is None or "keepalive" not in tunnel.model_fields_set:
        return
    interval, silence = tunnel.keepalive
    if tunnel.links > 1:
        reason = "is not possible with two links: a silent one leaves the bond after 5 seconds"
        yield problem_at("tunnel.keepalive", tunnel.keepalive, reason, "leave it out, or use links: 1")
    elif silence < 2 * interval:
        reason = "must have a second number of at least twice the first"
        yield problem_at("tunnel.keepalive", tunnel.keepalive, reason, f"use [{interval}, {2 * interval}] or more")


CHECKS = (check_pool, check_data_channel_offload, check_port, check_keepalive)
