"""The metadata service as a WSGI application. Does not prove its place in a VPC: tests/lab does, over the wire."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from werkzeug.test import Client

from lab.network.metadata import TOKEN_HEADER, TTL_HEADER, InstanceMetadata, MetadataService, NoCredentials, content

GUEST = InstanceMetadata(
    instance_id="i-1",
    ami_id="ami-1",
    instance_type="t4g.nano",
    architecture="arm64",
    zone="eu-west-1a",
    local_ipv4="10.1.0.4",
    public_ipv4=None,
    mac="02:00:00:00:00:09",
    hostname="ip-10-1-0-4.eu-west-1.compute.internal",
    subnet_id="subnet-1",
    vpc_id="vpc-1",
    interface_id="eni-1",
    security_groups=("sg-1",),
    account="123456789012",
    tokens_required=True,
    hop_limit=1,
    enabled=True,
    user_data=b"\x00binary",
    public_key=None,
    profile_arn=None,
    role=None,
)


def no_credentials(*_: str) -> dict[str, str]:
    raise NoCredentials("no trust")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(clock: Clock) -> Iterator[Client]:
    guests = {
        "10.1.0.4": GUEST,
        "10.1.0.5": replace(GUEST, instance_id="i-2"),
        "10.1.0.6": replace(GUEST, enabled=False),
    }
    yield Client(MetadataService(guests.get, no_credentials, clock))


def ask(client: Client, path: str, method: str = "GET", *, of: str = "10.1.0.4", **headers: str) -> tuple[int, str]:
    answer = client.open(path, method=method, headers=headers, environ_base={"REMOTE_ADDR": of})
    return answer.status_code, answer.get_data(as_text=True)


def token(client: Client, seconds: int, of: str = "10.1.0.4") -> str:
    return ask(client, "/latest/api/token", "PUT", of=of, **{TTL_HEADER: str(seconds)})[1]


def test_a_token_ends_to_the_second(client: Client, clock: Clock) -> None:
    held = token(client, 21600)
    clock.now += 21599
    assert ask(client, "/latest/meta-data/instance-id", **{TOKEN_HEADER: held}) == (200, "i-1")
    clock.now += 1
    assert ask(client, "/latest/meta-data/instance-id", **{TOKEN_HEADER: held})[0] == 401


def test_a_token_is_its_instances_own_and_strangers_get_nothing(client: Client) -> None:
    held = token(client, 60)
    assert ask(client, "/latest/meta-data/instance-id", of="10.1.0.5", **{TOKEN_HEADER: held})[0] == 401
    assert ask(client, "/latest/api/token", "PUT", of="10.1.0.9", **{TTL_HEADER: "60"})[0] == 403
    assert ask(client, "/latest/api/token", "PUT", of="10.1.0.6", **{TTL_HEADER: "60"})[0] == 403


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_it_is_for_reading(client: Client, method: str) -> None:
    assert ask(client, "/latest/meta-data/", method, **{TOKEN_HEADER: token(client, 60)})[0] == 405


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "latest"),
        ("/latest/meta-data/placement/availability-zone", "eu-west-1a"),
        ("/latest/meta-data/placement/", "availability-zone\nregion"),
        ("/2021-03-23/meta-data/instance-id", "i-1"),
        ("/latest/user-data", b"\x00binary"),
        ("/latest/meta-data/public-ipv4", None),
        ("/latest/meta-data/instance-id/more", None),
        ("/latest/meta-data/tags/instance/Name", None),
        ("/latest/nothing", None),
    ],
)
def test_what_there_is_to_read(path: str, expected: Any) -> None:
    assert content(GUEST, path, no_credentials) == expected


def test_keys_and_tags_are_listed_where_there_are_any() -> None:
    guest = replace(GUEST, public_key="ssh-ed25519 AAAA", tags={"Name": "gateway"}, public_ipv4="198.18.0.1")
    assert content(guest, "/latest/meta-data/public-keys/", no_credentials) == "0=key"
    assert content(guest, "/latest/meta-data/public-keys/0/openssh-key", no_credentials) == "ssh-ed25519 AAAA"
    assert content(guest, "/latest/meta-data/tags/instance/Name", no_credentials) == "gateway"
    assert content(guest, "/latest/meta-data/public-ipv4", no_credentials) == "198.18.0.1"


def test_a_role_without_trust_is_said_to_be_one() -> None:
    guest = replace(GUEST, role="gateway", profile_arn="arn:profile")
    said = content(guest, "/latest/meta-data/iam/security-credentials/gateway", no_credentials)
    assert isinstance(said, str) and "AssumeRoleUnauthorizedAccess" in said
