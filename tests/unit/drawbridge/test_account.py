"""Where the command looks for a stack, and how it tells AWS's errors. Reaches no AWS and no lab."""

import re
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import boto3
import pytest
from botocore import exceptions as boto
from moto import mock_aws

from drawbridge import errors
from drawbridge.operate import account, lab_account
from drawbridge.operate.stack_records import StackRecord, save_record
from lab import linux
from lab import region as labs
from lab.errors import NotUp


def no_lab(name: str) -> None:
    return None


@pytest.fixture
def running_lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A region on this machine, as far as the command asks."""
    environment = {"AWS_ACCESS_KEY_ID": "AKIALAB", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-west-1"}
    region = SimpleNamespace(
        endpoint="http://127.0.0.1:4999",
        environment=environment,
        directory=Path("/nowhere"),
        status=lambda: {"internet": "the-internet"},
        stacks=tmp_path,
    )
    monkeypatch.setattr(labs, "connect", lambda name: region)
    monkeypatch.setattr(labs, "running", lambda: ["try1a2b3c"])
    return region


@pytest.mark.usefixtures("running_lab")
def test_stack_lab_is_on_this_machine_whatever_the_environment_says() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "AKIAREAL", "AWS_REGION": "us-east-1"}
    found = lab_account.connect("lab", environ=environ)
    credentials = found.session.get_credentials()
    assert credentials is not None
    assert (credentials.access_key, found.session.region_name) == ("AKIALAB", "eu-west-1")
    assert found.client("ssm").meta.endpoint_url == "http://127.0.0.1:4999"
    assert found.identity == Path("/nowhere/operator")


@pytest.mark.usefixtures("running_lab")
@pytest.mark.parametrize(
    "endpoint", ["https://ssm.eu-west-1.amazonaws.com", "http://10.0.0.1:5000", "http://localhost.example.com"]
)
def test_stack_lab_refuses_an_endpoint_elsewhere(endpoint: str) -> None:
    with pytest.raises(errors.StackError, match="lives on this machine"):
        lab_account.connect("lab", environ={"AWS_ENDPOINT_URL": endpoint})


@pytest.mark.usefixtures("running_lab")
def test_addresses_of_stack_lab_are_dialled_on_the_labs_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []

    def within(namespace: str, call: Callable[[], object]) -> object:
        entered.append(namespace)
        return call()

    monkeypatch.setattr(linux, "within", within)
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = lab_account.connect("lab", environ={})
        found.dial("127.0.0.1", server.getsockname()[1], 5).close()
        server.accept()[0].close()
    assert entered == ["the-internet"]
    with pytest.raises(OSError, match=r"refused \(your address in the lab is 192\.0\.2\.1\)"):
        found.dial("127.0.0.1", 9, 5)


@pytest.mark.usefixtures("running_lab")
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"])
def test_stack_lab_takes_loopback(endpoint: str) -> None:
    assert lab_account.connect("lab", environ={"AWS_ENDPOINT_URL": endpoint}).stack == "lab"


def test_any_stack_is_on_this_machine_if_the_environment_names_the_labs_api(running_lab: SimpleNamespace) -> None:
    save_record(cast(labs.Region, running_lab), StackRecord(stack="team", aws_region="eu-north-1"))
    (running_lab.stacks / "team.json").touch()
    found = lab_account.connect("team", environ={"AWS_ENDPOINT_URL": "http://127.0.0.1:4999/"})
    assert (found.stack, found.endpoint, found.namespace) == ("team", running_lab.endpoint, "the-internet")
    assert found.session.region_name == "eu-north-1"
    for environ in ({}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:5000"}, {"AWS_ENDPOINT_URL": "https://10.0.0.1:4999"}):
        assert lab_account.connect("team", region="eu-west-1", environ=environ).endpoint is None


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_a_stack_of_the_lab_that_left_no_file_is_in_the_environment_s_region(
    running_lab: SimpleNamespace, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"AWS_ENDPOINT_URL": running_lab.endpoint, variable: "eu-north-1"}
    assert lab_account.connect("gone", environ=environ).session.region_name == "eu-north-1"


@pytest.mark.parametrize("name", ["frankfurt", "eu-centrl-1", "Europe (Frankfurt)"])
@pytest.mark.parametrize("connect", [partial(lab_account.connect, "team"), lab_account.connect_region])
@pytest.mark.parametrize("is_option", [True, False])
def test_a_region_that_cannot_exist_is_named_with_the_one_that_it_is_like(
    connect: Callable[..., account.Account], is_option: bool, name: str
) -> None:
    option, environ = (name, {}) if is_option else (None, {"AWS_REGION": name})
    with pytest.raises(errors.AwsError, match=f"^{re.escape(name)} is not a valid AWS region$") as caught:
        connect(region=option, environ=environ)
    assert caught.value.remedy == "did you mean eu-central-1?"


def test_no_lab_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs, "connect", no_lab)
    with pytest.raises(NotUp, match="no lab runs"):
        lab_account.connect("lab", environ={})


@pytest.mark.parametrize("name", ["", "../lab", "Lab", "a/b", "-x", "x" * 64])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises(errors.StackError, match="is not a valid stack name"):
        lab_account.connect(name, environ={})


@pytest.mark.parametrize(
    ("option", "environ", "chosen"),
    [
        ("eu-north-1", {"AWS_REGION": "us-east-1"}, "eu-north-1"),
        (None, {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-2"}, "ap-southeast-2"),
        (None, {}, "ap-southeast-2"),
    ],
)
def test_the_region_is_the_option_s_or_the_one_that_pulumi_deploys_to(
    option: str | None, environ: dict[str, str], chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most shells, CloudShell and CI set AWS_REGION; `pulumi up` takes the stack file's region all the same."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: mine\n")
    (tmp_path / "Pulumi.team.yaml").write_text("config:\n  aws:region: ap-southeast-2\n")
    account = lab_account.connect("team", region=option, environ=environ)
    assert (account.session.region_name, account.endpoint) == (chosen, None)


@pytest.mark.parametrize(
    ("environ", "chosen"),
    [
        ({"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-2"}, "us-east-1"),
        ({"AWS_DEFAULT_REGION": "us-east-2"}, "us-east-2"),
    ],
)
def test_a_stack_without_a_region_of_its_own_has_the_environment_s(
    environ: dict[str, str], chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lab_account.connect("team", environ=environ).session.region_name == chosen


def test_no_region_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.AwsError, match="no AWS region for stack team") as caught:
        lab_account.connect("team", environ={}).client("ssm")
    assert caught.value.remedy == "give --region, or set AWS_REGION, or aws:region in its stack file"


def test_a_stack_file_that_is_no_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: mine\n")
    (tmp_path / "Pulumi.team.yaml").write_text("config: [\n")
    with pytest.raises(errors.StackError):
        lab_account.connect("team", environ={})


@mock_aws
def test_a_missing_parameter_is_named() -> None:
    here = account.Account(stack="team", session=boto3.Session(region_name="eu-west-1"))
    with pytest.raises(errors.NotDeployedError, match=r"stack team has no /a/b") as caught:
        here.parameter("/a/b")
    assert "pulumi up --stack team" in caught.value.remedy


def test_no_credentials() -> None:
    here = account.Account(stack="team", session=boto3.Session(region_name="eu-west-1"))
    with pytest.raises(errors.CredentialsError) as caught:
        here.parameter("/a/b")
    assert "aws sso login" in caught.value.remedy


def refusal(code: str) -> boto.ClientError:
    return boto.ClientError({"Error": {"Code": code, "Message": "told"}}, "GetParameter")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (refusal("ExpiredTokenException"), errors.CredentialsError),
        (refusal("UnrecognizedClientException"), errors.CredentialsError),
        (refusal("AccessDeniedException"), errors.AccessDeniedError),
        (refusal("ThrottlingException"), errors.AwsError),
        (refusal("ParameterNotFound"), errors.NotDeployedError),
        (boto.EndpointConnectionError(endpoint_url="https://x"), errors.AwsError),
        (boto.ConnectTimeoutError(endpoint_url="https://x"), errors.AwsError),
        (boto.ProfileNotFound(profile="x"), errors.CredentialsError),
    ],
)
def test_each_error_of_aws_is_one_of_ours(raised: Exception, told: type[errors.AwsError]) -> None:
    with pytest.raises(errors.AwsError) as caught, account.translate_aws_errors("team"):
        raise raised
    assert type(caught.value) is told
    assert caught.value.remedy


def test_a_bug_is_not_told_as_aws() -> None:
    def bug() -> None:
        raise KeyError("x")

    telling: Callable[[], None] = bug
    with pytest.raises(KeyError), account.translate_aws_errors("team"):
        telling()
