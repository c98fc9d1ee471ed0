"""Find what a valid configuration probably does not mean."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, collapse_addresses

from settings.checks.public import find_unroutable
from settings.instance_types import SIZES, suggest_type
from settings.model import Settings
from settings.problems import NAMESPACE, Problem, problem_at
from settings.regions import REGIONS, suggest_region

#: Ranges that routers of homes and hotels have when they are new.
HOME_RANGES = tuple(IPv4Network(f"192.168.{third}.0/24") for third in (0, 1, 2, 8, 31, 50, 68, 86, 88, 100, 178))

#: Names of devices, which Windows takes for no files, whatever their extension (Microsoft's documentation, "Naming
#: Files, Paths, and Namespaces").
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def find_notices(settings: Settings) -> Iterator[Problem]:
    """Yield what users are warned of; the stack can be deployed as it is."""
    yield from _notice_region(settings)
    yield from _notice_clients(settings)
    yield from _notice_ranges(settings)
    yield from _notice_domain(settings)
    gateway = settings.gateway
    family, _, size = gateway.instance_type.partition(".")
    if size not in SIZES.get(family, ()):
        near = suggest_type(gateway.instance_type)
        remedy = f"did you mean {near}?" if near else "use a type such as t4g.nano"
        reason = f"is of a {'size' if family in SIZES else 'family'} that was not known in November 2026"
        yield problem_at("gateway.instanceType", gateway.instance_type, reason, remedy)
    if gateway.admin_from_anywhere and sum(net.num_addresses for net in collapse_addresses(gateway.admin_from)) < 2**31:
        reason = f"confirms nothing: {NAMESPACE}:gateway.adminFrom does not open SSH to the world"
        yield problem_at("gateway.adminFromAnywhere", True, reason, "leave it out, or add 0.0.0.0/0 there")


def _notice_region(settings: Settings) -> Iterator[Problem]:
    if settings.region not in REGIONS:
        remedy = f"did you mean {suggest_region(settings.region)}?"
        yield Problem("aws:region", settings.region, "is not a region that was known in November 2026", remedy)


def _notice_clients(settings: Settings) -> Iterator[Problem]:
    if not settings.clients and not settings.pair:
        yield problem_at("clients", [], "has nobody who may connect", "add clients, such as {name: alice}")
    for i, client in enumerate(settings.clients):
        if _WINDOWS_DEVICE.fullmatch(client.name):
            reason = f"is a device of Windows, which stores no file {client.name}.ovpn"
            yield problem_at(f"clients[{i}].name", client.name, reason, "use another name if it may run Windows")


def _notice_ranges(settings: Settings) -> Iterator[Problem]:
    """Yield notices of the ranges that are chosen for the stack; networks of clients are as they are."""
    vpcs = zip(("network", "pair"), settings.vpcs, strict=False)
    ranges = [(f"{key}.cidr", vpc.cidr) for key, vpc in vpcs if not vpc.vpc_id]
    # A segment that is bridged with a LAN has the LAN's range.
    if not any(client.bridge for client in settings.clients):
        ranges.append(("tunnel.pool", settings.tunnel.pool))
    for key, network in ranges:
        if not find_unroutable(network):
            reason = "is a range of the Internet: its hosts there cannot be reached any more"
            yield problem_at(key, network, reason, "use a private range, such as a part of 10.0.0.0/8")
        elif home := next(filter(network.overlaps, HOME_RANGES), None):
            reason = f"overlaps {home}, which many home routers use: clients behind one do not reach it"
            yield problem_at(key, network, reason, "use a less common range")


def _notice_domain(settings: Settings) -> Iterator[Problem]:
    tunnel = settings.tunnel
    if settings.domain and not settings.pair and not (tunnel.nat and tunnel.vpc):
        key = "nat" if tunnel.vpc else "vpc"
        reason = f"has names that clients do not resolve: they cannot ask the VPC's resolver without {key}"
        yield problem_at(
            "network.domain", settings.domain, reason, f"use {NAMESPACE}:tunnel.{key}: true, or leave it out"
        )
