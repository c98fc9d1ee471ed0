"""Read clients' bundles where the program keeps them: in SSM or, with `secrets.bundles: s3`, in S3."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import contract
from contract import Names
from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors


def read_stored_bundle(account: Account, names: Names, client: str) -> str:
    """Return a client's bundle; raises `NotDeployedError` if the gateway has no such client, else `AwsError`."""
    return find_stored_bundle(account, names, client)[1]


def find_stored_bundle(account: Account, names: Names, client: str) -> tuple[str, str]:
    """Return where a client's bundle is, and the bundle; raises as `read_stored_bundle`."""
    with suppress(errors.NotDeployedError):
        return names.bundle(client), account.parameter(names.bundle(client), secret=True)
    bucket = _find_bucket(account, names)
    with translate_aws_errors(account.stack, f"client {client}"):
        text = _read_object(account.client("s3"), bucket, names.bundle_key(client))
    return names.bundle_address(client, bucket["Bucket"]), text


def list_bundles(account: Account, names: Names) -> Iterator[tuple[str, str, str]]:
    """Yield name, address and bundle of each client of a gateway; raises `AwsError`."""
    for parameter, bundle in account.parameters(names.clients, secret=True).items():
        name = parameter.removeprefix(f"{names.clients}/").partition("/")[0]
        if parameter == names.bundle(name):
            yield name, parameter, bundle
    # The gateways of a pair have their bundles in SSM.
    if names.gateway == contract.GATEWAYS[0]:
        yield from _list_objects(account, names)


def _list_objects(account: Account, names: Names) -> Iterator[tuple[str, str, str]]:
    bucket, s3, prefix = _find_bucket(account, names), account.client("s3"), f"{names.bundle_keys}/"
    with suppress(errors.NotDeployedError), translate_aws_errors(account.stack):
        for page in s3.get_paginator("list_objects_v2").paginate(**bucket, Prefix=prefix):
            for row in page.get("Contents", ()):
                name = row["Key"].removeprefix(prefix).removesuffix(".ovpn")
                bundle = _read_object(s3, bucket, row["Key"])
                yield name, names.bundle_address(name, bucket["Bucket"]), bundle


def _find_bucket(account: Account, names: Names) -> dict[str, str]:
    """Return the bucket of a gateway's bundles, and its owner, as S3's calls name them."""
    with translate_aws_errors(account.stack):
        owner = account.client("sts").get_caller_identity()["Account"]
    # Names of buckets are global: while the stack has none, another account can have one of that name.
    return {
        "Bucket": names.bundles_bucket(owner, account.session.region_name or ""),
        "ExpectedBucketOwner": owner,
    }


def _read_object(s3: Any, bucket: dict[str, str], key: str) -> str:
    return str(s3.get_object(**bucket, Key=key)["Body"].read().decode(errors="replace"))
