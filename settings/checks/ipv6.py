"""Check the clients' IPv6 addresses and the prefix they are from."""

from collections.abc import Iterator
from ipaddress import IPv6Network

from settings.draft import Draft, Topology
from settings.model import Tunnel
from settings.problems import NAMESPACE, Problem, problem_at, show

#: Prefix length that AWS delegates to a network interface.
DELEGATED = 80

#: The longest prefix with room for the addresses of the largest IPv4 pool, and as many that OpenVPN assigns itself.
LONGEST = 108


def check_ipv6(draft: Draft) -> Iterator[Problem]:
    """Check the prefix and the addresses from it; a pair has no IPv6."""
    tunnel, gateway = draft.client_tunnel, draft.gateway
    if tunnel is None:
        return
    prefix = gateway.ipv6_prefix if gateway else None
    if prefix and prefix.prefixlen != DELEGATED:
        yield problem_at("gateway.ipv6Prefix", prefix, f"must be a /{DELEGATED}, as AWS delegates them", "use a /80")
    elif not tunnel.has_ipv6:
        yield from _check_without_ipv6(draft, tunnel, prefix)
    else:
        if isinstance(tunnel.ipv6, IPv6Network):
            yield from _check_range(tunnel.ipv6, prefix)
        yield from _check_addresses(draft, tunnel.ipv6 if isinstance(tunnel.ipv6, IPv6Network) else prefix)


def _check_without_ipv6(draft: Draft, tunnel: Tunnel, prefix: IPv6Network | None) -> Iterator[Problem]:
    values: dict[str, object] = {
        "gateway.ipv6Prefix": prefix,
        "tunnel.openTo": tunnel.open_to,
        "tunnel.redirect": tunnel.redirect if tunnel.redirect == "ipv6" else None,
        **{f"clients[{i}].address6": client.address6 for i, client in draft.clients.items()},
    }
    for key, value in values.items():
        if value:
            bonded = draft.topology is Topology.BONDED
            remedy = "leave it out" if bonded else f"leave it out, or set {NAMESPACE}:tunnel.ipv6: delegated"
            yield problem_at(key, value, "needs IPv6", remedy)


def _check_range(network: IPv6Network, prefix: IPv6Network | None) -> Iterator[Problem]:
    if prefix is None:
        reason = f"is required because {NAMESPACE}:tunnel.ipv6 {network} must be a part of it"
        remedy = f"add it, or set {NAMESPACE}:tunnel.ipv6: delegated to use the prefix that AWS chooses"
        yield problem_at("gateway.ipv6Prefix", None, reason, remedy)
    elif not network.subnet_of(prefix):
        reason = f"is outside {NAMESPACE}:gateway.ipv6Prefix {prefix}"
        yield problem_at("tunnel.ipv6", network, reason, "use a part of it, or delegated for all of it")
    elif network.prefixlen > LONGEST:
        remedy = f"use a prefix between /{DELEGATED} and /{LONGEST}"
        yield problem_at("tunnel.ipv6", network, "is too small for the clients", remedy)


def _check_addresses(draft: Draft, pool: IPv6Network | None) -> Iterator[Problem]:
    positions = dict[int, int]()
    for i, client in draft.clients.items():
        if client.address6 is None:
            continue
        key, suffix = f"clients[{i}].address6", int(client.address6) & (2**48 - 1)
        if suffix != int(client.address6) and not (pool and client.address6 in pool):
            reason = f"is outside {pool}" if pool else "is a whole address, but no prefix is configured"
            yield problem_at(key, client.address6, reason, "write only its end, such as ::10")
        if suffix < 2:
            yield problem_at(key, client.address6, "is reserved for the gateway", "use ::2 or above")
        if suffix in positions:
            reason = f"is already used by clients[{positions[suffix]}]"
            yield problem_at(key, client.address6, reason, "IPv6 addresses must be unique")
        positions[suffix] = i


def check_advertised(draft: Draft) -> Iterator[Problem]:
    """Check that there is a segment, and a subnet of its own, for a /64 that the gateway advertises."""
    tunnel, network, gateway = draft.client_tunnel, draft.network, draft.gateway
    if tunnel is None or not tunnel.advertised:
        return
    if draft.topology is Topology.ROUTED:
        reason = "needs a segment: router advertisements do not cross a tun device"
        yield problem_at("tunnel.ipv6", tunnel.ipv6, reason, "use delegated, or device: tap")
    if network and network.vpc_id:
        reason = "needs a new subnet and route table, which an existing VPC does not get"
        yield problem_at("tunnel.ipv6", tunnel.ipv6, reason, "use delegated, or leave vpcId and subnetId out")
    if gateway and gateway.ipv6_prefix:
        reason = f"is not used with {NAMESPACE}:tunnel.ipv6 {show(tunnel.ipv6)}, which gives the segment a whole subnet"
        yield problem_at("gateway.ipv6Prefix", gateway.ipv6_prefix, reason, "leave it out, or use ipv6: delegated")


CHECKS = (check_ipv6, check_advertised)
