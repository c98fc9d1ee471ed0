"""The lab's API on loopback, without machines and packets."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3
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

    def create_user(self, name: str, document: str) -> dict[str, str]:
        """Create a user with one managed policy; return the user's keys by boto3's names."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        policy = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
        iam.attach_user_policy(UserName=name, PolicyArn=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


@contextmanager
def serve_lab_api(validator: Validator) -> Iterator[Api]:
    """Serve an empty API on a free port of loopback."""
    # moto keeps what a test has left that used it without a server.
    BackendDict.reset()
    services = SimpleNamespace(forget_launch_data=lambda: None)
    instances = SimpleNamespace(
        is_running=lambda _: False,
        save_image=lambda region, _, image: moto_state.finish_image(region, image, saved=True),
    )
    bound = listen(None, "127.0.0.1", 0)
    running = Api(f"http://127.0.0.1:{bound.getsockname()[1]}", moto_state.AccessKeys())
    application: Any = AwsApi(
        running.keys,
        threading.RLock(),
        validator,
        instances=instances,  # type: ignore[arg-type]  # what no call here reaches is left out
        services=services,  # type: ignore[arg-type]
        request_reconcile=running.requests.append,
    )
    server = wsgi.serve(application, bound, handler=ApiRequestHandler)
    try:
        yield running
    finally:
        threading.Thread(target=wsgi.close, args=(server,), daemon=True).start()
        BackendDict.reset()
