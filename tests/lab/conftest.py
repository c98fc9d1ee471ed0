"""What tests of packets and machines share: regions of their own."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab import region as labs
from lab.region import Region
from tests.support.cloud import Cloud, raise_quotas


@contextmanager
def region_of_its_own(*, boots: bool) -> Iterator[Region]:
    """A region under a name nobody else has, gone at the end, however it ends."""
    name = f"t{secrets.token_hex(3)}"
    try:
        region = labs.start(name, boots=boots, disposable=True)
        raise_quotas(region)
        # Packet rules are tried by many calls in a moment.
        region.set_rules(throttle_writes=boots)
        yield region
    finally:
        labs.down(name)


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    """A module's region, with machines that boot."""
    with region_of_its_own(boots=True) as own:
        yield own


@pytest.fixture(scope="module")
def wires() -> Iterator[Region]:
    """A module's region whose instances are network namespaces alone: for packets, and quick."""
    with region_of_its_own(boots=False) as own:
        yield own


@pytest.fixture
def cloud(wires: Region) -> Iterator[Cloud]:
    """The EC2 API of the module's `wires`; what a test launches is terminated at its end."""
    made = Cloud(wires)
    yield made
    made.clear()
