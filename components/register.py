"""A gateway's parameters in SSM, and among them the register of all certificates ever issued."""

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

import contract
from pki.authority import Certificate

#: Characters in the value of a standard parameter (AWS Systems Manager User Guide, "Managing parameter tiers").
PARAMETER_LIMIT = 4096

#: Names that one DeleteParameters call takes.
_DELETE_BATCH = 10


class IssuerError(Exception):
    """Keys or certificates could not be created or stored; the message holds names and error codes, never a value."""


class ParameterStore:
    """A gateway's SSM parameters, read once and kept in step; writing a value that is already there does nothing."""

    def __init__(self, ssm: Any, names: contract.Names) -> None:
        self._ssm = ssm
        self._tags = [{"Key": key, "Value": value} for key, value in contract.tags(names.stack).items()]
        self.values: dict[str, str] = {}
        with translate_errors("read", names.root):
            paginator = ssm.get_paginator("get_parameters_by_path")
            pages = paginator.paginate(Path=names.root, Recursive=True, WithDecryption=True)
            for page in pages:
                self.values |= {parameter["Name"]: parameter["Value"] for parameter in page["Parameters"]}

    def under(self, path: str) -> dict[str, str]:
        """Return the values of the parameters below `path`, by the rest of their names."""
        prefix = f"{path}/"
        return {name.removeprefix(prefix): v for name, v in self.values.items() if name.startswith(prefix)}

    def put(self, name: str, value: str, *, secret: bool) -> None:
        """Write a parameter; raises `IssuerError` if it is too long or SSM refuses it."""
        if self.values.get(name) == value:
            return
        if len(value) > PARAMETER_LIMIT:
            raise IssuerError(f"{name} would have {len(value)} characters, and a parameter takes {PARAMETER_LIMIT}")
        kind = "SecureString" if secret else "String"
        with translate_errors("write", name):
            if name in self.values:
                self._ssm.put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)
            else:
                # Without Overwrite, so that a parameter created meanwhile by another is not lost.
                self._ssm.put_parameter(Name=name, Value=value, Type=kind, Tags=self._tags)
        self.values[name] = value

    def delete(self, names: Iterable[str]) -> None:
        """Delete parameters; those that do not exist are ignored."""
        deleted = list(names)
        for start in range(0, len(deleted), _DELETE_BATCH):
            with translate_errors("delete", deleted[start]):
                self._ssm.delete_parameters(Names=deleted[start : start + _DELETE_BATCH])
        for name in deleted:
            self.values.pop(name, None)


class translate_errors:
    """Context in which errors of the AWS API become `IssuerError`s without values: AWS's messages may quote them."""

    def __init__(self, verb: str, name: str) -> None:
        self._failure = f"cannot {verb} {name} in SSM"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClientError):
            raise IssuerError(f"{self._failure}: {error.response.get('Error', {}).get('Code', 'unknown')}") from None
        if isinstance(error, BotoCoreError):
            raise IssuerError(f"{self._failure}: {type(error).__name__}") from None


class Register:
    """Every client certificate that was ever issued, with the time of its revocation: a parameter a serial."""

    def __init__(self, store: ParameterStore, names: contract.Names) -> None:
        self._store, self._path = store, names.issued

    @property
    def entries(self) -> dict[int, dict[str, Any]]:
        """Entries by serial: `client`, `fingerprint`, `notAfter`, and `revoked` (ISO 8601) or None."""
        return {int(serial): json.loads(entry) for serial, entry in self._store.under(self._path).items()}

    @property
    def revoked(self) -> Mapping[str, str]:
        """The client of each revoked certificate, by its serial in decimal."""
        return {str(serial): entry["client"] for serial, entry in sorted(self.entries.items()) if entry["revoked"]}

    @property
    def valid(self) -> frozenset[int]:
        """Return the serials of the certificates that are registered and not revoked."""
        return frozenset(serial for serial, entry in self.entries.items() if not entry["revoked"])

    def add(self, client: str, certificate: Certificate) -> None:
        """Register a client's certificate, not revoked; raises `IssuerError`."""
        entry = {
            "client": client,
            "fingerprint": certificate.fingerprint,
            "notAfter": format_time(certificate.not_after),
            "revoked": None,
        }
        self._write(certificate.serial, entry)

    def revoke_all_but(self, serials: Collection[int], now: datetime) -> None:
        """Revoke every registered certificate whose serial is not in `serials`; raises `IssuerError`."""
        for serial, entry in self.entries.items():
            if serial not in serials and not entry["revoked"]:
                self._write(serial, {**entry, "revoked": format_time(now)})

    def _write(self, serial: int, entry: Mapping[str, Any]) -> None:
        self._store.put(f"{self._path}/{serial}", json.dumps(entry), secret=False)


def format_time(moment: datetime) -> str:
    """Return a time in ISO 8601, to the second."""
    return moment.replace(microsecond=0).isoformat()
