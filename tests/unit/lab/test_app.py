"""The API's application on loopback: which calls have Linux follow. Does not prove any packet: tests/lab/aws does."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.backends import get_backend
from moto.core.base_backend import BackendDict

from lab import wsgi
from lab.api import moto_state
from lab.api.app import ApiRequestHandler, AwsApi
from lab.api.validation.validator import Validator
from lab.linux import listen

REGION = "eu-west-1"


@dataclass
class Api:
    """A running API and the AWS regions it requested a reconcile for."""

    endpoint: str
    keys: moto_state.AccessKeys
    requests: list[str] = field(default_factory=list)

    def client(self, service: str, **keys: str) -> Any:
        """Return a client with other keys than the lab's own, or with those."""
        chosen: Any = keys or {"aws_access_key_id": self.keys.lab_key, "aws_secret_access_key": self.keys.lab_secret}
        make: Any = boto3.client
        return make(service, region_name=REGION, endpoint_url=self.endpoint, **chosen)


@pytest.fixture
def api() -> Iterator[Api]:
    services = SimpleNamespace(forget_launch_data=lambda: None)
    instances = SimpleNamespace(is_running=lambda _: False)
    bound = listen(None, "127.0.0.1", 0)
    running = Api(f"http://127.0.0.1:{bound.getsockname()[1]}", moto_state.AccessKeys())
    application: Any = AwsApi(
        running.keys,
        threading.RLock(),
        Validator(clock=lambda: 0.0),
        instances=instances,  # type: ignore[arg-type]  # what no call here reaches is left out
        services=services,  # type: ignore[arg-type]
        request_reconcile=running.requests.append,
    )
    server = wsgi.serve(application, bound, handler=ApiRequestHandler)
    yield running
    threading.Thread(target=wsgi.close, args=(server,), daemon=True).start()
    for service in ("ec2", "iam", "s3", "ssm", "sts", "autoscaling", "route53", "cloudwatch"):
        backends: BackendDict[Any] = get_backend(service)
        backends.reset()


@pytest.fixture
def operator(api: Api) -> dict[str, str]:
    """Keys of a user who may do everything."""
    iam = api.client("iam")
    iam.create_user(UserName="operator")
    iam.put_user_policy(
        UserName="operator",
        PolicyName="all",
        PolicyDocument=json.dumps(moto_state.ADMINISTRATOR_POLICY),
    )
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


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
