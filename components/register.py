"""A gateway's parameters in SSM, and among them the register of all certificates ever issued."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

import contract
from pki.authority import Certificate

#: Characters in the value of a standard parameter (AWS Systems Manager User Guide, "Managing parameter tiers").
PARAMETER_LIMIT = 4096

#: Names that one DeleteParameters call takes.
_DELETE_BATCH = 10


#: The key of SecureStrings that name none.
DEFAULT_KEY = "alias/aws/ssm"

#: KMS applies a changed key policy within seconds; these are the calls that may be refused until then, one a second.
KEY_POLICY_ATTEMPTS = 10


class IssuerError(Exception):
    """Keys or certificates could not be created or stored; the message holds names and error codes, never a value."""


class ParameterStore:
    """A gateway's SSM parameters, read once and kept in step; writing a value that is already there does nothing.

    Args:
        ssm: boto3 client.
        names: names of the gateway.
        key: ARN of the KMS key that secrets are written under; None for `aws/ssm`. A secret under another key is
            written again.
        decrypt: whether `values` has the secrets in clear.
    """

    def __init__(self, ssm: Any, names: contract.Names, key: str | None = None, *, decrypt: bool = True) -> None:
        self._ssm, self._key = ssm, key
        self._tags = [{"Key": key, "Value": value} for key, value in contract.tags(names.stack).items()]
        self.values: dict[str, str] = {}
        with translate_errors("read", names.root):
            self._call(lambda: self._read(names.root, decrypt=decrypt))
            # The key of each secret, as whoever wrote it has named it.
            self._keys = self._read_keys(names.root) if decrypt else {}

    def _read(self, root: str, *, decrypt: bool) -> None:
        pages = self._ssm.get_paginator("get_parameters_by_path").paginate(
            Path=root, Recursive=True, WithDecryption=decrypt
        )
        for page in pages:
            self.values |= {parameter["Name"]: parameter["Value"] for parameter in page["Parameters"]}

    def _read_keys(self, root: str) -> dict[str, str]:
        pages = self._ssm.get_paginator("describe_parameters").paginate(
            ParameterFilters=[{"Key": "Path", "Option": "Recursive", "Values": [root]}]
        )
        parameters = [parameter for page in pages for parameter in page["Parameters"]]
        return {parameter["Name"]: parameter["KeyId"] for parameter in parameters if "KeyId" in parameter}

    def _call(self, call: Callable[[], object]) -> None:
        """Call SSM, again where the stack's key may have a policy that KMS has not applied yet."""
        for _ in range(KEY_POLICY_ATTEMPTS if self._key else 0):
            try:
                call()
                return
            except ClientError as error:
                if error.response["Error"]["Code"] != "AccessDeniedException":
                    raise
                time.sleep(1)
        call()

    def under(self, path: str) -> dict[str, str]:
        """Return the values of the parameters below `path`, by the rest of their names."""
        prefix = f"{path}/"
        return {name.removeprefix(prefix): v for name, v in self.values.items() if name.startswith(prefix)}

    def put(self, name: str, value: str, *, secret: bool) -> None:
        """Write a parameter; raises `IssuerError` if it is too long or SSM refuses it."""
        if self.values.get(name) == value and not (secret and self._is_under_other_key(name)):
            return
        if len(value) > PARAMETER_LIMIT:
            raise IssuerError(f"{name} would have {len(value)} characters, and a parameter takes {PARAMETER_LIMIT}")
        parameter = {"Name": name, "Value": value, "Type": "SecureString" if secret else "String"}
        if secret:
            # Named also if it is the default, because an overwritten parameter must not keep the key that it had.
            parameter["KeyId"] = self._key or DEFAULT_KEY
        # Tags go with a new parameter only, without Overwrite: one that another created meanwhile is not lost.
        more = {"Overwrite": True} if name in self.values else {"Tags": self._tags}
        with translate_errors("write", name):
            self._call(lambda: self._ssm.put_parameter(**parameter, **more))
        self.values[name] = value
        if secret:
            self._keys[name] = parameter["KeyId"]

    def _is_under_other_key(self, name: str) -> bool:
        """Return whether a secret is encrypted with another key; SSM names one by its ARN, ID or alias."""
        return _last_part(self._keys.get(name, DEFAULT_KEY)) != _last_part(self._key or DEFAULT_KEY)

    def delete(self, names: Iterable[str]) -> None:
        """Delete parameters; those that do not exist are ignored."""
        deleted = list(names)
        for start in range(0, len(deleted), _DELETE_BATCH):
            with translate_errors("delete", deleted[start]):
                self._ssm.delete_parameters(Names=deleted[start : start + _DELETE_BATCH])
        for name in deleted:
            self.values.pop(name, None)


def _last_part(key: str) -> str:
    return key.rpartition("/")[2]


class translate_errors:
    """Context in which errors of the AWS API become `IssuerError`s without values: AWS's messages may quote them."""

    def __init__(self, verb: str, name: str) -> None:
        self._failure = f"cannot {verb} {name} in SSM"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "unknown")
            remedy = f"; {_ASK_FOR_ACCESS}" if code == "AccessDeniedException" else ""
            raise IssuerError(f"{self._failure}: {code}{remedy}") from None
        if isinstance(error, BotoCoreError):
            raise IssuerError(f"{self._failure}: {type(error).__name__}") from None


_ASK_FOR_ACCESS = (
    "the credentials need permission for this in IAM and, for secrets, in the policy of their KMS key: that of the "
    "stack's own key has the deployer of the last `pulumi up` and drawbridge:secrets.users"
)


class Register:
    """Every client certificate that was ever issued, with the time of its revocation: a parameter a serial."""

    def __init__(self, store: ParameterStore, names: contract.Names) -> None:
        self._store, self._path = store, names.issued

    @property
    def entries(self) -> dict[int, dict[str, Any]]:
        """Entries by serial: `client`, `fingerprint`, `notAfter`, `revoked` (ISO 8601) or None.

        Of a client whose key was rotated, there is also `rotation`.
        """
        return {int(serial): json.loads(entry) for serial, entry in self._store.under(self._path).items()}

    @property
    def revoked(self) -> Mapping[str, str]:
        """The client of each revoked certificate, by its serial in decimal."""
        return {str(serial): entry["client"] for serial, entry in sorted(self.entries.items()) if entry["revoked"]}

    @property
    def valid(self) -> Mapping[int, str]:
        """The last rotation before each certificate that is not revoked was issued, by its serial; empty for none."""
        return {serial: entry.get("rotation", "") for serial, entry in self.entries.items() if not entry["revoked"]}

    def add(self, client: str, certificate: Certificate, rotation: str = "") -> None:
        """Register a client's certificate, not revoked; raises `IssuerError`.

        `rotation` is when the client's key was last rotated, ISO 8601, empty for never.
        """
        entry = {
            "client": client,
            "fingerprint": certificate.fingerprint,
            "notAfter": format_time(certificate.not_after),
            "revoked": None,
            **({"rotation": rotation} if rotation else {}),
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
