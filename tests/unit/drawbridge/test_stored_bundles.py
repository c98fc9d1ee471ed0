"""The operator's commands read bundles that are in S3, on moto."""

from pathlib import Path

import pytest

from drawbridge import errors
from drawbridge.operate import bundles
from drawbridge.operate.account import Account
from drawbridge.operate.stored_bundles import read_stored_bundle
from tests.unit.drawbridge.conftest import REGION, Enrol


def move_to_s3(account: Account, name: str) -> str:
    """Move a client's bundle as the program does, and return its address."""
    s3, parameter = account.client("s3"), account.names.bundle(name)
    bucket = account.names.bundles_bucket("123456789012", REGION)
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=bucket, Key=account.names.bundle_key(name), Body=account.parameter(parameter, secret=True))
    account.client("ssm").delete_parameter(Name=parameter)
    return account.names.bundle_address(name, bucket)


def test_clients_with_bundles_in_s3_are_listed_and_fetched(account: Account, enrol: Enrol, tmp_path: Path) -> None:
    alice, _ = enrol("alice"), enrol("bob")
    address = move_to_s3(account, "alice")
    assert [(client.name, client.serial, client.parameter) for client in bundles.list_clients(account)] == [
        ("alice", alice.leaf.serial, address),
        ("bob", bundles.list_clients(account)[1].serial, account.names.bundle("bob")),
    ]
    bundles.save_bundle(account, "alice", tmp_path / "alice.ovpn")
    assert (tmp_path / "alice.ovpn").read_text() == alice.bundle == read_stored_bundle(account, account.names, "alice")
    with pytest.raises(errors.NotDeployedError, match="stack team has no client eve"):
        bundles.save_bundle(account, "eve", tmp_path / "eve.ovpn")
