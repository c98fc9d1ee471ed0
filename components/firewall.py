"""The gateway's security group: who may reach it, as AWS enforces it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, collapse_addresses
from typing import TypeVar

import pulumi
import pulumi_aws as aws

import contract
from components.grants import Grant
from openvpn.listener import Listener

SSH = Listener("tcp", (22,))

#: A client's name, or None for the administrator.
_C = TypeVar("_C", str, None)

EVERYWHERE = IPv4Network("0.0.0.0/0")
EVERYWHERE6 = IPv6Network("::/0")


@dataclass(frozen=True, kw_only=True, slots=True)
class FirewallArgs:
    """Ranges are plain values, because each one becomes a resource."""

    names: contract.Names
    """Names of the gateway this belongs to."""
    vpc_id: pulumi.Input[str]
    listener: Listener
    """Protocol and ports of the tunnel."""
    admin_from: tuple[IPv4Network, ...]
    """Ranges that may use SSH."""
    allow_from: tuple[IPv4Network, ...]
    """Ranges that may reach the tunnel and send echo requests."""
    forwards_for: tuple[IPv4Network, ...] = ()
    """VPC ranges the gateway forwards for.

    AWS checks forwarded packets against its security group, so all protocols must be allowed from them.
    """
    ipv6: bool = False
    """Whether the gateway has IPv6."""
    opened6: tuple[IPv6Network, ...] = ()
    """IPv6 ranges that may connect to clients; the security group sees those packets too."""
    admin_at: IPv4Address | None = None
    """First address of a dynamic rule for SSH. The rule's address changes later, and a deployment leaves it alone."""
    clients_at: Mapping[str, IPv4Address] = field(default_factory=dict)
    """First addresses of dynamic rules for the tunnel, by the client's name."""
    dynamic_ranges: Mapping[str, IPv4Network] = field(default_factory=dict)
    """Ranges of the dynamic rules that are deployed, by what each follows (`contract.rule_for`)."""


def find_dynamic_ranges(names: contract.Names) -> dict[str, IPv4Network]:
    """Return the range that each deployed dynamic rule of a gateway has now, by what it follows."""
    ids = aws.vpc.get_security_group_rules(
        filters=[{"name": f"tag:{contract.FOLLOWS_TAG}", "values": ["*"]}], tags=names.tags("gateway")
    ).ids
    rules = [aws.vpc.get_security_group_rule(security_group_rule_id=id) for id in ids]
    return {rule.tags[contract.FOLLOWS_TAG]: IPv4Network(rule.cidr_ipv4) for rule in rules}


class Firewall(pulumi.ComponentResource):
    """A security group that lets in SSH, the tunnel, echo requests and path MTU discovery, and everything out."""

    security_group_id: pulumi.Output[str]
    dynamic_rules: dict[str, aws.vpc.SecurityGroupIngressRule]
    """Rules that follow a client's public address, by the client's name."""

    def __init__(self, name: str, args: FirewallArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Firewall", name, {}, opts)
        self._name, self._args = name, args
        self._group = aws.ec2.SecurityGroup(
            f"{name}-gateway",
            name=args.names.display_name("gateway"),
            description="Drawbridge gateway",
            vpc_id=args.vpc_id,
            tags=args.names.tags("gateway"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self._open("ssh", SSH, args.admin_from, {None: args.admin_at} if args.admin_at else {})
        self.dynamic_rules = self._open("tunnel", args.listener, args.allow_from, args.clients_at)
        # For ICMP the two ports are type and code: echo request (RFC 792), any code.
        self._allow("echo", collapse_addresses(args.allow_from), "icmp", (8, -1))
        # Any router on the way may answer that a packet is too large for its next link ("fragmentation needed",
        # RFC 1191; "Packet Too Big", RFC 4443). AWS's guides ask for this rule: the group does not track every flow.
        self._allow("fragmentation", [EVERYWHERE], "icmp", (3, 4))
        if args.ipv6:
            self._allow("fragmentation", [EVERYWHERE6], "icmpv6", (2, 0))
        self._allow("forwarded", args.forwards_for, "-1", None)
        self._allow("opened", collapse_addresses(args.opened6), "-1", None)
        # The provider removes the egress rule that AWS puts into every new group, so it is declared here.
        self._allow_all_out("out", str(EVERYWHERE))
        if args.ipv6:
            self._allow_all_out("out6", str(EVERYWHERE6))
        self.security_group_id = self._group.id
        self.register_outputs({"securityGroupId": self.security_group_id})

    def dynamic_rule_grant(self, client: str) -> Grant:
        """Return the permission to change the address of a client's dynamic rule, and no other rule."""
        # The action applies to the group and the rule, so both are named (Service Authorization Reference).
        resources = [self._group.arn, self.dynamic_rules[client].arn]
        return Grant(sid="DynamicRule", actions=["ec2:ModifySecurityGroupRules"], resources=resources)

    def _open(
        self, purpose: str, listener: Listener, ranges: Iterable[IPv4Network], addresses: Mapping[_C, IPv4Address]
    ) -> dict[_C, aws.vpc.SecurityGroupIngressRule]:
        """Let ranges in, and addresses that change; return the rules of these by their client.

        AWS knows a rule by protocol, ports and range, and refuses a second one. So a range that a dynamic rule has now
        gets no rule of its own, and a rule that starts or stops to follow an address stays the same resource: a new
        one would be created before the old one is deleted.
        """
        deployed = self._args.dynamic_ranges
        dynamic = {contract.rule_for(client): IPv4Network(address) for client, address in addresses.items()}
        current = {deployed.get(follows, network) for follows, network in dynamic.items()}
        static = sorted({*collapse_addresses(ranges)} - current)
        former = {
            network: self._dynamic_name(follows)
            for follows, network in deployed.items()
            if follows not in dynamic and follows.partition("/")[0] == purpose
        }
        self._allow(purpose, static, listener.protocol, listener.port_range, former)
        return {
            client: self._add_dynamic_rule(
                contract.rule_for(client),
                address,
                listener,
                former=None if IPv4Network(address) in static else self._static_name(purpose, IPv4Network(address)),
            )
            for client, address in addresses.items()
        }

    def _static_name(self, purpose: str, source: IPv4Network | IPv6Network) -> str:
        return f"{self._name}-{purpose}-{source}"

    def _dynamic_name(self, follows: str) -> str:
        return f"{self._name}-door-{follows}"  # as deployed stacks have it

    def _allow(
        self,
        purpose: str,
        sources: Iterable[IPv4Network | IPv6Network],
        protocol: str,
        port_range: tuple[int, int] | None,
        former: Mapping[IPv4Network, str] | None = None,
    ) -> None:
        """Let ranges in; `former` has the resource names of rules that had a range until now."""
        aliases = {network: [pulumi.Alias(name=name)] for network, name in (former or {}).items()}
        for source in sources:
            aws.vpc.SecurityGroupIngressRule(
                self._static_name(purpose, source),
                security_group_id=self._group.id,
                description=purpose,
                ip_protocol=protocol,
                from_port=port_range[0] if port_range else None,
                to_port=port_range[1] if port_range else None,
                cidr_ipv4=str(source) if source.version == 4 else None,
                cidr_ipv6=str(source) if source.version == 6 else None,
                tags=self._args.names.tags("gateway"),
                opts=pulumi.ResourceOptions(
                    parent=self, aliases=aliases.get(source) if isinstance(source, IPv4Network) else None
                ),
            )

    def _add_dynamic_rule(
        self, follows: str, address: IPv4Address, listener: Listener, former: str | None
    ) -> aws.vpc.SecurityGroupIngressRule:
        first_port, last_port = listener.port_range
        return aws.vpc.SecurityGroupIngressRule(
            self._dynamic_name(follows),
            security_group_id=self._group.id,
            description=follows,
            ip_protocol=listener.protocol,
            from_port=first_port,
            to_port=last_port,
            cidr_ipv4=f"{address}/32",
            tags={**self._args.names.tags("gateway"), contract.FOLLOWS_TAG: follows},
            # `drawbridge access allow-me` and the client's kit change the address later.
            opts=pulumi.ResourceOptions(
                parent=self,
                ignore_changes=["cidrIpv4"],
                aliases=[pulumi.Alias(name=former)] if former else None,
            ),
        )

    def _allow_all_out(self, purpose: str, destination: str) -> None:
        aws.vpc.SecurityGroupEgressRule(
            f"{self._name}-{purpose}",
            security_group_id=self._group.id,
            description="everything",
            ip_protocol="-1",
            cidr_ipv4=None if ":" in destination else destination,
            cidr_ipv6=destination if ":" in destination else None,
            tags=self._args.names.tags("gateway"),
            opts=pulumi.ResourceOptions(parent=self),
        )
