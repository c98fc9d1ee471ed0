"""Routes of the VPC to the networks behind the gateway."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutesArgs:
    tables: Mapping[str, pulumi.Input[str]]
    """Route table ids, by a name for each that becomes part of the routes' resource names."""
    interface_id: pulumi.Input[str]
    destinations: tuple[IPv4Network, ...]
    edge: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Route table of the internet gateway, which gets the route to `destination6` as well."""
    destination6: pulumi.Input[str | None] | None = None
    """Range of a whole subnet behind the gateway."""


class Routes(pulumi.ComponentResource):
    """A route in each table to each network behind the gateway."""

    def __init__(self, name: str, args: RoutesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Routes", name, {}, opts)
        for table, table_id in args.tables.items():
            for destination in args.destinations:
                aws.ec2.Route(
                    f"{name}-{table}-{destination}",
                    route_table_id=table_id,
                    destination_cidr_block=str(destination),
                    network_interface_id=args.interface_id,
                    opts=pulumi.ResourceOptions(parent=self),
                )
        for table, table_id in ({**args.tables, **args.edge} if args.destination6 else {}).items():
            aws.ec2.Route(
                f"{name}-{table}-announced",
                route_table_id=table_id,
                destination_ipv6_cidr_block=args.destination6,
                network_interface_id=args.interface_id,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
