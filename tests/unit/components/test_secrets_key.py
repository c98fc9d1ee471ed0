"""The policy of the secrets' key as text. tests/program/test_secret_readers.py shows whom it lets decrypt."""

import json
from dataclasses import replace
from typing import Any

import pytest

from components.secrets_key import SecretsKeyArgs, list_principals, render_key_policy
from settings.checks.secrets import KEY_POLICY_RESERVE

DEPLOYER = "arn:aws:sts::123456789012:assumed-role/admin/alice"
ADMIN = ["arn:aws:iam::123456789012:role/admin", "arn:aws:iam::123456789012:role/*/admin"]
SSO = "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/admin"
ALICE, BOB = (f"arn:aws:iam::123456789012:user/{name}" for name in ("alice", "bob"))


def statements(deployer: str = DEPLOYER, **changes: Any) -> dict[str, dict[str, Any]]:
    defaults = {
        "users": (),
        "readers": {"role": ["/drawbridge/dev/gateway/*"]},
        "kit_users": False,
        "bundles_bucket": None,
    }
    args = SecretsKeyArgs(**{"stack": "dev", "region": "eu-west-1", **defaults, **changes})
    document = json.loads(render_key_policy(args, deployer, "amazonaws.com"))
    return {statement["Sid"]: statement for statement in document["Statement"]}


@pytest.mark.parametrize(
    ("deployer", "users", "expected"),
    [
        (DEPLOYER, [], ADMIN),
        (ALICE, [BOB], [BOB, ALICE]),
        # The same policy, whoever of the users deploys.
        (ALICE, [BOB, ALICE], [ALICE, BOB]),
        (BOB, [ALICE, BOB], [ALICE, BOB]),
        (DEPLOYER, [SSO], [SSO]),
        ("arn:aws:iam::123456789012:root", [], ["arn:aws:iam::123456789012:root"]),
    ],
)
def test_principals_of_the_deployer_and_the_users(deployer: str, users: list[str], expected: list[str]) -> None:
    assert list_principals(deployer, users) == expected


def test_who_manages_the_key_cannot_use_it() -> None:
    manage = statements()["Manage"]
    assert manage["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}
    assert {"kms:PutKeyPolicy", "kms:ScheduleKeyDeletion"} <= set(manage["Action"])
    use = ("Encrypt", "Decrypt", "GenerateDataKey", "ReEncrypt", "CreateGrant", "*")
    assert not [action for action in manage["Action"] if action.endswith(use)]


def test_every_use_is_through_ssm_and_for_named_principals_and_parameters() -> None:
    rendered = statements(kit_users=True)
    assert rendered.keys() == {"Manage", "Operators", "Gateway1", "Kits"}
    for sid in ("Operators", "Gateway1", "Kits"):
        assert rendered[sid]["Condition"]["StringEquals"] == {
            "kms:CallerAccount": "123456789012",
            "kms:ViaService": "ssm.eu-west-1.amazonaws.com",
        }
    base = "arn:aws:ssm:eu-west-1:123456789012:parameter/drawbridge/dev"
    conditions = {sid: rendered[sid]["Condition"] for sid in ("Operators", "Gateway1", "Kits")}
    assert {
        sid: (condition["ArnLike"]["aws:PrincipalArn"], condition["StringLike"]["kms:EncryptionContext:PARAMETER_ARN"])
        for sid, condition in conditions.items()
    } == {
        "Operators": (ADMIN, [f"{base}/*"]),
        "Gateway1": (["arn:aws:iam::123456789012:role/role"], [f"{base}/gateway/*"]),
        "Kits": (["arn:aws:iam::123456789012:user/drawbridge-dev-*"], [f"{base}/clients/*"]),
    }
    assert rendered["Gateway1"]["Action"] == rendered["Kits"]["Action"] == ["kms:Decrypt"]


def test_all_but_the_users_is_no_longer_than_the_settings_take_it_for() -> None:
    """With the longest names of roles and parameters, and two gateways."""
    region, role = "ap-southeast-2", "r" * 64
    path = f"/drawbridge/{'s' * 40}/b/{'c' * 64}/*"
    pair = SecretsKeyArgs(
        stack="s" * 40,
        region=region,
        users=(),
        readers={f"{role[1:]}{n}": [path] * 3 for n in "ab"},
        kit_users=True,
        bundles_bucket=None,
    )
    single = replace(pair, readers={role: [path] * 3}, bundles_bucket="b" * 63)
    deployer = f"arn:aws-us-gov:sts::123456789012:assumed-role/{role}/{'x' * 64}"
    users = [f"arn:aws:iam::123456789012:user/{n}" for n in range(20)]
    for args, statements_with_users in ((pair, 1), (single, 2)):
        policy = render_key_policy(args, deployer, "amazonaws.com")
        assert len(policy) <= KEY_POLICY_RESERVE
        grown = render_key_policy(replace(args, users=users), deployer, "amazonaws.com")
        assert len(grown) - len(policy) == statements_with_users * sum(len(f'"{user}", ') for user in users)


def test_objects_in_s3_are_for_the_same_principals_each_by_its_own_arn() -> None:
    rendered = statements(kit_users=True, bundles_bucket="b")
    assert rendered.keys() == {"Manage", "Operators", "Gateway1", "OperatorsS3", "Kits", "KitsS3"}
    for sid, same_as in (("OperatorsS3", "Operators"), ("KitsS3", "Kits")):
        condition = rendered[sid]["Condition"]
        assert rendered[sid]["Principal"] == rendered[same_as]["Principal"]
        assert condition["ArnLike"] == rendered[same_as]["Condition"]["ArnLike"]
        assert condition["StringLike"] == {"kms:EncryptionContext:aws:s3:arn": ["arn:aws:s3:::b/clients/*"]}
        assert condition["StringEquals"]["kms:ViaService"] == "s3.eu-west-1.amazonaws.com"
    assert rendered["OperatorsS3"]["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert rendered["KitsS3"]["Action"] == ["kms:Decrypt"]
