"""Claim names and ranges for stacks, so that no two stacks of an account and region have the same.

A claim is a parameter of SSM, which is created only if it does not exist (AWS Systems Manager API Reference,
PutParameter: without `Overwrite`, it fails with ParameterAlreadyExists). Of several that claim the same at once, one
succeeds. An abandoned claim is replaced by the next generation of it, a parameter of another name, so that it too is
created by one alone.

A claim on a range of an IPAM pool holds the allocation, which is released with the claim.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import Any

from botocore.exceptions import ClientError

import contract
from drawbridge.operate.account import WRITE_CONFIG, Account, translate_aws_errors

#: How a moment is written in claims, tags and stack files.
MOMENT = "%Y-%m-%dT%H:%M:%SZ"


#: Codes of AWS for an allocation that is released already, or whose pool is deleted.
_RELEASED_CODES = frozenset({"InvalidIpamPoolAllocationId.NotFound", "InvalidIpamPoolId.NotFound"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """A range that is allocated in an IPAM pool, as the IDs of both name it."""

    pool: str
    id: str
    cidr: IPv4Network


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim of a stack on its name or on a range."""

    subject: str
    """What is claimed: `stack/NAME`, `range/` and a number, or `allocation/` and the ID of an allocation."""
    generation: int
    stack: str
    owner: str
    """Who made the stack."""
    end: datetime | None
    """When the stack may be destroyed; None for a stack without an end."""
    allocation: Allocation | None = None

    @property
    def parameter(self) -> str:
        """Name of the parameter."""
        return f"{contract.CLAIMS}/{self.subject}/{self.generation}"

    def is_past(self, now: datetime) -> bool:
        """Return whether the claim's end is over."""
        return self.end is not None and self.end <= now


def stack_subject(stack: str) -> str:
    """Return the subject of a claim on a stack's name."""
    return f"stack/{stack}"


def list_claims(account: Account) -> list[Claim]:
    """Return all claims of the account and region; raises `AwsError`."""
    values = account.parameters(contract.CLAIMS)
    return [claim for name in sorted(values) if (claim := parse_claim(name, values[name]))]


def parse_claim(name: str, value: str) -> Claim | None:
    """Return the claim that a parameter holds, None if it is not in that format."""
    subject, _, generation = name.removeprefix(f"{contract.CLAIMS}/").rpartition("/")
    try:
        document: dict[str, Any] = json.loads(value)
        end = document["end"]
        return Claim(
            subject=subject,
            generation=int(generation),
            stack=str(document["stack"]),
            owner=str(document["owner"]),
            end=parse_moment(end) if end else None,
            allocation=_parse_allocation(document.get("allocation")),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _parse_allocation(fields: dict[str, str] | None) -> Allocation | None:
    if fields is None:
        return None
    return Allocation(pool=str(fields["pool"]), id=str(fields["id"]), cidr=IPv4Network(fields["cidr"]))


def parse_moment(text: object) -> datetime:
    """Return the time of a text in ISO 8601, which is in UTC unless it says otherwise; raises ValueError."""
    moment = datetime.fromisoformat(str(text))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def claim_subject(
    account: Account,
    subject: str,
    stack: str,
    owner: str,
    end: datetime | None,
    is_abandoned: Callable[[Claim], bool],
) -> Claim | None:
    """Return the stack's new claim on a subject, None if another stack has one; raises `AwsError`.

    A claim for which `is_abandoned` is true is replaced.
    """
    former = _list_generations(account, subject)
    if any(not is_abandoned(claim) for claim in former):
        return None
    claim = Claim(
        subject=subject,
        generation=max((claim.generation for claim in former), default=0) + 1,
        stack=stack,
        owner=owner,
        end=end,
    )
    if not _create(account, claim):
        return None
    # Between the look above and the creation, somebody may have claimed, released and claimed again.
    if any(
        entry.generation != claim.generation and entry not in former for entry in _list_generations(account, subject)
    ):
        release_claims(account, [claim])
        return None
    release_claims(account, former)
    return claim


def claim_allocation(account: Account, allocation: Allocation, stack: str, owner: str, end: datetime | None) -> Claim:
    """Return the stack's new claim on an allocation, which is released if it cannot be claimed; raises `AwsError`."""
    claim = Claim(
        subject=f"allocation/{allocation.id}", generation=1, stack=stack, owner=owner, end=end, allocation=allocation
    )
    try:
        _create(account, claim)
    except BaseException:
        _release_allocation(account, allocation)
        raise
    return claim


def release_claims(account: Account, claims: Iterable[Claim]) -> None:
    """Delete claims, and release their allocations; those that are gone already count as deleted. Raises `AwsError`."""
    claims = list(claims)
    # First, because nothing but the claim names the allocation.
    for claim in claims:
        if claim.allocation:
            _release_allocation(account, claim.allocation)
    names = [claim.parameter for claim in claims]
    with translate_aws_errors(account.stack):
        for start in range(0, len(names), 10):  # AWS takes 10 at once.
            account.client("ssm", WRITE_CONFIG).delete_parameters(Names=names[start : start + 10])


def _release_allocation(account: Account, allocation: Allocation) -> None:
    with translate_aws_errors(account.stack, policy="deployer"):
        try:
            account.client("ec2").release_ipam_pool_allocation(
                IpamPoolId=allocation.pool, IpamPoolAllocationId=allocation.id, Cidr=str(allocation.cidr)
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in _RELEASED_CODES:
                raise


def _list_generations(account: Account, subject: str) -> list[Claim]:
    values = account.parameters(f"{contract.CLAIMS}/{subject}")
    return [claim for name in sorted(values) if (claim := parse_claim(name, values[name]))]


def _create(account: Account, claim: Claim) -> bool:
    """Create a claim's parameter; return False if it exists."""
    end = claim.end.strftime(MOMENT) if claim.end else None
    document: dict[str, Any] = {"stack": claim.stack, "owner": claim.owner, "end": end}
    if claim.allocation:
        allocation = claim.allocation
        document["allocation"] = {"pool": allocation.pool, "id": allocation.id, "cidr": str(allocation.cidr)}
    value = json.dumps(document)
    tags = {**contract.tags(claim.stack), contract.OWNER_TAG: claim.owner}
    with translate_aws_errors(account.stack):
        try:
            account.client("ssm", WRITE_CONFIG).put_parameter(
                Name=claim.parameter,
                Value=value,
                Type="String",
                Tags=[{"Key": key, "Value": text} for key, text in tags.items()],
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ParameterAlreadyExists":
                raise
            return False
    return True
