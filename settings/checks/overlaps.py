"""Check that no two networks of a stack overlap, so that routing is unambiguous."""

from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Network
from itertools import combinations

from settings.draft import Draft
from settings.model import Client, Network, Pair, Settings, Tunnel, Vpc
from settings.problems import NAMESPACE, Problem, SettingsError, problem_at

#: Ranges that hosts of a network cannot have, and who has them (RFC 6890). EC2 takes none of them for a VPC.
RESERVED = {
    IPv4Network("169.254.0.0/16"): "link-local addresses, which AWS uses for metadata",
    IPv4Network("0.0.0.0/8"): "0.0.0.0/8, which stands for a host's own network",
    IPv4Network("127.0.0.0/8"): "loopback addresses, which each host has itself",
    IPv4Network("224.0.0.0/3"): "multicast and reserved addresses, which no host has",
}

#: Ranges with the keys that name them.
Ranges = list[tuple[str, IPv4Network]]


def check_ranges(draft: Draft) -> Iterator[Problem]:
    """Check all ranges that the stack file names."""
    ranges = list_ranges(draft.network, draft.pair, draft.effective_tunnel, draft.clients)
    yield from _find_overlaps(ranges, _bridged_ranges(draft.clients))


def check_vpc_overlap(settings: Settings, vpcs: Mapping[str, Collection[IPv4Network]]) -> None:
    """Raise `SettingsError` if a range of an existing VPC, which only AWS knows, overlaps another range.

    `vpcs` has the ranges of each VPC by its section of the settings.
    """
    clients = dict(enumerate(settings.clients))
    sections: Mapping[str, Vpc | None] = {"network": settings.network, "pair": settings.pair}
    ranges: Ranges = []
    for key, networks in vpcs.items():
        section = sections[key]
        name = f"{key}.vpcId" if section and section.vpc_id else f"{key}.cidr"
        ranges += [(name, network) for network in networks]
    ranges += list_ranges(None, None, settings.tunnel, clients)
    if problems := list(_find_overlaps(ranges, _bridged_ranges(clients))):
        raise SettingsError(problems)


def list_ranges(
    network: Network | None, pair: Pair | None, tunnel: Tunnel | None, clients: Mapping[int, Client]
) -> Ranges:
    """Return the ranges that must not overlap, with their keys."""
    ranges: Ranges = []
    for key, vpc in (("network", network), ("pair", pair)):
        if vpc and not vpc.vpc_id:
            ranges.append((f"{key}.cidr", vpc.cidr))
    if tunnel:
        ranges.append(("tunnel.pool", tunnel.pool))
    ranges += [(f"clients[{i}].lan[{n}]", lan) for i, client in clients.items() for n, lan in enumerate(client.lan)]
    if tunnel:
        ranges += [(f"tunnel.routes[{n}]", route) for n, route in enumerate(tunnel.routes)]
    return ranges


def _bridged_ranges(clients: Mapping[int, Client]) -> list[tuple[str, str]]:
    """Return the keys of ranges that overlap because a client bridges them into one network."""
    return [("tunnel.pool", f"clients[{i}].lan[0]") for i, client in clients.items() if client.bridge]


def _find_overlaps(ranges: Ranges, bridged: Collection[tuple[str, str]]) -> Iterator[Problem]:
    for (first, range1), (second, range2) in combinations(ranges, 2):
        # A pushed route may overlap a LAN or another route: the longest prefix decides.
        if second.startswith("tunnel.routes") and not first.startswith(("network.", "pair.", "tunnel.pool")):
            continue
        if range1.overlaps(range2) and (first, second) not in bridged:
            reason = f"overlaps {NAMESPACE}:{first} {range1}"
            yield problem_at(second, range2, reason, "use a range that does not overlap it")
    for key, network in ranges:
        reserved = [addresses for range_, addresses in RESERVED.items() if network.overlaps(range_)]
        if reserved:
            yield problem_at(key, network, f"includes {reserved[0]}", "use another range")


CHECKS = (check_ranges,)
