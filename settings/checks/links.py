"""Check tunnels with several links, and the hosts that bond them."""

from collections.abc import Iterator
from typing import assert_never

from settings.draft import Draft, Topology
from settings.model import Client, Tunnel
from settings.problems import NAMESPACE, Problem, problem_at


def check_links(draft: Draft) -> Iterator[Problem]:
    """Check the keys of the tunnel and its clients that depend on the number of links."""
    tunnel = draft.tunnel
    if tunnel is None or draft.topology is None:
        return
    match draft.topology:
        case Topology.ROUTED | Topology.SEGMENT:
            yield from _check_single(tunnel, draft)
        case Topology.BONDED:
            yield from _check_bonded(tunnel)
            for i, client in draft.clients.items():
                yield from _check_bonded_client(f"clients[{i}]", client, tunnel)
        case Topology.PAIR:
            return
        case _:
            assert_never(draft.topology)


def _check_single(tunnel: Tunnel, draft: Draft) -> Iterator[Problem]:
    if tunnel.bond:
        remedy = "leave it out, or use links: 2"
        yield problem_at("tunnel.bond", tunnel.bond, "is only for two links", remedy)
    for i, client in draft.clients.items():
        if client.lines:
            remedy = f"leave it out, or set {NAMESPACE}:tunnel.links: 2"
            yield problem_at(f"clients[{i}].lines", client.lines, "is only for two links", remedy)


def _check_bonded(tunnel: Tunnel) -> Iterator[Problem]:
    if tunnel.device != "tap":
        remedy = "set device: tap and clientToClient: true, or links: 1"
        yield problem_at("tunnel.links", tunnel.links, "is only possible on a segment", remedy)
    elif not tunnel.client_to_client:
        reason = "keeps bonded hosts apart: they reach each other over the gateway's bridge"
        yield problem_at("tunnel.clientToClient", False, reason, "use true")
    if tunnel.protocol == "tcp":
        reason = "is not possible with two links: a packet lost on one would delay all that follow"
        yield problem_at("tunnel.protocol", "tcp", reason, "use udp, or links: 1")
    if tunnel.bond in ("balance-xor", "balance-rr"):
        reason = "sends from one hardware address over both links, but the gateway's bridge expects it on one"
        yield problem_at("tunnel.bond", tunnel.bond, reason, "use balance-alb or active-backup")
    if tunnel.has_ipv6:
        reason = "is not possible with two links: the kit of a bonded host sets up no IPv6"
        yield problem_at("tunnel.ipv6", tunnel.ipv6, reason, "leave it out, or use links: 1")
    yield from check_second_port(tunnel)


def check_second_port(tunnel: Tunnel) -> Iterator[Problem]:
    """Check that there is a port for the second link."""
    if tunnel.port == 65535:
        yield problem_at("tunnel.port", tunnel.port, "leaves no port for the second link", "use 65534 or less")


def _check_bonded_client(key: str, client: Client, tunnel: Tunnel) -> Iterator[Problem]:
    if client.system != "linux":
        reason = "cannot bond links: the kit is for Debian"
        yield problem_at(f"{key}.system", client.system, reason, "use linux, or leave the client out")
    if client.at:
        reason = "is one address, but a bonded host has one for each line"
        remedy = f"leave it out, and add all of them to {NAMESPACE}:gateway.allowFrom"
        yield problem_at(f"{key}.at", client.at, reason, remedy)
    if client.mac:
        yield problem_at(f"{key}.mac", client.mac, "is set by the kit of a bonded host", "leave it out")
    if client.lines and len(set(client.lines)) != tunnel.links:
        reason = "must be two different interfaces, one for each link"
        yield problem_at(f"{key}.lines", client.lines, reason, "use two, or leave it out")


CHECKS = (check_links,)
