"""List a stack's clients and fetch their bundles and kits.

A bundle is a SecureString in SSM or an encrypted object in S3. Its text is a secret: it goes from there into one file
and nowhere else.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contract import Names
from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.presigned_links import presign
from drawbridge.operate.private_files import write_private_files
from drawbridge.operate.revoked_certificates import list_revoked
from drawbridge.operate.stack_files import LAB, configured_clients, find_stack_file
from drawbridge.operate.stored_bundles import find_stored_bundle, list_bundles
from kits import windows as kit
from openvpn.bundle import BundleError, certificate_of, check_complete, has_key_file, system_of
from openvpn.model import System
from openvpn.pull_filter import own_address
from pki.authority import Certificate, PkiError

#: Where a kit is unpacked on a client's machine.
KIT_DIRECTORY = Path("/opt/drawbridge-kit")


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrolledClient:
    """One client that may connect."""

    name: str
    gateway: str
    """Letter of the gateway that it connects to: `a`, or `b` of a pair."""
    serial: int
    """Of its certificate; OpenVPN's log and the list of revoked certificates show it."""
    fingerprint: str
    """SHA-256 of its certificate, lower-case hex."""
    not_after: datetime
    """When its certificate ends."""
    parameter: str
    """SSM parameter that holds its bundle, or the S3 URI of the object that does."""
    system: System
    """What it runs."""
    address: str
    """Its address in the tunnel, if that is always the same; else empty."""

    def days_left(self, now: datetime) -> int:
        """Whole days until its certificate ends; negative after."""
        return (self.not_after - now).days


def list_clients(account: Account) -> list[EnrolledClient]:
    """Return every client that has a bundle, by name, of every gateway of the stack.

    Certificates are read from the bundles, in memory: the list shows what each client really holds. Raises `AwsError`,
    and `BundleFileError` for a bundle that is damaged.
    """
    clients = [client for names in account.all_names for client in _clients_of(account, names)]
    return sorted(clients, key=lambda client: (client.name, client.gateway))


def _clients_of(account: Account, names: Names) -> Iterator[EnrolledClient]:
    """Yield the clients of one gateway."""
    for name, parameter, bundle in list_bundles(account, names):
        yield _describe_bundle(account, names, name, parameter, bundle)


def read_client(account: Account, name: str) -> EnrolledClient:
    """Return a client that has a bundle; raises as `list_clients`, and `NotDeployedError` if there is none."""
    return _describe_bundle(account, *_find_bundle(account, name))


def _describe_bundle(account: Account, names: Names, name: str, parameter: str, bundle: str) -> EnrolledClient:
    try:
        check_complete(bundle)
        certificate = Certificate.read(certificate_of(bundle))
    except (BundleError, PkiError):
        # Without the cause, which has read secrets.
        raise errors.BundleFileError(
            f"the bundle of {name} ({parameter}) is damaged", f"deploy again: pulumi up --stack {account.stack}"
        ) from None
    return EnrolledClient(
        name=name,
        gateway=names.gateway,
        serial=certificate.serial,
        fingerprint=certificate.fingerprint,
        not_after=certificate.not_after,
        parameter=parameter,
        system=system_of(bundle),
        address=str(own_address(bundle) or ""),
    )


@dataclass(frozen=True, slots=True)
class SavedBundle:
    """A bundle that was written to files."""

    system: System
    """What its client runs."""
    files: tuple[Path, ...]
    """The bundle, and for Windows its two scripts."""
    lacks_key: bool
    """Whether the client has its key itself, and the bundle names its file."""


def save_bundle(account: Account, name: str, target: Path, *, replace: bool = False) -> SavedBundle:
    """Write a client's bundle to `target`, mode 0600 from the moment it exists.

    For a client on Windows its two scripts are written beside the bundle. All files are written completely, or none.
    Raises `BundleFileError` if a file exists and `replace` is not set, or cannot be written, and `NotDeployedError` if
    the stack has no such client.
    """
    # Before the secret is read: a request that cannot succeed must not read it.
    if not replace and target.exists():
        raise _already_exists(target)
    _, bundle = read_bundle(account, name)
    system = system_of(bundle)
    files = {target: bundle}
    if system == "windows":
        profile, *scripts = kit.files(bundle, name).items()
        files = {target: profile[1], **{target.with_name(script): text for script, text in scripts}}
    if not replace and (existing := [path for path in files if path.exists()]):
        raise _already_exists(existing[0])
    _write_bundle(files, replace=replace)
    return SavedBundle(system, tuple(files), lacks_key=has_key_file(bundle))


def read_bundle(account: Account, name: str) -> tuple[str, str]:
    """Return where a client's bundle is, and the bundle, of whichever gateway the client connects to.

    Raises `NotDeployedError` if the stack has no such client, and `BundleFileError` for a bundle that is damaged, or
    whose certificate has ended.
    """
    names, _, parameter, bundle = _find_bundle(account, name)
    client = _describe_bundle(account, names, name, parameter, bundle)
    if client.not_after <= datetime.now(UTC):
        raise errors.BundleFileError(
            f"the certificate of {name} ended on {client.not_after:%Y-%m-%d}, and no gateway accepts it",
            f"have a new one issued: pulumi up --stack {account.stack}",
        )
    return parameter, bundle


def read_single_file(account: Account, name: str) -> tuple[str, str]:
    """Return where a client's bundle is, and the bundle, if that is all that the client needs.

    Raises as `read_bundle`, and `BundleFileError` for a client on Windows, which needs two scripts besides.
    """
    parameter, bundle = read_bundle(account, name)
    if system_of(bundle) == "windows":
        raise errors.BundleFileError(
            f"{name} runs Windows, and needs two scripts besides its bundle",
            f"have the three files written: drawbridge client fetch {name} --stack {account.stack}",
        )
    return parameter, bundle


def _write_bundle(files: Mapping[Path, str], *, replace: bool) -> None:
    """Write a bundle and its scripts; the first file is the bundle."""
    try:
        # Encoded as it is: lines that end in CR LF do so on purpose.
        write_private_files({path: text.encode() for path, text in files.items()}, replace=replace)
    except FileExistsError as error:
        raise _already_exists(Path(str(error.filename))) from None
    except OSError as error:
        raise errors.BundleFileError(
            f"{next(iter(files))}: {error.strerror}", "name a file in a directory of yours"
        ) from error


def _already_exists(target: Path) -> errors.BundleFileError:
    return errors.BundleFileError(f"{target} already exists", "name another file, or replace it: --force")


def kit_command(account: Account, name: str, *, seconds: int = 3600) -> str:
    """Return the one command that sets up a client's own machine, with a link to its kit that works for `seconds`.

    The command checks the kit against its digest, which is not from the bucket, and removes the files of a former kit
    first. The kit holds no secret; the machine fetches its bundle with AWS credentials of its own. Raises
    `NotDeployedError` if the stack has no such kit.
    """
    bucket = str(account.json_parameter(account.names.release).get("bucket", ""))
    key = account.names.kit_key(name)
    with translate_aws_errors(account.stack, f"kit for {name}"):
        if not account.client("s3").list_objects_v2(Bucket=bucket, Prefix=key).get("KeyCount"):
            require_client(account, name)
            raise errors.NotDeployedError(
                f"stack {account.stack} has no kit for {name}",
                "kits are for Linux clients with `lan`, `at` or `bridge`, and for all of them if `tunnel.links` is 2; "
                f"any other client needs its bundle alone: drawbridge client fetch {name} --stack {account.stack}",
            )
    digest = account.parameter(account.names.kit_digest(name))
    link = presign(account, bucket, key, seconds)
    steps = (
        "kit=$(mktemp)",
        # In the subshell, so that nothing stays of a kit that was refused or interrupted.
        "trap 'rm -f \"$kit\"' EXIT",
        "trap 'exit 1' HUP INT TERM",
        f"curl -fsS -o \"$kit\" '{link}'",
        f'echo "{digest}  $kit" | sha256sum --check --quiet',
        f"sudo rm -rf {KIT_DIRECTORY}",
        f'sudo tar -xz -C /opt --one-top-level={KIT_DIRECTORY.name} -f "$kit"',
        f"sudo sh {KIT_DIRECTORY}/install",
    )
    return f"({' && '.join(steps)})"


def has_kit(account: Account, name: str) -> bool:
    """Return whether a kit sets up a client's machine; raises `AwsError`."""
    try:
        account.parameter(account.names.kit_digest(name))
    except errors.NotDeployedError:
        return False
    return True


def require_client(account: Account, name: str) -> None:
    """Raise `NotDeployedError` unless a client has a bundle, which may be damaged."""
    _find_bundle(account, name)


def _find_bundle(account: Account, name: str) -> tuple[Names, str, str, str]:
    """Return a client's gateway, its name, and where its bundle is before the bundle; raises `NotDeployedError`."""
    for names in account.all_names:
        with suppress(errors.NotDeployedError):
            return names, name, *find_stored_bundle(account, names, name)
    raise _missing_client(account, name)


def _missing_client(account: Account, name: str) -> errors.NotDeployedError:
    """Return why a client has no bundle: it waits for a deployment, it was revoked, or it does not exist."""
    deploy = "drawbridge lab up" if account.stack == LAB else f"pulumi up --stack {account.stack}"
    if name in configured_clients(account.stack):
        return errors.NotDeployedError(
            f"client {name} is in {find_stack_file(account.stack).name}, but stack {account.stack} has no bundle of it",
            f"deploy it: {deploy}",
        )
    # Who may not read the register still learns that there is no such client.
    with suppress(errors.AwsError, errors.MalformedError):
        if revoked := [entry.revoked for entry in list_revoked(account) if entry.name == name]:
            return errors.NotDeployedError(
                f"client {name} of stack {account.stack} was revoked on {max(revoked):%Y-%m-%d %H:%M} UTC",
                f"add it to drawbridge:clients again for a new bundle, then: {deploy}",
            )
    return errors.NotDeployedError(
        f"stack {account.stack} has no client {name}",
        f"list its clients: drawbridge client list --stack {account.stack}",
    )
