"""Ingress rules for the other gateway of a pair, whose address is known only after creation."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract
from openvpn.listener import Listener


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerIngressArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    security_group_id: pulumi.Input[str]
    listener: Listener
    """Protocol and port of the link that the gateway serves."""
    source: pulumi.Input[str]
    """The peer's public IPv4 address, the only one that may reach the listener and send echo requests."""


class PeerIngress(pulumi.ComponentResource):
    """Rules of a gateway's security group that let its peer in: to the listener, and with echo requests."""

    def __init__(self, name: str, args: PeerIngressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        # Deployed stacks have this type.
        super().__init__("drawbridge:index:Opening", name, {}, opts)
        # For ICMP the two ports are type and code: echo request (RFC 792), any code.
        for purpose, protocol, ports in (
            ("tunnel", args.listener.protocol, args.listener.port_range),
            ("echo", "icmp", (8, -1)),
        ):
            aws.vpc.SecurityGroupIngressRule(
                f"{name}-{purpose}",
                security_group_id=args.security_group_id,
                description=purpose,
                ip_protocol=protocol,
                from_port=ports[0],
                to_port=ports[1],
                cidr_ipv4=pulumi.Output.concat(args.source, "/32"),
                tags=args.names.tags("gateway"),
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
