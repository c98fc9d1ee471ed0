"""Count a region's SSM parameters, so that SSM refuses none in the middle of a deployment, and say how long it takes.

Sources: AWS Systems Manager User Guide, "Managing parameter tiers"; AWS General Reference, "AWS Systems Manager
endpoints and quotas".
"""

from typing import Any

import boto3
import pulumi
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

import contract
from components.register import MAKE_ROOM

#: Standard parameters that an account may have in a region.
STANDARD_PARAMETERS = 10_000

#: PutParameter calls that SSM takes from an account and region in a second.
PUTS_PER_SECOND = 3

#: From this many new parameters on, those of the region are counted, 50 a call. SSM refuses fewer within
#: a minute.
COUNTED_FROM = 100

#: From this many new parameters on, S3 is proposed for bundles: SSM then takes three minutes to write them, and S3 some
#: seconds.
S3_FROM = 540

#: What to do about many clients.
BUNDLES_TO_S3 = "or keep clients' bundles in S3: drawbridge:secrets.bundles: s3"

#: Parameters that do not depend on the number of clients: the authority's, the gateway's, its report and pointer.
FIXED = 10


def count_needed(clients: int, kits: int, page: int, *, bundles: bool = True) -> int:
    """Return the parameters of a stack.

    `page` is how many clients share a page of the register, `bundles` whether each client has a parameter of its own.
    """
    return FIXED + (clients if bundles else 0) + -(-clients // page) + kits


def check_parameters(
    region: str, names: contract.Names, needed: int, *, intelligent: bool, bundles: bool = True
) -> None:
    """Raise `pulumi.RunError` if the region has no room for the stack's parameters, and say how long writing takes.

    `intelligent` says that SSM makes parameters beyond the limit advanced ones, and `bundles` that clients' bundles are
    among the parameters. What the stack has already is not new.
    """
    move = f"; {BUNDLES_TO_S3}" if bundles else ""
    if needed < COUNTED_FROM:
        return
    try:
        ssm = boto3.Session(region_name=region).client("ssm", config=Config(retries={"mode": "adaptive"}))
        new = needed - _count(ssm, names.root)
        if new < COUNTED_FROM:
            return
        existing = 0 if intelligent else _count(ssm)
    except (BotoCoreError, ClientError) as error:
        pulumi.log.warn(
            f"the stack needs {needed} SSM parameters; whether {region} has room for them cannot be read: {error}"
        )
        return
    if existing + new > STANDARD_PARAMETERS and not intelligent:
        raise pulumi.RunError(
            f"drawbridge:clients: need {new} new SSM parameters, but {region} has {existing} and the account's limit "
            f"is {STANDARD_PARAMETERS}; {MAKE_ROOM}{move}"
        )
    if minutes := round(new / PUTS_PER_SECOND / 60):
        pulumi.log.info(
            f"{new} new SSM parameters take about {minutes} minute{'s' if minutes > 1 else ''}, because SSM writes "
            f"{PUTS_PER_SECOND} a second; with the higher throughput that AWS sells for Parameter Store they take less"
            f"{move if new >= S3_FROM else ''}"
        )


def _count(ssm: Any, root: str | None = None) -> int:
    """Return the number of parameters below a path, by default all of the region's."""
    filters = [{"Key": "Path", "Option": "Recursive", "Values": [root]}] if root else []
    pages = ssm.get_paginator("describe_parameters").paginate(
        ParameterFilters=filters, PaginationConfig={"PageSize": 50}
    )
    return sum(len(page["Parameters"]) for page in pages)
