"""Make links by which clients fetch their bundles without credentials, for a limited time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from drawbridge import errors
from drawbridge.operate import bundles
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.presigned_links import presign
from openvpn.bundle import has_key_file

#: The longest time for which Signature Version 4 signs a link.
MAX_LIFETIME = timedelta(days=7)

#: The type by which browsers and OpenVPN's programs know a profile.
PROFILE_TYPE = "application/x-openvpn-profile"


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleLink:
    """A link to a client's bundle. Whoever has it has the bundle, so it is a secret."""

    url: str
    import_url: str
    """The link as OpenVPN Connect and OpenVPN for Android open it, and import the bundle."""
    expires: datetime
    is_temporary: bool
    """Whether it was signed with temporary credentials, with which it ends if they are over before `expires`."""
    lacks_key: bool
    """Whether the client has its key itself, and the bundle names its file."""


def link_to_bundle(account: Account, name: str, lifetime: timedelta) -> BundleLink:
    """Return a link to a client's bundle in S3 that works for `lifetime`.

    Raises as `bundles.read_bundle`, and `BundleFileError` for a bundle that a link cannot deliver.
    """
    address, bundle = bundles.read_single_file(account, name)
    if not address.startswith("s3://"):
        raise errors.BundleFileError(
            f"the bundle of {name} is in SSM ({address}), which has no links",
            "keep bundles in S3 (drawbridge:secrets.bundles: s3; `pulumi up` moves them, and no client has to do "
            f"anything), or bring the file: drawbridge client fetch {name} --stack {account.stack}",
        )
    bucket, _, key = address.removeprefix("s3://").partition("/")
    expires = datetime.now(UTC) + lifetime
    url = presign(account, bucket, key, int(lifetime.total_seconds()), content_type=PROFILE_TYPE)
    with translate_aws_errors(account.stack):
        credentials = account.session.get_credentials()
    return BundleLink(
        url=url,
        import_url=f"openvpn://import-profile/{url}",
        expires=expires,
        is_temporary=bool(credentials and credentials.token),
        lacks_key=has_key_file(bundle),
    )
