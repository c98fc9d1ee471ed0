"""The way in for one address that is known when it has been made: a pair's other gateway."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, kw_only=True, slots=True)
class OpeningArgs:
    stack: str
    security_group_id: pulumi.Input[str]
    port: int
    """UDP: of the link that is served here."""
    source: pulumi.Input[str]
    """The one IPv4 address that may reach it, and send echo requests."""
    end: str = ""
    """Which of a pair's gateways it is for, as `contract.Names` has it."""


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
                tags=contract.tags(args.stack, contract.at(args.end, "gateway")),
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
