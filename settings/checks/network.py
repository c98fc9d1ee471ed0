"""Check the ranges and identifiers of the stack's VPCs."""

from collections.abc import Iterator

from pydantic.alias_generators import to_camel

from settings.draft import Draft
from settings.model import Vpc
from settings.problems import FORMATS, NAMESPACE, Problem, problem_at

#: Characters of a name: 255 octets with those that separate and end labels (RFC 1035, 2.3.4).
NAME_LIMIT = 253

#: Domains of AWS's that its own services and a VPC's hosts have.
AWS_DOMAINS = ("amazonaws.com", "amazonaws.com.cn", "api.aws", "aws.dev", "compute.internal", "ec2.internal")

#: Prefix length of the public subnets, and the longest one of private subnets.
SUBNET = 24


def check_vpcs(draft: Draft) -> Iterator[Problem]:
    """Check each VPC by itself."""
    for key, vpc in (("network", draft.network), ("pair", draft.pair)):
        if vpc is None:
            continue
        if vpc.vpc_id or vpc.subnet_id:
            yield from _check_existing(key, vpc)
        else:
            yield from _check_new(key, vpc)


def _check_new(key: str, vpc: Vpc) -> Iterator[Problem]:
    # Each zone needs a public and a private subnet.
    longest = SUBNET - (2 * vpc.zones - 1).bit_length()
    if not 16 <= vpc.cidr.prefixlen <= longest:
        size = "large" if vpc.cidr.prefixlen < 16 else "small"
        reason = f"is too {size} for a VPC with {vpc.zones} zone{'s' if vpc.zones > 1 else ''}"
        yield problem_at(f"{key}.cidr", vpc.cidr, reason, f"use a prefix between /16 and /{longest}")
    elif (shortest := shortest_private_prefix(vpc)) > vpc.private_prefix:
        subnets = f"{vpc.zones} private subnet{'s' if vpc.zones > 1 else ''}"
        reason = f"is too short for {subnets} in {NAMESPACE}:{key}.cidr {vpc.cidr}"
        remedy = f"use {f'{shortest} to ' if shortest < SUBNET else ''}{SUBNET}"
        yield problem_at(f"{key}.privatePrefix", vpc.private_prefix, reason, remedy)
    if vpc.route_table_ids:
        remedy = "leave it out, or add vpcId and subnetId"
        yield problem_at(f"{key}.routeTableIds", vpc.route_table_ids, "is only for an existing VPC", remedy)


def _check_existing(key: str, vpc: Vpc) -> Iterator[Problem]:
    for name, value in (("vpcId", vpc.vpc_id), ("subnetId", vpc.subnet_id)):
        if value is None:
            yield problem_at(f"{key}.{name}", None, "is required for an existing VPC", FORMATS[name].remedy)
    for field in ("cidr", "zones", "private_prefix"):
        if field in vpc.model_fields_set:
            remedy = "leave it out, or leave vpcId and subnetId out"
            yield problem_at(f"{key}.{to_camel(field)}", getattr(vpc, field), "is only for a new VPC", remedy)


def check_routes_to_clients(draft: Draft) -> Iterator[Problem]:
    """Check that an existing VPC gets routes if its hosts open connections to clients."""
    network, tunnel = draft.network, draft.client_tunnel
    if draft.has_pair or network is None or not (network.vpc_id or network.subnet_id) or network.route_table_ids:
        return
    if (tunnel and not tunnel.nat) or any(client.reachable for client in draft.clients.values()):
        reason = "is required when the existing VPC opens connections to clients"
        remedy = "write the IDs of the route tables that need routes to the clients (rtb-…)"
        yield problem_at("network.routeTableIds", None, reason, remedy)


def check_domain(draft: Draft) -> Iterator[Problem]:
    """Check that the name of the gateway in the domain is not too long for DNS."""
    domain = draft.network.domain if draft.network else None
    if not domain:
        return
    if reason := _find_reserved(domain):
        yield problem_at("network.domain", domain, reason, FORMATS["domain"].remedy)
    # The zone has a record for the gateway; `*` stands for the stack's name.
    excess = len(f"gateway.{domain.replace('*', draft.stack)}") - NAME_LIMIT
    if excess > 0:
        length = f"{NAME_LIMIT + excess} characters, and DNS allows {NAME_LIMIT}"
        reason = f"is too long: the gateway's name in it would have {length}"
        yield problem_at("network.domain", domain, reason, f"use a domain that is {excess} characters shorter")


def _find_reserved(domain: str) -> str | None:
    """Return why a private zone must not have a domain, None if it may."""
    labels = domain.split(".")
    if labels[-1] == "local":
        return "is for multicast DNS (RFC 6762): many hosts do not ask the resolver for names in .local"
    if labels[-1] == "localhost":
        return "always means the host itself (RFC 6761)"
    if labels[-1].isdecimal():
        return "is not a domain: the last label is a number"
    if any(domain == suffix or domain.endswith(f".{suffix}") for suffix in AWS_DOMAINS):
        return "is AWS's own: its names would not be resolved in the VPC any more"
    return None


def shortest_private_prefix(vpc: Vpc) -> int:
    """Return the shortest prefix for which a new VPC has room for its private subnets, behind the public /24s."""

    def fits(prefix: int) -> bool:
        blocks = max(1, 2 ** (prefix - 22)) + vpc.zones
        return prefix >= vpc.cidr.prefixlen and blocks <= 2 ** (prefix - vpc.cidr.prefixlen)

    return next((prefix for prefix in range(17, SUBNET) if fits(prefix)), SUBNET)


CHECKS = (check_vpcs, check_routes_to_clients, check_domain)
