"""How a deployed stack gets its key, changes it and leaves it behind. Who may use the key is in test_secret_readers.py.

Does not prove that AWS deletes the key after its waiting period.
"""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto.ssm.exceptions import ValidationException
from moto.ssm.models import SimpleSystemManagerBackend

import contract
from drawbridge.operate.account import Account
from drawbridge.operate.leftovers import Leftover, find_leftovers, find_pending_keys
from engine.engine import Engine, Result
from lab.api.moto_patches import ignore_bucket_policies, patched
from lab.api.moto_state import publish_images
from tests.program.conftest import ROOT
from tests.support.aws import REGION, Lab, endpoint, lab

__all__ = ["endpoint", "lab"]

NAMES = contract.Names("dev")
SECRETS = {NAMES.keys, *(NAMES.secret(name) for name in contract.GATEWAY_SECRETS), NAMES.bundle("alice")}


@pytest.fixture
def region(lab: Lab) -> Iterator[Lab]:
    """An empty AWS with Debian's images."""
    publish_images(REGION)
    with patched(ignore_bucket_policies):
        yield lab


def create_engine(region: Lab, **secrets: str) -> Engine:
    config = {"aws:region": REGION, "drawbridge:clients": [{"name": "alice"}], "drawbridge:secrets": secrets}
    return Engine(ROOT, project="drawbridge", stack="dev", config=config, state=region.state)


def list_changes(result: Result) -> set[tuple[str, str]]:
    return {(str(step.operation), step.name) for step in result.steps if step.operation != "same"}


def read_secrets(region: Lab) -> dict[str, str]:
    pages = region.client("ssm").get_paginator("get_parameters_by_path")
    read = pages.paginate(Path=NAMES.root, Recursive=True, WithDecryption=True)
    return {p["Name"]: p["Value"] for page in read for p in page["Parameters"] if p["Type"] == "SecureString"}


def read_keys(region: Lab) -> list[str]:
    """Return the key of each secret."""
    filters = [{"Key": "Path", "Option": "Recursive", "Values": [NAMES.root]}]
    pages = region.client("ssm").get_paginator("describe_parameters").paginate(ParameterFilters=filters)
    return [p["KeyId"] for page in pages for p in page["Parameters"] if p["Type"] == "SecureString"]


def test_a_stack_gets_its_key_loses_nothing_and_leaves_nothing(region: Lab) -> None:
    kms = region.client("kms")
    first = create_engine(region, key="aws/ssm").up()
    secrets = read_secrets(region)
    assert secrets.keys() == SECRETS
    assert set(read_keys(region)) == {"alias/aws/ssm"}

    upgraded = create_engine(region).up()
    assert list_changes(upgraded) == {
        ("create", "secrets-key"),
        ("create", "secrets-alias"),
        ("update", "authority-certificates"),
        ("update", "access-policy"),
    }
    key = kms.describe_key(KeyId="alias/drawbridge-dev")["KeyMetadata"]
    assert read_keys(region) == [key["Arn"]] * len(SECRETS)
    assert read_secrets(region) == secrets
    assert upgraded.outputs == first.outputs
    assert list_changes(create_engine(region).up()) == set()
    account = Account(stack="dev", session=boto3.Session(region_name=REGION), endpoint=region.endpoint)
    assert {Leftover("key", key["KeyId"]), Leftover("key alias", "alias/drawbridge-dev")} <= set(
        find_leftovers(account)
    )

    create_engine(region, key="aws/ssm").up()
    assert set(read_keys(region)) == {"alias/aws/ssm"}
    assert read_secrets(region) == secrets
    assert kms.describe_key(KeyId=key["Arn"])["KeyMetadata"]["KeyState"] == "PendingDeletion"

    create_engine(region).up()
    second = kms.describe_key(KeyId="alias/drawbridge-dev")["KeyMetadata"]["KeyId"]
    assert second != key["KeyId"]
    create_engine(region).destroy()
    assert find_leftovers(account) == []
    pending = find_pending_keys(account)
    assert {key.id for key in pending} == {key["KeyId"], second}
    assert all(timedelta(days=6) < key.deletion - datetime.now(UTC) <= timedelta(days=7) for key in pending)


def test_an_interrupted_change_of_the_key_is_finished_by_the_next_run(
    region: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_engine(region, key="aws/ssm").up()
    secrets = read_secrets(region)
    put, calls = SimpleSystemManagerBackend.put_parameter, itertools.count()

    def put_three(*arguments: Any, **keywords: Any) -> Any:
        if next(calls) == 3:
            raise ValidationException("cut off")
        return put(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(SimpleSystemManagerBackend, "put_parameter", put_three)
        with pytest.raises(Exception, match="cannot write"):
            create_engine(region).up()
    assert len(set(read_keys(region))) == 2
    assert read_secrets(region) == secrets
    create_engine(region).up()
    assert len(set(read_keys(region))) == 1
    assert read_secrets(region) == secrets
