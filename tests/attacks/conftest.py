"""A region for each kind of stack that several files attack, shared by all tests of a file."""

from collections.abc import Iterator

import pytest

from drawbridge.trial.deployment import Deployment
from lab.region import disposable_region
from tests.support import stacks


@pytest.fixture(scope="module")
def segment() -> Iterator[Deployment]:
    """World `ros2`, one L2 segment with named multicast, with a client more: mallory."""
    raw = stacks.world_config("ros2")
    raw["drawbridge:clients"].append({"name": "mallory"})
    with disposable_region() as region:
        yield stacks.deploy_world(region, "ros2", raw)
