"""A region for each kind of stack that is attacked, shared by all tests of a file."""

from collections.abc import Iterator

import pytest

from drawbridge.trial import run
from drawbridge.trial.deployment import Deployment
from tests.support import stacks


@pytest.fixture(scope="module")
def routed() -> Iterator[Deployment]:
    """Stack `lab`: a routed tunnel over UDP, two clients, a private host."""
    with run.disposable_region() as region:
        yield stacks.deploy_world(region, "lab", stacks.world_config("lab"))


@pytest.fixture(scope="module")
def routed_tcp() -> Iterator[Deployment]:
    """The same over TCP, port 443."""
    raw = stacks.world_config("lab")
    raw["drawbridge:tunnel"] |= {"protocol": "tcp", "port": 443}
    with run.disposable_region() as region:
        yield stacks.deploy_world(region, "lab", raw)


@pytest.fixture(scope="module")
def segment() -> Iterator[Deployment]:
    """World `ros2`: one L2 segment with named multicast."""
    with run.disposable_region() as region:
        yield stacks.deploy_world(region, "ros2", stacks.world_config("ros2"))


@pytest.fixture(scope="module")
def delegated() -> Iterator[Deployment]:
    """World `ipv6`: a tap with a delegated IPv6 prefix."""
    with run.disposable_region() as region:
        yield stacks.deploy_world(region, "ipv6", stacks.world_config("ipv6"))
