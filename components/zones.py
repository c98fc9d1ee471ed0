"""Choose the availability zones of a new VPC by where AWS offers the gateway's instance type.

Not every zone has every type, and which letter a physical zone has differs by account (Amazon EC2 User Guide, "Regions
and Zones").
"""

import pulumi
import pulumi_aws as aws

import contract

#: Types that an error may suggest, the cheapest first.
ALTERNATIVES = ("t4g.nano", "t3a.nano", "t3.nano", "t4g.small", "t3.small", "t3.micro")


def find_offering_zones(instance_type: str) -> frozenset[str]:
    """Return the availability zones of the region that offer an instance type."""
    offerings = aws.ec2.get_instance_type_offerings(
        filters=[{"name": "instance-type", "values": [instance_type]}], location_type="availability-zone"
    )
    return frozenset(offerings.locations)


def find_vcpus(instance_type: str) -> int:
    """Return how many virtual processors an instance type has."""
    return aws.ec2.get_instance_type(instance_type=instance_type).default_vcpus


def suggest_types(*zones: str) -> str:
    """Return the remedy that names types which one of the zones offers."""
    offerings = aws.ec2.get_instance_type_offerings(
        filters=[
            {"name": "instance-type", "values": list(ALTERNATIVES)},
            {"name": "location", "values": list(zones)},
        ],
        location_type="availability-zone",
    )
    types = [name for name in ALTERNATIVES if name in offerings.instance_types]
    return f"use another type, such as {' or '.join(types[:2])}" if types else "use another type"


def choose_zones(names: contract.Names, *, key: str, region: str, number: int, instance_type: str) -> tuple[str, ...]:
    """Return the zones of a new VPC's subnets; the gateway is in the first one, which offers its instance type.

    Zones in which the stack has subnets already come first, in the order of these. `key` names the VPC's section.

    Raises:
        pulumi.RunError: the region has too few zones, or the gateway's zone does not offer the type.
    """
    names_of_zones = aws.get_availability_zones(state="available").names
    # Local and Wavelength Zones, whose names are longer, have fewer instance types and other internet gateways.
    available = sorted(zone for zone in names_of_zones if len(zone) == len(region) + 1)
    if len(available) < number:
        raise pulumi.RunError(
            f"drawbridge:{key}.zones: {number} is more than {region} has; write {len(available)} or less"
        )
    offering = find_offering_zones(instance_type) & {*available}
    if not offering:
        raise pulumi.RunError(
            f"drawbridge:gateway.instanceType: {instance_type} is not offered in {region}; {suggest_types(*available)}"
        )
    deployed = {i: zone for i in range(number) if (zone := _find_deployed_zone(names, i))}
    if 0 in deployed and deployed[0] not in offering:
        raise pulumi.RunError(
            f"drawbridge:gateway.instanceType: {instance_type} is not offered in {deployed[0]}, where the stack's "
            f"subnets are; {suggest_types(deployed[0])}, or destroy the stack and deploy it again, "
            f"in {' or '.join(sorted(offering))}"
        )
    remaining = sorted({*available} - {*deployed.values()}, key=lambda zone: (zone not in offering, zone))
    return tuple(deployed.get(i) or remaining.pop(0) for i in range(number))


def _find_deployed_zone(names: contract.Names, number: int) -> str | None:
    """Return the zone of the stack's public subnet of a number, None if it is not deployed."""
    subnets = aws.ec2.get_subnets(tags=names.tags(f"public-{number}")).ids
    return aws.ec2.get_subnet(id=subnets[0]).availability_zone if subnets else None
