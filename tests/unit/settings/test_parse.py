"""Parsing a whole configuration: defaults, types, all problems at once. Does not prove that AWS agrees."""

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
import yaml

from settings.parse import parse
from settings.problems import SettingsError
from tests.support.refusals import find_problems


def test_defaults() -> None:
    settings = parse({"aws:region": "eu-west-1"}, stack="dev", endpoint=None)
    network, gateway, tunnel = settings.network, settings.gateway, settings.tunnel
    assert network.cidr == IPv4Network("10.1.0.0/16")
    assert (network.zones, network.vpc_id, network.subnet_id) == (1, None, None)
    assert (gateway.instance_type, gateway.image, gateway.disk_size) == ("t4g.nano", "debian-13", 8)
    assert (gateway.admin_from, gateway.allow_from) == ((), (IPv4Network("0.0.0.0/0"),))
    assert (tunnel.device, tunnel.pool, tunnel.port) == ("tun", IPv4Network("10.8.0.0/24"), 1194)
    assert (tunnel.nat, tunnel.client_to_client, tunnel.redirect) == (True, False, "none")
    assert (settings.clients, tunnel.routes) == ((), ())
    assert settings.lifetimes.model_dump() == {"ca": 3650, "server": 825, "client": 365, "renewal": 30}
    assert settings.rotations.model_dump(exclude_defaults=True) == {}
    assert settings.log.days == 90


def test_values_are_typed_and_json_is_read_as_pulumi_hands_it_over() -> None:
    clients = [{"name": "home", "address": "10.8.0.10", "lan": ["192.168.1.0/24"], "reachable": ["192.168.1.128/25"]}]
    plain = {"aws:region": "eu-west-1", "drawbridge:clients": clients, "drawbridge:tunnel": {"clientToClient": True}}
    as_json = {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}
    settings = parse(as_json, stack="dev", endpoint=None)
    assert settings == parse(plain, stack="dev", endpoint=None)
    (client,) = settings.clients
    assert (client.address, client.lan) == (IPv4Address("10.8.0.10"), (IPv4Network("192.168.1.0/24"),))
    assert settings.tunnel.client_to_client is True


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-28T08:10:00Z", "2026-11-28T08:10:00Z"),
        ("2026-11-28T10:10:00+02:00", "2026-11-28T08:10:00Z"),
        ("2026-11-28T08:10:00.9Z", "2026-11-28T08:10:00Z"),
        ("2026-11-28", "2026-11-28T00:00:00Z"),
        (yaml.safe_load("2026-11-28T10:10:00+02:00"), "2026-11-28T08:10:00Z"),
        (yaml.safe_load("2026-11-28 08:10:00"), "2026-11-28T08:10:00Z"),
    ],
)
def test_moments_are_in_utc_and_to_the_second(moment: object, expected: str) -> None:
    """So their order is that of their texts."""
    section = {"gateway": moment, "clients": {"alice": moment}}
    raw = {"aws:region": "eu-west-1", "drawbridge:clients": [{"name": "alice"}], "drawbridge:rotations": section}
    rotations = parse(raw, stack="dev", endpoint=None).rotations
    assert (rotations.stack, rotations.gateway, rotations.clients) == ("", expected, {"alice": expected})


@pytest.mark.parametrize(("retention", "days"), [(0, None), ("none", None), (1, 1), (3653, 3653)])
def test_a_log_is_kept_as_long_as_logs_can_or_there_is_none(retention: object, days: int | None) -> None:
    raw = {"aws:region": "eu-west-1", "drawbridge:log": json.dumps({"retention": retention})}
    assert parse(raw, stack="dev", endpoint=None).log.days == days


@pytest.mark.parametrize("retention", [31, "never", -1, True, 90.5])
def test_another_retention_is_refused_with_those_that_aws_has(retention: object) -> None:
    (problem,) = find_problems(log={"retention": retention})
    assert problem.startswith("drawbridge:log.retention: ")
    assert "is not a valid value; use none, 1, 3, 5, 7, 14, 30" in problem


def test_keys_of_the_provider_and_of_pulumi_are_left_alone() -> None:
    assert parse({"aws:region": "eu-west-1", "aws:x": {"a": 1}, "pulumi:x": "y"}, stack="dev", endpoint=None)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"tunel": {}}, ": tunel is not a known key; did you mean tunnel?"),
        (
            {"zzz": 1},
            ": zzz is not a known key; "
            "known keys are alerts, clients, gateway, iam, lifetimes, log, network, pair, rotations, secrets, tunnel",
        ),
        (
            {"drawbridge": {"tunnel": {}}},
            ": drawbridge is not a known key; write each of its keys by itself, such as `drawbridge:tunnel: {…}`",
        ),
        ({"clients": "alice"}, ":clients: alice must be a list; write it in brackets, such as [{name: alice}]"),
    ],
)
def test_refused_sections(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge{expected}"]


def test_all_problems_at_once() -> None:
    lines = find_problems(
        stack="Lab!",
        network={"cidr": "10.1.0.0/24"},
        gateway={"diskSize": 1, "image": "x"},
        tunnel={"pool": "10.1.0.0/24"},
        clients=[{"name": "A"}, {"name": "b", "lan": ["10.1.0.0/25"]}, {"name": "b"}],
        lifetimes={"ca": 0},
        typo=1,
    )
    assert [line.partition(": ")[0] for line in lines] == [
        "stack",
        "drawbridge",
        "drawbridge:gateway.image",
        "drawbridge:gateway.diskSize",
        "drawbridge:lifetimes.ca",
        "drawbridge:clients[0].name",
        "drawbridge:network.cidr",
        "drawbridge:clients[2].name",
        "drawbridge:tunnel.pool",
        "drawbridge:clients[1].lan[0]",
        "drawbridge:clients[1].lan[0]",
    ]


@pytest.mark.parametrize("region", ["eu-west-1", "us-gov-east-1", "eusc-de-east-1"])
def test_regions_of_every_partition(region: str) -> None:
    assert parse({"aws:region": region}, stack="dev", endpoint=None).region == region


@pytest.mark.parametrize("region", [None, "", "mars", "eu-west", 5])
def test_region(region: object) -> None:
    with pytest.raises(SettingsError) as refusal:
        parse({"aws:region": region} if region is not None else {}, stack="dev", endpoint=None)
    shown = "(missing)" if region is None else region
    remedy = "run `pulumi config set aws:region eu-west-1`"
    assert str(refusal.value) == f"aws:region: {shown} is not a valid AWS region; {remedy}"


@pytest.mark.parametrize("stack", ["Dev", "9lives", "a_b", "-x", "x-", "x" * 21, ""])
def test_stack_names_that_no_bucket_can_have(stack: str) -> None:
    assert find_problems(stack=stack) == [
        f"stack: {stack} is not a valid stack name, which becomes part of a bucket's name; "
        "use 1 to 20 of a-z, 0-9 and '-', starting with a letter and not ending in '-'"
    ]


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:5000", "http://[::1]:5000", "https://localhost:1"])
def test_the_lab_stack_goes_to_loopback(endpoint: str) -> None:
    assert find_problems(stack="lab", endpoint=endpoint) == []


@pytest.mark.parametrize(
    "endpoint",
    [
        None,
        "",
        "https://ec2.amazonaws.com",
        "http://10.0.0.1:5000",
        "http://127.0.0.1.example.com",
        "http://localhost@evil.com",
    ],
)
def test_the_lab_stack_goes_nowhere_else(endpoint: str | None) -> None:
    assert find_problems(stack="lab", endpoint=endpoint) == [
        f"stack: lab would be deployed to {endpoint or 'AWS itself'}; "
        "deploy it with `drawbridge lab up`, or choose another stack for AWS"
    ]
    assert find_problems(stack="dev", endpoint=endpoint) == []
