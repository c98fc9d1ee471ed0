"""The whole program, deployed through the SDK's mocks and the lab's provider into an AWS in this process."""

import asyncio
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
from pulumi.runtime import mocks, rpc, set_all_config
from pulumi.runtime.settings import configure

from engine.provider.mocks import ProviderMocks
from lab.api.moto_patches import (
    add_interface_prefixes,
    drop_ports_of_portless_protocols,
    ignore_bucket_policies,
    patched,
)
from lab.api.moto_state import publish_images
from settings.stack_file import read_stack_file
from tests.support.aws import aws_environment, reset_moto, serve_moto
from tests.support.loops import event_loop

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"

#: Seconds; a resource whose creation failed can leave others waiting for ever.
TIMEOUT = 300


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


def run_program() -> None:
    """Run Drawbridge's program."""
    runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")


def deploy_into_moto(
    config: Mapping[str, object], stack: str, program: Callable[[], object] = run_program
) -> Deployment:
    """Run a program for a configuration as a stack file has it; inside `mock_aws`."""
    raw = {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}
    set_all_config(raw)
    own = ProviderMocks(str(config["aws:region"]), project="drawbridge", config=raw)
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
    with event_loop() as loop:
        run = pulumi.runtime.run_in_stack(cast(Callable[[], None], program))
        loop.run_until_complete(asyncio.wait_for(run, TIMEOUT))
    return Deployment(monitor.stack, own.created)


@contextmanager
def empty_aws() -> Iterator[None]:
    """An AWS in this process with Debian's public images and nothing else."""
    with (
        pytest.MonkeyPatch.context() as environment,
        mock_aws(),
        patched(ignore_bucket_policies, drop_ports_of_portless_protocols),
    ):
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        publish_images(REGION)
        yield


@contextmanager
def empty_aws_with_ipv6() -> Iterator[None]:
    """The same, whose interfaces can hold delegated prefixes."""
    with empty_aws(), patched(add_interface_prefixes):
        yield


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an AWS on loopback with Debian's public images and nothing else; the environment names it."""
    with serve_moto() as url:
        for name, value in aws_environment(url).items():
            monkeypatch.setenv(name, value)
        # moto keeps everything for as long as its process lives, so another test's stack may be there.
        reset_moto(url)
        boto3.client("ec2", region_name=REGION).describe_vpcs()
        publish_images(REGION)
        with patched(ignore_bucket_policies):
            yield url
        reset_moto(url)


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


@pytest.fixture
def existing(deploy: Deploy) -> dict[str, Any]:
    """Somebody else's VPC with two ranges and a public subnet, as settings name it."""
    ec2 = Deployment({}, []).ec2
    vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"]
    ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock="172.21.0.0/16")
    zone = {"AvailabilityZone": f"{REGION}a"}
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="172.20.5.0/24", **zone)["Subnet"]["SubnetId"]
    internet = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=internet, VpcId=vpc)
    main = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}]
    (table,) = ec2.describe_route_tables(Filters=main)["RouteTables"]
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=internet)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    return {"vpcId": vpc, "subnetId": subnet, "routeTableIds": [table]}
