"""Check that addresses from which the gateway is reached over the Internet are ones that the Internet routes."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from settings.checks.overlaps import RESERVED, list_ranges
from settings.draft import Draft
from settings.problems import Problem, problem_at

#: Ranges that hosts have and the Internet does not route (RFC 6890). Those for documentation are not among them: the
#: lab's Internet has them.
PRIVATE = {
    IPv4Network("10.0.0.0/8"): "private addresses",
    IPv4Network("172.16.0.0/12"): "private addresses",
    IPv4Network("192.168.0.0/16"): "private addresses",
    IPv4Network("100.64.0.0/10"): "addresses that providers share among customers",
}

#: How to find a public address.
FIND = "use the public one, as `curl https://checkip.amazonaws.com` prints it"


def find_unroutable(network: IPv4Network) -> str | None:
    """Return what the addresses of a range are if the Internet routes none of them, else None.

    >>> find_unroutable(IPv4Network("192.168.1.7/32")), find_unroutable(IPv4Network("203.0.113.7/32"))
    ('private addresses', None)
    """
    ranges = {**PRIVATE, **RESERVED}
    return next((addresses for range_, addresses in ranges.items() if network.subnet_of(range_)), None)


def check_addresses(draft: Draft) -> Iterator[Problem]:
    """Check the public addresses of the administrator and of clients."""
    addresses: list[tuple[str, IPv4Address | None]] = [
        ("gateway.adminAt", draft.gateway.admin_at if draft.gateway else None),
        *((f"clients[{i}].at", client.at) for i, client in draft.clients.items()),
    ]
    for key, address in addresses:
        if address is not None and (reserved := find_unroutable(IPv4Network(address))):
            yield problem_at(key, address, f"is not a public address: it is one of the {reserved}", FIND)


def check_ranges(draft: Draft) -> Iterator[Problem]:
    """Check the ranges that may reach the gateway; SSH is also for those in the stack's own networks."""
    if draft.gateway is None:
        return
    yield from _check_ranges("gateway.allowFrom", draft.gateway.allow_from, ())
    # Which ranges an existing VPC has, and what it is connected to, only AWS knows.
    if not any(vpc and vpc.vpc_id for vpc in (draft.network, draft.pair)):
        inner = [network for _, network in list_ranges(draft.network, draft.pair, draft.tunnel, draft.clients)]
        yield from _check_ranges("gateway.adminFrom", draft.gateway.admin_from, inner)


def _check_ranges(key: str, ranges: Iterable[IPv4Network], inner: Iterable[IPv4Network]) -> Iterator[Problem]:
    for n, network in enumerate(ranges):
        if any(network.overlaps(range_) for range_ in inner):
            continue
        if reserved := find_unroutable(network):
            reason = f"lets nobody in: the Internet does not route {reserved}"
            yield problem_at(f"{key}[{n}]", network, reason, "use public addresses")


CHECKS = (check_addresses, check_ranges)
