"""DNS names inside the VPC."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    name: str
    """The domain, for example `ci-42.example.internal`."""
    vpc_id: pulumi.Input[str]
    gateway_ip: pulumi.Input[str]
    """The gateway's private address."""


class Domain(pulumi.ComponentResource):
    """A private hosted zone, which only the VPC's resolver answers from, with a record for the gateway.

    Stacks may share a domain, because each VPC has its own zone. Records that others add are deleted with the zone.
    """

    def __init__(self, name: str, args: DomainArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Domain", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        zone = aws.route53.Zone(
            f"{name}-zone",
            name=args.name,
            comment=f"Drawbridge {args.names.stack}",
            vpcs=[{"vpc_id": args.vpc_id}],
            force_destroy=True,
            tags=args.names.tags("domain"),
            opts=child,
        )
        aws.route53.Record(
            f"{name}-gateway",
            zone_id=zone.zone_id,
            name=f"gateway.{args.name}",
            type="A",
            ttl=60,
            records=[args.gateway_ip],
            opts=child,
        )
        self.register_outputs({})
