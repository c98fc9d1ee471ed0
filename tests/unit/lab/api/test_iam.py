"""IAM's judgement as AWS documents it. Does not prove which resources moto's calls really touch.

The cases are those of the IAM User Guide's "Policy evaluation logic" and "Condition operators".
"""

import datetime
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

from lab.api.errors import ApiError
from lab.api.iam import (
    Call,
    Principal,
    SignedRequest,
    authorize,
    check_signature_age,
    is_allowed,
    is_denied_by,
    list_resources,
    parse_call,
    parse_signature,
)

MINE = "arn:aws:ssm:eu-west-1:123456789012:parameter/mine/one"
SECRET = "secret"


def call(action: str = "ssm:GetParameter", *found: str, **context: str) -> Call:
    return Call(action.split(":")[0], action, found or (MINE,), {k.replace("_", ":", 1): v for k, v in context.items()})


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action: Any = "ssm:GetParameter", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(**more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": "*", "Resource": "*", **more}


@pytest.mark.parametrize(
    ("statements", "passes"),
    [
        ([], False),
        ([allow()], True),
        ([allow("ssm:*")], True),
        ([allow("ssm:Get*")], True),
        ([allow("SSM:getparameter")], True),
        ([allow("ssm:PutParameter")], False),
        ([allow(["s3:GetObject", "ssm:GetParameter"])], True),
        ([allow(resource=MINE)], True),
        ([allow(resource="arn:aws:ssm:*:*:parameter/mine/*")], True),
        ([allow(resource="arn:aws:ssm:*:*:parameter/theirs/*")], False),
        ([allow(resource=MINE.replace("one", "o?e"))], True),
        ([allow(resource=MINE.replace("one", "[o]ne"))], False),
        ([allow(), deny()], False),
        ([allow(), deny(Resource="arn:aws:ssm:*:*:parameter/theirs/*")], True),
        ([{"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}], True),
        ([{"Effect": "Allow", "NotAction": "ssm:*", "Resource": "*"}], False),
        ([{"Effect": "Allow", "Action": "*", "NotResource": MINE}], False),
    ],
)
def test_an_explicit_deny_wins_and_no_allow_is_a_denial(statements: list[dict[str, Any]], passes: bool) -> None:
    assert is_allowed([policy(*statements)], call()) is passes


def test_every_resource_of_a_call_must_be_allowed() -> None:
    other = MINE.replace("mine", "theirs")
    assert is_allowed([policy(allow("ssm:GetParameters", MINE))], call("ssm:GetParameters", MINE))
    assert not is_allowed([policy(allow("ssm:GetParameters", MINE))], call("ssm:GetParameters", MINE, other))


@pytest.mark.parametrize(
    ("operator", "key", "wanted", "passes"),
    [
        ("StringEquals", "aws:RequestedRegion", "eu-west-1", True),
        ("StringEquals", "aws:RequestedRegion", ["us-east-1", "eu-west-1"], True),
        ("StringEquals", "AWS:requestedregion", "eu-west-1", True),
        ("StringEquals", "aws:RequestedRegion", "EU-WEST-1", False),
        ("StringEqualsIgnoreCase", "aws:RequestedRegion", "EU-WEST-1", True),
        ("StringNotEquals", "aws:RequestedRegion", "eu-west-1", False),
        ("StringLike", "aws:RequestedRegion", "eu-*", True),
        ("StringNotLike", "aws:RequestedRegion", "us-*", True),
        ("Bool", "aws:SecureTransport", "true", True),
        ("Bool", "aws:SecureTransport", "false", False),
        ("IpAddress", "aws:SourceIp", "203.0.113.0/24", True),
        ("IpAddress", "aws:SourceIp", ["10.0.0.0/8", "203.0.113.7"], True),
        ("NotIpAddress", "aws:SourceIp", "203.0.113.0/24", False),
        ("NumericLessThan", "s3:max-keys", "11", True),
        ("NumericLessThan", "s3:max-keys", "10", False),
        ("NumericGreaterThanEquals", "s3:max-keys", 10, True),
        ("NumericNotEquals", "s3:max-keys", "10", False),
        ("DateLessThan", "aws:CurrentTime", "2030-01-01T00:00:00Z", True),
        ("DateGreaterThan", "aws:CurrentTime", "2030-01-01T00:00:00Z", False),
        ("StringEquals", "aws:Absent", "x", False),
        ("StringEqualsIfExists", "aws:Absent", "x", True),
        ("StringNotEquals", "aws:Absent", "x", True),
        ("Null", "aws:Absent", "true", True),
        ("Null", "aws:RequestedRegion", "true", False),
        ("StringEquals", "aws:username", "${aws:username}", True),
        ("StringEquals", "aws:username", "${aws:Absent}", False),
    ],
)
def test_conditions_hold_or_not(operator: str, key: str, wanted: Any, passes: bool) -> None:
    context = {
        "aws:RequestedRegion": "eu-west-1",
        "aws:SecureTransport": "true",
        "aws:SourceIp": "203.0.113.7",
        "s3:max-keys": "10",
        "aws:CurrentTime": "2026-01-01T00:00:00Z",
        "aws:username": "alice",
    }
    asked = Call("ssm", "ssm:GetParameter", (MINE,), context)
    condition = {operator: {key: wanted}}
    assert is_allowed([policy(allow(Condition=condition))], asked) is passes
    assert is_allowed([policy(allow(), deny(Condition=condition))], asked) is not passes


def test_a_condition_nobody_knows_neither_lets_through_nor_lifts_a_denial() -> None:
    condition = {"BinaryEquals": {"aws:RequestedRegion": "x"}}
    asked = call(aws_RequestedRegion="eu-west-1")
    assert not is_allowed([policy(allow(Condition=condition))], asked)
    assert not is_allowed([policy(allow(), deny(Condition=condition))], asked)


def test_variables_stand_in_resources_too() -> None:
    own = policy(allow(resource="arn:aws:ssm:*:*:parameter/${aws:username}/*"))
    assert is_allowed([own], call(aws_username="mine"))
    assert not is_allowed([own], call(aws_username="theirs"))


def test_a_buckets_policy_denies_what_identity_policies_allow() -> None:
    plain = policy(deny(Condition={"Bool": {"aws:SecureTransport": "false"}}))
    assert is_denied_by(plain, call(aws_SecureTransport="false"))
    assert not is_denied_by(plain, call(aws_SecureTransport="true"))


@pytest.mark.parametrize(
    ("service", "action", "parameters", "expected"),
    [
        ("ssm", "GetParameter", {"Name": "/mine/one"}, [MINE]),
        ("ssm", "GetParameter", {"Name": "/mine/one:3"}, [MINE]),
        ("ssm", "GetParameters", {"Names": ["/mine/one", "/mine/two"]}, [MINE, MINE.replace("one", "two")]),
        ("ssm", "GetParametersByPath", {"Path": "/mine/"}, [MINE.removesuffix("/one")]),
        ("sts", "AssumeRole", {"RoleArn": "arn:role"}, ["arn:role"]),
        ("ec2", "DescribeInstances", {"InstanceId.1": "i-1"}, ["*"]),
        ("ec2", "StopInstances", {"InstanceId.1": "i-1"}, ["arn:aws:ec2:eu-west-1:123456789012:instance/i-1"]),
        ("other", "Do", {}, ["*"]),
    ],
)
def test_what_a_call_touches(service: str, action: str, parameters: dict[str, Any], expected: list[str]) -> None:
    assert list_resources(service, action, parameters, "eu-west-1") == expected


def signed(
    secret: str = SECRET, *, token: str | None = None, body: bytes = b"Action=DescribeInstances"
) -> SignedRequest:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Host": "127.0.0.1"}
    request = botocore.awsrequest.AWSRequest("POST", "http://127.0.0.1/", headers=headers, data=body)
    credentials = botocore.credentials.Credentials("AKIALAB", secret, token)
    botocore.auth.SigV4Auth(credentials, "ec2", "eu-west-1").add_auth(request)
    found = {name.lower(): str(value) for name, value in request.headers.items()}
    return SignedRequest("POST", "/", "", found, body, True, "127.0.0.1")


def judge(request: SignedRequest, *policies: dict[str, Any], token: str | None = None) -> Call | None:
    principal = Principal("arn:aws:iam::123456789012:user/alice", SECRET, token, policies)
    return authorize(request, lambda key: principal if key == "AKIALAB" else None, lambda _: None)


def test_a_call_is_taken_for_what_it_is() -> None:
    found = judge(signed(), policy(allow("ec2:DescribeInstances")))
    assert found and found.action == "ec2:DescribeInstances"
    assert found.context["aws:RequestedRegion"] == "eu-west-1"


@pytest.mark.parametrize(
    ("request_", "policies", "code"),
    [
        (signed, (), "AccessDeniedException"),
        (lambda: signed("another"), (policy(allow("*")),), "SignatureDoesNotMatch"),
        (lambda: signed(token="another"), (policy(allow("*")),), "InvalidClientTokenId"),
        (lambda: SignedRequest("POST", "/", "", {}, b"", True, ""), (), "MissingAuthenticationToken"),
    ],
)
def test_what_is_refused(
    request_: Callable[[], SignedRequest], policies: tuple[dict[str, Any], ...], code: str
) -> None:
    # Signed now: a signature is good for 15 minutes, and tests may wait longer for their turn.
    with pytest.raises(ApiError) as refused:
        judge(request_(), *policies)
    assert refused.value.code == code


def test_a_changed_body_is_not_what_was_signed() -> None:
    request = signed()
    changed = SignedRequest("POST", "/", "", request.headers, b"Action=TerminateInstances", True, "127.0.0.1")
    with pytest.raises(ApiError, match="signature"):
        judge(changed, policy(allow("*")))


def test_what_a_call_implies_must_be_allowed_as_well() -> None:
    principal = Principal("arn:aws:iam::123456789012:user/alice", SECRET, None, (policy(allow("ec2:*")),))
    role = Call("iam", "iam:PassRole", ("arn:aws:iam::123456789012:role/gateway",), {})
    with pytest.raises(ApiError, match="iam:PassRole"):
        authorize(signed(), lambda _: principal, lambda _: None, lambda _: [role])


def presigned(seconds: int) -> SignedRequest:
    """A GET of an object, signed in its URL for `seconds`."""
    request = botocore.awsrequest.AWSRequest("GET", "http://127.0.0.1/bucket/kit")
    credentials = botocore.credentials.Credentials("AKIALAB", SECRET)
    botocore.auth.S3SigV4QueryAuth(credentials, "s3", "eu-west-1", expires=seconds).add_auth(request)
    url = urllib.parse.urlsplit(str(request.url))
    return SignedRequest("GET", url.path, url.query, {"host": "127.0.0.1"}, b"", True, "127.0.0.1")


NOW = datetime.datetime.now(datetime.UTC)


@pytest.mark.parametrize(
    ("request_", "after", "code"),
    [
        (presigned(3600), {"minutes": 59}, None),
        (presigned(3600), {"minutes": 62}, "AccessDenied"),
        (presigned(604_801), {"minutes": 0}, "AuthorizationQueryParametersError"),
        (presigned(0), {"minutes": 0}, "AuthorizationQueryParametersError"),
        (signed(), {"minutes": 14}, None),
        (signed(), {"minutes": 16}, "SignatureDoesNotMatch"),
        (signed(), {"minutes": -17}, "SignatureDoesNotMatch"),
    ],
)
def test_a_signature_has_its_time(request_: SignedRequest, after: dict[str, int], code: str | None) -> None:
    signature = parse_signature(request_)
    assert signature
    try:
        check_signature_age(request_, signature, NOW + datetime.timedelta(**after))
    except ApiError as error:
        assert error.code == code
    else:
        assert code is None


@pytest.mark.parametrize(
    ("parameters", "passes"),
    [
        ({"Overwrite": True}, True),
        ({}, False),
        ({"Overwrite": True, "Policies": "[]"}, False),
    ],
)
def test_a_new_value_is_not_a_new_parameter_nor_a_policy(parameters: dict[str, Any], passes: bool) -> None:
    value_only = {"StringEquals": {"ssm:Overwrite": "true"}, "StringNotEquals": {"ssm:Policies": "true"}}
    request = signed()
    body = json.dumps({"Name": "/mine/one", "Value": "1", **parameters}).encode()
    headers = {
        **request.headers,
        "x-amz-target": "AmazonSSM.PutParameter",
        "content-type": "application/x-amz-json-1.1",
    }
    headers["authorization"] = headers["authorization"].replace("/ec2/", "/ssm/")
    put = SignedRequest("POST", "/", "", headers, body, True, "127.0.0.1")
    signature = parse_signature(put)
    assert signature
    made = parse_call(put, signature)
    assert is_allowed([policy(allow("ssm:PutParameter", Condition=value_only))], made) is passes
