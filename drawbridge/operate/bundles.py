"""The clients of a stack: who has a bundle, and the bundle itself.

A bundle is a SecureString in SSM. Its text is a secret: it goes from there into one file and nowhere else.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from botocore.config import Config

from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors
from kits import windows as kit
from openvpn import windows
from openvpn.bundle import BundleError, certificate_of
from pki.authority import Certificate, PkiError


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrolledClient:
    """One client that may connect."""

    name: str
    serial: int
    """Of its certificate: OpenVPN's log and the list of revoked ones name it so."""
    fingerprint: str
    """SHA-256 of its certificate, lower-case hex."""
    not_after: datetime
    """When its certificate ends."""
    parameter: str
    """SSM parameter that holds its bundle."""

    def days_left(self, now: datetime) -> int:
        """Whole days until its certificate ends; negative after."""
        return (self.not_after - now).days


def list_clients(account: Account) -> list[EnrolledClient]:
    """Every client that has a bundle, by name; raises `AwsError`, and `BundleError` for a bundle that is none.

    Certificates are read from the bundles, in memory: what is listed is what the client really holds.
    """
    prefix = f"{account.names.clients}/"
    found = account.parameters(account.names.clients, secret=True)
    clients = []
    for parameter, bundle in sorted(found.items()):
        name = parameter.removeprefix(prefix).partition("/")[0]
        if parameter != account.names.bundle(name):
            continue
        try:
            certificate = Certificate.read(certificate_of(bundle))
        except (BundleError, PkiError):
            # Without the cause, which has read secrets.
            raise errors.BundleFileError(
                f"the bundle of {name} ({parameter}) is damaged", f"deploy again: pulumi up --stack {account.stack}"
            ) from None
        clients.append(
            EnrolledClient(
                name=name,
                serial=certificate.serial,
                fingerprint=certificate.fingerprint,
                not_after=certificate.not_after,
                parameter=parameter,
            )
        )
    return clients


def save_bundle(account: Account, name: str, target: Path, *, replace: bool = False) -> list[Path]:
    """Writes a client's bundle to `target`, mode 0600 from the moment it exists, whole or not at all; returns where.

    For a client on Windows its two scripts are written beside it. Raises `BundleError` where a file is there already
    and `replace` is not set, or cannot be written, and `NotDeployedError` where the stack has no such client.
    """
    # Asked for first, so that nobody's permission to read the secret is used for nothing.
    if not replace and target.exists():
        raise _is_there(target)
    bundle = _bundle(account, name)
    files = {target: bundle}
    if windows.is_windows_bundle(bundle):
        profile, *scripts = kit.files(bundle, name).items()
        files = {target: profile[1], **{target.with_name(script): text for script, text in scripts}}
    if not replace and (there := [path for path in files if path.exists()]):
        raise _is_there(there[0])
    for path, text in files.items():
        _write(path, text, replace=replace)
    return list(files)


def _write(target: Path, text: str, *, replace: bool) -> None:
    try:
        # mkstemp makes it 0600: nobody else reads the key, not even for a moment.
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        temporary = Path(name)
        try:
            # As it is: where lines end in CR LF, they do so on purpose.
            with os.fdopen(descriptor, "w", newline="") as file:
                file.write(text)
            if replace:
                temporary.replace(target)
            else:
                target.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise _is_there(target) from None
    except OSError as error:
        raise errors.BundleFileError(f"{target}: {error.strerror}", "name a file in a directory of yours") from error


def _is_there(target: Path) -> errors.BundleFileError:
    return errors.BundleFileError(f"{target} is there already", "name another file, or replace it: --force")


def kit_command(account: Account, name: str, *, seconds: int = 3600) -> str:
    """The one command that sets a client's own machine up, with a link to its kit that works for `seconds`.

    The kit holds no secret; the machine fetches its bundle with AWS credentials of its own. Raises `NotDeployedError`
    where the stack has no such kit.
    """
    found = account.session.region_name
    # What the link names is where the machine finds it, not where a lab's API listens on this one.
    endpoint = f"https://s3.{found}.amazonaws.com" if account.endpoint else None
    bucket = json.loads(account.parameter(account.names.release))["bucket"]
    where = {"Bucket": bucket, "Key": account.names.kit_key(name)}
    with translate_aws_errors(account.stack, f"kit for {name}"):
        if not account.client("s3").list_objects_v2(Bucket=bucket, Prefix=where["Key"]).get("KeyCount"):
            raise errors.NotDeployedError(
                f"stack {account.stack} has no kit for {name}",
                "kits are for Linux clients with `lan`, `at` or `bridge` in the stack file; others need their bundle",
            )
        signed = Config(signature_version="s3v4", s3={"addressing_style": "virtual"})
        s3 = account.session.client("s3", endpoint_url=endpoint, config=signed)
        link = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=seconds)
    unpack = "sudo tar -xz -C /opt --one-top-level=drawbridge-kit"
    return f"curl -fsS '{link}' | {unpack} && sudo sh /opt/drawbridge-kit/install"


def _bundle(account: Account, name: str) -> str:
    try:
        return account.parameter(account.names.bundle(name), secret=True)
    except errors.NotDeployedError as error:
        raise errors.NotDeployedError(
            f"stack {account.stack} has no client {name}",
            f"see who there is: drawbridge client list --stack {account.stack}",
        ) from error
