"""Who may reach the gateway, as the VPC sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, kw_only=True, slots=True)
class FirewallArgs:
    """Ranges are plain: each is a resource."""

    stack: str
    vpc_id: pulumi.Input[str]
    port: int
    """The tunnel's UDP port."""
    admin_from: tuple[IPv4Network, ...]
    """Where SSH comes from."""
    allow_from: tuple[IPv4Network, ...]
    """Where the tunnel and echo requests come from."""
    forwards_for: tuple[IPv4Network, ...] = ()
    """Ranges of the VPC whose packets the gateway forwards: it is asked for those too, whatever they carry."""


class Firewall(pulumi.ComponentResource):
    """The gateway's security group: SSH, the tunnel and echo requests in, everything out."""

    security_group_id: pulumi.Output[str]

    def __init__(self, name: str, args: FirewallArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Firewall", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        tags = contract.tags(args.stack, "gateway")
        group = aws.ec2.SecurityGroup(
            f"{name}-gateway",
            name=contract.resource_name(args.stack, "gateway"),
            description="Drawbridge gateway",
            vpc_id=args.vpc_id,
            tags=tags,
            opts=child,
        )

        def allow(what: str, sources: Sequence[IPv4Network], protocol: str, ports: tuple[int, int] | None) -> None:
            for source in sources:
                aws.vpc.SecurityGroupIngressRule(
                    f"{name}-{what}-{source}",
                    security_group_id=group.id,
                    description=what,
                    ip_protocol=protocol,
                    from_port=ports[0] if ports else None,
                    to_port=ports[1] if ports else None,
                    cidr_ipv4=str(source),
                    tags=tags,
                    opts=child,
                )

        allow("ssh", args.admin_from, "tcp", (22, 22))
        allow("tunnel", args.allow_from, "udp", (args.port, args.port))
        # For ICMP the two ports are type and code: echo request (RFC 792), any code.
        allow("echo", args.allow_from, "icmp", (8, -1))
        allow("forwarded", args.forwards_for, "-1", None)
        # The provider removes the rule that AWS puts into every new group, so that none is there unsaid.
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-out",
            security_group_id=group.id,
            description="everything",
            ip_protocol="-1",
            cidr_ipv4="0.0.0.0/0",
            tags=tags,
            opts=child,
        )
        self.security_group_id = group.id
        self.register_outputs({"securityGroupId": self.security_group_id})
