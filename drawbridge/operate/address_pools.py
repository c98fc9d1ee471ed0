"""Allocate ranges of VPCs in a pool of Amazon VPC IP Address Manager (IPAM).

AWS makes an allocation with strong consistency, so no two of a pool overlap. It does not know ranges that are in use
and not allocated, which is why they are disallowed here (Amazon EC2 API Reference, "AllocateIpamPoolCidr"; Amazon VPC
IPAM User Guide, "Allocate CIDRs").
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, collapse_addresses
from typing import Any

from botocore.exceptions import ClientError

from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.claims import Allocation

#: Tag of the pool from which the VPCs of new stacks get their ranges.
TAG_KEY, TAG_VALUE = "Drawbridge", "vpc"

_ID = re.compile(r"ipam-pool-[0-9a-f]{8,17}")


def find_pool(account: Account, pool: str | None = None) -> str | None:
    """Return the ID of the region's one pool with the tag, or `pool` itself if it can be used; None without a tag.

    Raises:
        StackError: several pools have the tag, or the named one does not exist, or not for private IPv4 ranges here.
        AwsError: AWS refused a call.
    """
    if pool is not None and not _ID.fullmatch(pool):
        raise errors.StackError(f"{pool} is not the ID of an IPAM pool", "use one such as ipam-pool-0123456789abcdef0")
    region = str(account.client("ec2").meta.region_name)
    if pool is not None:
        problem = _find_problem(_describe_pool(account, pool, region), region)
        if problem:
            raise errors.StackError(f"IPAM pool {pool} {problem}", "use a private IPv4 pool of the stack's region")
        return pool
    tagged = [
        str(entry["IpamPoolId"])
        for entry in _list_pools(account)
        if {"Key": TAG_KEY, "Value": TAG_VALUE} in entry.get("Tags", ()) and not _find_problem(entry, region)
    ]
    if len(tagged) > 1:
        raise errors.StackError(
            f"{len(tagged)} IPAM pools of {region} have the tag {TAG_KEY}: {TAG_VALUE}: {', '.join(sorted(tagged))}",
            "name one: --ipam-pool",
        )
    return tagged[0] if tagged else None


def allocate_range(account: Account, pool: str, stack: str, length: int, used: Iterable[IPv4Network]) -> Allocation:
    """Return a new allocation with a prefix of `length` for a stack, which overlaps none of the `used` ranges.

    Raises:
        StackError: the pool has no such range left.
        AwsError: AWS refused a call.
    """
    ec2 = account.client("ec2")
    with translate_aws_errors(account.stack, policy="deployer"):
        pages = ec2.get_paginator("get_ipam_pool_cidrs").paginate(IpamPoolId=pool)
        cidrs = [IPv4Network(entry["Cidr"]) for page in pages for entry in page["IpamPoolCidrs"]]
        disallowed = _intersect(cidrs, used)
        try:
            answer = ec2.allocate_ipam_pool_cidr(
                IpamPoolId=pool,
                NetmaskLength=length,
                Description=f"drawbridge stack {stack}",
                **({"DisallowedCidrs": [str(network) for network in disallowed]} if disallowed else {}),
            )["IpamPoolAllocation"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidParameterValue":
                raise
            raise errors.StackError(
                f"IPAM pool {pool} has no /{length} for stack {stack}: {error.response['Error']['Message']}",
                "provision the pool with more, start from a file with a smaller network.cidr, or destroy what is past "
                "its end: drawbridge stack reap",
            ) from error
    return Allocation(pool=pool, id=answer["IpamPoolAllocationId"], cidr=IPv4Network(answer["Cidr"]))


def _intersect(cidrs: Iterable[IPv4Network], used: Iterable[IPv4Network]) -> list[IPv4Network]:
    """Return what `used` covers of `cidrs`: AWS need not take ranges outside of the pool."""
    used = list(used)
    # Of two networks that overlap, the smaller lies in the other.
    parts = (
        max(cidr, network, key=lambda n: n.prefixlen) for cidr in cidrs for network in used if cidr.overlaps(network)
    )
    return list(collapse_addresses(parts))


def _list_pools(account: Account) -> list[dict[str, Any]]:
    with translate_aws_errors(account.stack, policy="deployer"):
        pages = account.client("ec2").get_paginator("describe_ipam_pools").paginate()
        return [pool for page in pages for pool in page["IpamPools"]]


def _describe_pool(account: Account, pool: str, region: str) -> dict[str, Any]:
    """Return AWS's description of a pool; raises `StackError` if there is none."""
    with translate_aws_errors(account.stack, policy="deployer"):
        try:
            pools: list[dict[str, Any]] = account.client("ec2").describe_ipam_pools(IpamPoolIds=[pool])["IpamPools"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidIpamPoolId.NotFound":
                raise
            pools = []
    if not pools:
        raise errors.StackError(
            f"there is no IPAM pool {pool} in {region}", "see the pools: aws ec2 describe-ipam-pools"
        )
    return pools[0]


def _find_problem(pool: dict[str, Any], region: str) -> str | None:
    """Return why a pool has no ranges for VPCs of a region, None if it has."""
    if pool["AddressFamily"] != "ipv4":
        return "has no IPv4 ranges"
    if pool["IpamScopeType"] != "private":
        return "is in a public scope"
    if pool.get("Locale") != region:
        return f"has the locale {pool.get('Locale')}, not {region}"
    if str(pool["State"]).startswith(("delete", "isolate")):
        return f"is in state {pool['State']}"
    return None
