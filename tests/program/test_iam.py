"""The section `iam`: what bounds roles and users, and a stack without users; and the sizes of their policies.

Does not prove what a boundary does.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

import contract
from lab.api.moto_patches import keep_boundaries, patched
from lab.api.validation.policies import INLINE_LIMITS
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT, Deploy, deploy_into_moto, empty_aws

SITE = contract.Names("home-lan")
#: The longest names of a stack, and of a client with a kit.
LONGEST_STACK = "s" * 20
LONGEST_CLIENT = "c" * (64 - len(f"drawbridge-{LONGEST_STACK}-"))
#: Longer than any of AWS's regions; and its longest partition.
LONGEST_REGION, LONGEST_PARTITION = "us-isof-northeast-1", "arn:aws-us-gov:"
#: What the settings take.
LONGEST_KEY = f"key/{'0' * 64}"
POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'


@pytest.fixture
def config() -> dict[str, Any]:
    return copy.deepcopy(read_stack_file(ROOT / "stacks/Pulumi.site.yaml"))


@pytest.fixture
def deploy() -> Iterator[Deploy]:
    with empty_aws(), patched(keep_boundaries):
        yield lambda config: deploy_into_moto(config, "home-lan")


def create_boundary() -> str:
    response = boto3.client("iam").create_policy(PolicyName="drawbridge-boundary", PolicyDocument=POLICY)
    return str(response["Policy"]["Arn"])


def test_every_role_and_user_has_the_boundary(deploy: Deploy, config: dict[str, Any]) -> None:
    boundary = create_boundary()
    stack = deploy(config | {"drawbridge:iam": {"permissionsBoundary": boundary}})
    roles = [stack.iam.get_role(RoleName=row["RoleName"])["Role"] for row in stack.iam.list_roles()["Roles"]]
    users = [stack.iam.get_user(UserName=row["UserName"])["User"] for row in stack.iam.list_users()["Users"]]
    assert [user["UserName"] for user in users] == [SITE.kit_user("home")]
    assert len(roles) == 1
    assert {item["PermissionsBoundary"]["PermissionsBoundaryArn"] for item in roles + users} == {boundary}


def test_without_the_key_nothing_is_bounded(deploy: Deploy, config: dict[str, Any]) -> None:
    stack = deploy(config)
    (role,) = stack.iam.list_roles()["Roles"]
    assert "PermissionsBoundary" not in stack.iam.get_role(RoleName=role["RoleName"])["Role"]
    assert "PermissionsBoundary" not in stack.iam.get_user(UserName=SITE.kit_user("home"))["User"]


def test_without_users_a_client_still_has_a_kit_and_a_bundle(deploy: Deploy, config: dict[str, Any]) -> None:
    del config["drawbridge:clients"][0]["at"]
    config["drawbridge:gateway"]["allowFrom"] = ["203.0.113.10/32"]
    stack = deploy(config | {"drawbridge:iam": {"users": "none"}})
    assert stack.iam.list_users()["Users"] == []
    kit = stack.s3.head_object(Bucket=stack.outputs["bucket"], Key=SITE.kit_key("home"))
    assert kit["ContentLength"] > 1000
    assert stack.outputs["clients"].keys() == {"home"}


def deploy_longest(config: dict[str, Any]) -> dict[str, list[str]]:
    """Deploy a stack with the longest name; return inline policies with the longest names, by what they belong to."""
    policies: dict[str, list[str]] = {"Role": [], "User": []}
    with empty_aws():
        stack = deploy_into_moto(config, LONGEST_STACK)
        for kind, *_, outputs in stack.resources:
            if kind in ("aws:iam/rolePolicy:RolePolicy", "aws:iam/userPolicy:UserPolicy"):
                longest = outputs["policy"].replace(REGION, LONGEST_REGION).replace("arn:aws:", LONGEST_PARTITION)
                longest = re.sub("key/[A-Za-z0-9-]+", LONGEST_KEY, longest)
                # IAM does not count white space ("IAM and AWS STS quotas").
                policies["User" if "user" in outputs else "Role"].append(re.sub(r"\s", "", longest))
    return policies


@pytest.mark.parametrize("bundles", ["ssm", "s3"])
def test_the_longest_policies_of_a_stack_fit(config: dict[str, Any], bundles: str) -> None:
    """A role's policy names no client, and a user's names its own alone: a longer list makes no policy longer."""
    config |= {
        "drawbridge:secrets": {"bundles": bundles},
        "drawbridge:clients": [
            {"name": f"{LONGEST_CLIENT[:-1]}{i}", "lan": [f"192.168.{i}.0/24"], "at": f"203.0.113.{i}"}
            for i in range(2)
        ],
    }
    policies = deploy_longest(config)
    (role,) = policies["Role"]
    assert len(role) < 2_000 < INLINE_LIMITS["Role"]
    assert LONGEST_CLIENT[:-1] not in role
    for number, user in enumerate(sorted(policies["User"])):
        assert f"{LONGEST_CLIENT[:-1]}{number}" in user
        assert f"{LONGEST_CLIENT[:-1]}{1 - number}" not in user
        assert "DynamicRule" in user
        assert len(user) < 1_250 < INLINE_LIMITS["User"]


def test_the_longest_policies_of_a_pair_fit() -> None:
    """A gateway of a pair also reads its bundle for the peer's link."""
    policies = deploy_longest(read_stack_file(ROOT / "stacks/Pulumi.pair.yaml"))
    assert len(policies["Role"]) == 2 and not policies["User"]
    assert max(map(len, policies["Role"])) < 2_600 < INLINE_LIMITS["Role"]
