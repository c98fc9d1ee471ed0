"""Certificates, revocations and bundles: a resource whose secrets are in SSM alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi.dynamic import Resource

import contract
from components.authority_provider import Issuer
from components.grants import READ_PARAMETERS, Grant
from components.owner import Owner


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorityArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    profiles: Mapping[str, pulumi.Input[str]]
    """The profile, without keys, of each client that may connect, by the client's name."""
    lifetimes: Mapping[str, int]
    """Days that certificates of `ca`, `server` and `client` are valid."""


class Certificates(Resource, name="Certificates"):
    """The dynamic resource behind `Authority`; its outputs are public."""

    sshHostKey: pulumi.Output[str]
    clients: pulumi.Output[dict[str, Any]]
    revoked: pulumi.Output[dict[str, str]]

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        outputs = ("caCertificate", "serverFingerprint", "serverNotAfter", "sshHostKey", "clients", "revoked")
        super().__init__(Issuer(), name, {**dict.fromkeys(outputs), **props}, opts)


class Authority(pulumi.ComponentResource):
    """A certificate authority: it issues certificates to declared clients and revokes those of all others."""

    grants: Sequence[Grant]
    """Permissions of the gateway: to read its secrets."""
    clients: pulumi.Output[dict[str, Any]]
    """By name: `serial` (decimal), `notAfter` (ISO 8601), and `bundle`, the parameter with the whole .ovpn file."""
    revoked: pulumi.Output[dict[str, str]]
    """The client of each certificate that was ever revoked, by the certificate's serial in decimal."""

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
        self._names, self._certificates = names, certificates
        secrets = self._parameter_arn(names.secrets)
        self.grants = [
            Grant(sid="Secrets", actions=READ_PARAMETERS, resources=[pulumi.Output.concat(secrets, "/*")]),
            Grant(sid="SecretsPath", actions=["ssm:GetParametersByPath"], resources=[secrets]),
        ]
        self.clients = certificates.clients.apply(
            lambda clients: {
                client: {"bundle": names.bundle(client), "serial": entry["serial"], "notAfter": entry["notAfter"]}
                for client, entry in clients.items()
            }
        )
        self.revoked = certificates.revoked
        self.register_outputs({"clients": self.clients, "revoked": certificates.revoked})

    def bundle_grant(self, client: str) -> Grant:
        """Return the permission to read a client's bundle."""
        bundle = self._parameter_arn(self._names.bundle(client))
        return Grant(sid="Bundle", actions=READ_PARAMETERS, resources=[bundle])

    def _parameter_arn(self, path: str) -> pulumi.Output[str]:
        # An output of the certificates, so that whatever uses the ARN is created after the parameters.
        return self._certificates.id.apply(lambda _: f"{self._parameter_base}{path}")
