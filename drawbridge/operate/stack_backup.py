"""Back up a stack's authority, and restore it in another region or account.

A backup has the parameters that the program's authority wrote: its keys, the register of certificates and the gateway's
secrets, and the clients' bundles, from wherever they are. It holds every secret of the stack, so its file is encrypted.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from botocore.config import Config
from botocore.exceptions import ClientError

import contract
from contract import Names
from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.private_files import write_private_file
from drawbridge.operate.stored_bundles import list_bundles
from openvpn.bundle import BundleError, ca_of, certificate_of
from pki import age
from pki.authority import Certificate, PkiError, is_same_authority

#: Version of a backup's content. Others are refused.
VERSION = 1

#: Characters in the value of a standard parameter (AWS Systems Manager User Guide, "Managing parameter tiers").
PARAMETER_LIMIT = 4096

#: SSM takes 3 PutParameter calls per second from an account and region ("AWS Systems Manager endpoints and quotas" in
#: the AWS General Reference); the adaptive mode lowers the rate of calls to what SSM takes.
SSM_CONFIG = Config(retries={"mode": "adaptive", "total_max_attempts": 20})

#: How often a stack is read again if a deployment changes its keys meanwhile.
READS = 3


@dataclass(frozen=True, slots=True, repr=False)
class SavedParameter:
    """The value of an SSM parameter, and whether it is a SecureString."""

    value: str
    secret: bool


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Backup:
    """A stack's authority, of a pair those of both gateways."""

    stack: str
    account: str
    region: str
    created: str
    """When it was taken, ISO 8601."""
    gateways: Mapping[str, Mapping[str, SavedParameter]]
    """Each gateway's parameters by their names below `Names.root`, by the gateway's letter."""

    @property
    def clients(self) -> list[str]:
        """Names of the clients whose bundles it has, in order."""
        paths = (path.split("/") for parameters in self.gateways.values() for path in parameters)
        return sorted({words[1] for words in paths if words[0] == "clients"})

    def dump(self) -> bytes:
        """Return the backup as JSON."""
        return json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True).encode()

    @classmethod
    def load(cls, content: bytes) -> "Backup":
        """Return the backup that `dump` wrote; raises ValueError, KeyError or TypeError, without any value."""
        stored = json.loads(content)
        version = stored.pop("version")
        if version != VERSION:
            raise ValueError(f"its content has version {version}, and this Drawbridge reads version {VERSION}")
        gateways = {
            letter: {path: SavedParameter(**parameter) for path, parameter in parameters.items()}
            for letter, parameters in stored.pop("gateways").items()
        }
        return cls(**stored, gateways=gateways)


def take_backup(account: Account, now: datetime) -> Backup:
    """Return a backup of a deployed stack.

    Raises:
        NotDeployedError: the stack has no authority.
        BackupError: a deployment is under way or was cut off, so that bundles and authority do not fit together.
        AwsError: AWS refused.
    """
    with translate_aws_errors(account.stack, policy=account.policy):
        number = str(account.client("sts").get_caller_identity()["Account"])
    gateways = {names.gateway: _read_gateway(account, names) for names in account.all_names}
    first = account.all_names[0]
    if not gateways[first.gateway]:
        raise errors.NotDeployedError(
            f"stack {account.stack} has no authority in {account.session.region_name}: {first.keys} does not exist",
            f"is it deployed, and in this region? pulumi up --stack {account.stack}",
        )
    return Backup(
        stack=account.stack,
        account=number,
        region=str(account.session.region_name),
        created=now.replace(microsecond=0).isoformat(),
        gateways={letter: parameters for letter, parameters in gateways.items() if parameters},
    )


def _read_gateway(account: Account, names: Names) -> dict[str, SavedParameter]:
    """Return a gateway's parameters; none if it has no authority."""
    problem = ""
    for _ in range(READS):
        # In the reverse of the order in which a deployment writes: so each bundle's certificate is in the register.
        bundles = {client: bundle for client, _, bundle in list_bundles(account, names)}
        secrets = account.parameters(names.secrets, secret=True)
        authority = account.parameters(names.authority, secret=True)
        if names.keys not in authority:
            return {}
        register = {name: value for name, value in authority.items() if name.startswith(f"{names.issued}/")}
        problem = _find_mismatch(names, authority, register, bundles)
        if not problem:
            return {
                **_relative(names, {names.keys: authority[names.keys], **secrets}, secret=True),
                **_relative(names, register, secret=False),
                **_relative(names, {names.bundle(client): bundle for client, bundle in bundles.items()}, secret=True),
            }
    remedy = f"a deployment is under way or was cut off: end it with pulumi up --stack {names.stack}, then repeat"
    raise errors.BackupError(problem, remedy)


def _relative(names: Names, values: Mapping[str, str], *, secret: bool) -> dict[str, SavedParameter]:
    return {name.removeprefix(f"{names.root}/"): SavedParameter(value, secret) for name, value in values.items()}


def _find_mismatch(
    names: Names, authority: Mapping[str, str], register: Mapping[str, str], bundles: Mapping[str, str]
) -> str:
    """Return why what was read is not one authority's, or nothing."""
    if authority.get(names.owner, "").startswith(contract.RESTORING):
        return f"{names.authority} is restored in part only"
    ca, serials = _ca_of(authority[names.keys]), _list_serials(register)
    if ca is None:
        return f"{names.keys} cannot be read"
    for client, bundle in bundles.items():
        try:
            is_registered = str(Certificate.read(certificate_of(bundle)).serial) in serials
            fits = is_registered and is_same_authority(ca_of(bundle), ca)
        except (BundleError, PkiError):
            fits = False
        if not fits:
            return f"the bundle of {client} is not one of the authority's in {names.authority}"
    return ""


def _ca_of(keys: str) -> str | None:
    """Return the certificate of the authority whose keys are in `Names.keys`; None if it cannot be read."""
    try:
        return str(json.loads(keys)["ca"]["certificate"]).strip()
    except (ValueError, KeyError, TypeError):
        return None


def _is_same_authority(stored: str, saved: str) -> bool:
    """Return whether two values of `Names.keys` are one authority's, also if its certificate was renewed between."""
    first, second = _ca_of(stored), _ca_of(saved)
    with suppress(PkiError):
        return first is not None and second is not None and is_same_authority(first, second)
    return False


def _list_serials(register: Mapping[str, str]) -> set[str]:
    """Return the serials in a register; an earlier version has a parameter for each, named by the serial."""
    serials: set[str] = set()
    for name, page in register.items():
        last = name.rpartition("/")[2]
        serials |= {last} if last.isdecimal() else set(json.loads(page))
    return serials


def write_backup(backup: Backup, target: Path, passphrase: str, *, replace: bool = False) -> None:
    """Encrypt a backup into a file that only you can read; raises `BackupError`.

    The file exists completely or not at all.
    """
    check_target(target, replace=replace)
    try:
        write_private_file(target, age.encrypt_file(backup.dump(), passphrase), replace=replace)
    except FileExistsError:
        check_target(target, replace=False)
    except OSError as error:
        raise errors.BackupError(f"{target}: {error.strerror}", "name a file in a directory of yours") from error


def check_target(target: Path, *, replace: bool) -> None:
    """Raise `BackupError` if a file exists and is not to be replaced."""
    if target.exists() and not replace:
        raise errors.BackupError(f"{target} already exists", "name another file, or replace it: --force")


def read_backup(source: Path, passphrase: str) -> Backup:
    """Return the backup in a file; raises `BackupError`."""
    try:
        content = age.decrypt_file(source.read_bytes(), passphrase)
    except OSError as error:
        raise errors.BackupError(f"{source}: {error.strerror}", "name a file that `stack backup` wrote") from error
    except age.PassphraseError as error:
        raise errors.BackupError(f"{source}: {error}", "give the passphrase with which it was written") from None
    except age.AgeError as error:
        raise errors.BackupError(f"{source}: {error}", "use a complete file that `stack backup` wrote") from None
    try:
        return Backup.load(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # Without the cause of other errors, which could quote a secret.
        reason = str(error) if type(error) is ValueError else "it holds no backup of a stack"
        raise errors.BackupError(f"{source}: {reason}", "use the version of Drawbridge that wrote it") from None


def restore_backup(account: Account, backup: Backup, progress: Callable[[str], None]) -> list[str]:
    """Write a backup's parameters into the stack's region and account, and return the names of those that were missing.

    A parameter that exists is never changed, but for the owner. A restore that was cut off is continued by the next one
    with the same backup; until then no deployment takes the authority. `progress` gets a message before each step.

    Raises:
        BackupError: the backup is another stack's, or the stack has an authority.
        AwsError: AWS refused; nothing is lost, and the next restore continues.
    """
    if backup.stack != account.stack:
        raise errors.BackupError(
            f"the backup is of stack {backup.stack}, whose clients accept the server {Names(backup.stack).server} only",
            f"restore it as that stack: --stack {backup.stack}",
        )
    owner = f"{contract.RESTORED} {hashlib.sha256(backup.dump()).hexdigest()}"
    names_of = {names.gateway: names for names in account.all_names}
    for letter, parameters in backup.gateways.items():
        _check_restorable(account, names_of[letter], parameters, owner)
    writer = _ParameterWriter(account)
    written: list[str] = []
    # Each gateway of a pair first: until all are complete, no deployment takes any of them.
    for letter in backup.gateways:
        state = owner.replace(contract.RESTORED, contract.RESTORING)
        writer.put(names_of[letter].owner, SavedParameter(state, secret=False))
    for letter, parameters in backup.gateways.items():
        written += _write_missing(writer, names_of[letter], parameters, progress)
    for letter in backup.gateways:
        writer.put(names_of[letter].owner, SavedParameter(owner, secret=False))
    return written


def _check_restorable(account: Account, names: Names, parameters: Mapping[str, SavedParameter], owner: str) -> None:
    """Raise `BackupError` if a stack has another authority, or this one deployed or from another backup."""
    stored = account.parameters(names.authority, secret=True)
    where = f"stack {names.stack} in {account.session.region_name}"
    state, _, digest = stored.get(names.owner, "").partition(" ")
    if state in contract.RESTORE_STATES:
        if digest != owner.partition(" ")[2]:
            raise errors.BackupError(
                f"{where} is being restored from another backup",
                f"finish that with its file, or remove the parameters under {names.authority} and {names.clients}",
            )
        return
    if names.keys not in stored:
        return
    if _is_same_authority(stored[names.keys], parameters["authority/keys"].value):
        raise errors.BackupError(
            f"{where} has this authority: a restore would take back what it revoked since the backup",
            "nothing is to be done; to go back to the backup nevertheless, remove the parameters under "
            f"{names.authority} and {names.clients}, and repeat",
        )
    raise errors.BackupError(
        f"{where} has another authority, whose clients would be cut off",
        f"restore into another region or account, or destroy that stack first: pulumi destroy --stack {names.stack}",
    )


def _write_missing(
    writer: "_ParameterWriter",
    names: Names,
    parameters: Mapping[str, SavedParameter],
    progress: Callable[[str], None],
) -> Iterable[str]:
    """Write the parameters that a gateway lacks, the keys last, and return their names."""
    ordered = sorted(parameters, key=lambda path: (path == "authority/keys", not path.startswith("authority/"), path))
    missing = [path for path in ordered if f"{names.root}/{path}" not in writer.existing]
    for number, path in enumerate(missing):
        if number % 25 == 0:
            progress(f"writing parameters under {names.root}: {number} of {len(missing)}")
        writer.put(f"{names.root}/{path}", _shorten(parameters[path]))
    return [f"{names.root}/{path}" for path in missing]


def _shorten(parameter: SavedParameter) -> SavedParameter:
    """Return a parameter that fits; a long bundle, which was in S3, loses its options until the next deployment."""
    value = parameter.value
    if len(value) > PARAMETER_LIMIT:
        options, tag, keys = value.partition("\n<ca>\n")
        value = options.partition("\n")[0] + tag + keys
    return SavedParameter(value, parameter.secret)


class _ParameterWriter:
    """Writes SSM parameters of a stack, secrets with the stack's own key if it has one; raises `AwsError`."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._ssm = account.client("ssm", SSM_CONFIG)
        self._tags = [{"Key": key, "Value": value} for key, value in contract.tags(account.stack).items()]
        with self._translate_errors():
            self._key = self._find_key()
            self.existing = {name for names in account.all_names for name in self._list(names)}
            """Names of the parameters that exist."""

    def put(self, name: str, parameter: SavedParameter) -> None:
        """Write a parameter; of those that exist, one that another has created meanwhile is not overwritten."""
        secret = {"Type": "SecureString", "KeyId": self._key} if parameter.secret else {"Type": "String"}
        more = {"Overwrite": True} if name in self.existing else {"Tags": self._tags}
        with self._translate_errors():
            self._ssm.put_parameter(Name=name, Value=parameter.value, **secret, **more)
        self.existing.add(name)

    def _list(self, names: Names) -> Iterator[str]:
        for path in (names.authority, names.secrets, names.clients):
            pages = self._ssm.get_paginator("get_parameters_by_path")
            # No secret is decrypted.
            for page in pages.paginate(Path=path, Recursive=True, WithDecryption=False):
                yield from (parameter["Name"] for parameter in page["Parameters"])

    def _find_key(self) -> str:
        """Return the key of the stack's secrets, which a deployed stack has, or else AWS's own."""
        try:
            key = self._account.client("kms").describe_key(KeyId=contract.key_alias(self._account.stack))
        except ClientError as error:
            # A policy that names keys by their tags also denies an alias that does not exist.
            if error.response["Error"]["Code"] not in ("NotFoundException", "AccessDeniedException"):
                raise
            return "alias/aws/ssm"
        return str(key["KeyMetadata"]["KeyId"])

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            with translate_aws_errors(self._account.stack, policy=self._account.policy):
                yield
        except errors.AwsError as error:
            error.remedy = f"nothing is lost: {error.remedy}; then run the same command again, which continues"
            raise
