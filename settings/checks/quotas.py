"""Count what a stack takes of AWS's quotas, so that AWS refuses nothing in the middle of a deployment.

Source: Amazon VPC User Guide, "Amazon VPC quotas". The limits are those of an account that has asked for no more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses

from settings.draft import Draft
from settings.model import Gateway, Tunnel
from settings.problems import Problem, problem_at


@dataclass(frozen=True, slots=True)
class Quota:
    """One of AWS's limits."""

    limit: int
    holder: str
    unit: str


#: IPv4 and IPv6 count separately.
GROUP_RULES = Quota(60, "the gateway's security group", "inbound rules")
#: In each direction, with AWS's own last entry for each version of IP.
PRIVATE_ENTRIES = Quota(20, "the private subnets' network ACL", "entries")
PUBLIC_ENTRIES = Quota(20, "the public subnets' network ACL", "entries")
#: IPv4 and IPv6 count separately.
ROUTES = Quota(50, "each route table", "routes")


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a quota that one list of the stack file uses."""

    key: str
    entries: int
    noun: str
    cost: int = 1
    """Rules for each entry."""
    remedy: str = "use at most {}, such as larger ones"
    least: int = 0
    """Entries that must remain."""


def check_group_rules(draft: Draft) -> Iterator[Problem]:
    """Check that the gateway's security group has room for a rule for each range."""
    gateway, tunnel = draft.gateway, draft.effective_tunnel
    if gateway is None or tunnel is None:
        return
    ranges = (gateway.admin_from, () if draft.has_pair else gateway.allow_from)
    admin, allowed = (len(list(collapse_addresses(networks))) for networks in ranges)
    at = sum(client.at is not None for client in draft.clients.values())
    shares = (
        Share("gateway.allowFrom", allowed, "separate ranges", cost=2, least=1),
        Share("gateway.adminFrom", admin, "separate ranges"),
        Share("clients", at, "clients with `at`", remedy="give `at` to at most {}"),
    )
    fixed = _count_fixed_rules(draft, tunnel) + bool(gateway.admin_at)
    yield from _find_excess(GROUP_RULES, shares, fixed, needed=count_group_rules(draft, gateway, tunnel))
    yield from _find_excess(GROUP_RULES, [_share_of_open_to(tunnel)], fixed=1)


def count_group_rules(draft: Draft, gateway: Gateway, tunnel: Tunnel) -> int:
    """Return the inbound IPv4 rules of the gateway's security group.

    AWS knows a rule by protocol, ports and range, whichever key of the stack file it comes from.
    """
    ssh = {*collapse_addresses(gateway.admin_from)}
    if gateway.admin_at:
        ssh.add(IPv4Network(gateway.admin_at))
    allowed = {*collapse_addresses(() if draft.has_pair else gateway.allow_from)}
    at = {IPv4Network(client.at) for client in draft.clients.values() if client.at}
    # Each range may reach the tunnel and send echo requests.
    return len(ssh) + len(allowed | at) + len(allowed) + _count_fixed_rules(draft, tunnel)


def _count_fixed_rules(draft: Draft, tunnel: Tunnel) -> int:
    """Return the rules that do not depend on the number of ranges.

    They are for path MTU discovery, for forwarded packets, and in a pair for the peer.
    """
    forwarded = tunnel.vpc if draft.has_pair else bool(list_routed(draft, tunnel))
    return 1 + forwarded + (2 if draft.has_pair else 0)


def check_acl_entries(draft: Draft) -> Iterator[Problem]:
    """Check that the network ACLs of a new VPC have room for the networks behind the gateway."""
    tunnel, gateway, network = draft.effective_tunnel, draft.gateway, draft.network
    if tunnel is None or gateway is None or network is None or network.vpc_id or draft.has_pair:
        return
    entries = count_acl_entries(ssh=bool(gateway.admin_from or gateway.admin_at), ipv6=tunnel.has_ipv6)
    yield from _find_routed_excess(PRIVATE_ENTRIES, draft, tunnel, entries["private"])
    yield from _find_excess(PUBLIC_ENTRIES, [_share_of_open_to(tunnel)], entries["public"])


def count_acl_entries(*, ssh: bool, ipv6: bool) -> dict[str, int]:
    """Return the inbound entries of each kind of subnet's network ACL, without those for ranges of the stack file.

    AWS's own last entry counts, and with IPv6 a second one.
    """
    # With IPv6: replies of TCP and UDP, ICMPv6, and AWS's own.
    more = 4 if ipv6 else 0
    return {
        # The VPC, the tunnel, SSH, replies of TCP and UDP, ICMP, and AWS's own.
        "public": 6 + ssh + more,
        # The VPC, replies, and AWS's own; with IPv6 the VPC once more.
        "private": 3 + ipv6 + more,
    }


def check_routes(draft: Draft) -> Iterator[Problem]:
    """Check that the route tables of an existing VPC have room for the networks behind the gateway."""
    tunnel, network = draft.effective_tunnel, draft.network
    if tunnel and network and network.route_table_ids and not draft.has_pair:
        # Each table has the VPC's own route.
        yield from _find_routed_excess(ROUTES, draft, tunnel, 1)


def list_routed(draft: Draft, tunnel: Tunnel) -> list[IPv4Network]:
    """Return the networks behind the gateway that hosts of the VPC address directly, as few as possible."""
    if tunnel.nat:
        return list(collapse_addresses(network for client in draft.clients.values() for network in client.reachable))
    lans = (network for client in draft.clients.values() for network in client.lan)
    return list(collapse_addresses((tunnel.pool, *lans)))


def _share_of_open_to(tunnel: Tunnel) -> Share:
    return Share("tunnel.openTo", len(list(collapse_addresses(tunnel.open_to))), "separate ranges")


def _find_routed_excess(quota: Quota, draft: Draft, tunnel: Tunnel, fixed: int) -> Iterator[Problem]:
    key, pool = ("reachable", 0) if tunnel.nat else ("lan", 1)
    networks = len(list_routed(draft, tunnel)) - pool
    yield from _find_excess(quota, [Share("clients", networks, f"separate networks in `{key}`")], fixed + pool)


def _find_excess(
    quota: Quota, shares: Sequence[Share], fixed: int = 0, *, needed: int | None = None
) -> Iterator[Problem]:
    """Yield a problem for each list that must become shorter, the one with the largest share first.

    `fixed` is what the quota's holder has besides the shares; `needed` is the sum, if some are merged.
    """
    total = fixed + sum(share.entries * share.cost for share in shares)
    needed = total if needed is None else needed
    excess = total - quota.limit if needed > quota.limit else 0
    for share in sorted(shares, key=lambda share: share.entries * share.cost, reverse=True):
        if excess <= 0:
            return
        removed = min(-(-excess // share.cost), share.entries - share.least)
        excess -= removed * share.cost
        reason = f"bring {quota.holder} to {needed} {quota.unit}, but AWS allows {quota.limit}"
        remedy = share.remedy.format(share.entries - removed)
        yield problem_at(share.key, f"{share.entries} {share.noun}", reason, remedy)


CHECKS = (check_group_rules, check_acl_entries, check_routes)
