"""Refusals of the key of the secrets and of its users, in their exact words. Does not prove that such a key exists."""

from typing import Any

import pytest

from tests.support.refusals import find_problems

KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
USER = "arn:aws:iam::123456789012:user/alice"
KEY_REMEDY = "use stack, aws/ssm, or the ARN of a KMS key (arn:aws:kms:…:key/…)"
USER_REMEDY = "use its ARN, such as arn:aws:iam::123456789012:role/operator"


@pytest.mark.parametrize(
    "secrets",
    [
        {},
        {"key": "aws/ssm"},
        {"key": KEY},
        {"key": KEY.replace("1234abcd", "mrk-1234abcd")},
        {"users": [USER, "arn:aws-cn:iam::123456789012:role/aws-reserved/sso.amazonaws.com/Admin_1"]},
    ],
)
def test_accepted_secrets(secrets: dict[str, Any]) -> None:
    assert find_problems(secrets=secrets) == []


@pytest.mark.parametrize(
    ("secrets", "expected"),
    [
        ({"key": "own"}, f".key: own is not a valid key; {KEY_REMEDY}"),
        ({"key": KEY + "0" * 29}, f".key: {KEY}{'0' * 29} is not a valid key; {KEY_REMEDY}"),
        ({"key": 5}, f".key: 5 is not a valid key; {KEY_REMEDY}"),
        ({"key": "alias/mine"}, f".key: alias/mine is not a valid key; {KEY_REMEDY}"),
        (
            {"key": KEY.replace("key/", "alias/")},
            f".key: {KEY.replace('key/', 'alias/')} is not a valid key; {KEY_REMEDY}",
        ),
        (
            {"key": KEY.replace("eu-west-1", "us-east-1")},
            f".key: {KEY.replace('eu-west-1', 'us-east-1')} is in us-east-1, and SSM uses keys of its own region only; "
            "use a key in eu-west-1, or key: stack",
        ),
        ({"users": USER}, f".users: {USER} must be a list; write it in brackets, such as [{USER_REMEDY.split()[-1]}]"),
        ({"users": ["alice"]}, f".users[0]: alice is not a valid IAM user or role; {USER_REMEDY}"),
        (
            {"users": [f"{USER}*"]},
            f".users[0]: {USER}* is not a valid IAM user or role; {USER_REMEDY}",
        ),
        (
            {"users": ["arn:aws:sts::123456789012:assumed-role/operator/alice"]},
            ".users[0]: arn:aws:sts::123456789012:assumed-role/operator/alice is not a valid IAM user or role; "
            f"{USER_REMEDY}",
        ),
        (
            {"users": ["arn:aws:iam::123456789012:root"]},
            f".users[0]: arn:aws:iam::123456789012:root is not a valid IAM user or role; {USER_REMEDY}",
        ),
        (
            {"key": "aws/ssm", "users": [USER]},
            f".users: [{USER}] has no effect, because secrets.key is aws/ssm, whose policy is not changed; "
            "leave users out, or use key: stack",
        ),
        ({"keys": "stack"}, ": keys is not a known key; did you mean key?"),
        ("stack", ": stack must be keys with values; write them like {key: stack}"),
    ],
)
def test_refused_secrets(secrets: Any, expected: str) -> None:
    assert find_problems(secrets=secrets) == [f"drawbridge:secrets{expected}"]


@pytest.mark.parametrize(("users", "refused"), [(332, False), (333, True)])
def test_users_fit_the_key_s_policy(users: int, refused: bool) -> None:
    arns = [f"arn:aws:iam::123456789012:user/u{number:04}" for number in range(users)]
    expected = (
        f"drawbridge:secrets.users: {users} users take {users * 80} characters, but a KMS key policy has room for "
        "26624 of 32768; name a role that these users may assume, or set secrets.key to a key whose policy you write"
    )
    assert find_problems(secrets={"users": arns}) == ([expected] if refused else [])
    assert find_problems(secrets={"key": "stack", "users": arns[:1]}) == []
