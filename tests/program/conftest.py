"""The whole program, deployed through the SDK's mocks and the lab's provider into an AWS in this process."""

import asyncio
import functools
import json
import runpy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import boto3
import pulumi
import pytest
from moto import mock_aws
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.s3.models import FakeBucket
from pulumi.runtime import mocks, rpc, set_all_config
from pulumi.runtime.settings import configure

from engine.provider.mocks import ProviderMocks
from lab.api import moto_patches
from lab.api.moto_account import leave_bucket_policies_alone, publish_images
from settings.stack_file import read_stack_file
from tests.support.loops import event_loop

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"

#: Seconds; a resource whose creation failed can leave others waiting for ever.
TIMEOUT = 60


@dataclass
class Deployment:
    """A stack after `up`: what the program exported and registered, and boto3 to see what AWS has."""

    outputs: dict[str, Any]
    resources: list[tuple[str, str, str, dict[str, Any]]]
    """Type, name, id and outputs (secrets in clear) of each in the order they were made."""
    clients: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, service: str) -> Any:
        if service.startswith("_"):
            raise AttributeError(service)
        if service not in self.clients:
            self.clients[service] = boto3.client(  # type: ignore[call-overload]
                service, region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing"
            )
        return self.clients[service]


class Exports(mocks.MockMonitor):
    """Keeps the stack's outputs, which plain mocks throw away."""

    def __init__(self, own: mocks.Mocks) -> None:
        super().__init__(own)
        self.stack: dict[str, Any] = {}

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if "pulumi:pulumi:Stack" in request.urn:
            self.stack = rpc.deserialize_properties(request.outputs)
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


Deploy = Callable[..., Deployment]


def deploy_into_moto(config: Mapping[str, object], stack: str) -> Deployment:
    """Run the program for a configuration as a stack file has it; inside `mock_aws`."""
    set_all_config({k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()})
    own = ProviderMocks(REGION, project="drawbridge")
    monitor = Exports(own)
    # Not set_mocks: it makes a root stack of its own, and the program runs in one.
    configure(
        mocks.MockSettings(  # type: ignore[no-untyped-call]
            monitor=monitor,
            engine=mocks.MockEngine(None),
            project="drawbridge",
            stack=stack,
            organization="organization",
            dry_run=False,
            callbacks=None,
            monitor_features=set(),
        )
    )
    program = cast(Callable[[], None], lambda: runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__"))
    with event_loop() as loop:
        loop.run_until_complete(asyncio.wait_for(pulumi.runtime.run_in_stack(program), TIMEOUT))
    return Deployment(monitor.stack, own.created)


@contextmanager
def empty_aws() -> Iterator[None]:
    """An AWS in this process with Debian's public images and nothing else."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        publish_images(REGION)
        # As the region does it, and undone afterwards.
        patch.setattr(FakeBucket, "get_permission", FakeBucket.get_permission)
        leave_bucket_policies_alone()
        yield


@contextmanager
def empty_aws_with_ipv6() -> Iterator[None]:
    """The same, whose interfaces can hold delegated prefixes; taken back afterwards, as moto is the process's."""
    with empty_aws(), pytest.MonkeyPatch.context() as patch:

        def wrapped(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
            original = getattr(owner, name)

            def decorate(replacement: Callable[..., Any]) -> None:
                @functools.wraps(original)
                def call(*args: Any, **kwargs: Any) -> Any:
                    return replacement(original, *args, **kwargs)

                patch.setattr(owner, name, call)

            return decorate

        patch.setattr(moto_patches, "_wrapped", wrapped)
        patch.setattr(NetworkInterface, "ipv6_prefixes", (), raising=False)
        moto_patches._interfaces_have_prefixes()
        yield


@pytest.fixture
def deploy() -> Iterator[Deploy]:
    """Deploys configurations, one after another, into one AWS; `stack` is the stack's name."""
    with empty_aws():
        yield lambda config, stack="dev": deploy_into_moto(config, stack)


@pytest.fixture(scope="module")
def lab_stack() -> Iterator[Deployment]:
    """What stacks/Pulumi.lab.yaml makes, deployed once; for tests that only look."""
    with empty_aws():
        yield deploy_into_moto(read_stack_file(ROOT / "stacks/Pulumi.lab.yaml"), "dev")
