"""What the engine's and the provider's tests share: an AWS on loopback, and programs written on the spot."""

import logging
import textwrap
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from engine.engine import Engine, Event

REGION = "eu-west-1"


@contextmanager
def serve_moto() -> Iterator[str]:
    """Run moto's server on a free port of loopback; yields its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def aws_environment(endpoint: str) -> dict[str, str]:
    """The environment in which boto3 reaches that AWS."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }


def reset_moto(endpoint: str) -> None:
    """Empty that AWS: moto keeps everything for as long as its process lives."""
    reset = urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
    with urllib.request.urlopen(reset, timeout=60):
        pass


@dataclass
class Lab:
    """A directory with a program and a state, in an AWS of its own."""

    directory: Path
    endpoint: str
    events: list[Event] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.directory / "state" / "lab.json"

    def write(self, text: str) -> None:
        """Make this the program."""
        header = "import pulumi\nimport pulumi_aws as aws\nfrom pulumi import ResourceOptions\n"
        (self.directory / "__main__.py").write_text(header + textwrap.dedent(text))

    def engine(self, config: Mapping[str, object] | None = None) -> Engine:
        """An engine for program and state."""
        return Engine(
            self.directory,
            project="demo",
            stack="lab",
            config={"aws:region": REGION, **(config or {})},
            state=self.state,
            events=self.events.append,
        )

    def client(self, service: str) -> Any:
        """A boto3 client of this AWS."""
        return boto3.session.Session(region_name=REGION).client(service, endpoint_url=self.endpoint)  # type: ignore[call-overload]

    def vpcs(self) -> dict[str, str]:
        """Id by CIDR of the VPCs that are not the default one."""
        found = self.client("ec2").describe_vpcs()["Vpcs"]
        return {vpc["CidrBlock"]: vpc["VpcId"] for vpc in found if not vpc["IsDefault"]}

    def ended(self) -> list[tuple[str, str]]:
        """Operation and name of every step, in the order they ended; clears the list."""
        steps = [(e.step.operation, e.step.name) for e in self.events if e.kind == "end" and e.step]
        self.events.clear()
        return [(str(operation), name) for operation, name in steps]


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The URL of an AWS that lives as long as the tests."""
    with serve_moto() as url:
        yield url


@pytest.fixture
def lab(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An empty AWS, an empty state."""
    for name, value in aws_environment(endpoint).items():
        monkeypatch.setenv(name, value)
    reset_moto(endpoint)
    return Lab(tmp_path, endpoint)
