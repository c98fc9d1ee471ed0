"""Read which client certificates of a stack are revoked, in the authority's register."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contract import Names
from drawbridge import errors
from drawbridge.operate.account import Account


@dataclass(frozen=True, kw_only=True, slots=True)
class RevokedCertificate:
    """A certificate that the gateway refuses, although it has not ended."""

    name: str
    """Of its client."""
    gateway: str
    """Letter of the gateway that it is for."""
    serial: int
    not_after: datetime
    """When it ends; a day later the register forgets it."""
    revoked: datetime


def list_revoked(account: Account) -> list[RevokedCertificate]:
    """Return the revoked certificates of every gateway of the stack, by the client's name, the oldest first.

    Raises `AwsError`, and `MalformedError` for a register that is damaged.
    """
    certificates = [entry for names in account.all_names for entry in _read_register(account, names)]
    return sorted(certificates, key=lambda entry: (entry.name, entry.gateway, entry.revoked))


def _read_register(account: Account, names: Names) -> Iterator[RevokedCertificate]:
    entries: dict[str, dict[str, Any]] = {}
    for parameter, text in account.parameters(names.issued).items():
        page = parameter.removeprefix(f"{names.issued}/")
        try:
            value = json.loads(text)
            # A register of an earlier version has a parameter for each certificate. A page has the newer entry.
            entries = {page: value, **entries} if page.isdecimal() else {**entries, **value}
        except (ValueError, TypeError, RecursionError):
            raise _damaged(account, parameter) from None
    for serial, entry in entries.items():
        try:
            if entry["revoked"]:
                yield RevokedCertificate(
                    name=str(entry["client"]),
                    gateway=names.gateway,
                    serial=int(serial),
                    not_after=datetime.fromisoformat(entry["notAfter"]),
                    revoked=datetime.fromisoformat(entry["revoked"]),
                )
        except (ValueError, KeyError, TypeError):
            raise _damaged(account, names.issued) from None


def _damaged(account: Account, parameter: str) -> errors.MalformedError:
    return errors.MalformedError(
        f"{parameter} does not hold entries of the register of certificates",
        f"only `pulumi up --stack {account.stack}` writes there; find out in CloudTrail who else did",
    )
