"""An AWS in this process that refuses what the lab's API refuses: moto behind `lab.api.validation`."""

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

from lab.api.iam import SignedRequest, authorize, parse_call, parse_signature
from lab.api.moto_patches import Patches, patched
from lab.api.moto_state import AccessKeys, add_state, find_bucket_policy, find_key, list_implied_calls, publish_images
from lab.api.request import parse_request
from lab.api.validation.validator import Validator, check_s3

REGION = "eu-west-1"
#: One session keeps the service models that each client of its own would load again.
_SESSION = boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing")


class JudgedAws:
    """Clients of one AWS region, whose requests a validator sees first."""

    def __init__(self, validator: Validator, region: str = REGION) -> None:
        self.validator = validator
        self.region = region
        self._keys = AccessKeys()

    def client(self, service: str, **credentials: str) -> Any:
        """Return a boto3 client that does not check its parameters itself and does not try again.

        Credentials (boto3's names for them) have their policies judged; without, every call is allowed.
        """
        if service == "ec2":
            publish_images(self.region)
        config = Config(parameter_validation=False, retries={"total_max_attempts": 1})
        make: Any = _SESSION.client
        client = make(service, region_name=self.region, config=config, **credentials)
        # First, because moto's own handler answers.
        client.meta.events.register_first("before-send", lambda request, **_: self.judge(request))
        return client

    def judge(self, request: AWSPreparedRequest) -> None:
        """Raise `ApiError` for a request that AWS refuses."""
        url = urlsplit(request.url)
        body: Any = request.body or b""
        if hasattr(body, "read"):
            stream, body = body, body.read()
            stream.seek(0)
        header_items: list[tuple[str, Any]] = list(request.headers.items())
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value) for name, value in header_items
        }
        signed = SignedRequest(
            method=str(request.method),
            path=url.path,
            query=url.query,
            headers={"host": url.netloc, **headers},
            body=body.encode() if isinstance(body, str) else body,
            secure=True,
            source="203.0.113.1",
        )
        signature = parse_signature(signed)
        assert signature
        if signature.key != "testing":
            authorize(signed, self._keys.find_principal, find_bucket_policy, list_implied_calls, find_key, add_state)
        if signature.service == "s3":
            check_s3(parse_call(signed, signature), signed)
        elif parsed := parse_request(signed, signature):
            self.validator.check(parsed)


@contextlib.contextmanager
def every_call_judged(validator: Validator) -> Iterator[None]:
    """Judge the calls of every client that moto answers in this process."""
    aws, replaced = JudgedAws(validator), Patches()

    @replaced.wrap(BotocoreStubber, "__call__")
    def call(original: Any, self: BotocoreStubber, event_name: str, request: AWSPreparedRequest, **kwargs: Any) -> Any:
        aws.judge(request)
        return original(self, event_name, request, **kwargs)

    try:
        yield
    finally:
        replaced.undo()


@contextlib.contextmanager
def judged_aws(validator: Validator | None = None, region: str = REGION) -> Iterator[JudgedAws]:
    """An empty AWS; the first client of EC2 finds the public images."""
    with mock_aws(), patched():
        yield JudgedAws(validator or Validator(), region)
