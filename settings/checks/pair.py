"""Check pairs: two gateways that serve each other and no clients."""

from collections.abc import Iterator

from pydantic.alias_generators import to_camel

from settings.checks.links import check_second_port
from settings.draft import Draft
from settings.problems import NAMESPACE, Problem, problem_at

#: Keys of the tunnel that a pair may have; the others are for tunnels with clients.
TUNNEL_KEYS = {"device", "links", "bond", "pool", "port", "vpc", "verb"}

ONLY_EACH_OTHER = "is not possible in a pair, whose gateways serve only each other"


def check_no_clients(draft: Draft) -> Iterator[Problem]:
    """Check that a pair has no clients and no domain for them."""
    if not draft.has_pair:
        return
    if draft.entries:
        clients = f"{draft.entries} client{'s' if draft.entries > 1 else ''}"
        yield problem_at("clients", clients, ONLY_EACH_OTHER, "leave it out")
    if draft.network and draft.network.domain:
        yield problem_at("network.domain", draft.network.domain, ONLY_EACH_OTHER, "leave it out")


def check_routes_between_vpcs(draft: Draft) -> Iterator[Problem]:
    """Check that an existing VPC of a pair gets routes to the other VPC."""
    if not draft.has_pair or draft.tunnel is None or not draft.tunnel.vpc:
        return
    for key, vpc in (("network", draft.network), ("pair", draft.pair)):
        if vpc and vpc.vpc_id and not vpc.route_table_ids:
            remedy = (
                "write the IDs of the route tables that need routes to the other VPC (rtb-…), "
                f"or set {NAMESPACE}:tunnel.vpc: false"
            )
            yield problem_at(f"{key}.routeTableIds", None, "is required for an existing VPC in a pair", remedy)


def check_pair_gateways(draft: Draft) -> Iterator[Problem]:
    """Check that nobody but the two gateways may reach their tunnel."""
    gateway = draft.gateway
    if gateway is None or not draft.has_pair:
        return
    if "allow_from" in gateway.model_fields_set:
        reason = "is not possible in a pair, where each gateway accepts only the other's address"
        yield problem_at("gateway.allowFrom", gateway.allow_from, reason, "leave it out")
    if gateway.admin_at:
        reason = "opens only one gateway, but a pair has two"
        yield problem_at("gateway.adminAt", gateway.admin_at, reason, f"use adminFrom: [{gateway.admin_at}/32]")
    if gateway.ipv6_prefix:
        yield problem_at("gateway.ipv6Prefix", gateway.ipv6_prefix, ONLY_EACH_OTHER, "leave it out")
    if gateway.hostname:
        reason = "is not possible in a pair, whose gateways know each other's addresses"
        yield problem_at("gateway.hostname", gateway.hostname, reason, "leave it out, and hostedZoneId too")


def check_pair_tunnel(draft: Draft) -> Iterator[Problem]:
    """Check that a pair's tunnel has only the keys that two Ethernet links need."""
    tunnel = draft.tunnel
    if tunnel is None or not draft.has_pair:
        return
    for name in sorted(tunnel.model_fields_set - TUNNEL_KEYS):
        yield problem_at(f"tunnel.{to_camel(name)}", getattr(tunnel, name), ONLY_EACH_OTHER, "leave it out")
    for name, value in (("device", "tap"), ("links", 2)):
        if name in tunnel.model_fields_set and getattr(tunnel, name) != value:
            reason = "is not possible in a pair, which has two Ethernet links"
            yield problem_at(f"tunnel.{name}", getattr(tunnel, name), reason, f"use {value}, or leave it out")
    if tunnel.bond == "balance-alb":
        reason = "loses frames between two hosts: each sends to the hardware address of one link, the other drops them"
        yield problem_at("tunnel.bond", tunnel.bond, reason, "use balance-xor, active-backup or balance-rr")
    yield from check_second_port(tunnel)
    if tunnel.port < 1024:
        reason = "is a privileged port, which the gateways of a pair must not open"
        yield problem_at("tunnel.port", tunnel.port, reason, "use 1024 or more")


CHECKS = (check_no_clients, check_routes_between_vpcs, check_pair_gateways, check_pair_tunnel)
