"""Certificates, revocations and bundles: a resource whose secrets are in SSM alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi.dynamic import Resource

import contract
from components.authority_provider import Issuer


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorityArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    server_name: str
    """Common name of the server's certificate."""
    profiles: Mapping[str, pulumi.Input[str]]
    """The profile without keys of each client that may connect, by the client's name."""
    lifetimes: Mapping[str, int]
    """Days that certificates of `ca`, `server` and `client` are valid."""


class Certificates(Resource, name="Certificates"):
    """What `Issuer` makes; its outputs are public."""

    sshHostKey: pulumi.Output[str]
    clients: pulumi.Output[dict[str, Any]]
    revoked: pulumi.Output[dict[str, str]]

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        made = dict.fromkeys(
            ("caCertificate", "serverFingerprint", "serverNotAfter", "sshHostKey", "clients", "revoked")
        )
        super().__init__(Issuer(), name, {**made, **props}, opts)


class Authority(pulumi.ComponentResource):
    """The stack's certificate authority: issues to clients that are declared and revokes those no longer."""

    secrets_arn: pulumi.Output[str]
    """Path of what the gateway may read."""
    bundle_arns: dict[str, pulumi.Output[str]]
    """Of each client's bundle, by its name."""
    clients: pulumi.Output[dict[str, Any]]
    """By name: `serial` (decimal), `notAfter` (ISO 8601), and `bundle`, the parameter with the whole .ovpn file."""
    revoked: pulumi.Output[dict[str, str]]
    """Whose each revoked certificate was, by its serial in decimal; all that ever were."""

    def __init__(self, name: str, args: AuthorityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Authority", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        names = args.names
        caller = aws.get_caller_identity(opts=pulumi.InvokeOptions(parent=self))
        certificates = Certificates(
            f"{name}-certificates",
            {
                "stack": names.stack,
                # "end" and not "gateway": deployed pairs have it so, and another key would replace their authority.
                **({"end": names.gateway} if names.gateway != contract.GATEWAYS[0] else {}),
                "region": args.region,
                "account": caller.account_id,
                "serverName": args.server_name,
                "profiles": dict(args.profiles),
                "lifetimes": dict(args.lifetimes),
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
        base = f"arn:{partition}:ssm:{args.region}:{caller.account_id}:parameter"

        def there(path: str) -> pulumi.Output[str]:
            # An output of the certificates, so that whoever uses it finds the secrets there.
            return certificates.id.apply(lambda _: f"{base}{path}")

        self.secrets_arn = there(names.secrets)
        self.bundle_arns = {client: there(names.bundle(client)) for client in args.profiles}
        self.clients = certificates.clients.apply(
            lambda clients: {
                client: {"bundle": names.bundle(client), "serial": entry["serial"], "notAfter": entry["notAfter"]}
                for client, entry in clients.items()
            }
        )
        self.revoked = certificates.revoked
        self.register_outputs({"clients": self.clients, "revoked": certificates.revoked})
