"""List the checks of all topics, in the order in which their problems are reported."""

from collections.abc import Iterator

from settings.checks import (
    alerts,
    bridge,
    clients,
    gateway,
    iam,
    ipv6,
    lifetimes,
    links,
    network,
    overlaps,
    pair,
    public,
    quotas,
    secrets,
    segment,
    tunnel,
)
from settings.draft import Check, Draft
from settings.problems import Problem

#: A new topic adds its checks here. Each check says itself which stacks it applies to.
CHECKS: tuple[Check, ...] = (
    *network.CHECKS,
    *gateway.CHECKS,
    *public.CHECKS,
    *tunnel.CHECKS,
    *segment.CHECKS,
    *bridge.CHECKS,
    *links.CHECKS,
    *ipv6.CHECKS,
    *pair.CHECKS,
    *lifetimes.CHECKS,
    *secrets.CHECKS,
    *clients.CHECKS,
    *iam.CHECKS,
    *alerts.CHECKS,
    *overlaps.CHECKS,
    *quotas.CHECKS,
)


def find_problems(draft: Draft) -> Iterator[Problem]:
    """Yield the problems that all checks find."""
    for check in CHECKS:
        yield from check(draft)
