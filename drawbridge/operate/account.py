"""Call AWS for one stack's operator, and translate boto3's errors into the command's own."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import boto3
from botocore import exceptions as boto
from botocore.config import Config

import contract
from drawbridge import errors

Policy = Literal["deployer", "operator", "image-builder"]
"""A file of docs/policies."""
POLICIES: tuple[Policy, ...] = get_args(Policy)

Dial = Callable[[str, int, float], socket.socket]
"""Opens a TCP connection to a host and port within so many seconds; raises OSError."""

#: Short timeouts and few retries, because a person waits for the answer.
CLIENT_CONFIG = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})
#: For writes to SSM, which takes 3 parameters a second from all jobs of an account together.
WRITE_CONFIG = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 10})

NOT_FOUND_CODES = frozenset({"ParameterNotFound", "NoSuchBucket", "NoSuchKey"})
DENIED_CODES = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"})
CREDENTIALS_CODES = frozenset(
    {"AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
)


def dial(host: str, port: int, timeout: float) -> socket.socket:
    """Return a TCP connection from this machine, opened within `timeout` seconds; raises OSError."""
    return socket.create_connection((host, port), timeout=timeout)


@dataclass(frozen=True, kw_only=True)
class Account:
    """AWS for the operator of one stack."""

    stack: str
    session: boto3.Session
    endpoint: str | None = None
    """The lab's API; None leaves the choice to boto3."""
    dial: Dial = dial
    """How the stack's public addresses are reached from here."""
    namespace: str | None = None
    """Network namespace from which they are reached; None is this machine's."""
    identity: Path | None = None
    """Private SSH key that the gateway accepts, if it is known."""
    gateway: str = contract.GATEWAYS[0]
    """Letter of the gateway that is operated."""
    policy: Policy = "operator"
    """The policy that has every permission that the command needs."""
    _clients: dict[tuple[str, Config], Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Clients that were created: creating one takes as long as a call."""

    @property
    def names(self) -> contract.Names:
        """Names of the gateway's parameters and resources."""
        return contract.Names(self.stack, self.gateway)

    @property
    def all_names(self) -> tuple[contract.Names, ...]:
        """Names of every gateway that a stack can have; only a pair has more than the first."""
        return tuple(contract.Names(self.stack, gateway) for gateway in contract.GATEWAYS)

    def client(self, service: str, config: Config = CLIENT_CONFIG) -> Any:
        """Return a boto3 client; raises `AwsError` if there is no region, or no credentials to sign with."""
        if (service, config) not in self._clients:
            with translate_aws_errors(self.stack):
                client = self.session.client(service, endpoint_url=self.endpoint, config=config)  # type: ignore[call-overload]
            self._clients[service, config] = client
        return self._clients[service, config]

    def parameter(self, name: str, *, secret: bool = False) -> str:
        """Return the value of an SSM parameter; raises `NotDeployedError` if it does not exist, else `AwsError`."""
        with translate_aws_errors(self.stack, name, self.policy):
            answer = self.client("ssm").get_parameter(Name=name, WithDecryption=secret)
        return str(answer["Parameter"]["Value"])

    def json_parameter(self, name: str) -> dict[str, Any]:
        """Return the JSON object that an SSM parameter holds; raises as `parameter`, and `MalformedError`."""
        text = self.parameter(name)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise errors.MalformedError(
                f"SSM parameter {name} does not hold a JSON object",
                f"pulumi up --stack {self.stack} writes a release, the gateway's agent its report; if either stays "
                "malformed, do not trust the gateway",
            )
        return value

    def parameters(self, path: str, *, secret: bool = False) -> dict[str, str]:
        """Return every SSM parameter below a path, by its full name; raises `AwsError`."""
        with translate_aws_errors(self.stack, policy=self.policy):
            pages = self.client("ssm").get_paginator("get_parameters_by_path")
            return {
                parameter["Name"]: parameter["Value"]
                for page in pages.paginate(Path=path, Recursive=True, WithDecryption=secret)
                for parameter in page["Parameters"]
            }

    def has_parameters(self, path: str) -> bool:
        """Return whether any SSM parameter is below a path; raises `AwsError`."""
        filters = [{"Key": "Path", "Option": "Recursive", "Values": [path]}]
        with translate_aws_errors(self.stack):
            return bool(self.client("ssm").describe_parameters(ParameterFilters=filters, MaxResults=1)["Parameters"])


@contextmanager
def translate_aws_errors(stack: str, missing: str = "such resource", policy: Policy = "operator") -> Iterator[None]:
    """Raise boto3's errors as the command's own.

    `missing` is what `NotDeployedError` reports as missing, and `policy` what `AccessDeniedError` tells to attach.
    """
    try:
        yield
    except boto.ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code in NOT_FOUND_CODES:
            raise errors.NotDeployedError(
                f"stack {stack} has no {missing} ({code})",
                f"is it deployed, and in this region? pulumi up --stack {stack}",
            ) from error
        if code in CREDENTIALS_CODES:
            raise errors.CredentialsError(f"AWS does not accept the credentials ({code})", _LOGIN) from error
        if code in DENIED_CODES:
            raise _describe_denial(stack, error, policy) from error
        raise errors.AwsError(
            f"AWS refused {error.operation_name}: {code}: {message}", "correct what AWS names, or try again later"
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
            f"no AWS region for stack {stack}", "give --region, or set AWS_REGION, or aws:region in its stack file"
        ) from error
    except boto.BotoCoreError as error:
        raise errors.AwsError(
            f"AWS cannot be reached: {error}", "check the network, the region and AWS_ENDPOINT_URL"
        ) from error


#: AWS's words for who may not do what; EC2 adds an encoded message, which takes a permission of its own to read.
_DENIAL = re.compile(r"(?:User: (\S+) is )?not authorized to perform: ([a-z0-9-]+:\w+)")
_ENCODED = re.compile(r"\s*Encoded authorization failure message: \S+")
#: The services whose refusals may leave the action out, by the code of the refusal.
_SILENT_SERVICES = {"UnauthorizedOperation": "ec2", "AccessDenied": "s3"}


def _describe_denial(stack: str, error: boto.ClientError, policy: Policy) -> errors.AccessDeniedError:
    """Return which permission is missing, and who can give it.

    Source: IAM User Guide, "Troubleshoot access denied error messages"; AWS KMS Developer Guide, "Key policies in AWS
    KMS": a key's own policy decides.
    """
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    match = _DENIAL.search(message)
    service = _SILENT_SERVICES.get(code)
    permission = match[2] if match else ":".join(filter(None, (service, error.operation_name)))
    if permission.startswith("kms:"):
        entity = (match and match[1]) or "your user or role"
        remedy = f"add {entity} to drawbridge:secrets.users in the stack file, then: pulumi up --stack {stack}"
    elif "explicit deny" in message:
        remedy = f"docs/policies/{policy}.json is not enough: ask the administrator of the account or organization"
    else:
        remedy = f"attach docs/policies/{policy}.json to your user or role, or use another profile"
    return errors.AccessDeniedError(f"AWS denies {permission}: {_ENCODED.sub('', message) or code}", remedy, permission)


_LOGIN = "log in (aws sso login, or AWS_PROFILE), then: aws sts get-caller-identity"
