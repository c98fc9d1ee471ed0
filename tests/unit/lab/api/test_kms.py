"""Who may read and write SSM's SecureStrings: by the policies of the principal and of the KMS key."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lab.api.errors import ApiError
from lab.api.iam import ACCOUNT
from tests.support.judged import REGION, JudgedAws

#: What AWS's managed policy AmazonSSMManagedInstanceCore allows on parameters.
SESSION_MANAGER = {"Effect": "Allow", "Action": ["ssm:GetParameter", "ssm:GetParameters"], "Resource": "*"}
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
SECRET = "/drawbridge/lab/authority/keys"


def use_key(**changes: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": ["kms:Decrypt", "kms:Encrypt"], "Resource": "*", **changes}


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def create_user(aws: JudgedAws, name: str, *statements: dict[str, Any]) -> Any:
    """Return an SSM client of a new user with these statements."""
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(*statements))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return aws.client("ssm", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])


def create_role_session(aws: JudgedAws, *statements: dict[str, Any]) -> Any:
    """Return an SSM client of an instance's role."""
    iam = aws.client("iam")
    arn = iam.create_role(RoleName="host", AssumeRolePolicyDocument=document())["Role"]["Arn"]
    iam.put_role_policy(RoleName="host", PolicyName="p", PolicyDocument=document(*statements))
    session = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="i-1")["Credentials"]
    return aws.client(
        "ssm",
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )


def create_key(aws: JudgedAws, *statements: dict[str, Any]) -> str:
    return str(aws.client("kms").create_key(Policy=document(*statements))["KeyMetadata"]["Arn"])


def put(aws: JudgedAws, key: str | None, name: str = SECRET) -> None:
    chosen = {"KeyId": key} if key else {}
    aws.client("ssm").put_parameter(Name=name, Value="secret", Type="SecureString", **chosen)


def test_a_host_with_session_managers_policy_reads_every_secret_under_aws_ssm(aws: JudgedAws) -> None:
    put(aws, None)
    host = create_role_session(aws, SESSION_MANAGER)
    assert host.get_parameter(Name=SECRET, WithDecryption=True)["Parameter"]["Value"] == "secret"
    assert host.get_parameters(Names=[SECRET], WithDecryption=True)["Parameters"][0]["Value"] == "secret"


def test_the_same_host_reads_none_under_a_customer_managed_key(aws: JudgedAws) -> None:
    put(aws, create_key(aws, use_key(Principal={"AWS": ROOT}, Action="kms:*")))
    host = create_role_session(aws, SESSION_MANAGER)
    calls: list[Callable[[], Any]] = [
        lambda: host.get_parameter(Name=SECRET, WithDecryption=True),
        lambda: host.get_parameters(Names=[SECRET], WithDecryption=True),
    ]
    for call in calls:
        with pytest.raises(ApiError, match="kms:Decrypt on resource: arn:aws:kms:") as refusal:
            call()
        assert refusal.value.code == "AccessDeniedException"
    assert host.get_parameter(Name=SECRET)["Parameter"]["Value"] != "secret"


@pytest.mark.parametrize(
    ("key_statement", "identity_statement", "reads"),
    [
        (use_key(Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/host"}), None, True),
        (use_key(Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/other"}), None, False),
        (use_key(Principal={"AWS": ROOT}), None, False),
        (use_key(Principal={"AWS": ROOT}), use_key(), True),
        (use_key(Principal={"AWS": ROOT}), use_key(Effect="Deny"), False),
        (use_key(Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/other"}), use_key(), False),
        (use_key(Principal={"AWS": "*"}, Action="kms:Encrypt"), None, False),
        (use_key(Principal={"Service": "ssm.amazonaws.com"}), use_key(), False),
    ],
)
def test_a_keys_policy_decides(
    aws: JudgedAws, key_statement: dict[str, Any], identity_statement: dict[str, Any] | None, reads: bool
) -> None:
    put(aws, create_key(aws, key_statement))
    host = create_role_session(aws, SESSION_MANAGER, *filter(None, [identity_statement]))
    if reads:
        assert host.get_parameter(Name=SECRET, WithDecryption=True)["Parameter"]["Value"] == "secret"
    else:
        with pytest.raises(ApiError):
            host.get_parameter(Name=SECRET, WithDecryption=True)


def test_the_parameters_name_is_the_encryption_context(aws: JudgedAws) -> None:
    own = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/drawbridge/lab/gateway/*"
    condition = {"StringLike": {"kms:EncryptionContext:PARAMETER_ARN": own}}
    key = create_key(aws, use_key(Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/host"}, Condition=condition))
    put(aws, key)
    put(aws, key, "/drawbridge/lab/gateway/server.key")
    host = create_role_session(aws, SESSION_MANAGER)
    assert host.get_parameter(Name="/drawbridge/lab/gateway/server.key", WithDecryption=True)
    with pytest.raises(ApiError, match="kms:Decrypt"):
        host.get_parameter(Name=SECRET, WithDecryption=True)


def test_a_path_with_one_foreign_secret_is_not_read(aws: JudgedAws) -> None:
    put(aws, None, "/drawbridge/a")
    every = {"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}
    user = create_user(aws, "u", every)
    assert len(user.get_parameters_by_path(Path="/drawbridge", WithDecryption=True)["Parameters"]) == 1
    put(aws, create_key(aws, use_key(Principal={"AWS": ROOT})), "/drawbridge/b")
    with pytest.raises(ApiError, match="kms:Decrypt"):
        user.get_parameters_by_path(Path="/drawbridge", WithDecryption=True)


@pytest.mark.parametrize(("tier", "action"), [("Standard", "kms:Encrypt"), ("Advanced", "kms:GenerateDataKey")])
def test_who_writes_needs_the_key_as_well(aws: JudgedAws, tier: str, action: str) -> None:
    key = create_key(aws, use_key(Principal={"AWS": ROOT}, Action="kms:*"))
    write = {"Effect": "Allow", "Action": "ssm:PutParameter", "Resource": "*"}
    secret = {"Value": "v", "Type": "SecureString", "KeyId": key, "Tier": tier}
    with pytest.raises(ApiError, match=f"{action} on resource: {key}"):
        create_user(aws, "without", write).put_parameter(Name="/a", **secret)
    create_user(aws, "with", write, use_key(Action=action)).put_parameter(Name="/a", **secret)
    create_user(aws, "default", write).put_parameter(Name="/b", Value="v", Type="SecureString")


def test_keys_are_judged_when_they_are_called_themselves(aws: JudgedAws) -> None:
    key = create_key(aws, use_key(Principal={"AWS": ROOT}, Action="kms:*"))
    aws.client("kms").create_alias(AliasName="alias/stack", TargetKeyId=key)
    iam = aws.client("iam")
    iam.create_user(UserName="u")
    access = iam.create_access_key(UserName="u")["AccessKey"]
    kms = aws.client("kms", aws_access_key_id=access["AccessKeyId"], aws_secret_access_key=access["SecretAccessKey"])
    with pytest.raises(ApiError, match="kms:DescribeKey"):
        kms.describe_key(KeyId="alias/stack")
    statement = {"Effect": "Allow", "Action": "kms:DescribeKey", "Resource": key}
    iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=document(statement))
    assert kms.describe_key(KeyId="alias/stack")["KeyMetadata"]["Arn"] == key
    with pytest.raises(ApiError, match="kms:Encrypt"):
        kms.encrypt(KeyId=key, Plaintext=b"x")


def test_a_key_that_waits_for_its_deletion_decrypts_nothing(aws: JudgedAws) -> None:
    key = create_key(aws, use_key(Principal={"AWS": ROOT}, Action="kms:*"))
    put(aws, key)
    ssm, kms = aws.client("ssm"), aws.client("kms")
    kms.schedule_key_deletion(KeyId=key.rpartition("/")[2], PendingWindowInDays=7)
    calls: list[Callable[[], Any]] = [
        lambda: ssm.get_parameter(Name=SECRET, WithDecryption=True),
        lambda: ssm.get_parameters(Names=[SECRET], WithDecryption=True),
        lambda: ssm.get_parameters_by_path(Path="/drawbridge", Recursive=True, WithDecryption=True),
        lambda: put(aws, key, "/other"),
    ]
    for call in calls:
        with pytest.raises(ApiError) as refusal:
            call()
        assert refusal.value.code == "InvalidKeyId"
    assert ssm.get_parameter(Name=SECRET)["Parameter"]["Name"] == SECRET
    kms.cancel_key_deletion(KeyId=key.rpartition("/")[2])
    kms.enable_key(KeyId=key.rpartition("/")[2])
    assert ssm.get_parameter(Name=SECRET, WithDecryption=True)["Parameter"]["Value"] == "secret"
