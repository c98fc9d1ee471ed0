"""Who decrypts a deployed stack's secrets, as IAM and the key's policy decide.

Does not prove that AWS decides like `lab.api.iam`, nor how long KMS takes to apply a policy.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import pytest

import contract
from lab.api.errors import ApiError
from lab.api.iam import ACCOUNT
from lab.api.rules import Rules
from lab.api.validation.validator import Validator
from tests.program.conftest import REGION, Deployment, deploy_into_moto, empty_aws
from tests.support.judged import JudgedAws, every_call_judged

NAMES = contract.Names("dev")
SECRETS = [NAMES.keys, *(NAMES.secret(name) for name in contract.GATEWAY_SECRETS), NAMES.bundle("alice")]
#: What AWS's managed policy AmazonSSMManagedInstanceCore allows on parameters.
SESSION_MANAGER = {"Effect": "Allow", "Action": ["ssm:GetParameter", "ssm:GetParameters"], "Resource": "*"}
ADMINISTRATOR = {"Effect": "Allow", "Action": "*", "Resource": "*"}
#: Of what AWS's managed policy AmazonS3ReadOnlyAccess allows.
S3_READ_ONLY = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
MANY = contract.Names("many")
BUCKET = MANY.bundles_bucket(ACCOUNT, REGION)
LISTED = f"arn:aws:iam::{ACCOUNT}:role/teams/listed"

#: Reads parameters as a principal.
Read = Callable[[str], str]


def document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def create_role(iam: Any, name: str, statement: Mapping[str, Any], path: str = "/") -> None:
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(), Path=path)
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(statement))


def assume(role: str) -> dict[str, str]:
    """Return the credentials of a session of a role, as boto3 names them."""
    sts = boto3.client("sts", region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")
    arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    credentials = sts.assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"]
    return {
        "aws_access_key_id": credentials["AccessKeyId"],
        "aws_secret_access_key": credentials["SecretAccessKey"],
        "aws_session_token": credentials["SessionToken"],
    }


def reader(credentials: Mapping[str, str]) -> Read:
    """Return a function that reads a parameter with credentials, whose policies are judged."""
    ssm = JudgedAws(Validator()).client("ssm", **credentials)
    return lambda name: str(ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])


def refusal(read: Read, name: str) -> str:
    with pytest.raises(ApiError) as refused:
        read(name)
    assert refused.value.code == "AccessDeniedException"
    return str(refused.value)


def deploy(stack: str, **secrets: Any) -> Deployment:
    clients = [{"name": "alice"}, {"name": "home", "lan": ["192.168.1.0/24"]}]
    sections = {"drawbridge:clients": clients, "drawbridge:secrets": secrets}
    return deploy_into_moto({"aws:region": REGION, **sections}, stack)


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployment]:
    """The stack `dev` with a key of its own, beside `open` under `aws/ssm`: the role `deployer` has deployed both."""
    with empty_aws(), pytest.MonkeyPatch.context() as environment:
        iam = boto3.client("iam")
        create_role(iam, "deployer", ADMINISTRATOR)
        create_role(iam, "listed", SESSION_MANAGER, "/teams/")
        create_role(iam, "administrator", ADMINISTRATOR)
        create_role(iam, "host", SESSION_MANAGER)
        for name, value in assume("deployer").items():
            environment.setenv(name.upper(), value)
        with every_call_judged(Validator(Rules(throttle_writes=False))):
            deploy("open", key="aws/ssm")
            deploy("many", users=[LISTED], bundles="s3")
            yield deploy("dev", users=[LISTED])


@pytest.mark.attack("6.3")
@pytest.mark.usefixtures("stack")
def test_a_host_with_session_managers_policy_reads_no_secret() -> None:
    read = reader(assume("host"))
    for name in SECRETS:
        assert "kms:Decrypt on resource: arn:aws:kms:" in refusal(read, name)
    assert json.loads(read(NAMES.release))["bucket"]  # the control: what is no secret is read


@pytest.mark.attack("6.3")
@pytest.mark.usefixtures("stack")
def test_the_same_host_reads_them_all_under_awss_own_key() -> None:
    read = reader(assume("host"))
    assert all(read(name.replace(NAMES.root, contract.Names("open").root)) for name in SECRETS)


@pytest.mark.usefixtures("stack")
def test_the_gateway_reads_its_own_secrets_only() -> None:
    read = reader(assume(NAMES.role(REGION)))
    assert all(read(NAMES.secret(name)) for name in contract.GATEWAY_SECRETS)
    # Neither by its role's policy nor by the key's.
    assert "ssm:GetParameter" in refusal(read, NAMES.keys)
    boto3.client("iam").put_role_policy(
        RoleName=NAMES.role(REGION), PolicyName="more", PolicyDocument=document(ADMINISTRATOR)
    )
    for name in (NAMES.keys, NAMES.bundle("alice")):
        assert "kms:Decrypt" in refusal(read, name)


@pytest.mark.usefixtures("stack")
def test_a_kit_reads_its_own_bundle_only() -> None:
    key = boto3.client("iam").create_access_key(UserName=NAMES.kit_user("home"))["AccessKey"]
    read = reader({"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]})
    assert "remote" in read(NAMES.bundle("home"))
    assert "ssm:GetParameter" in refusal(read, NAMES.bundle("alice"))
    boto3.client("iam").put_user_policy(
        UserName=NAMES.kit_user("home"), PolicyName="more", PolicyDocument=document(SESSION_MANAGER)
    )
    assert "kms:Decrypt" in refusal(read, NAMES.bundle("alice"))


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize("role", ["deployer", "teams/listed"])
def test_the_deployer_and_listed_users_read_bundles(role: str) -> None:
    assert "remote" in reader(assume(role))(NAMES.bundle("alice"))


def test_an_administrator_who_is_not_listed_decrypts_nothing(stack: Deployment) -> None:
    credentials = assume("administrator")
    for name in SECRETS:
        assert "kms:Decrypt" in refusal(reader(credentials), name)
    key = stack.kms.describe_key(KeyId="alias/drawbridge-dev")["KeyMetadata"]
    kms = JudgedAws(Validator()).client("kms", **credentials)
    with pytest.raises(ApiError, match="not authorized"):
        kms.decrypt(KeyId=key["KeyId"], CiphertextBlob=b"x")
    with pytest.raises(ApiError, match="not authorized"):
        kms.create_grant(
            KeyId=key["KeyId"], GranteePrincipal=f"arn:aws:iam::{ACCOUNT}:role/host", Operations=["Decrypt"]
        )
    assert kms.describe_key(KeyId="alias/drawbridge-dev")["KeyMetadata"]["KeyId"] == key["KeyId"]


def test_not_even_the_deployer_uses_the_key_beside_ssm_or_for_other_parameters(stack: Deployment) -> None:
    key = stack.kms.describe_key(KeyId="alias/drawbridge-dev")["KeyMetadata"]
    aws = JudgedAws(Validator())
    with pytest.raises(ApiError, match="kms:Encrypt"):
        aws.client("kms", **assume("deployer")).encrypt(KeyId=key["KeyId"], Plaintext=b"x")
    secret = {"Name": "/other", "Value": "x", "Type": "SecureString", "KeyId": key["KeyId"]}
    with pytest.raises(ApiError, match="kms:Encrypt"):
        aws.client("ssm", **assume("deployer")).put_parameter(**secret)


def object_reader(credentials: Mapping[str, str]) -> Read:
    """Return a function that reads an object of the bucket of bundles with credentials, whose policies are judged."""
    s3 = JudgedAws(Validator()).client("s3", **credentials)
    return lambda client: str(s3.get_object(Bucket=BUCKET, Key=MANY.bundle_key(client))["Body"].read().decode())


def add_policy(role: str, statement: Mapping[str, Any]) -> None:
    boto3.client("iam").put_role_policy(RoleName=role, PolicyName="s3", PolicyDocument=document(statement))


@pytest.mark.usefixtures("stack")
def test_a_host_with_read_only_access_to_s3_reads_no_bundle() -> None:
    add_policy("host", S3_READ_ONLY)
    credentials = assume("host")
    assert "kms:Decrypt on resource: arn:aws:kms:" in refusal(object_reader(credentials), "alice")
    # The controls: it reads what is no secret in S3, and the names of the bundles.
    s3 = JudgedAws(Validator()).client("s3", **credentials)
    kits = s3.get_object(Bucket=MANY.bucket(ACCOUNT, REGION), Key=MANY.kit_key("home"))
    assert kits["Body"].read()
    listed = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [row["Key"] for row in listed] == [MANY.bundle_key(name) for name in ("alice", "home")]


@pytest.mark.usefixtures("stack")
def test_neither_the_gateway_nor_an_administrator_reads_a_bundle_in_s3() -> None:
    add_policy(MANY.role(REGION), ADMINISTRATOR)
    for role in (MANY.role(REGION), "administrator"):
        assert "kms:Decrypt" in refusal(object_reader(assume(role)), "alice")


@pytest.mark.usefixtures("stack")
def test_the_deployer_and_listed_users_read_bundles_in_s3() -> None:
    add_policy("listed", S3_READ_ONLY)
    for role in ("deployer", "teams/listed"):
        assert "remote" in object_reader(assume(role))("alice")


@pytest.mark.usefixtures("stack")
def test_a_kit_reads_its_own_bundle_in_s3_only() -> None:
    user = MANY.kit_user("home")
    key = boto3.client("iam").create_access_key(UserName=user)["AccessKey"]
    read = object_reader({"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]})
    assert "remote" in read("home")
    assert "s3:GetObject" in refusal(read, "alice")
    boto3.client("iam").put_user_policy(UserName=user, PolicyName="more", PolicyDocument=document(S3_READ_ONLY))
    assert "kms:Decrypt" in refusal(read, "alice")


@pytest.mark.usefixtures("stack")
def test_the_bucket_of_bundles_takes_no_object_under_another_key() -> None:
    s3 = JudgedAws(Validator()).client("s3", **assume("deployer"))
    new = {"Bucket": BUCKET, "Key": MANY.bundle_key("eve"), "Body": b"x"}
    for encryption in ({}, {"ServerSideEncryption": "AES256"}):
        with pytest.raises(ApiError, match="s3:PutObject"):
            s3.put_object(**new, **encryption)
