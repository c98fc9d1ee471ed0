"""The way in for one address that is known when it has been made: a pair's other gateway."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, kw_only=True, slots=True)
class OpeningArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    security_group_id: pulumi.Input[str]
    port: int
    """UDP: of the link that is served here."""
    source: pulumi.Input[str]
    """The one IPv4 address that may reach it, and send echo requests."""


class Opening(pulumi.ComponentResource):
    """Rules of a gateway's security group: a link's port and echo requests, from one address."""

    def __init__(self, name: str, args: OpeningArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Opening", name, {}, opts)
        # For ICMP the two ports are type and code: echo request (RFC 792), any code.
        for what, protocol, ports in (("tunnel", "udp", (args.port, args.port)), ("echo", "icmp", (8, -1))):
            aws.vpc.SecurityGroupIngressRule(
                f"{name}-{what}",
                security_group_id=args.security_group_id,
                description=what,
                ip_protocol=protocol,
                from_port=ports[0],
                to_port=ports[1],
                cidr_ipv4=pulumi.Output.concat(args.source, "/32"),
                tags=args.names.tags("gateway"),
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
