"""Certificates, revocations and bundles: a resource whose secrets are in SSM and S3 alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi.dynamic import Resource

import contract
from components.authority_provider import Issuer
from components.default_tags import read_default_tags
from components.grants import READ_PARAMETERS, Grant
from components.owner import Owner
from components.register import INTELLIGENT_TIERING


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorityArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    profiles: Mapping[str, pulumi.Input[str]]
    """The profile, without keys, of each client that may connect, by the client's name."""
    lifetimes: Mapping[str, int]
    """Days that certificates of `ca`, `server` and `client` are valid; with `renewal`, the days before their end from
    which they are renewed in place of 30."""
    days: Mapping[str, int] = field(default_factory=dict)
    """Days that the certificates of clients with a validity of their own are valid, by the client's name."""
    rotations: Mapping[str, Any] = field(default_factory=dict)
    """When keys were last rotated, ISO 8601: of `stack` and `gateway`, and of `clients` by name; without those that
    never were."""
    key: pulumi.Input[str] | None = None
    """ARN of the KMS key of the secrets; without it, they are encrypted with AWS's own key, `aws/ssm`."""
    intelligent_tiering: bool = False
    """Whether SSM may make parameters advanced ones that do not fit the standard tier."""
    bucket: pulumi.Input[str] | None = None
    """Bucket of the clients' bundles; without it, they are in SSM."""
    requests: Mapping[str, str] = field(default_factory=dict)
    """Signing requests, PEM, of those clients who have created their keys themselves."""


class Certificates(Resource, name="Certificates"):
    """The dynamic resource behind `Authority`; its outputs are public."""

    sshHostKey: pulumi.Output[str]
    clients: pulumi.Output[dict[str, Any]]
    revoked: pulumi.Output[dict[str, dict[str, str]]]

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        outputs = ("caCertificate", "serverFingerprint", "serverNotAfter", "sshHostKey", "clients", "revoked")
        super().__init__(Issuer(), name, {**dict.fromkeys(outputs), **props}, opts)


class Authority(pulumi.ComponentResource):
    """A certificate authority: it issues certificates to declared clients and revokes those of all others."""

    grants: Sequence[Grant]
    """Permissions of the gateway: to read its secrets."""
    clients: pulumi.Output[dict[str, Any]]
    """By name: `serial` (decimal), `notAfter` (ISO 8601), and `bundle`, the parameter or S3 URI of the .ovpn file."""
    revoked: pulumi.Output[dict[str, dict[str, str]]]
    """`client` and `notAfter` of each revoked certificate that has not ended, by its serial in decimal."""

    def __init__(self, name: str, args: AuthorityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Authority", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        names = args.names
        caller = aws.get_caller_identity(opts=pulumi.InvokeOptions(parent=self))
        owner = Owner(f"{name}-owner", child)
        certificates = Certificates(
            f"{name}-certificates",
            {
                "stack": names.stack,
                # "end" and not "gateway": deployed pairs have it so, and another key would replace their authority.
                **({"end": names.gateway} if names.gateway != contract.GATEWAYS[0] else {}),
                "region": args.region,
                "account": caller.account_id,
                "serverName": names.server,
                "profiles": dict(args.profiles),
                "lifetimes": dict(args.lifetimes),
                "owner": owner.id,
                # Left out until something is rotated: so deployed stacks have nothing to change.
                **({"rotations": dict(args.rotations)} if args.rotations else {}),
                **({"days": dict(args.days)} if args.days else {}),
                # Left out for `aws/ssm`: so deployed stacks that keep it have nothing to change.
                **({"key": args.key} if args.key is not None else {}),
                **({"tier": INTELLIGENT_TIERING} if args.intelligent_tiering else {}),
                **({"tags": tags} if (tags := read_default_tags()) else {}),
                **({"bucket": args.bucket} if args.bucket is not None else {}),
                **({"requests": dict(args.requests)} if args.requests else {}),
            },
            child,
        )
        aws.ssm.Parameter(
            f"{name}-ssh-host-key",
            name=names.ssh_host_key,
            type="String",
            value=certificates.sshHostKey,
            tags=contract.tags(names.stack),
            opts=child,
        )
        partition = caller.arn.split(":")[1]
        self._parameter_base = f"arn:{partition}:ssm:{args.region}:{caller.account_id}:parameter"
        self._object_base = f"arn:{partition}:s3:::"
        self._bucket = None if args.bucket is None else pulumi.Output.from_input(args.bucket)
        self._names, self._certificates, self._key = names, certificates, args.key
        secrets = self._parameter_arn(names.secrets)
        self.grants = [
            Grant(sid="Secrets", actions=READ_PARAMETERS, resources=[pulumi.Output.concat(secrets, "/*")]),
            Grant(sid="SecretsPath", actions=["ssm:GetParametersByPath"], resources=[secrets]),
            *self._decrypt("SecretsKey", "PARAMETER_ARN", f"{self._parameter_base}{names.secrets}/*"),
        ]
        self.clients = pulumi.Output.all(certificates.clients, args.bucket).apply(
            lambda values: {
                client: {
                    "bundle": names.bundle_address(client, values[1]),
                    "serial": entry["serial"],
                    "notAfter": entry["notAfter"],
                }
                for client, entry in values[0].items()
            }
        )
        self.revoked = certificates.revoked
        self.register_outputs({"clients": self.clients, "revoked": certificates.revoked})

    def bundle_grants(self, client: str) -> list[Grant]:
        """Return the permissions to read a client's bundle."""
        if self._bucket is not None:
            arn = pulumi.Output.concat(self._object_base, self._bucket, "/", self._names.bundle_key(client))
            read = Grant(sid="Bundle", actions=["s3:GetObject"], resources=[arn])
            return [read, *self._decrypt("BundleKey", "aws:s3:arn", arn)]
        path = self._names.bundle(client)
        read = Grant(sid="Bundle", actions=READ_PARAMETERS, resources=[self._parameter_arn(path)])
        return [read, *self._decrypt("BundleKey", "PARAMETER_ARN", f"{self._parameter_base}{path}")]

    def _decrypt(self, sid: str, context: str, arn: pulumi.Input[str]) -> list[Grant]:
        """Return the permission to decrypt what has an ARN, which SSM or S3 gives KMS as encryption context.

        `aws/ssm` needs none.
        """
        if self._key is None:
            return []
        condition = {"StringLike": {f"kms:EncryptionContext:{context}": arn}}
        return [Grant(sid=sid, actions=["kms:Decrypt"], resources=[self._key], condition=condition)]

    def _parameter_arn(self, path: str) -> pulumi.Output[str]:
        # An output of the certificates, so that whatever uses the ARN is created after the parameters.
        return self._certificates.id.apply(lambda _: f"{self._parameter_base}{path}")
