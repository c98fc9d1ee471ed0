"""Components declared against a monitor that keeps every registration whole."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pulumi
import pytest
from moto import mock_aws
from pulumi.runtime import mocks, rpc, set_mocks
from pulumi.runtime.settings import SETTINGS
from pulumi.runtime.stack import wait_for_rpcs

from tests.support.loops import event_loop

#: Answers of the look-ups that components make; any other is an error, as a default of {} would hide it.
LOOKUPS: dict[str, dict[str, Any]] = {
    "aws:index/getCallerIdentity:getCallerIdentity": {
        "accountId": "123456789012",
        "arn": "arn:aws:sts::123456789012:x",
    },
}


#: Outputs that are no inputs.
COMPUTED: dict[str, dict[str, Any]] = {
    "pulumi-python:dynamic:Certificates": {
        "sshHostKey": "ssh-ed25519 AAAA",
        "clients": {"alice": {"serial": "17", "notAfter": "2030-01-01", "fingerprint": "f"}},
        "revoked": {"16": {"client": "bob", "notAfter": "2030-01-01"}},
    },
    "pulumi-python:dynamic:PinnedImage": {"image": "ami-1"},
    "pulumi-python:dynamic:DelegatedPrefix": {"prefix": "2001:db8:1:2:3::/80"},
    "aws:ec2/vpc:Vpc": {"ipv6CidrBlock": "2001:db8:7::/56"},
}


class Echo(mocks.Mocks):
    """Every resource gets its name as id and its inputs as outputs."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        made = {"arn": f"arn:aws:x:::{args.name}", **COMPUTED.get(args.typ, {})}
        return f"{args.name}-id", {**args.inputs, **made}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        return LOOKUPS[args.token], []


class RecordingMonitor(mocks.MockMonitor):
    """Plain mocks see neither parents nor options nor a component's outputs."""

    def __init__(self) -> None:
        super().__init__(Echo())
        self.requests: list[Any] = []
        self.outputs: dict[str, Any] = {}

    def RegisterResource(self, request: Any) -> Any:
        self.requests.append(request)
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]

    def RegisterResourceOutputs(self, request: Any) -> Any:
        self.outputs[request.urn] = rpc.deserialize_properties(request.outputs)
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


@dataclass
class Recorded:
    """What a component registered."""

    monitor: RecordingMonitor

    @property
    def children(self) -> dict[tuple[str, str], Any]:
        """Requests of all but the component and the stack, by the last word of the type and the name."""
        found = [r for r in self.monitor.requests if r.custom]
        keys = [(r.type.rpartition(":")[2], r.name) for r in found]
        assert len(keys) == len(set(keys))
        return dict(zip(keys, found, strict=True))

    @property
    def component(self) -> Any:
        (found,) = (r for r in self.monitor.requests if r.type.startswith("drawbridge:index:"))
        return found

    @property
    def outputs(self) -> dict[str, Any]:
        """The component's registered outputs."""
        (found,) = (v for urn, v in self.monitor.outputs.items() if "drawbridge:index:" in urn)
        return dict(found)

    def inputs(self, kind: str, name: str) -> dict[str, Any]:
        """What a child was asked for, secrets in clear."""
        return {
            k: rpc.unwrap_rpc_secret(v) for k, v in rpc.deserialize_properties(self.children[kind, name].object).items()
        }


Declare = Callable[[Callable[[], pulumi.ComponentResource]], Recorded]


@pytest.fixture
def declare() -> Declare:
    """Declares one component and waits until everything of it is registered; all its children must be its own."""

    def run(make: Callable[[], pulumi.ComponentResource]) -> Recorded:
        monitor = RecordingMonitor()

        async def body() -> None:
            make()
            await wait_for_rpcs()

        # What a failed test has left would be waited for here.
        SETTINGS.outputs.clear()
        with event_loop() as loop:
            set_mocks(monitor.mocks, project="drawbridge", stack="dev", monitor=monitor)
            loop.run_until_complete(asyncio.wait_for(body(), 60))
        recorded = Recorded(monitor)
        own = f"{recorded.component.type}::{recorded.component.name}"
        assert {key for key, request in recorded.children.items() if not request.parent.endswith(own)} == set()
        return recorded

    return run


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty AWS in this process."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield


@pytest.fixture
def ssm(aws: None) -> Any:
    """A client of SSM in an empty AWS."""
    return boto3.client("ssm", region_name="eu-west-1")
