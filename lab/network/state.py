"""Read the state of an AWS region from the EC2 API, as typed values: the only input of the packet rules.

`read_state` leaves out nothing that moves a packet; all else in the lab's network is a pure function of a
`State`.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Literal

Network = IPv4Network | IPv6Network
Target = Literal["local", "internet-gateway", "egress-only", "interface", "endpoint", "blackhole"]


@dataclass(frozen=True, slots=True)
class Interface:
    """An elastic network interface."""

    id: str
    vpc: str
    subnet: str
    mac: str
    primary: IPv4Address
    addresses: tuple[IPv4Address, ...]
    """All private IPv4 addresses, the primary one first."""
    addresses6: tuple[IPv6Address, ...]
    prefixes: tuple[Network, ...]
    """Delegated prefixes: they count as the interface's own addresses."""
    source_dest_check: bool
    groups: tuple[str, ...]
    public: tuple[tuple[IPv4Address, IPv4Address], ...]
    """Pairs (private, public) of Elastic IPs and auto-assigned addresses."""
    instance: str | None
    index: int

    @property
    def own_ranges(self) -> tuple[Network, ...]:
        """All ranges that the source/destination check accepts as the interface's."""
        return (
            *(IPv4Network(address) for address in self.addresses),
            *(IPv6Network(address) for address in self.addresses6),
            *self.prefixes,
        )


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance."""

    id: str
    state: str
    """``pending``, ``running``, ``stopping``, ``stopped``, ``shutting-down``, ``terminated``."""
    type: str
    image: str
    zone: str
    profile: str | None
    """ARN of the instance profile."""
    key_name: str | None
    tokens_required: bool
    hop_limit: int
    metadata_enabled: bool
    metadata_ipv6: bool = False
    tags_in_metadata: bool = False
    tags: tuple[tuple[str, str], ...] = ()
    architecture: str = "x86_64"

    @property
    def on(self) -> bool:
        """True while the machine is on the network. A stopping instance keeps its network until its system is down."""
        return self.boots or self.goes_down

    @property
    def boots(self) -> bool:
        """True if the machine should be running."""
        return self.state in ("pending", "running")

    @property
    def goes_down(self) -> bool:
        """True if the machine's system should shut down; then the instance is stopped or terminated."""
        return self.state in ("stopping", "shutting-down")


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of a route table."""

    destination: Network
    target: Target
    id: str = ""
    """Of the target: interface, gateway."""


@dataclass(frozen=True, slots=True)
class RouteTable:
    """A route table with the subnets that use it, explicitly or as the VPC's main one."""

    id: str
    vpc: str
    main: bool
    subnets: tuple[str, ...]
    gateway_edge: bool
    """Associated with the internet gateway: steers what comes in."""
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class GroupRule:
    """One rule of a security group, for one peer."""

    protocol: str
    """``tcp``, ``udp``, ``icmp``, ``icmpv6``, ``-1`` for all, or a number."""
    low: int
    """First port or ICMP type; -1 for all."""
    high: int
    """Last port or ICMP code; -1 for all."""
    peers: tuple[Network, ...] = ()
    group: str | None = None


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A security group: what may come in, what may go out."""

    id: str
    ingress: tuple[GroupRule, ...]
    egress: tuple[GroupRule, ...]


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One entry of a network ACL."""

    number: int
    egress: bool
    allow: bool
    protocol: str
    network: Network
    low: int = -1
    high: int = -1


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet and the network ACL it is associated with."""

    id: str
    vpc: str
    cidr: IPv4Network | None
    """None of one that is IPv6-only."""
    cidr6: tuple[IPv6Network, ...]
    acl: tuple[AclEntry, ...]


@dataclass(frozen=True, slots=True)
class Vpc:
    """A VPC and whether an internet gateway is attached to it."""

    id: str
    cidrs: tuple[Network, ...]
    internet_gateway: str | None


@dataclass(frozen=True, slots=True)
class State:
    """Everything of a region that decides where packets go."""

    vpcs: Mapping[str, Vpc] = field(default_factory=dict)
    subnets: Mapping[str, Subnet] = field(default_factory=dict)
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    tables: tuple[RouteTable, ...] = ()
    groups: Mapping[str, SecurityGroup] = field(default_factory=dict)


def read_state(ec2: Any) -> State:
    """Return a region's network as the EC2 API (a boto3 client) describes it."""

    def pages(operation: str, key: str) -> list[dict[str, Any]]:
        if ec2.can_paginate(operation):
            return [item for page in ec2.get_paginator(operation).paginate() for item in page[key]]
        listed: list[dict[str, Any]] = getattr(ec2, operation)()[key]
        return listed

    lists = pages("describe_managed_prefix_lists", "PrefixLists")
    prefix_lists = _prefix_lists(ec2, lists)
    instances = {
        description["InstanceId"]: _parse_instance(description)
        for reservation in pages("describe_instances", "Reservations")
        for description in reservation["Instances"]
    }
    elastic = {
        description["PublicIp"]: (
            description.get("NetworkInterfaceId") or "",
            description.get("PrivateIpAddress") or "",
        )
        for description in pages("describe_addresses", "Addresses")
    }
    interfaces = {
        description["NetworkInterfaceId"]: _interface(description, instances, elastic)
        for description in pages("describe_network_interfaces", "NetworkInterfaces")
    }
    gateways = {
        attachment["VpcId"]: description["InternetGatewayId"]
        for description in pages("describe_internet_gateways", "InternetGateways")
        for attachment in description.get("Attachments", [])
    }
    egress_only = {
        description["EgressOnlyInternetGatewayId"]
        for description in pages("describe_egress_only_internet_gateways", "EgressOnlyInternetGateways")
    }
    targets = _Targets(interfaces, instances, gateways, frozenset(egress_only))
    vpcs = {description["VpcId"]: _vpc(description, gateways) for description in pages("describe_vpcs", "Vpcs")}
    acls = pages("describe_network_acls", "NetworkAcls")
    subnets = {
        description["SubnetId"]: _parse_subnet(description, acls)
        for description in pages("describe_subnets", "Subnets")
    }
    endpoints = _parse_endpoints(pages("describe_vpc_endpoints", "VpcEndpoints"), lists, prefix_lists)
    tables = tuple(
        _table(
            description,
            vpcs[description["VpcId"]],
            subnets,
            targets,
            endpoints.get(description["RouteTableId"], ()),
            prefix_lists,
        )
        for description in pages("describe_route_tables", "RouteTables")
    )
    groups = {
        description["GroupId"]: SecurityGroup(
            id=description["GroupId"],
            ingress=_rules(description["IpPermissions"], prefix_lists),
            egress=_rules(description["IpPermissionsEgress"], prefix_lists),
        )
        for description in pages("describe_security_groups", "SecurityGroups")
    }
    return State(vpcs, subnets, interfaces, instances, _with_main_subnets(tables, subnets), groups)


def _parse_instance(description: dict[str, Any]) -> Instance:
    options = description.get("MetadataOptions") or {}
    return Instance(
        id=description["InstanceId"],
        state=description["State"]["Name"],
        type=description["InstanceType"],
        image=description["ImageId"],
        zone=description["Placement"]["AvailabilityZone"],
        profile=(description.get("IamInstanceProfile") or {}).get("Arn"),
        key_name=description.get("KeyName"),
        tokens_required=options.get("HttpTokens") == "required",
        hop_limit=int(options.get("HttpPutResponseHopLimit") or 1),
        metadata_enabled=options.get("HttpEndpoint", "enabled") != "disabled",
        metadata_ipv6=options.get("HttpProtocolIpv6") == "enabled",
        tags_in_metadata=options.get("InstanceMetadataTags") == "enabled",
        tags=tuple(sorted((tag["Key"], tag["Value"]) for tag in description.get("Tags", []))),
        architecture=description["Architecture"],
    )


def _interface(
    description: dict[str, Any], instances: Mapping[str, Instance], elastic: Mapping[str, tuple[str, str]]
) -> Interface:
    private = sorted(description.get("PrivateIpAddresses", []), key=lambda entry: not entry.get("Primary"))
    addresses = tuple(IPv4Address(entry["PrivateIpAddress"]) for entry in private)
    primary = IPv4Address(description["PrivateIpAddress"])
    public = {
        IPv4Address(private_address or primary): IPv4Address(outside)
        for outside, (interface, private_address) in elastic.items()
        if interface == description["NetworkInterfaceId"]
    }
    # An address of the pool is given back when an Elastic IP takes its place.
    assigned = (description.get("Association") or {}).get("PublicIp")
    if assigned and assigned not in elastic and primary not in public:
        public[primary] = IPv4Address(assigned)
    attachment = description.get("Attachment") or {}
    owner = instances.get(attachment.get("InstanceId", ""))
    attached = owner is not None and owner.state != "terminated"
    return Interface(
        id=description["NetworkInterfaceId"],
        vpc=description["VpcId"],
        subnet=description["SubnetId"],
        mac=description["MacAddress"],
        primary=primary,
        addresses=addresses or (primary,),
        addresses6=tuple(IPv6Address(entry["Ipv6Address"]) for entry in description.get("Ipv6Addresses", [])),
        prefixes=(
            *(IPv4Network(entry["Ipv4Prefix"]) for entry in description.get("Ipv4Prefixes", [])),
            *(IPv6Network(entry["Ipv6Prefix"]) for entry in description.get("Ipv6Prefixes", [])),
        ),
        source_dest_check=bool(description.get("SourceDestCheck", True)),
        groups=tuple(group["GroupId"] for group in description.get("Groups", [])),
        public=tuple(public.items()),
        instance=owner.id if owner is not None and attached else None,
        index=int(attachment.get("DeviceIndex") or 0),
    )


def _vpc(description: dict[str, Any], gateways: Mapping[str, str]) -> Vpc:
    cidrs = [entry["CidrBlock"] for entry in description.get("CidrBlockAssociationSet", [])] or [
        description["CidrBlock"]
    ]
    cidrs6 = [
        entry["Ipv6CidrBlock"]
        for entry in description.get("Ipv6CidrBlockAssociationSet", [])
        if entry.get("Ipv6CidrBlockState", {}).get("State", "associated") == "associated"
    ]
    return Vpc(
        id=description["VpcId"],
        cidrs=tuple(ipaddress.ip_network(cidr) for cidr in (*cidrs, *cidrs6) if cidr),
        internet_gateway=gateways.get(description["VpcId"]),
    )


def _parse_subnet(description: dict[str, Any], acls: list[dict[str, Any]]) -> Subnet:
    associated = [
        acl for acl in acls if any(a["SubnetId"] == description["SubnetId"] for a in acl.get("Associations", []))
    ]
    default = [acl for acl in acls if acl["VpcId"] == description["VpcId"] and acl.get("IsDefault")]
    entries = (associated or default or [{"Entries": []}])[0]["Entries"]
    return Subnet(
        id=description["SubnetId"],
        vpc=description["VpcId"],
        cidr=IPv4Network(description["CidrBlock"]) if description.get("CidrBlock") else None,
        cidr6=tuple(
            IPv6Network(entry["Ipv6CidrBlock"])
            for entry in description.get("Ipv6CidrBlockAssociationSet", [])
            if entry.get("Ipv6CidrBlock")
        ),
        acl=tuple(sorted((_acl_entry(entry) for entry in entries), key=lambda entry: entry.number)),
    )


def _acl_entry(entry: dict[str, Any]) -> AclEntry:
    protocol = _protocol(str(entry["Protocol"]))
    if protocol in ("icmp", "icmpv6"):
        span = entry.get("IcmpTypeCode") or {}
        low, high = int(span.get("Type", -1)), int(span.get("Code", -1))
    else:
        span = entry.get("PortRange") or {}
        low, high = int(span.get("From", -1)), int(span.get("To", -1))
    return AclEntry(
        number=int(entry["RuleNumber"]),
        egress=bool(entry["Egress"]),
        allow=entry["RuleAction"] == "allow",
        protocol=protocol,
        network=ipaddress.ip_network(entry.get("CidrBlock") or entry["Ipv6CidrBlock"], strict=False),
        low=low,
        high=high,
    )


def _protocol(name: str) -> str:
    return {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "all": "-1"}.get(name.lower(), name.lower())


def _rules(permissions: list[dict[str, Any]], prefix_lists: Mapping[str, tuple[Network, ...]]) -> tuple[GroupRule, ...]:
    rules = []
    for permission in permissions:
        protocol = _protocol(str(permission["IpProtocol"]))
        low, high = int(permission.get("FromPort", -1)), int(permission.get("ToPort", -1))
        peers = tuple(
            ipaddress.ip_network(cidr, strict=False)
            for cidr in (
                *(entry["CidrIp"] for entry in permission.get("IpRanges", [])),
                *(entry["CidrIpv6"] for entry in permission.get("Ipv6Ranges", [])),
            )
        )
        listed = tuple(
            network
            for entry in permission.get("PrefixListIds", [])
            for network in prefix_lists.get(entry["PrefixListId"], ())
        )
        if peers or listed:
            rules.append(GroupRule(protocol, low, high, peers=(*peers, *listed)))
        rules += [
            GroupRule(protocol, low, high, group=pair["GroupId"])
            for pair in permission.get("UserIdGroupPairs", [])
            if pair.get("GroupId")
        ]
    return tuple(rules)


def _prefix_lists(ec2: Any, listed: list[dict[str, Any]]) -> dict[str, tuple[Network, ...]]:
    for entry in listed:
        # AWS's own lists are as they are; a customer's has a version that each change raises.
        version = (entry["PrefixListArn"], entry.get("Version"))
        if version not in _ENTRIES or entry["OwnerId"] != "AWS":
            entries = ec2.get_managed_prefix_list_entries(PrefixListId=entry["PrefixListId"])["Entries"]
            _ENTRIES[version] = tuple(ipaddress.ip_network(item["Cidr"]) for item in entries)
    return {entry["PrefixListId"]: _ENTRIES[entry["PrefixListArn"], entry.get("Version")] for entry in listed}


#: Entries of prefix lists, by the list's ARN and version.
_ENTRIES: dict[tuple[str, Any], tuple[Network, ...]] = {}


@dataclass(frozen=True, slots=True)
class _Targets:
    """Targets that a route can have now."""

    interfaces: Mapping[str, Interface]
    instances: Mapping[str, Instance]
    gateways: Mapping[str, str]
    """VPC -> the internet gateway attached to it."""
    egress_only: frozenset[str]
    """Egress-only internet gateways that there are."""

    def of(self, entry: dict[str, Any], vpc: str) -> tuple[Target, str]:
        """A route's target; what is gone, detached or stopped is a blackhole.

        Source: Amazon VPC User Guide, "Route table concepts" (the blackhole state).
        """
        gateway = entry.get("GatewayId") or ""
        egress_only = entry.get("EgressOnlyInternetGatewayId")
        if gateway == "local":
            return "local", ""
        if gateway.startswith("igw-") and self.gateways.get(vpc) == gateway:
            return "internet-gateway", gateway
        if egress_only and egress_only in self.egress_only:
            return "egress-only", egress_only
        named = entry.get("NetworkInterfaceId") or self._primary(entry.get("InstanceId"))
        interface = self.interfaces.get(named)
        if interface and interface.instance and self.instances[interface.instance].on:
            return "interface", named
        return "blackhole", named

    def _primary(self, instance: str | None) -> str:
        owned = (i.id for i in self.interfaces.values() if instance and i.index == 0 and i.instance == instance)
        return next(owned, "")


def _parse_endpoints(
    descriptions: list[dict[str, Any]], lists: list[dict[str, Any]], prefix_lists: Mapping[str, tuple[Network, ...]]
) -> dict[str, tuple[Route, ...]]:
    """Routes that gateway endpoints put into route tables, by table; the API lists not all of them."""
    by_service = {entry["PrefixListName"]: prefix_lists[entry["PrefixListId"]] for entry in lists}
    routes: dict[str, tuple[Route, ...]] = {}
    for endpoint in descriptions:
        if endpoint["State"].lower() == "available" and endpoint.get("VpcEndpointType", "Gateway") == "Gateway":
            for table in endpoint.get("RouteTableIds", []):
                networks = by_service.get(endpoint["ServiceName"], ())
                new = tuple(Route(network, "endpoint", endpoint["VpcEndpointId"]) for network in networks)
                routes[table] = (*routes.get(table, ()), *new)
    return routes


def _table(
    description: dict[str, Any],
    vpc: Vpc,
    subnets: Mapping[str, Subnet],
    targets: _Targets,
    endpoints: tuple[Route, ...],
    prefix_lists: Mapping[str, tuple[Network, ...]],
) -> RouteTable:
    # Each of the VPC's ranges is local, whether or not the API lists the route.
    routes = {cidr: Route(cidr, "local") for cidr in vpc.cidrs}
    listed = {route.destination: route for route in endpoints}
    for entry in description["Routes"]:
        if (entry.get("GatewayId") or "").startswith("vpce-"):
            continue
        named = entry.get("DestinationCidrBlock") or entry.get("DestinationIpv6CidrBlock")
        target, identity = targets.of(entry, vpc.id)
        if named:
            network = ipaddress.ip_network(named)
            routes[network] = Route(network, target, identity)
        for network in prefix_lists.get(entry.get("DestinationPrefixListId", ""), ()):
            listed[network] = Route(network, target, identity)
    associations = description.get("Associations", [])
    return RouteTable(
        id=description["RouteTableId"],
        vpc=vpc.id,
        main=any(entry.get("Main") for entry in associations),
        subnets=tuple(entry["SubnetId"] for entry in associations if entry.get("SubnetId") in subnets),
        gateway_edge=any(entry.get("GatewayId") for entry in associations),
        # "Route priority": a route of the table's own goes before the same destination out of a prefix list.
        routes=tuple((listed | routes).values()),
    )


def _with_main_subnets(tables: tuple[RouteTable, ...], subnets: Mapping[str, Subnet]) -> tuple[RouteTable, ...]:
    """Give each VPC's main table the subnets that no table names."""
    named = {subnet for table in tables for subnet in table.subnets}
    return tuple(
        replace(
            table,
            subnets=(*table.subnets, *(s.id for s in subnets.values() if s.vpc == table.vpc and s.id not in named)),
        )
        if table.main
        else table
        for table in tables
    )
