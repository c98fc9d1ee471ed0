"""Subnets of a VPC: apart, inside of it, and the same ones however many zones follow."""

from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import model
from settings.checks.network import shortest_private_prefix
from subnets import plan_subnets


@st.composite
def ranges(draw: Any) -> tuple[IPv4Network, int]:
    prefix = draw(st.integers(16, 22))
    start = draw(st.integers(0, 2**prefix - 1)) << (32 - prefix)
    return IPv4Network((start, prefix)), draw(st.integers(1, 3 if prefix < 22 else 2))


@given(ranges())
def test_plan_is_apart_inside_and_stable(drawn: tuple[IPv4Network, int]) -> None:
    cidr, zones = drawn
    subnets = [subnet for zone in plan_subnets(cidr, zones) for subnet in (zone.public, zone.private)]
    assert len(subnets) == 2 * zones
    assert all(s.subnet_of(cidr) and s.prefixlen == 24 for s in subnets)
    assert not any(a.overlaps(b) for i, a in enumerate(subnets) for b in subnets[:i])
    assert plan_subnets(cidr, zones)[:1] == plan_subnets(cidr, 1)


@given(ranges(), st.integers(17, 24))
def test_wide_private_subnets_are_apart_inside_and_stable(drawn: tuple[IPv4Network, int], prefix: int) -> None:
    """And the settings refuse just what there is no room for."""
    cidr, zones = drawn
    least = shortest_private_prefix(model.Network(cidr=cidr, zones=zones))
    if prefix < least:
        with pytest.raises(ValueError, match="has no room"):
            plan_subnets(cidr, zones, prefix)
        return
    made = plan_subnets(cidr, zones, prefix)
    subnets = [subnet for zone in made for subnet in (zone.public, zone.private)]
    assert {zone.private.prefixlen for zone in made} == {prefix} and {zone.public.prefixlen for zone in made} == {24}
    assert all(s.subnet_of(cidr) for s in subnets)
    assert not any(a.overlaps(b) for i, a in enumerate(subnets) for b in subnets[:i])
    assert plan_subnets(cidr, zones, prefix)[:1] == plan_subnets(cidr, 1, prefix)
    assert made[0].public == plan_subnets(cidr, 1)[0].public, "the gateway stays where it is"


def test_plan_needs_room() -> None:
    with pytest.raises(ValueError, match=r"^10\.1\.0\.0/22 has no room for 6 subnets of /24$"):
        plan_subnets(IPv4Network("10.1.0.0/22"), 3)
