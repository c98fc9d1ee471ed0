"""The gateway's network interface and public address, which outlive its instance."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract
from components.prefix_provider import DelegatedPrefix


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    subnet_id: pulumi.Input[str]
    """Public subnet of the network interface."""
    security_group_id: pulumi.Input[str]
    source_dest_check: bool
    """False where the interface receives or sends packets with addresses that it does not have."""
    ipv6: bool = False
    """Whether the interface has an IPv6 address."""
    delegated: bool = True
    """Whether the interface, with IPv6, has a delegated prefix (/80) as well."""
    ipv6_prefix: str | None = None
    """The delegated prefix; without it AWS chooses one from the subnet's range."""
    after: Sequence[pulumi.Resource] = ()
    """Resources to create first: an Elastic IP needs the VPC's internet gateway."""


class Address(pulumi.ComponentResource):
    """A network interface with an Elastic IP. Routes and bundles refer to it and never to an instance."""

    interface_id: pulumi.Output[str]
    """Target of every route to a network behind the gateway."""
    private_ip: pulumi.Output[str]
    public_ip: pulumi.Output[str]
    """Address in the `remote` option of client profiles."""
    ipv6_prefix: pulumi.Output[str | None]
    """The prefix delegated to the interface, for hosts behind the gateway; None without one."""

    def __init__(self, name: str, args: AddressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Address", name, {}, opts)
        tags = args.names.tags("gateway")
        interface = aws.ec2.NetworkInterface(
            f"{name}-interface",
            subnet_id=args.subnet_id,
            security_groups=[args.security_group_id],
            source_dest_check=args.source_dest_check,
            # One address of its own, by which the gateway reaches the IPv6 Internet.
            ipv6_address_count=1 if args.ipv6 else None,
            description="Drawbridge gateway",
            tags=tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        elastic = aws.ec2.Eip(
            f"{name}-elastic",
            domain="vpc",
            network_interface=interface.id,
            tags=tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
        )
        self.interface_id = interface.id
        self.private_ip = interface.private_ip
        self.public_ip = elastic.public_ip
        self.ipv6_prefix = pulumi.Output.from_input(None)
        if args.ipv6 and args.delegated:
            delegated = DelegatedPrefix(
                f"{name}-prefix",
                region=args.region,
                interface_id=interface.id,
                named=args.ipv6_prefix,
                opts=pulumi.ResourceOptions(parent=self),
            )
            self.ipv6_prefix = delegated.prefix.apply(lambda prefix: prefix)
        self.register_outputs(
            {"interfaceId": self.interface_id, "privateIp": self.private_ip, "publicIp": self.public_ip}
        )
