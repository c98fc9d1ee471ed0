"""Claim names and ranges for stacks, so that no two stacks of an account and region have the same.

A claim is a parameter of SSM, which is created only if it does not exist (AWS Systems Manager API Reference,
PutParameter: without `Overwrite`, it fails with ParameterAlreadyExists). Of several that claim the same at once, one
succeeds. An abandoned claim is replaced by the next generation of it, a parameter of another name, so that it too is
created by one alone.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

import contract
from drawbridge.operate.account import Account, translate_aws_errors

#: How a moment is written in claims, tags and stack files.
MOMENT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim of a stack on its name or on a range."""

    subject: str
    """What is claimed: `stack/NAME`, or `range/` and a number."""
    generation: int
    stack: str
    owner: str
    """Who made the stack."""
    end: datetime | None
    """When the stack may be destroyed; None for a stack without an end."""

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
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


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


def release_claims(account: Account, claims: Iterable[Claim]) -> None:
    """Delete claims; those that are gone already count as deleted. Raises `AwsError`."""
    names = [claim.parameter for claim in claims]
    with translate_aws_errors(account.stack):
        for start in range(0, len(names), 10):  # AWS takes 10 at once.
            account.client("ssm").delete_parameters(Names=names[start : start + 10])


def _list_generations(account: Account, subject: str) -> list[Claim]:
    values = account.parameters(f"{contract.CLAIMS}/{subject}")
    return [claim for name in sorted(values) if (claim := parse_claim(name, values[name]))]


def _create(account: Account, claim: Claim) -> bool:
    """Create a claim's parameter; return False if it exists."""
    end = claim.end.strftime(MOMENT) if claim.end else None
    value = json.dumps({"stack": claim.stack, "owner": claim.owner, "end": end})
    tags = {**contract.tags(claim.stack), contract.OWNER_TAG: claim.owner}
    with translate_aws_errors(account.stack):
        try:
            account.client("ssm").put_parameter(
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
