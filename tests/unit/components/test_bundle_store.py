"""Bundles in S3: where they are, that they move between SSM and S3 and none is lost. No engine calls the provider."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import boto3
import pulumi
import pytest
from botocore.client import BaseClient
from moto import mock_aws

import contract
from components import bundle_store
from components.authority_provider import Issuer
from components.register import IssuerError
from openvpn.bundle import certificate_of
from pki.authority import Certificate
from tests.support.issuing import create_certificates, order_certificates, update_certificates

NAMES = contract.Names("dev")
REGION = "eu-west-1"
BUCKET = NAMES.bundles_bucket("123456789012", REGION)
KEY = f"arn:aws:kms:{REGION}:123456789012:key/1"
CLIENTS = ("alice", "bob", "carol")
PROPS = {**order_certificates(dict.fromkeys(CLIENTS, "client\nremote 192.0.2.1\n")), "key": KEY}
IN_S3 = {"bucket": BUCKET}
MOMENT = "2026-01-01T00:00:00Z"


class World:
    """The places that bundles can be in."""

    def __init__(self, session: boto3.Session) -> None:
        self.ssm, self.s3 = session.client("ssm"), session.client("s3")
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    @property
    def parameters(self) -> dict[str, str]:
        pages = self.ssm.get_paginator("get_parameters_by_path").paginate(
            Path=NAMES.clients, Recursive=True, WithDecryption=True
        )
        rows = [row for page in pages for row in page["Parameters"]]
        return {row["Name"].split("/")[-2]: row["Value"] for row in rows}

    @property
    def objects(self) -> dict[str, str]:
        rows = self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())
        keys = [row["Key"] for row in rows]
        assert all(key.startswith(f"{NAMES.bundle_keys}/") for key in keys)
        return {key.split("/")[1].removesuffix(".ovpn"): self.read(key) for key in keys}

    @property
    def everywhere(self) -> dict[str, str]:
        return self.parameters | self.objects

    @property
    def tags(self) -> dict[str, dict[str, str]]:
        keys = {client: NAMES.bundle_key(client) for client in self.objects}
        sets = {c: self.s3.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"] for c, key in keys.items()}
        return {client: {tag["Key"]: tag["Value"] for tag in tags} for client, tags in sets.items()}

    def delete_objects(self) -> None:
        for client in self.objects:
            self.s3.delete_object(Bucket=BUCKET, Key=NAMES.bundle_key(client))

    def read(self, key: str) -> str:
        return str(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    # Calls of one thread, so that a test can end the run at any of them.
    monkeypatch.setattr(bundle_store, "WORKERS", 1)
    with mock_aws():
        session = boto3.Session(region_name=REGION)
        # One session keeps the service models that each of its own would load again.
        monkeypatch.setattr(boto3, "Session", lambda **_: session)
        yield World(session)


def create(**changes: Any) -> dict[str, Any]:
    return create_certificates(PROPS | changes)


def update(olds: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return update_certificates(NAMES.root, olds, PROPS | changes)


def serials(bundles: dict[str, str]) -> dict[str, str]:
    return {client: str(Certificate.read(certificate_of(bundle)).serial) for client, bundle in bundles.items()}


def test_bundles_are_objects_under_the_stacks_key_and_no_parameters(world: World) -> None:
    outs = create(**IN_S3)
    assert world.parameters == {}
    assert serials(world.objects) == {client: entry["serial"] for client, entry in outs["clients"].items()}
    for client in CLIENTS:
        stored = world.s3.head_object(Bucket=BUCKET, Key=NAMES.bundle_key(client))
        assert (stored["ServerSideEncryption"], stored["SSEKMSKeyId"]) == ("aws:kms", KEY)
    assert outs["bucket"] == BUCKET
    assert "PRIVATE" not in str(outs)


def test_every_object_has_the_default_tags_also_after_they_change(world: World) -> None:
    own = contract.tags("dev")
    # S3 takes 10 tags of an object; the settings allow 8 that are not the stack's.
    most = {f"Tag {number}": "a b+c=d/@" for number in range(7)}
    outs = create(**IN_S3, tags={"Stack": "other", **most})
    assert world.tags == {client: {**most, **own} for client in CLIENTS}
    outs = update(outs, **IN_S3, tags={"Team": "home"}, profiles={**PROPS["profiles"], "dave": "client\n"})
    assert world.tags == {client: {"Team": "home", **own} for client in (*CLIENTS, "dave")}
    update(outs, **IN_S3)
    assert world.tags == dict.fromkeys(CLIENTS, own)


def test_a_bundle_in_s3_may_be_longer_than_a_parameter(world: World) -> None:
    create(**IN_S3, profiles={"alice": "#" * 10_000 + "\n"})
    assert len(world.objects["alice"]) > 10_000


def test_a_run_without_changes_writes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    outs = create(**IN_S3)
    writes = record_writes(monkeypatch)
    assert update(outs, **IN_S3) == outs
    assert writes == []


def test_another_kms_key_encrypts_the_same_bundles_again(world: World) -> None:
    outs = create(**IN_S3)
    before, other = world.objects, KEY[:-1] + "2"
    update(outs, **IN_S3, key=other)
    assert world.objects == before
    stored = [world.s3.head_object(Bucket=BUCKET, Key=NAMES.bundle_key(client)) for client in CLIENTS]
    assert {entry["SSEKMSKeyId"] for entry in stored} == {other}


def test_a_rotated_or_removed_bundle_has_no_older_version(world: World) -> None:
    outs = create(**IN_S3)
    before = world.objects
    rotated = {"rotations": {"clients": {"alice": MOMENT}}}
    profiles = {client: PROPS["profiles"][client] for client in ("alice", "bob")}
    outs = update(outs, **IN_S3, **rotated, profiles=profiles)
    assert world.objects.keys() == {"alice", "bob"}
    assert world.objects["alice"] != before["alice"]
    assert world.objects["bob"] == before["bob"]
    assert {entry["client"] for entry in outs["revoked"].values()} == {"alice", "carol"}
    versions = world.s3.list_object_versions(Bucket=BUCKET)
    assert [row["Key"] for row in versions["Versions"]] == [NAMES.bundle_key(name) for name in ("alice", "bob")]
    assert "DeleteMarkers" not in versions
    assert "Status" not in world.s3.get_bucket_versioning(Bucket=BUCKET)


@pytest.mark.parametrize(("first", "then"), [({}, IN_S3), (IN_S3, {})], ids=["to S3", "to SSM"])
def test_bundles_move_with_the_setting(world: World, first: dict[str, str], then: dict[str, str]) -> None:
    outs = create(**first)
    before = world.everywhere
    outs = update(outs, **then)
    assert (world.objects if then else world.parameters) == before
    assert (world.parameters if then else world.objects) == {}
    assert outs["revoked"] == {}
    assert outs.get("bucket") == then.get("bucket")


@pytest.mark.parametrize(("first", "then"), [({}, IN_S3), (IN_S3, {})], ids=["to S3", "to SSM"])
def test_a_move_that_is_cut_off_anywhere_loses_no_bundle(
    world: World, monkeypatch: pytest.MonkeyPatch, first: dict[str, str], then: dict[str, str]
) -> None:
    """Whichever run comes next, that of the new place or of the former one: no certificate is issued or revoked."""
    outs = create(**first)
    before = world.everywhere
    for write in range(20):
        moved = outs
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            record_writes(patch, most=write)
            moved = update(outs, **then)
        assert world.everywhere == before
        # The state has what the last complete run returned.
        is_complete = moved is not outs
        if write % 2:
            moved = update(moved, **then)
            assert (world.parameters if then else world.objects) == {}
        outs = update(moved, **first)
        assert (world.objects if first else world.parameters) == before
        assert outs["revoked"] == {}
        if not first:
            # A bucket that the program has no more goes with its objects.
            world.delete_objects()
        if is_complete:
            break
    # Three bundles, and one call or more that deletes.
    assert write >= 4


def test_a_move_that_is_given_up_leaves_the_bundles_where_they_were(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = create()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        record_writes(patch, most=2)
        update(outs, **IN_S3)
    assert len(world.objects) == 2
    # The bucket goes with what is in it; the same bundles are still in SSM.
    assert update(outs)["revoked"] == {}
    assert world.parameters.items() >= world.objects.items()


@pytest.mark.parametrize("rotated", [{"clients": {"alice": MOMENT}}, {"gateway": MOMENT}], ids=["client", "gateway"])
@pytest.mark.parametrize(("first", "then"), [({}, IN_S3), (IN_S3, {})], ids=["to S3", "to SSM"])
def test_a_move_after_one_that_was_given_up_keeps_the_keys_that_were_rotated_meanwhile(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    first: dict[str, str],
    then: dict[str, str],
    rotated: dict[str, Any],
) -> None:
    """The new place still has bundles of the first attempt, which no longer connect."""
    outs = create(**first)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        record_writes(patch, most=2)
        update(outs, **then)
    rotation = {"rotations": rotated}
    with monkeypatch.context() as patch:
        # As if the run ended just before: what the first attempt has written stays.
        patch.setattr(bundle_store.Bundles, "leave_former_places", lambda _: None)
        outs = update(outs, **first, **rotation)
    before, revoked = (world.objects if first else world.parameters), outs["revoked"]
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    outs = update(outs, **then, **rotation)
    assert (world.objects if then else world.parameters) == before
    assert (outs["revoked"], warnings) == (revoked, [])


def test_a_bundle_that_somebody_deleted_is_issued_anew_and_the_former_one_revoked(world: World) -> None:
    outs = create(**IN_S3)
    world.s3.delete_object(Bucket=BUCKET, Key=NAMES.bundle_key("bob"))
    seen = Issuer().read(NAMES.root, outs).outs
    assert seen is not None and seen["clients"].keys() == {"alice", "carol"}
    again = update(outs, **IN_S3)
    assert world.objects.keys() == {*CLIENTS}
    assert list(again["revoked"]) == [outs["clients"]["bob"]["serial"]]


def test_delete_empties_the_bucket_and_reads_no_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    outs = create(**IN_S3)
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def refuse_reading(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        assert operation != "GetObject"
        return call(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse_reading)
    Issuer().delete(NAMES.root, outs)
    monkeypatch.undo()
    assert world.everywhere == {}


def test_a_bucket_that_is_gone_does_not_keep_the_stack_from_going(world: World) -> None:
    outs = create(**IN_S3)
    Issuer().delete(NAMES.root, outs)
    world.s3.delete_bucket(Bucket=BUCKET)
    Issuer().delete(NAMES.root, outs)
    with pytest.raises(IssuerError, match=rf"^cannot write s3://{BUCKET}/clients: NoSuchBucket"):
        create(**IN_S3)


def test_errors_of_s3_repeat_no_value(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def refuse(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "PutObject":
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "SECRET"}}, operation)
        return call(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse)
    monkeypatch.setattr(bundle_store, "KEY_POLICY_ATTEMPTS", 0)
    with pytest.raises(IssuerError, match=rf"^cannot write s3://{BUCKET}/clients: AccessDenied; the credentials need"):
        create(**IN_S3)


def record_writes(monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> list[str]:
    """Return the list of writing calls from now on; the run is cut off instead of one more than `most`."""
    writes: list[str] = []
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def record(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        if operation.startswith(("Put", "Delete")):
            if len(writes) == most:
                raise KeyboardInterrupt
            writes.append(operation)
        return call(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", record)
    return writes
