"""The gateway's address: what stays when the machine behind it is replaced."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    subnet_id: pulumi.Input[str]
    """Public subnet the network interface lives in."""
    security_group_id: pulumi.Input[str]
    source_dest_check: bool
    """False where the interface takes or sends packets of addresses that are not its own."""
    ipv6: bool = False
    """Whether it has an IPv6 address of its own."""
    delegated: bool = True
    """Whether it then has a delegated prefix, a /80, too."""
    ipv6_prefix: str | None = None
    """That prefix; without it AWS chooses one of the subnet's."""
    after: Sequence[pulumi.Resource] = ()
    """What must be there first: an Elastic IP needs the VPC's way to the Internet."""


class Address(pulumi.ComponentResource):
    """A network interface with an Elastic IP: routes, bundles and the source/dest check hang on it, on no machine."""

    interface_id: pulumi.Output[str]
    """Target of every route to a network behind the gateway."""
    private_ip: pulumi.Output[str]
    public_ip: pulumi.Output[str]
    """What client profiles name as `remote`."""
    ipv6_prefix: pulumi.Output[str | None]
    """What the VPC hands to the interface besides its own address: it is for what is behind the gateway."""

    def __init__(self, name: str, args: AddressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Address", name, {}, opts)
        tags = args.names.tags("gateway")
        named = args.ipv6_prefix if args.ipv6 and args.delegated else None
        interface = aws.ec2.NetworkInterface(
            f"{name}-interface",
            subnet_id=args.subnet_id,
            security_groups=[args.security_group_id],
            source_dest_check=args.source_dest_check,
            # One address for itself: with it comes the way to the Internet.
            ipv6_address_count=1 if args.ipv6 else None,
            # 0 and not nothing, which would leave what it has.
            ipv6_prefix_count=(1 if args.delegated else 0) if args.ipv6 and not named else None,
            ipv6_prefixes=[named] if named else None,
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
        self.ipv6_prefix = interface.ipv6_prefixes.apply(lambda held: held[0] if held else None)
        self.register_outputs(
            {"interfaceId": self.interface_id, "privateIp": self.private_ip, "publicIp": self.public_ip}
        )
