"""The section `iam`: what bounds roles and users, and a stack without users. Does not prove what a boundary does."""

import copy
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

import contract
from lab.api.moto_patches import keep_boundaries, patched
from settings.stack_file import read_stack_file
from tests.program.conftest import ROOT, Deploy, deploy_into_moto, empty_aws

SITE = contract.Names("home-lan")
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
