"""A gateway's parameters in SSM, and among them the register of certificates."""

import itertools
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

import contract
from pki.authority import Certificate

#: Characters in the value of a standard parameter (AWS Systems Manager User Guide, "Managing parameter tiers").
PARAMETER_LIMIT = 4096

#: The tier by which SSM makes a parameter an advanced one if it does not fit the standard tier, and its limit.
INTELLIGENT_TIERING, ADVANCED_LIMIT = "Intelligent-Tiering", 8192

#: Names that one DeleteParameters call takes.
_DELETE_BATCH = 10


#: What to do in an account that has 10,000 standard parameters.
MAKE_ROOM = (
    "remove some that nobody needs, or let SSM make those beyond the limit advanced ones, 0.05 USD a month each: "
    "drawbridge:secrets.tier: intelligent"
)

#: The key of SecureStrings that name none.
DEFAULT_KEY = "alias/aws/ssm"

#: KMS applies a changed key policy within seconds; these are the calls that may be refused until then, one a second.
KEY_POLICY_ATTEMPTS = 10

#: Time after the end of a certificate for which its entry stays: a gateway's clock may be behind.
CLOCK_MARGIN = timedelta(days=1)


class IssuerError(Exception):
    """Keys or certificates could not be created or stored; the message holds names and error codes, never a value."""


class ParameterStore:
    """A gateway's SSM parameters, read once and remaining in step; writing a value that is already there does nothing.

    Args:
        ssm: boto3 client.
        names: names of the gateway.
        key: ARN of the KMS key that secrets are written under; None for `aws/ssm`. A secret under another key is
            written again.
        tier: SSM's tier of what is written; None for the account's default.
        tags: tags of new parameters, in addition to the stack's own.
        decrypt: whether `values` has the secrets in clear.
    """

    def __init__(
        self,
        ssm: Any,
        names: contract.Names,
        key: str | None = None,
        *,
        tier: str | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
        decrypt: bool = True,
    ) -> None:
        self._ssm, self._key, self._tier = ssm, key, tier
        # The stack's own replace others of the same key, as they do on the provider's resources.
        tags = {**tags, **contract.tags(names.stack)}
        self._tags = [{"Key": key, "Value": value} for key, value in tags.items()]
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
            ParameterFilters=[{"Key": "Path", "Option": "Recursive", "Values": [root]}],
            # The most that a call returns; without it SSM returns 10.
            PaginationConfig={"PageSize": 50},
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

    def has(self, name: str, value: str, *, secret: bool) -> bool:
        """Return whether a parameter has a value, and a secret is encrypted with the store's key."""
        return self.values.get(name) == value and not (secret and self._is_under_other_key(name))

    def put(self, name: str, value: str, *, secret: bool) -> None:
        """Write a parameter; raises `IssuerError` if it is too long or SSM refuses it."""
        if self.has(name, value, secret=secret):
            return
        limit = ADVANCED_LIMIT if self._tier else PARAMETER_LIMIT
        if len(value) > limit:
            remedy = "" if self._tier else "; drawbridge:secrets.tier: intelligent doubles that"
            raise IssuerError(f"{name} would have {len(value)} characters, and a parameter takes {limit}{remedy}")
        parameter = {"Name": name, "Value": value, "Type": "SecureString" if secret else "String"}
        if self._tier:
            parameter["Tier"] = self._tier
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

    def tag(self, names: Iterable[str], former: Iterable[str]) -> None:
        """Give existing parameters the store's tags, and remove those of `former` keys that are not among them."""
        removed = sorted(set(former) - {tag["Key"] for tag in self._tags})
        for name in names:
            parameter = {"ResourceType": "Parameter", "ResourceId": name}
            with translate_errors("tag", name):
                self._ssm.add_tags_to_resource(**parameter, Tags=self._tags)
                if removed:
                    self._ssm.remove_tags_from_resource(**parameter, TagKeys=removed)

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
        self._failure = f"cannot {verb} {name}" + ("" if name.startswith("s3://") else " in SSM")

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "unknown")
            remedy = f"; {_REMEDIES[code]}" if code in _REMEDIES else ""
            raise IssuerError(f"{self._failure}: {code}{remedy}") from None
        if isinstance(error, BotoCoreError):
            raise IssuerError(f"{self._failure}: {type(error).__name__}") from None


_DENIED = (
    "the credentials need permission for this in IAM and, for secrets, in the policy of their KMS key: that of the "
    "stack's own key has the deployer of the last `pulumi up` and drawbridge:secrets.users"
)

_REMEDIES = {
    "AccessDeniedException": _DENIED,
    "AccessDenied": _DENIED,
    "ParameterLimitExceeded": f"the account has as many standard parameters as SSM allows: {MAKE_ROOM}",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A client certificate in the register."""

    client: str
    not_after: datetime
    revoked: datetime | None = None
    rotation: str = ""
    """The last rotation of the client's key when the certificate was issued, ISO 8601; empty for none."""
    renews: int | None = None
    """Serial of the client's former certificate, which this one renews and which stays valid beside it."""

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> "Entry":
        """Return the entry that `dump` wrote."""
        revoked, renews = stored["revoked"], stored.get("renews")
        return cls(
            stored["client"],
            datetime.fromisoformat(stored["notAfter"]),
            datetime.fromisoformat(revoked) if revoked else None,
            stored.get("rotation", ""),
            int(renews) if renews else None,
        )

    def dump(self) -> dict[str, Any]:
        """Return the entry as values of JSON."""
        revoked = format_time(self.revoked) if self.revoked else None
        rotation = {"rotation": self.rotation} if self.rotation else {}
        renews = {"renews": str(self.renews)} if self.renews else {}
        return {
            "client": self.client,
            "notAfter": format_time(self.not_after),
            "revoked": revoked,
            **rotation,
            **renews,
        }

    def has_ended(self, now: datetime) -> bool:
        """Return whether no gateway accepts the certificate any more, whether it is revoked or not."""
        return self.not_after + CLOCK_MARGIN < now


class Register:
    """The client certificates that were issued and have not ended, with the time of their revocation.

    A page is a parameter with the entries of some 25 certificates: SSM limits how many parameters an account has and
    how many it writes in a second. A register of an earlier version has a parameter for each certificate, named by the
    serial; its next change moves them into pages.
    """

    def __init__(self, store: ParameterStore, names: contract.Names) -> None:
        self._store, self._path = store, names.issued
        self._pages: dict[str, dict[int, Entry]] = {}
        self._single: dict[int, Entry] = {}
        for name, text in store.under(self._path).items():
            if name.isdecimal():
                self._single[int(name)] = Entry.load(json.loads(text))
            else:
                self._pages[name] = {int(serial): Entry.load(entry) for serial, entry in json.loads(text).items()}
        # Characters that each page still takes.
        self._room = {name: _room_of(page) for name, page in self._pages.items()}

    @property
    def entries(self) -> dict[int, Entry]:
        """Return the entries by serial."""
        # A move that was cut off leaves an entry in both places; the page has the newer one.
        return {**self._single, **{serial: entry for page in self._pages.values() for serial, entry in page.items()}}

    @property
    def revoked(self) -> dict[int, Entry]:
        """Return the entries of revoked certificates, by serial."""
        return {serial: entry for serial, entry in sorted(self.entries.items()) if entry.revoked}

    @property
    def valid(self) -> Mapping[int, str]:
        """Return the last rotation before each certificate that is not revoked was issued, by its serial."""
        return {serial: entry.rotation for serial, entry in self.entries.items() if not entry.revoked}

    def list_former(self, serials: Iterable[int]) -> dict[int, list[Entry]]:
        """Return, by serial, the valid certificates that a certificate has renewed, the latest first."""
        entries, former = self.entries, dict[int, list[Entry]]()
        for serial in serials:
            former[serial] = []
            entry = entries.get(serial)
            while entry and entry.renews and (entry := entries.get(entry.renews)) and not entry.revoked:
                former[serial].append(entry)
        return former

    def add(
        self,
        certificates: Mapping[str, Certificate],
        rotations: Mapping[str, str] | None = None,
        renewed: Mapping[str, int] | None = None,
    ) -> None:
        """Register certificates by their clients' names, not revoked; raises `IssuerError`.

        `rotations` has when each client's key was last rotated, ISO 8601, without those that never were; `renewed` the
        serials of the former certificates of clients that keep them.
        """
        rotated, former = rotations or {}, renewed or {}
        entries = {
            leaf.serial: Entry(client, leaf.not_after, rotation=rotated.get(client, ""), renews=former.get(client))
            for client, leaf in certificates.items()
        }
        self._write(self._place(entries))

    def revoke_all_but(self, serials: Collection[int], now: datetime) -> None:
        """Revoke each certificate but those in `serials` and those that they renew, and drop those that have ended.

        Raises:
            IssuerError: SSM refuses it; the next call does what is left.
        """
        serials = self._with_former(serials)
        paged = {serial for page in self._pages.values() for serial in page}
        changed = set()
        for name, page in self._pages.items():
            remaining = _revoke(page, serials, now)
            if remaining != page:
                self._pages[name], self._room[name] = remaining, _room_of(remaining)
                changed.add(name)
        moved = {serial: entry for serial, entry in self._single.items() if serial not in paged}
        self._write(changed | self._place(_revoke(moved, serials, now)))
        if self._single:
            self._store.delete([f"{self._path}/{serial}" for serial in self._single])
            self._single = {}

    def _with_former(self, serials: Iterable[int]) -> set[int]:
        """Return serials together with those of the certificates that they renew."""
        entries, reached = self.entries, set(serials)
        waiting = list(reached)
        while waiting:
            entry = entries.get(waiting.pop())
            if entry and entry.renews and entry.renews not in reached:
                reached.add(entry.renews)
                waiting.append(entry.renews)
        return reached

    def _place(self, entries: Mapping[int, Entry]) -> set[str]:
        """Put entries into pages that have room, and into new ones; return the pages' names."""
        changed = set()
        for serial, entry in entries.items():
            size = PARAMETER_LIMIT - _room_of({serial: entry})
            name = next((name for name, room in self._room.items() if room >= size), None) or self._add_page()
            self._pages[name][serial] = entry
            self._room[name] -= size
            changed.add(name)
        return changed

    def _add_page(self) -> str:
        name = next(name for number in itertools.count(1) if (name := f"page-{number}") not in self._pages)
        self._pages[name], self._room[name] = {}, PARAMETER_LIMIT
        return name

    def _write(self, names: Iterable[str]) -> None:
        empty = []
        for name in sorted(names):
            if page := self._pages[name]:
                self._store.put(f"{self._path}/{name}", _render_page(page), secret=False)
            else:
                del self._pages[name], self._room[name]
                empty.append(f"{self._path}/{name}")
        if empty:
            self._store.delete(empty)


def _revoke(page: Mapping[int, Entry], serials: Collection[int], now: datetime) -> dict[int, Entry]:
    """Return the entries of a page that have not ended, revoked unless their serial is in `serials`."""
    return {
        serial: entry if serial in serials or entry.revoked else replace(entry, revoked=now)
        for serial, entry in page.items()
        if not entry.has_ended(now)
    }


def _render_page(page: Mapping[int, Entry]) -> str:
    entries = {str(serial): entry.dump() for serial, entry in sorted(page.items())}
    return json.dumps(entries, separators=(",", ":"))


def _room_of(page: Mapping[int, Entry]) -> int:
    """Return how many characters a page still takes, once all of its certificates are revoked."""
    largest = {serial: replace(entry, revoked=entry.not_after) for serial, entry in page.items()}
    return PARAMETER_LIMIT - len(_render_page(largest))


def format_time(moment: datetime) -> str:
    """Return a time in ISO 8601, to the second."""
    return moment.replace(microsecond=0).isoformat()
