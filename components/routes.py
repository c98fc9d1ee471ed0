"""How the VPC finds what is behind the gateway."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutesArgs:
    tables: Mapping[str, pulumi.Input[str]]
    """Route table ids by a name for each; the names decide which resources there are."""
    interface_id: pulumi.Input[str]
    destinations: tuple[IPv4Network, ...]
    edge: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Table of the internet gateway: what is behind the gateway by IPv6 is told to it as well."""
    destination6: pulumi.Input[str | None] | None = None
    """A whole subnet's range behind the gateway."""


class Routes(pulumi.ComponentResource):
    """A route in each table to each network behind the gateway."""

    def __init__(self, name: str, args: RoutesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Routes", name, {}, opts)
        for table, id_ in args.tables.items():
            for destination in args.destinations:
                aws.ec2.Route(
                    f"{name}-{table}-{destination}",
                    route_table_id=id_,
                    destination_cidr_block=str(destination),
                    network_interface_id=args.interface_id,
                    opts=pulumi.ResourceOptions(parent=self),
                )
        for table, id_ in ({**args.tables, **args.edge} if args.destination6 else {}).items():
            aws.ec2.Route(
                f"{name}-{table}-announced",
                route_table_id=id_,
                destination_ipv6_cidr_block=args.destination6,
                network_interface_id=args.interface_id,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
