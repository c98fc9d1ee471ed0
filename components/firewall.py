"""Who may reach the gateway, as the VPC sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, kw_only=True, slots=True)
class FirewallArgs:
    """Ranges are plain: each is a resource."""

    names: contract.Names
    """Names of the gateway this belongs to."""
    vpc_id: pulumi.Input[str]
    port: int
    """The tunnel's port, the first of its `links`."""
    admin_from: tuple[IPv4Network, ...]
    """Where SSH comes from."""
    allow_from: tuple[IPv4Network, ...]
    """Where the tunnel and echo requests come from."""
    protocol: str = "udp"
    links: int = 1
    forwards_for: tuple[IPv4Network, ...] = ()
    """Ranges of the VPC whose packets the gateway forwards: it is asked for those too, whatever they carry."""
    ipv6: bool = False
    """Whether it speaks IPv6 at all."""
    opened6: tuple[IPv6Network, ...] = ()
    """Who may open connections to clients by IPv6: the group is asked for those too, which are not its own."""
    admin_at: IPv4Address | None = None
    """Where SSH comes from at first; the rule follows that address and is then not looked at."""
    clients_at: Mapping[str, IPv4Address] = field(default_factory=dict)
    """The same for the tunnel, by the client's name."""


class Firewall(pulumi.ComponentResource):
    """The gateway's security group: SSH, the tunnel and echo requests in, everything out."""

    security_group_id: pulumi.Output[str]
    security_group_arn: pulumi.Output[str]
    doors: dict[str, aws.vpc.SecurityGroupIngressRule]
    """Rules that follow an address, by the client's name."""

    def __init__(self, name: str, args: FirewallArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Firewall", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        tags = args.names.tags("gateway")
        group = aws.ec2.SecurityGroup(
            f"{name}-gateway",
            name=args.names.display_name("gateway"),
            description="Drawbridge gateway",
            vpc_id=args.vpc_id,
            tags=tags,
            opts=child,
        )

        def allow(
            what: str, sources: Sequence[IPv4Network | IPv6Network], protocol: str, ports: tuple[int, int] | None
        ) -> None:
            for source in sources:
                aws.vpc.SecurityGroupIngressRule(
                    f"{name}-{what}-{source}",
                    security_group_id=group.id,
                    description=what,
                    ip_protocol=protocol,
                    from_port=ports[0] if ports else None,
                    to_port=ports[1] if ports else None,
                    cidr_ipv4=str(source) if source.version == 4 else None,
                    cidr_ipv6=str(source) if source.version == 6 else None,
                    tags=tags,
                    opts=child,
                )

        allow("ssh", args.admin_from, "tcp", (22, 22))
        allow("tunnel", args.allow_from, args.protocol, (args.port, args.port + args.links - 1))
        # For ICMP the two ports are type and code: echo request (RFC 792), any code.
        allow("echo", args.allow_from, "icmp", (8, -1))
        allow("forwarded", args.forwards_for, "-1", None)
        allow("opened", args.opened6, "-1", None)

        def follow(client: str | None, address: IPv4Address) -> aws.vpc.SecurityGroupIngressRule:
            port = args.port if client else 22
            return aws.vpc.SecurityGroupIngressRule(
                f"{name}-door-{contract.rule_for(client)}",
                security_group_id=group.id,
                description=contract.rule_for(client),
                ip_protocol=args.protocol if client else "tcp",
                from_port=port,
                to_port=port,
                cidr_ipv4=f"{address}/32",
                tags={**tags, contract.FOLLOWS_TAG: contract.rule_for(client)},
                # From then on it is moved by whom it lets in.
                opts=pulumi.ResourceOptions(parent=self, ignore_changes=["cidrIpv4"]),
            )

        if args.admin_at:
            follow(None, args.admin_at)
        self.doors = {client: follow(client, address) for client, address in args.clients_at.items()}
        # The provider removes the rule that AWS puts into every new group, so that none is there unsaid.
        for what, range_ in {"out": "0.0.0.0/0", **({"out6": "::/0"} if args.ipv6 else {})}.items():
            aws.vpc.SecurityGroupEgressRule(
                f"{name}-{what}",
                security_group_id=group.id,
                description="everything",
                ip_protocol="-1",
                cidr_ipv4=None if ":" in range_ else range_,
                cidr_ipv6=range_ if ":" in range_ else None,
                tags=tags,
                opts=child,
            )
        self.security_group_id = group.id
        self.security_group_arn = group.arn
        self.register_outputs({"securityGroupId": self.security_group_id})
