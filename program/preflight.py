"""Look at the account and the region before anything is created, and refuse what AWS would refuse in the middle."""

from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi

from components.account_quotas import check_addresses, check_vpcs
from components.authority_provider import BATCH
from components.existing_vpc import ExistingVpc, ExistingVpcArgs, find_existing_vpc
from components.foreign_names import check_log_groups, check_topic
from components.own_account import check_own_account
from components.parameter_quotas import check_parameters, count_needed
from components.prepared_image import check_prepared_image
from components.public_name import check_public_name
from components.zones import choose_zones, find_vcpus
from contract import GATEWAYS, Names
from images import PREPARED_SYSTEMS
from settings.model import MAX_PROCESSES, Settings, Vpc
from settings.problems import problem_at

#: Section of the settings of each gateway's VPC.
SECTIONS = ("network", "pair")


@dataclass(frozen=True, slots=True)
class NewVpc:
    """A VPC that the stack creates, with the zones of its subnets."""

    zones: tuple[str, ...]


#: The VPC of a gateway.
Placement = ExistingVpc | NewVpc


def check_account(settings: Settings) -> None:
    """Raise `pulumi.RunError` if the account lacks what the settings name, or has names that the stack needs."""
    check_own_account("secrets.users", settings.secrets.users, "use users and roles of that account")
    boundary = settings.iam.permissions_boundary
    remedy = "use a policy of that account, or one of AWS's (arn:aws:iam::aws:policy/…)"
    check_own_account("iam.permissionsBoundary", [boundary] if boundary else [], remedy)
    if settings.gateway.image in PREPARED_SYSTEMS:
        check_prepared_image(settings.region, settings.stack, settings.gateway.image, settings.gateway.instance_type)
    if settings.log.days is not None:
        gateways = [Names(settings.stack, letter) for letter, _ in zip(GATEWAYS, settings.vpcs, strict=False)]
        check_log_groups(settings.region, gateways)
    if settings.alerts:
        check_topic(settings.region, settings.stack)
    if settings.gateway.hosted_zone_id and settings.gateway.hostname:
        names = Names(settings.stack, GATEWAYS[0])
        check_public_name(names, settings.gateway.hosted_zone_id, settings.gateway.hostname)


def choose_processes(settings: Settings) -> Settings:
    """Return the settings with a number of OpenVPN processes; warn of more than the instance type has vCPUs."""
    gateway = settings.gateway
    if gateway.processes == 1:
        return settings
    vcpus = find_vcpus(gateway.instance_type)
    if gateway.processes == "auto":
        chosen = gateway.model_copy(update={"processes": min(vcpus, MAX_PROCESSES)})
        return settings.model_copy(update={"gateway": chosen})
    if gateway.processes > vcpus:
        reason = f"is more than the {vcpus} vCPUs of {gateway.instance_type}: more processes than that carry no more"
        pulumi.log.warn(str(problem_at("gateway.processes", gateway.processes, reason, "use auto")))
    return settings


def find_placements(settings: Settings) -> dict[str, Placement]:
    """Return where each gateway of the stack goes, by its letter.

    Raises:
        pulumi.RunError: a quota, a zone or an existing VPC does not allow it.
    """
    gateways = {
        Names(settings.stack, letter): (section, vpc)
        for letter, section, vpc in zip(GATEWAYS, SECTIONS, settings.vpcs, strict=False)
    }
    placements = {names.gateway: _find_placement(settings, names, *place) for names, place in gateways.items()}
    check_vpcs(settings.region, [(names, vpc.cidr) for names, (_, vpc) in gateways.items() if not vpc.vpc_id])
    check_addresses(settings.region, list(gateways))
    kits = sum(client.needs_kit(settings.tunnel) for client in settings.clients)
    in_parameters = settings.secrets.bundles == "ssm"
    needed = count_needed(len(settings.clients), kits, BATCH, bundles=in_parameters)
    intelligent = settings.secrets.tier == "intelligent"
    check_parameters(settings.region, Names(settings.stack), needed, intelligent=intelligent, bundles=in_parameters)
    return placements


def list_vpc_ranges(vpc: Vpc, placement: Placement) -> tuple[IPv4Network, ...]:
    """Return a VPC's ranges, which only AWS knows of an existing one."""
    return placement.cidrs if isinstance(placement, ExistingVpc) else (vpc.cidr,)


def _find_placement(settings: Settings, names: Names, section: str, vpc: Vpc) -> Placement:
    instance_type = settings.gateway.instance_type
    if vpc.vpc_id and vpc.subnet_id:
        args = ExistingVpcArgs(
            key=section,
            vpc_id=vpc.vpc_id,
            subnet_id=vpc.subnet_id,
            route_table_ids=vpc.route_table_ids,
            instance_type=instance_type,
            ipv6=settings.tunnel.has_ipv6,
            ipv6_prefix=settings.gateway.ipv6_prefix,
            domain=settings.domain,
        )
        return find_existing_vpc(args)
    zones = choose_zones(names, key=section, region=settings.region, number=vpc.zones, instance_type=instance_type)
    return NewVpc(zones)
