"""Give the tests of any project an AWS region on this machine: the pytest fixture `aws_region`.

pytest finds this module by its entry point where this project is installed, and by
`pytest_plugins = ["lab.pytest_plugin"]` where it is only on the path.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.region import Region


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting `aws_region_boots`."""
    parser.addini(
        "aws_region_boots",
        "whether instances of the fixture aws_region boot; without it they are network namespaces alone, at once there",
        type="bool",
        default=True,
    )


@pytest.fixture(scope="session")
def _session_region(request: pytest.FixtureRequest) -> "Iterator[Region]":
    # Every session of an environment with this plugin imports this module, and few of them start a region.
    from lab.region import disposable_region

    with disposable_region(boots=request.config.getini("aws_region_boots")) as region:
        yield region


@pytest.fixture
def aws_region(_session_region: "Region", monkeypatch: pytest.MonkeyPatch) -> "Region":
    """The session's region, at which the environment's variables point all clients of the AWS API during the test.

    No client reaches a real account meanwhile. What a test creates is there in the next.

    Raises:
        LabError: the region cannot be started; see `lab.region.start`.
    """
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {"AWS_DEFAULT_REGION": "eu-west-1", **_session_region.environment}.items():
        monkeypatch.setenv(name, value)
    # It keeps the credentials and the region of its first use.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return _session_region
