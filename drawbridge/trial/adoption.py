"""Make in a region on this machine what a stack file names and only its account has: VPCs, a KMS key, a boundary."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from drawbridge import errors
from drawbridge.operate.stack_records import StackRecord, load_record, save_record
from drawbridge.trial.deployment import Progress, create_client
from images import IMAGE_NAMES
from lab.api.iam import ACCOUNT
from lab.region import Region
from settings.model import Settings

_PREFIX = "drawbridge:"
_EVERYWHERE, _EVERYWHERE6 = "0.0.0.0/0", "::/0"
#: Ranges from which an adopted VPC gets one that overlaps none of the stack's.
_RANGES = IPv4Network("10.0.0.0/8")


def adopt(region: Region, settings: Settings, raw: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Return a stack's settings with the lab's IDs in place of those that only its account has.

    A VPC that the region has stays as it is. Another one is made as the settings describe it: with a public subnet, a
    private one, and the route tables; the stack's record holds the IDs. An existing KMS key and a permissions boundary
    get counterparts as well, and an AMI is replaced by the default image.

    Raises:
        DeploymentError: a VPC was not completed by an earlier run.
    """
    record = load_record(region, settings.stack)
    record = record or StackRecord(stack=settings.stack, aws_region=settings.region, config=raw)
    config = dict(raw)
    for name in ("network", "pair"):
        section = config.get(f"{_PREFIX}{name}")
        if isinstance(section, Mapping) and section.get("vpcId"):
            config[f"{_PREFIX}{name}"] = _adopt_vpc(region, record, settings, name, section, progress)
    config |= dict(_replace_references(region, record, settings, config, progress))
    return config


def remove_adopted(region: Region, record: StackRecord, aws_region: str) -> None:
    """Delete what was made for a stack that has been destroyed."""
    ec2 = create_client(region, "ec2", aws_region)
    for name in list(record.adopted):
        adopted = record.adopted[name]
        if vpc := adopted.get("vpcId"):
            tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
            for table in tables:
                if any(association.get("Main") for association in table["Associations"]):
                    continue
                for association in table["Associations"]:
                    ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
                ec2.delete_route_table(RouteTableId=table["RouteTableId"])
            for subnet in _list_ids(ec2.describe_subnets, "Subnets", "SubnetId", "vpc-id", vpc):
                ec2.delete_subnet(SubnetId=subnet)
            gateways = _list_ids(
                ec2.describe_internet_gateways, "InternetGateways", "InternetGatewayId", "attachment.vpc-id", vpc
            )
            for gateway in gateways:
                ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
                ec2.delete_internet_gateway(InternetGatewayId=gateway)
            ec2.delete_vpc(VpcId=vpc)
        if policy := adopted.get("policy"):
            create_client(region, "iam", aws_region).delete_policy(PolicyArn=policy)
        if key := adopted.get("key"):
            # moto finds a key to be deleted by its ID alone.
            id = key.rpartition("/")[2]
            create_client(region, "kms", aws_region).schedule_key_deletion(KeyId=id, PendingWindowInDays=7)
        del record.adopted[name]
        save_record(region, record)


def _adopt_vpc(
    region: Region,
    record: StackRecord,
    settings: Settings,
    name: str,
    section: Mapping[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Return a section that names a VPC, with the IDs of the lab's."""
    ec2 = create_client(region, "ec2", settings.region)
    if _list_ids(ec2.describe_vpcs, "Vpcs", "VpcId", "vpc-id", section["vpcId"]):
        return dict(section)
    if name not in record.adopted:
        cidr = _choose_range(settings, record)
        progress(f"making VPC {section['vpcId']} of the file, with range {cidr}")
        # Recorded before it is complete, so that a failure in between leaves nothing unknown.
        adopted = record.adopted[name] = {"cidr": str(cidr)}
        for key, id in _create_vpc(ec2, settings, f"{settings.stack}-{name}", cidr, section):
            adopted[key] = id
            save_record(region, record)
    adopted = record.adopted[name]
    if "privateSubnetId" not in adopted:
        raise errors.DeploymentError(
            f"the VPC that was made for drawbridge:{name} is not complete",
            f"start anew: drawbridge lab destroy {settings.stack}",
        )
    for table in section.get("routeTableIds") or ():
        if table not in adopted:
            created = ec2.create_route_table(VpcId=adopted["vpcId"])["RouteTable"]
            adopted[table] = created["RouteTableId"]
            save_record(region, record)
    ids = {"vpcId": adopted["vpcId"], "subnetId": adopted["subnetId"]}
    tables = [adopted[table] for table in section.get("routeTableIds") or ()]
    return {**section, **ids, **({"routeTableIds": tables} if tables else {})}


def _create_vpc(
    ec2: Any, settings: Settings, label: str, cidr: IPv4Network, section: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Create a VPC as a section describes it; yield each ID with its key, that of a route table with the file's ID."""
    has_ipv6 = settings.tunnel.has_ipv6

    def tag(kind: str) -> dict[str, Any]:
        return {"TagSpecifications": [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": f"adopted-{label}"}]}]}

    vpc = ec2.create_vpc(CidrBlock=str(cidr), AmazonProvidedIpv6CidrBlock=has_ipv6, **tag("vpc"))["Vpc"]["VpcId"]
    yield "vpcId", vpc
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsSupport={"Value": True})
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    gateway = ec2.create_internet_gateway(**tag("internet-gateway"))["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    blocks6: list[IPv6Network] = []
    if has_ipv6:
        (described,) = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
        block = IPv6Network(described["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
        blocks6 = [IPv6Network((int(block.network_address) + (n << 64), 64)) for n in range(2)]
    offerings = ec2.describe_instance_type_offerings(
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": [settings.gateway.instance_type]}],
    )["InstanceTypeOfferings"]
    zone = {"AvailabilityZone": min(row["Location"] for row in offerings)} if offerings else {}
    subnets: list[str] = []
    for number, network in enumerate(list(cidr.subnets(new_prefix=24))[:2]):
        block6 = {"Ipv6CidrBlock": str(blocks6[number])} if blocks6 else {}
        created = ec2.create_subnet(VpcId=vpc, CidrBlock=str(network), **zone, **block6, **tag("subnet"))
        subnets.append(created["Subnet"]["SubnetId"])
        yield ("subnetId", "privateSubnetId")[number], subnets[-1]
    if has_ipv6:
        ec2.modify_subnet_attribute(SubnetId=subnets[1], AssignIpv6AddressOnCreation={"Value": True})
    public = ec2.create_route_table(VpcId=vpc, **tag("route-table"))["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=public, DestinationCidrBlock=_EVERYWHERE, GatewayId=gateway)
    if has_ipv6:
        ec2.create_route(RouteTableId=public, DestinationIpv6CidrBlock=_EVERYWHERE6, GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=public, SubnetId=subnets[0])
    # The file's first route table is the private subnet's: hosts there are to reach the clients.
    for number, table in enumerate(section.get("routeTableIds") or ["private"]):
        id = ec2.create_route_table(VpcId=vpc, **tag("route-table"))["RouteTable"]["RouteTableId"]
        if number == 0:
            ec2.associate_route_table(RouteTableId=id, SubnetId=subnets[1])
        yield table, id


def _choose_range(settings: Settings, record: StackRecord) -> IPv4Network:
    """Return a /16 that overlaps none of the stack's ranges."""
    used = [settings.tunnel.pool, *settings.tunnel.routes, *(lan for client in settings.clients for lan in client.lan)]
    used += [vpc.cidr for vpc in (settings.network, settings.pair) if vpc and not vpc.vpc_id]
    used += [IPv4Network(adopted["cidr"]) for adopted in record.adopted.values() if "cidr" in adopted]
    ranges = list(_RANGES.subnets(new_prefix=16))
    return next(network for network in ranges[1:] if not any(map(network.overlaps, used)))


def _replace_references(
    region: Region, record: StackRecord, settings: Settings, config: Mapping[str, Any], progress: Progress
) -> Iterator[tuple[str, Any]]:
    """Yield the sections that name a key, a boundary or an image of the account, with the lab's counterparts."""
    gateway = dict(config.get(f"{_PREFIX}gateway") or {})
    if settings.gateway.image not in IMAGE_NAMES:
        progress(f"the lab has no image {settings.gateway.image}; the gateway boots the default one")
        del gateway["image"]
    if settings.network.vpc_id and gateway.pop("ipv6Prefix", None):
        progress("the lab's VPC has another IPv6 range; AWS chooses the gateway's prefix")
    if f"{_PREFIX}gateway" in config:
        yield f"{_PREFIX}gateway", gateway
    if settings.secrets.key.startswith("arn:"):
        if "key" not in record.adopted:
            progress("making the KMS key of the file")
            key = create_client(region, "kms", settings.region).create_key(Description=f"adopted-{settings.stack}")
            record.adopted["key"] = {"key": key["KeyMetadata"]["Arn"]}
            save_record(region, record)
        yield f"{_PREFIX}secrets", {**config[f"{_PREFIX}secrets"], "key": record.adopted["key"]["key"]}
    boundary = settings.iam.permissions_boundary
    if boundary and ":iam::aws:" not in boundary:
        path, _, name = boundary.partition(":policy")[2].rpartition("/")
        arn = f"arn:aws:iam::{ACCOUNT}:policy{path}/{name}"
        if "boundary" not in record.adopted:
            progress("making the permissions boundary of the file, which bounds nothing here")
            iam = create_client(region, "iam", settings.region)
            everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
            document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
            with suppress(iam.exceptions.EntityAlreadyExistsException):
                iam.create_policy(PolicyName=name, Path=f"{path}/", PolicyDocument=document)
                record.adopted["boundary"] = {"policy": arn}
                save_record(region, record)
        yield f"{_PREFIX}iam", {**config[f"{_PREFIX}iam"], "permissionsBoundary": arn}


def _list_ids(describe: Any, listed: str, key: str, filter_name: str, value: str) -> list[str]:
    return [row[key] for row in describe(Filters=[{"Name": filter_name, "Values": [value]}])[listed]]
