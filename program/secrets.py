"""Choose the KMS key of a stack's secrets, and the bucket of its clients' bundles if they are in one."""

from collections.abc import Iterable

import pulumi

from components.bundles_bucket import BundlesBucket, BundlesBucketArgs, name_bundles_bucket
from components.secrets_key import SecretsKey, SecretsKeyArgs
from contract import GATEWAYS, Names
from settings.model import Settings

AWS_KEY_WARNING = (
    "drawbridge:secrets.key is aws/ssm: every user and role of the account that may read SSM parameters, such as an "
    "instance with Session Manager's policy, reads this stack's keys and bundles; use key: stack (1 USD a month)"
)


def create_secrets_key(settings: Settings) -> pulumi.Input[str] | None:
    """Return the ARN of the key, which is created if the stack has its own; None for `aws/ssm`."""
    secrets = settings.secrets
    if secrets.key == "aws/ssm":
        pulumi.log.warn(AWS_KEY_WARNING)
        return None
    if secrets.key != "stack":
        return secrets.key
    args = SecretsKeyArgs(
        stack=settings.stack,
        region=settings.region,
        users=secrets.users,
        readers={names.role(settings.region): list(list_readable(settings, names)) for names in list_names(settings)},
        kit_users=settings.iam.users == "kits"
        and any(client.needs_kit(settings.tunnel) for client in settings.clients),
        bundles_bucket=None if settings.pair else name_bundles_bucket(Names(settings.stack), settings.region),
    )
    return SecretsKey("secrets", args).arn


def create_bundles_bucket(settings: Settings, key: pulumi.Input[str] | None) -> pulumi.Output[str] | None:
    """Return the name of the new bucket of clients' bundles, once it takes them; None if they are in SSM."""
    if settings.secrets.bundles == "ssm" or key is None:
        return None
    names = Names(settings.stack)
    args = BundlesBucketArgs(names=names, bucket=name_bundles_bucket(names, settings.region), key=key)
    return BundlesBucket("bundles", args).bucket


def list_names(settings: Settings) -> list[Names]:
    """Return the names of each gateway of the stack."""
    return [Names(settings.stack, letter) for letter, _ in zip(GATEWAYS, settings.vpcs, strict=False)]


def list_readable(settings: Settings, names: Names) -> Iterable[str]:
    """Yield the paths of the secrets that a gateway reads: its own, and in a pair its bundle for the peer's link."""
    yield f"{names.secrets}/*"
    for peer in list_names(settings):
        if peer != names:
            yield peer.bundle(names.gateway)
