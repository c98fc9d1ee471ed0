"""Where a stack lives: the AWS calls the command makes, with AWS's errors told once for all of it.

Stack `lab` lives in the region on this machine and nowhere else. Whatever the environment holds of endpoints and
credentials, an address that is not loopback is refused, so that the lab never touches a real account.
"""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore import exceptions as boto
from botocore.config import Config

import contract
from drawbridge import errors
from drawbridge.operate import ssh_login
from endpoint import remote_endpoint

LAB = "lab"
"""The stack of the region on this machine."""

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where the program and its stack files are."""

STACK_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

#: Short, with few retries: a person waits for the answer.
CLIENT_CONFIG = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})

NOT_FOUND_CODES = frozenset({"ParameterNotFound", "NoSuchBucket", "NoSuchKey"})
CREDENTIALS_CODES = frozenset(
    {"AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """AWS as one stack's operator sees it."""

    stack: str
    session: boto3.Session
    endpoint: str | None = None
    """Of the lab's region; None leaves the choice to boto3."""
    dial: ssh_login.Dial = ssh_login.dial
    """How the stack's public addresses are reached from here."""
    namespace: str | None = None
    """Network namespace from which they are reached; None is this machine's own."""
    identity: Path | None = None
    """Private SSH key its gateway lets in, where that is known."""
    gateway: str = contract.GATEWAYS[0]
    """Letter of the gateway it is about."""

    @property
    def names(self) -> contract.Names:
        """What the stack's things are called."""
        return contract.Names(self.stack, self.gateway)

    def client(self, service: str) -> Any:
        """A boto3 client; raises `AwsError` where there is no region or no credentials to sign with."""
        with translate_aws_errors(self.stack):
            return self.session.client(service, endpoint_url=self.endpoint, config=CLIENT_CONFIG)  # type: ignore[call-overload]

    def parameter(self, name: str, *, secret: bool = False) -> str:
        """Value of an SSM parameter; raises `NotDeployedError` where there is none and `AwsError` otherwise."""
        with translate_aws_errors(self.stack, name):
            answer = self.client("ssm").get_parameter(Name=name, WithDecryption=secret)
        return str(answer["Parameter"]["Value"])

    def parameters(self, path: str, *, secret: bool = False) -> dict[str, str]:
        """Every SSM parameter below a path, by its whole name; raises `AwsError`."""
        with translate_aws_errors(self.stack):
            pages = self.client("ssm").get_paginator("get_parameters_by_path")
            return {
                parameter["Name"]: parameter["Value"]
                for page in pages.paginate(Path=path, Recursive=True, WithDecryption=secret)
                for parameter in page["Parameters"]
            }


def connect(stack: str, *, region: str | None = None, environ: Mapping[str, str] = os.environ) -> Account:
    """The account a stack lives in; nothing is called yet.

    `region` wins over AWS_REGION, AWS_DEFAULT_REGION, the stack file and the AWS profile. Raises `StackError` for a
    name that cannot be, or an endpoint that stack `lab` refuses, and `LabError` where no lab runs.
    """
    if not STACK_NAME.fullmatch(stack):
        raise errors.StackError(f"{stack!r} is no name of a stack", "use at most 63 of a-z 0-9 . _ -")
    if stack == LAB:
        return _lab(environ)
    chosen = region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or region_of(stack)
    with translate_aws_errors(stack):
        return Account(stack=stack, session=boto3.Session(region_name=chosen))


def stack_file(stack: str) -> Path:
    """Where a stack's configuration is, whether or not it is there."""
    return CHECKOUT / "stacks" / f"Pulumi.{stack}.yaml"


def region_of(stack: str) -> str | None:
    """The region a stack's file names; None where there is no such file or no region in it."""
    from settings.problems import SettingsError
    from settings.stack_file import read_stack_file

    try:
        return read_stack_file(stack_file(stack)).get("aws:region")
    except FileNotFoundError:
        return None
    except SettingsError as error:
        raise errors.StackError(str(error), f"mend {stack_file(stack)}") from error


def _lab(environ: Mapping[str, str]) -> Account:
    # Here and not above: they load Pulumi's SDK, which other stacks' commands need not wait for.
    from drawbridge.trial import deployment
    from lab import linux, region

    if remote := remote_endpoint(environ):
        raise errors.StackError(
            f"stack {LAB} lives on this machine, and {remote.source} is {remote.url}",
            f"unset {remote.source}, or name another stack with --stack",
        )
    running = region.connect()
    if running is None:
        raise errors.LabError("no lab runs on this machine", "start one: make lab")
    internet = running.status()["internet"]

    def dial(host: str, port: int, timeout: float) -> socket.socket:
        # The lab's public addresses are on its own Internet, which this machine is no part of.
        return linux.within(internet, lambda: ssh_login.dial(host, port, timeout))

    keys = running.environment
    return Account(
        stack=LAB,
        endpoint=running.endpoint,
        dial=dial,
        namespace=internet,
        identity=deployment.identity(running),
        session=boto3.Session(
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=keys.get("AWS_SESSION_TOKEN"),
            region_name=keys.get("AWS_REGION") or keys.get("AWS_DEFAULT_REGION") or region_of(LAB),
        ),
    )


@contextmanager
def translate_aws_errors(stack: str, wanted: str | None = None) -> Iterator[None]:
    """Turns boto3's errors into ours; `wanted` is what `NotDeployedError` says is missing."""
    try:
        yield
    except boto.ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code in NOT_FOUND_CODES:
            raise errors.NotDeployedError(
                f"stack {stack} has no {wanted or 'such thing'} ({code})",
                f"is it deployed, and in this region? pulumi up --stack {stack}",
            ) from error
        if code in CREDENTIALS_CODES:
            raise errors.CredentialsError(f"AWS does not accept the credentials ({code})", _LOGIN) from error
        raise errors.AwsError(
            f"AWS refused {error.operation_name}: {code}: {message}", "ask for that permission, or use another profile"
        ) from error
    except (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.ProfileNotFound,
        boto.TokenRetrievalError,
    ) as error:
        raise errors.CredentialsError(f"no AWS credentials: {error}", _LOGIN) from error
    except boto.NoRegionError as error:
        raise errors.AwsError(
            f"no AWS region for stack {stack}", "give --region, or set aws:region in its stack file"
        ) from error
    except boto.BotoCoreError as error:
        raise errors.AwsError(f"AWS cannot be reached: {error}", "check the network and AWS_ENDPOINT_URL") from error


_LOGIN = "log in (aws sso login, or AWS_PROFILE), then: aws sts get-caller-identity"
