"""Connect to the account that a stack lives in: AWS, or the region on this machine.

Stack `lab` lives in the region on this machine and nowhere else. Whatever the environment holds of endpoints and
credentials, an endpoint that is not on loopback is refused, so that the lab never touches a real account. Another stack
lives in the region if the environment names its API, as `drawbridge lab env` prints it.

The lab's modules are imported where a lab is looked for: only Linux can import them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from drawbridge import errors
from drawbridge.operate.account import Account, Policy, dial, translate_aws_errors
from drawbridge.operate.stack_files import LAB, STACK_NAME, STACK_NAME_REMEDY, configured_region
from drawbridge.operate.stack_records import load_record
from drawbridge.printable import escape_controls
from endpoint import endpoint_of, is_loopback, remote_endpoint
from lab.errors import NotPermitted, NotUp
from lab.paths import DEFAULT_LAB
from lab.system import require_linux
from settings.regions import is_region_name, suggest_region

if TYPE_CHECKING:
    from lab.region import Region


def connect(
    stack: str,
    *,
    region: str | None = None,
    policy: Policy = "operator",
    environ: Mapping[str, str] = os.environ,
) -> Account:
    """Return the account that a stack lives in; AWS is not called yet.

    `policy` has every permission that the command needs. `region` wins over the stack file, AWS_REGION,
    AWS_DEFAULT_REGION and the AWS profile. Raises `StackError` for a name that no stack can have, or an endpoint that
    stack `lab` refuses, `AwsError` for a region that cannot exist, and `lab.errors.NotUp` where no lab runs.
    """
    if not STACK_NAME.fullmatch(stack):
        raise errors.StackError(f"{stack!r} is not a valid stack name", STACK_NAME_REMEDY)
    running = _find_named_lab(environ)
    if stack == LAB:
        return _connect_lab(stack, region, running or _default_lab(environ), environ)
    if running is not None:
        return _connect_lab(stack, region, running, environ)
    # `pulumi up` deploys to the stack file's region, whatever the environment has.
    chosen = _check_region(region or configured_region(stack) or _region_of(environ))
    with translate_aws_errors(stack):
        return Account(stack=stack, policy=policy, session=boto3.Session(region_name=chosen))


def connect_region(region: str | None, environ: Mapping[str, str] = os.environ) -> Account:
    """Return the account for work on all stacks of a region: the given one, or the environment's.

    Raises `AwsError` if no region is known, or if it cannot exist.
    """
    chosen = _check_region(region or _region_of(environ))
    with translate_aws_errors("any"):
        session = boto3.Session(region_name=chosen)
    if session.region_name is None:
        raise errors.AwsError("no AWS region is given", "give --region, or set AWS_REGION")
    return Account(stack="any", session=session)


def _region_of(environ: Mapping[str, str]) -> str | None:
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")


def _check_region(name: str | None) -> str | None:
    """Return the name of a region, or None; raises `AwsError` for one that AWS cannot have."""
    if name and not is_region_name(name):
        raise errors.AwsError(
            f"{escape_controls(name)} is not a valid AWS region", f"did you mean {suggest_region(name)}?"
        )
    return name


def operator_key(region: Region) -> Path:
    """Return the path of the lab operator's private SSH key, which the lab's gateways accept."""
    return region.directory / "operator"


def _find_named_lab(environ: Mapping[str, str]) -> Region | None:
    """Return the running lab whose API the environment names, as `drawbridge lab env` prints it; None if there is none.

    Only root finds one.
    """
    endpoint = endpoint_of(environ)
    if endpoint is None or not is_loopback(endpoint):
        return None
    with suppress(NotPermitted):
        require_linux()
        from lab import region as labs

        regions = (labs.connect(name) for name in labs.running())
        return next((region for region in regions if region and region.endpoint == endpoint.rstrip("/")), None)
    return None


def _default_lab(environ: Mapping[str, str]) -> Region:
    if remote := remote_endpoint(environ):
        raise errors.StackError(
            f"stack {LAB} lives on this machine, and {remote.source} is {remote.url}",
            f"unset {remote.source}, or name another stack with --stack",
        )
    require_linux()
    from lab import region as labs

    region = labs.connect(environ.get("DRAWBRIDGE_LAB") or DEFAULT_LAB)
    if region is None:
        raise NotUp("no lab runs on this machine")
    return region


def _connect_lab(stack: str, aws_region: str | None, region: Region, environ: Mapping[str, str]) -> Account:
    from lab import linux
    from lab.network.plan import BACKBONE

    internet, record = region.status()["internet"], load_record(region, stack)

    def dial_public(host: str, port: int, timeout: float) -> socket.socket:
        # The lab's public addresses are on its own Internet, which this machine is not part of.
        try:
            return linux.within(internet, lambda: dial(host, port, timeout))
        except OSError as error:
            raise OSError(f"{error} (your address in the lab is {BACKBONE})") from error

    keys = region.environment
    deployed = record.aws_region if record else configured_region(stack)
    return Account(
        stack=stack,
        endpoint=region.endpoint,
        dial=dial_public,
        namespace=internet,
        identity=operator_key(region),
        session=boto3.Session(
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=keys.get("AWS_SESSION_TOKEN"),
            region_name=_check_region(aws_region or deployed or _region_of(environ)),
        ),
    )
