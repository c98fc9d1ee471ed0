"""Measure stacks with many clients: seconds of the processor, calls to AWS and memory, and how they grow.

AWS is a region of the lab, which is a process of its own: the seconds and the memory are the program's and the agent's
alone. The region has none of SSM's limits; the calls say how long SSM takes. systemd, nft and OpenVPN are stand-ins.
"""

import json
import math
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
from botocore.client import BaseClient

from components.authority_provider import Issuer
from contract import Names
from lab.region import disposable_region
from openvpn.model import Tunnel, TunnelClient
from openvpn.profile import render_profile
from tests.support import gateway
from userdata import cloud_config
from userdata.files import agent
from userdata.release import Release

#: Clients, from the fewest to the most.
CLIENTS = (10, 250, 2000)

#: What is measured of each number of clients, as the change of that number.
CHANGES = {"first up": 0, "nothing changed": 0, "one more": 1, "one less": 0}

#: Values of `secrets.bundles`.
PLACES = ("ssm", "s3")

REGION = "eu-west-1"
POOL = IPv4Network("10.96.0.0/19")

Outputs = dict[str, Any]
Seconds = dict[str, dict[int, float]]


def measure_growth(sizes: tuple[int, ...] = CLIENTS) -> Iterator[str]:
    """Yield a line for each figure."""
    seconds: Seconds = {}
    for clients in sizes:
        with _empty_aws():
            for place in PLACES:
                yield from _measure_place(place, clients, seconds)
            yield from _measure_gateway(clients, seconds)
    yield f"{os.getloadavg()[0]:8.1f}    load of the machine"
    if len(sizes) > 1:
        for step, by_size in seconds.items():
            yield f"{_slope(by_size):8.2f}    log-log slope of the seconds, {step} (goal: 1.1 at most)"


def _measure_place(place: str, clients: int, seconds: Seconds) -> Iterator[str]:
    """Yield the figures of certificates and bundles in one place: a deployment, and changes of it."""
    # The first call of a service loads its model, however many clients there are.
    _converge({}, {**_order_certificates(f"first-{place}", place), "profiles": _list_profiles(1)})
    order, outs = _order_certificates(f"bench-{place}", place), Outputs()
    for change, more in CHANGES.items():
        props, calls = {**order, "profiles": _list_profiles(clients + more)}, Counter[str]()
        with _timed(seconds, f"{place}, {change}", clients), _counted(calls):
            outs = _converge(outs, props)
        spent = seconds[f"{place}, {change}"][clients]
        listed = ", ".join(f"{count} {name}" for name, count in sorted(calls.items())) or "no call"
        yield f"{spent:8.2f} s of CPU  bundles in {place}, {clients} clients, {change}: {listed}"
    yield f"{_memory():8} MiB  at most so far, bundles in {place}, {clients} clients"


def _measure_gateway(clients: int, seconds: Seconds) -> Iterator[str]:
    """Yield the figures of rendering all files, and of the agent that applies a release and one with a client more."""
    tunnel, larger = _create_tunnel(clients), _create_tunnel(clients + 1)
    names = Names("bench-gateway")
    with _timed(seconds, "profiles and release", clients):
        for client in tunnel.clients:
            render_profile(tunnel, "192.0.2.1", names.server, client.name)
        release = gateway.build_release(tunnel)
    yield f"{seconds['profiles and release'][clients]:8.2f} s of CPU  {clients} clients: profiles and release"
    releases = dict(zip(CHANGES, (release, None, gateway.build_release(larger), release), strict=True))
    with _create_gateway(names) as (run_agent, publish):
        for change, published in releases.items():
            if published:
                publish(published)
            with _timed(seconds, f"gateway, {change}", clients):
                state = run_agent()
            spent = seconds[f"gateway, {change}"][clients]
            yield f"{spent:8.2f} s of CPU  gateway, {clients} clients, {change}: {state}"
    yield f"{_memory():8} MiB  at most so far, gateway, {clients} clients"


def _create_tunnel(clients: int) -> Tunnel:
    """Return a tunnel whose every second client has an address of its own."""
    members = (
        TunnelClient(name=f"client{number:04}", address=POOL[2 + number] if number % 2 else None)
        for number in range(clients)
    )
    return Tunnel(pool=POOL, clients=tuple(members))


@contextmanager
def _create_gateway(names: Names) -> Iterator[tuple[Callable[[], str], Callable[[Release], None]]]:
    """Yield a function that runs a new gateway's agent once and returns its state, and one that publishes a release."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "etc/ssh").mkdir(parents=True)
        instance = root / "var/lib/cloud/data/instance-id"
        instance.parent.mkdir(parents=True)
        instance.write_text("i-1\n")
        services = gateway.ServicesStub(root)
        machine = agent.GatewayMachine(root, services, gateway.USER)
        ssm, s3 = boto3.client("ssm"), boto3.client("s3")
        bucket = _create_bucket(names)
        for name, value in gateway.gateway_secrets().items():
            ssm.put_parameter(Name=names.secret(name), Type="SecureString", Value=value)
        cloud = agent.Cloud(agent.read_env(cloud_config.env(names=names, region=REGION)))

        def run_agent() -> str:
            return agent.converge(machine, cloud, "agent").state

        def publish(release: Release) -> None:
            key = names.release_key(release.sha256)
            s3.put_object(Bucket=bucket, Key=key, Body=release.archive)
            pointer = json.dumps({"bucket": bucket, "key": key, "sha256": release.sha256})
            ssm.put_parameter(Name=names.release, Type="String", Value=pointer, Overwrite=True)

        with (
            patch.object(agent, "wait_until", gateway.check_once),
            patch.object(agent, "send_management_commands", services.answer),
        ):
            yield run_agent, publish


@contextmanager
def _empty_aws() -> Iterator[None]:
    """Point boto3 at a new region of the lab."""
    with disposable_region(boots=False) as region:
        variables = {**region.environment, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
        # boto3 keeps the credentials of the region before in its default session.
        with patch.dict(os.environ, variables), patch.object(boto3, "DEFAULT_SESSION", None):
            yield


@contextmanager
def _timed(seconds: Seconds, step: str, clients: int) -> Iterator[None]:
    """Put the time of the processor into `seconds`: a machine under load takes longer, but not more of that."""
    start = time.process_time()
    yield
    seconds.setdefault(step, {})[clients] = time.process_time() - start


@contextmanager
def _counted(calls: Counter[str]) -> Iterator[None]:
    """Count the calls to AWS by their names."""
    original = BaseClient._make_api_call  # type: ignore[attr-defined]

    def count(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        calls[operation] += 1
        return original(client, operation, arguments)

    with patch.object(BaseClient, "_make_api_call", count):
        yield


def _converge(outs: Outputs, props: Outputs) -> Outputs:
    """Create the authority, or update it if an input has changed."""
    issuer = Issuer()
    if not outs:
        return issuer.create(props).outs or {}
    if not issuer.diff("", outs, props).changes:
        return outs
    return issuer.update("", outs, props).outs or {}


def _order_certificates(stack: str, place: str) -> Outputs:
    """Return the inputs of a stack's certificates but for the profiles, and create what they need."""
    names = Names(stack)
    order = {
        "stack": names.stack,
        "region": REGION,
        "account": _find_account(),
        "serverName": names.server,
        "lifetimes": {"ca": 3650.0, "server": 825.0, "client": 365.0},
        "owner": "bench",
    }
    if place == "s3":
        key = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]
        order |= {"bucket": _create_bucket(names), "key": key}
    return order


def _list_profiles(clients: int) -> dict[str, str]:
    return {f"client{number:04}": "client\nremote 192.0.2.1\n" for number in range(clients)}


def _create_bucket(names: Names) -> str:
    """Create the bucket of a stack's bundles and return its name."""
    bucket = names.bundles_bucket(_find_account(), REGION)
    constraint: Any = {"LocationConstraint": REGION}
    boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration=constraint)
    return bucket


def _find_account() -> str:
    return str(boto3.client("sts").get_caller_identity()["Account"])


def _memory() -> int:
    """Return the most memory that this process had so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _slope(by_size: Mapping[int, float]) -> float:
    """Return the exponent between the two largest sizes; a fixed part hides it in smaller ones."""
    (less, short), (more, long) = sorted(by_size.items())[-2:]
    return math.log(max(long, 0.001) / max(short, 0.001)) / math.log(more / less)
