"""What tests of packets and machines share: regions of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.region import Region, disposable_region
from tests.support.cloud import Cloud, raise_quotas


@contextmanager
def roomy_region(*, boots: bool) -> Iterator[Region]:
    """A region of its own with high quotas, gone at the end."""
    with disposable_region(boots=boots) as region:
        raise_quotas(region)
        # Packet rules are tried by many calls in a moment.
        region.set_rules(throttle_writes=boots)
        yield region


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    """A module's region, with machines that boot."""
    with roomy_region(boots=True) as own:
        yield own


@pytest.fixture(scope="module")
def wires() -> Iterator[Region]:
    """A module's region whose instances are network namespaces alone: for packets, and quick."""
    with roomy_region(boots=False) as own:
        yield own


@pytest.fixture
def cloud(wires: Region) -> Iterator[Cloud]:
    """The EC2 API of the module's `wires`; what a test launches is terminated at its end."""
    made = Cloud(wires)
    yield made
    made.clear()
