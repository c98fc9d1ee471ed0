"""The API's application on loopback: which calls have Linux follow. Does not prove any packet: tests/lab/aws does."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.api import moto_state
from lab.api.validation.validator import Validator
from tests.support.lab_api import REGION, Api, serve_lab_api


@pytest.fixture
def api() -> Iterator[Api]:
    with serve_lab_api(Validator(clock=lambda: 0.0)) as running:
        yield running


@pytest.fixture
def operator(api: Api) -> dict[str, str]:
    """Keys of a user who may do everything."""
    return api.create_user("operator", json.dumps(moto_state.ADMINISTRATOR_POLICY))


def test_the_labs_own_calls_request_nothing(api: Api, operator: dict[str, str]) -> None:
    """Else the calls of a reconcile would request the next one, without end."""
    api.client("ec2").create_vpc(CidrBlock="10.1.0.0/16")
    assert api.requests == []


def test_each_write_of_any_service_requests_a_reconcile_and_no_read_does(api: Api, operator: dict[str, str]) -> None:
    ec2, ssm, s3 = (api.client(service, **operator) for service in ("ec2", "ssm", "s3"))
    ec2.describe_instances()
    ssm.get_parameters(Names=["/none"])
    s3.list_buckets()
    assert api.requests == []
    ec2.create_vpc(CidrBlock="10.1.0.0/16")
    ssm.put_parameter(Name="/a", Value="b", Type="String")
    assert api.requests == [REGION] * 2


def test_a_refused_call_requests_nothing(api: Api) -> None:
    with pytest.raises(Exception, match="AuthFailure"):
        api.client("ec2", aws_access_key_id="AKIANOBODY", aws_secret_access_key="none").create_vpc(
            CidrBlock="10.1.0.0/16"
        )
    assert api.requests == []


@pytest.mark.parametrize(
    ("service", "action", "parameters", "code"),
    [
        ("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/16", "InstanceTenancy": "mine"}, "InvalidParameterValue"),
        ("iam", "create_user", {"UserName": "a b"}, "ValidationError"),
        ("ssm", "put_parameter", {"Name": "/a b", "Value": "v", "Type": "String"}, "ValidationException"),
        ("cloudwatch", "put_metric_data", {"Namespace": "N", "MetricData": []}, "MissingParameter"),
        ("route53", "create_hosted_zone", {"Name": "n", "CallerReference": "c" * 129}, "InvalidInput"),
        ("s3", "create_bucket", {"Bucket": "10.0.0.1"}, "InvalidBucketName"),
    ],
)
def test_a_refusal_is_in_the_services_own_protocol(
    api: Api, operator: dict[str, str], service: str, action: str, parameters: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError) as refusal:
        getattr(api.client(service, **operator), action)(**parameters)
    assert refusal.value.response["Error"]["Code"] == code
    assert refusal.value.response["Error"]["Message"]


def test_writes_are_throttled_so_that_boto3_tries_again(api: Api, operator: dict[str, str]) -> None:
    ssm = api.client("ssm", **operator)
    for number in range(10):
        ssm.put_parameter(Name=f"/n{number}", Value="v", Type="String")
    with pytest.raises(ClientError) as refusal:
        ssm.put_parameter(Name="/more", Value="v", Type="String")
    assert refusal.value.response["Error"]["Code"] == "ThrottlingException"
    assert refusal.value.response["ResponseMetadata"]["RetryAttempts"] == 2


def test_the_labs_own_calls_are_not_judged(api: Api) -> None:
    ssm = api.client("ssm")
    for number in range(20):
        answer = ssm.put_parameter(Name=f"/n{number}", Value="v" * 5000, Type="String")
        assert answer["ResponseMetadata"]["RetryAttempts"] == 0
