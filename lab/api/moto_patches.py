"""Patch moto where it differs from AWS.

Each function that `PATCHES` lists is one difference. `apply` puts patches in force for good, `patched` for the time of
a ``with`` block. Only this module and `lab.api.moto_state` know how moto is built.

Sources: Amazon EC2 User Guide, "Assign prefixes to network interfaces", "Replace the root volume for an Amazon EC2
instance", "Instance lifecycle", "Elastic IP addresses"; Amazon VPC User Guide, "IP addressing for your VPCs and
subnets".
"""

import base64
import contextlib
import copy
import datetime
import functools
import inspect
import ipaddress
import random
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from moto.cloudwatch.models import Alarm, CloudWatchBackend, MetricDatumBase
from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError, InvalidParameterValueError
from moto.ec2.models import ec2_backends, elastic_ip_addresses, elastic_network_interfaces
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.elastic_ip_addresses import ElasticAddress, ElasticAddressBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.network_acls import NetworkAclBackend
from moto.ec2.models.route_tables import RouteBackend
from moto.ec2.models.security_groups import SecurityGroupBackend, SecurityGroupRule
from moto.ec2.models.subnets import Subnet, SubnetBackend
from moto.ec2.models.vpcs import VPCBackend
from moto.ec2.responses.elastic_ip_addresses import ElasticIPAddresses
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.network_acls import NetworkACLs
from moto.ec2.responses.vpcs import VPCs
from moto.iam.access_control import PermissionResult
from moto.iam.exceptions import NoSuchEntity
from moto.iam.models import IAMBackend, Role, User
from moto.iam.responses import IamResponse
from moto.route53.responses import Route53
from moto.s3.models import FakeBucket
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.responses import ServiceQuotasResponse
from moto.sns.exceptions import SNSInvalidParameter
from moto.sns.models import SNSBackend, Subscription

from lab.api.iam import ACCOUNT
from lab.api.moto_inventory import applied_quotas
from lab.api.moto_ipam import METHODS
from lab.api.moto_state import root_volume_tasks
from lab.api.validation.quotas import QUOTAS
from lab.errors import LabError

#: Set aside for tests of networks (RFC 2544), so none of its addresses is anybody's.
_BENCHMARKING = IPv4Network("198.18.0.0/15")
#: Bytes of a console that EC2 returns.
_CONSOLE_SIZE = 64 << 10


class Patches:
    """Attributes of moto's objects that were replaced, in that order, so that the replacement can be undone."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a module or class, which need not have it yet."""
        self._originals.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)

    def wrap(self, owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
        """Decorate a function that replaces `owner.name` and gets the original as its first argument.

        Raises:
            LabError: moto has no such function.
        """
        original = getattr(owner, name, None)
        if original is None:
            raise LabError(
                f"the installed moto has no {owner.__name__}.{name}; install the version that requirements.txt names"
            )

        def decorate(replacement: Callable[..., Any]) -> None:
            @functools.wraps(original)
            def call(*args: Any, **kwargs: Any) -> Any:
                return replacement(original, *args, **kwargs)

            self.set(owner, name, call)

        return decorate

    def undo(self) -> None:
        """Put every original back."""
        while self._originals:
            owner, name, original = self._originals.pop()
            if original is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


Patch = Callable[[Patches], None]
_MISSING = object()
_applied: set[Patch] = set()


def apply(*patches: Patch) -> None:
    """Apply patches, by default all of them, for the rest of the process. Idempotent.

    Raises:
        LabError: this moto is built otherwise than the one this module knows.
    """
    for patch in patches or PATCHES:
        if patch not in _applied:
            patch(Patches())
            _applied.add(patch)


@contextlib.contextmanager
def patched(*patches: Patch) -> Iterator[None]:
    """Apply patches, by default all of them, and undo them afterwards."""
    replaced = Patches()
    try:
        for patch in patches or PATCHES:
            if patch not in _applied:
                patch(replaced)
        yield
    finally:
        replaced.undo()


# --- security groups --------------------------------------------------------------------------------------------------


def modify_whole_rules(patches: Patches) -> None:
    """Have ModifySecurityGroupRules apply every member of a rule, of any source, and refuse a rule that exists."""
    sources = ("CidrIpv4", "CidrIpv6", "PrefixListId", "ReferencedGroupId")

    @patches.wrap(SecurityGroupBackend, "modify_security_group_rules")
    def modify(original: Any, self: Any, group_id: str, rules: dict[str, dict[str, Any]]) -> None:
        group = self.get_security_group_by_name_or_id(group_id)
        existing = {rule_id: group and group.get_rule(rule_id) for rule_id in rules}
        unusual = any(rule is None for rule in existing.values())
        if unusual or any(
            sum(key in rule for key in sources) != 1 or "IpProtocol" not in rule for rule in rules.values()
        ):
            return original(self, group_id, rules)  # type: ignore[no-any-return] # it raises EC2's error
        for rule_id, members in rules.items():
            _modify_rule(self, group, existing[rule_id], members)
        return None


def _modify_rule(backend: Any, group: Any, rule: Any, members: dict[str, Any]) -> None:
    """Change one rule in place.

    Raises:
        EC2ClientError: the source is of another kind than the rule's, or the group has such a rule.
    """
    current = [
        name
        for name, value in (
            ("CidrIpv4", rule.cidr_ipv4),
            ("CidrIpv6", rule.cidr_ipv6),
            ("PrefixListId", rule.prefix_list_id),
            ("ReferencedGroupId", rule.source_group),
        )
        if value
    ]
    if current[0] not in members:
        raise InvalidParameterValueError(f"Invalid rule type for security group rule '{rule.id}'")
    ip_range = {
        key: members[name] for name, key in (("CidrIpv4", "CidrIp"), ("CidrIpv6", "CidrIpv6")) if name in members
    }
    description = {"Description": members["Description"]} if "Description" in members else {}
    changed = SecurityGroupRule(
        backend,
        members["IpProtocol"],
        group.group_id,
        members.get("FromPort"),
        members.get("ToPort"),
        {**ip_range, **description},
        source_group={**rule.source_group, "GroupId": members["ReferencedGroupId"]} if rule.source_group else None,
        prefix_list_id={"PrefixListId": members["PrefixListId"]} if rule.prefix_list_id else None,
        is_egress=rule.is_egress,
    )
    existing_rules = group.egress_rules if rule.is_egress else group.ingress_rules
    if any(changed == existing for existing in existing_rules if existing is not rule):
        raise EC2ClientError("InvalidPermission.Duplicate", "the specified rule already exists")
    for name in ("ip_protocol", "from_port", "to_port", "ip_range", "source_group", "prefix_list_id"):
        setattr(rule, name, getattr(changed, name))


def keep_groups_on_interfaces(patches: Patches) -> None:
    """Let an instance's security groups be those of its primary interface, the VPC's default group if none was named.

    Amazon EC2 API Reference, "RunInstances", "ModifyInstanceAttribute", "ModifyNetworkInterfaceAttribute". moto keeps
    those that a launch named beside the interface's.
    """

    def primary(instance: Any) -> Any:
        return instance.__dict__.get("nics", {}).get(0)

    def read(instance: Any) -> list[Any]:
        interface = primary(instance)
        return list(interface._group_set if interface else instance.__dict__.get("launch_groups", ()))

    def write(instance: Any, groups: list[Any]) -> None:
        if interface := primary(instance):
            interface._group_set = list(groups)
        else:
            instance.launch_groups = groups

    patches.set(Instance, "security_groups", property(read, write))
    patches.set(NetworkInterface, "group_set", property(lambda interface: interface._group_set))


# --- VPCs -------------------------------------------------------------------------------------------------------------


def complete_vpc_defaults(patches: Patches) -> None:
    """Let members of a VPC's default group in, and IPv6 through its default ACL where the VPC has IPv6."""

    def allow_ipv6(backend: Any, vpc: str) -> None:
        for acl in backend.network_acls.values():
            if (
                acl.vpc_id == vpc
                and acl.default
                and 101 not in [int(entry.rule_number) for entry in acl.network_acl_entries]
            ):
                for egress in (True, False):
                    backend.create_network_acl_entry(
                        network_acl_id=acl.id, rule_number=101, protocol="-1", rule_action="allow", egress=egress,
                        cidr_block=None, ipv6_cidr_block="::/0", icmp_code=None, icmp_type=None,
                        port_range_from=None, port_range_to=None,
                    )  # fmt: skip

    @patches.wrap(VPCBackend, "create_vpc")
    def create(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        vpc = original(self, *args, **kwargs)
        group = self.get_security_group_from_name("default", vpc_id=vpc.id)
        if not group.ingress_rules:
            self.authorize_security_group_ingress(group.id, "-1", None, None, [], source_groups=[{"GroupId": group.id}])
        if vpc.get_cidr_block_association_set(ipv6=True):
            allow_ipv6(self, vpc.id)
        return vpc

    @patches.wrap(VPCBackend, "associate_vpc_cidr_block")
    def associate(original: Any, self: Any, vpc_id: str, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, vpc_id, *args, **kwargs)
        if self.get_vpc(vpc_id).get_cidr_block_association_set(ipv6=True):
            allow_ipv6(self, vpc_id)
        return answer


def connect_default_vpc(patches: Patches) -> None:
    """Give the default VPC an internet gateway, and its main route table the route to it.

    Amazon VPC User Guide, "Default VPC components".
    """

    @patches.wrap(VPCBackend, "create_default_vpc")
    def create(original: Any, self: Any) -> Any:
        vpc = original(self)
        gateway = self.create_internet_gateway()
        self.attach_internet_gateway(gateway.id, vpc.id)
        (table,) = self.describe_route_tables(filters={"vpc-id": [vpc.id]})
        self.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)
        return vpc


def read_ignored_parameters(patches: Patches) -> None:
    """Read the ICMP types of ACL entries, and route for endpoints' later route tables."""
    for name in ("create_network_acl_entry", "replace_network_acl_entry"):

        def entry(original: Any, self: Any) -> Any:
            read = self._get_param
            names = {"Icmp.Code": "IcmpTypeCode.Code", "Icmp.Type": "IcmpTypeCode.Type"}
            self._get_param = lambda key, *args, **kwargs: read(names.get(key, key), *args, **kwargs)
            return original(self)

        patches.wrap(NetworkACLs, name)(entry)

    @patches.wrap(VPCBackend, "modify_vpc_endpoint")
    def modify(original: Any, self: Any, vpc_id: str, *args: Any, **kwargs: Any) -> Any:
        endpoint = self.describe_vpc_endpoints(vpc_end_point_ids=[vpc_id])[0]
        before = set(endpoint.route_table_ids)
        answer = original(self, vpc_id, *args, **kwargs)
        prefix_list = endpoint.destination_prefix_list_id
        for table in set(endpoint.route_table_ids) - before:
            self.create_route(table, None, gateway_id=vpc_id, destination_prefix_list_id=prefix_list)
        for table in before - set(endpoint.route_table_ids):
            self.delete_route(table, None, destination_prefix_list_id=prefix_list)
        return answer


def drop_ports_of_portless_protocols(patches: Patches) -> None:
    """Ignore the ports of an ACL entry whose protocol has none, as EC2 does; Pulumi's provider sends 0 to 0."""

    @patches.wrap(NetworkAclBackend, "create_network_acl_entry")
    def create(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        entry = original(self, *args, **kwargs)
        if str(entry.protocol) not in ("6", "17"):
            entry.port_range_from = entry.port_range_to = None
        return entry


def report_ipv6_of_subnets(patches: Patches) -> None:
    """Report a subnet's IPv6 range as EC2 does, and find the subnet by its association."""

    def associations(self: Any) -> list[dict[str, Any]]:
        return [
            {
                "associationId": association["associationId"],
                "ipv6CidrBlock": association["ipv6CidrBlock"],
                "ipv6CidrBlockState": {"state": association["ipv6CidrBlockState"]["State"]},
            }
            for association in self.ipv6_cidr_block_associations.values()
            if association["ipv6CidrBlockState"]["State"] == "associated"
        ]

    patches.set(Subnet, "ipv6_cidr_block_association_set", property(associations))

    @patches.wrap(Subnet, "get_filter_value")
    def value(original: Any, self: Any, filter_name: str, *args: Any) -> Any:
        keys = {
            "ipv6-cidr-block-association.association-id": "associationId",
            "ipv6-cidr-block-association.ipv6-cidr-block": "ipv6CidrBlock",
        }
        if filter_name in keys:
            return [association[keys[filter_name]] for association in associations(self)]
        return original(self, filter_name, *args)


def check_routes_inside_vpc(patches: Patches) -> None:
    """Refuse routes inside the VPC's ranges, except for a whole subnet or range to a network interface.

    Source: Amazon VPC User Guide, "Subnet route tables" (rules and considerations) and "Gateway route tables".
    moto takes every route whose target is an interface.
    """

    @patches.wrap(RouteBackend, "create_route")
    def create(original: Any, self: Any, route_table_id: str, *args: Any, **kwargs: Any) -> Any:
        ipv4, ipv6 = (*args, None, None)[:2]
        text = ipv4 or ipv6 or kwargs.get("destination_cidr_block") or kwargs.get("destination_ipv6_cidr_block")
        if text and not kwargs.get("local"):
            destination, table = ipaddress.ip_network(text, strict=False), self.get_route_table(route_table_id)
            associations = self.get_vpc(table.vpc_id)._cidr_block_association_set.values()
            ranges = [ipaddress.ip_network(association["cidr_block"]) for association in associations]
            subnets = [
                ipaddress.ip_network(cidr)
                for subnet in self.describe_subnets(filters={"vpc-id": table.vpc_id})
                for cidr in (
                    subnet.cidr_block,
                    *(e["ipv6CidrBlock"] for e in subnet.ipv6_cidr_block_associations.values()),
                )
                if cidr
            ]
            is_local = any(destination.version == r.version and destination.subnet_of(r) for r in ranges)  # type: ignore[arg-type]
            if is_local and destination not in (*ranges, *subnets):
                raise InvalidParameterValueError(f"({text}) for parameter destinationCidrBlock: not a whole subnet; it")
            if is_local and not any(kwargs.get(key) for key in ("interface_id", "nat_gateway_id", "vpc_endpoint_id")):
                raise InvalidParameterValueError(f"({text}) for parameter destinationCidrBlock: not an interface; it")
        return original(self, route_table_id, *args, **kwargs)


# --- addresses --------------------------------------------------------------------------------------------------------


def draw_routable_public_addresses(patches: Patches) -> None:
    """Draw public addresses that packets can be sent to: moto's own are of 127.0.0.0/8."""
    used: set[IPv4Address] = set()

    def usable(address: IPv4Address) -> bool:
        return 0 < int(address) % 256 < 255

    def draw(*_: Any, **__: Any) -> str:
        while (address := _BENCHMARKING[secrets.randbelow(_BENCHMARKING.num_addresses)]) in used or not usable(address):
            pass
        used.add(address)
        return str(address)

    patches.wrap(elastic_ip_addresses, "random_ip")(draw)
    patches.wrap(elastic_network_interfaces, "random_public_ip")(draw)


def draw_free_private_addresses(patches: Patches) -> None:
    """Draw private addresses that no interface has and AWS does not reserve (the first four and the last)."""

    @patches.wrap(elastic_network_interfaces, "random_private_ip")
    def draw(original: Any, cidr: str | None = None, ipv6: bool = False) -> str:
        if cidr is None:
            return str(original(cidr, ipv6))
        subnet = ipaddress.ip_network(cidr)
        if isinstance(subnet, IPv6Network):
            return str(_free_address6(subnet))
        interfaces = _list_interfaces()
        assigned = {entry["PrivateIpAddress"] for interface in interfaces for entry in interface.private_ip_addresses}
        prefixes = [IPv4Network(text) for interface in interfaces for text in _DELEGATION4.list_prefixes(interface)]
        usable = [address for address in list(subnet)[4:-1] if str(address) not in assigned]
        free = [str(address) for address in usable if not any(address in prefix for prefix in prefixes)]
        if not free:
            raise EC2ClientError("InsufficientFreeAddressesInSubnet", f"{cidr} has no free address left")
        return random.choice(free)


def draw_addresses_in_default_subnet(patches: Patches) -> None:
    """Launch an instance that names no subnet in its zone's default one; moto draws its address from anywhere."""

    @patches.wrap(Instance, "prep_nics")
    def prepare(original: Any, self: Any, nic_spec: list[dict[str, Any]], *args: Any, **kwargs: Any) -> Any:
        if not self._subnet_id and not any(nic.get("NetworkInterfaceId") for nic in nic_spec):
            subnet = self.ec2_backend.get_default_subnets().get(self._placement.zone)
            self._subnet_id = subnet.id if subnet else None
        return original(self, nic_spec, *args, **kwargs)


def _list_interfaces() -> list[Any]:
    return [interface for backend in ec2_backends[ACCOUNT].values() for interface in backend.enis.values()]


def _free_address6(subnet: IPv6Network) -> IPv6Address:
    assigned = _list_assigned6()
    while True:
        address = subnet[16 + secrets.randbelow(subnet.num_addresses - 16)]
        if not any(address in network for network in assigned):
            return address


def _list_assigned6() -> list[IPv6Network]:
    """Return the IPv6 addresses and prefixes of all interfaces."""
    assigned = [(*interface.ipv6_addresses, *_DELEGATION6.list_prefixes(interface)) for interface in _list_interfaces()]
    return [IPv6Network(text) for texts in assigned for text in texts]


def _list_assigned4(subnet: Any) -> list[IPv4Network]:
    """Return the addresses and prefixes of a subnet that interfaces have."""
    interfaces = [interface for interface in _list_interfaces() if interface.subnet.id == subnet.id]
    addresses = [IPv4Network(entry["PrivateIpAddress"]) for i in interfaces for entry in i.private_ip_addresses]
    return [
        *addresses,
        *(IPv4Network(text) for interface in interfaces for text in _DELEGATION4.list_prefixes(interface)),
    ]


@dataclass(frozen=True, slots=True)
class _Delegation:
    """Delegated prefixes of one IP version, by EC2's names."""

    version: int
    length: int
    """The only prefix length that EC2 delegates."""

    @property
    def key(self) -> str:
        return f"Ipv{self.version}Prefix"

    @property
    def attribute(self) -> str:
        return f"ipv{self.version}_prefixes"

    def list_prefixes(self, interface: Any) -> list[str]:
        """Return an interface's prefixes."""
        return [entry[self.key] for entry in getattr(interface, self.attribute)]

    def assign_requested(self, response: Any, interface: Any) -> list[str]:
        """Assign the prefixes that a request names or counts, and return them."""
        entries = response._get_param(f"{self.key}es", []) or []
        named = [entry[self.key] if isinstance(entry, Mapping) else entry for entry in entries]
        return self.assign(interface, named, int(response._get_param(f"{self.key}Count", 0) or 0))

    def assign(self, interface: Any, named: list[str], count: int) -> list[str]:
        """Assign the named prefixes and `count` more to an interface, and return them.

        Raises:
            EC2ClientError: a named prefix is not free, or the subnet has too few.
        """
        if not named and not count:
            return []
        subnet = self._subnet(interface)
        assigned = _list_assigned6() if self.version == 6 else _list_assigned4(interface.subnet)
        chosen = [self._parse(text, subnet) for text in named]
        for prefix in chosen:
            if any(prefix.overlaps(network) for network in assigned):
                raise InvalidParameterValueError(f"({prefix}) for parameter {self.key}: it is in use; it")
        # AWS reserves addresses in the subnet's first and last prefix.
        last = 2 ** max(self.length - subnet.prefixlen, 1) - 1
        for number in random.sample(range(1, last), last - 1):
            if len(chosen) == len(named) + count:
                break
            start = int(subnet.network_address) + (number << subnet.max_prefixlen - self.length)
            drawn: Any = type(subnet)((start, self.length))
            if not any(drawn.overlaps(network) for network in (*assigned, *chosen)):
                chosen.append(drawn)
        if len(chosen) < len(named) + count:
            raise EC2ClientError("InsufficientCidrBlocks", f"{subnet} has no /{self.length} that is free")
        texts = [str(prefix) for prefix in chosen]
        setattr(interface, self.attribute, [{self.key: text} for text in (*self.list_prefixes(interface), *texts)])
        return texts

    def unassign(self, interface: Any, prefixes: list[str]) -> None:
        """Take prefixes from an interface; raise `EC2ClientError` where it does not have them."""
        assigned = self.list_prefixes(interface)
        if not {*prefixes} <= {*assigned}:
            raise InvalidParameterValueError(f"({', '.join(prefixes)}) for parameter {self.key}")
        setattr(interface, self.attribute, [{self.key: text} for text in assigned if text not in prefixes])

    def _subnet(self, interface: Any) -> IPv4Network | IPv6Network:
        return _find_subnet6(interface) if self.version == 6 else IPv4Network(interface.subnet.cidr_block)

    def _parse(self, text: str, subnet: Any) -> Any:
        try:
            prefix = type(subnet)(text)
        except ValueError:
            raise InvalidParameterValueError(f"({text}) for parameter {self.key}") from None
        reserved = self.version == 4 and (subnet[0] in prefix or subnet[-1] in prefix)
        if prefix.prefixlen != self.length or not prefix.subnet_of(subnet) or reserved:
            raise InvalidParameterValueError(
                f"({text}) for parameter {self.key}: no /{self.length} of {subnet} that can be given; it"
            )
        return prefix


_DELEGATION4, _DELEGATION6 = _Delegation(version=4, length=28), _Delegation(version=6, length=80)
_DELEGATIONS = (_DELEGATION4, _DELEGATION6)


def add_interface_prefixes(patches: Patches) -> None:
    """Let interfaces hold delegated prefixes, and give them IPv6 addresses where their subnet assigns them."""
    for delegation in _DELEGATIONS:
        patches.set(NetworkInterface, delegation.attribute, ())  # read while an interface is being created

    @patches.wrap(NetworkInterface, "__init__")
    def create(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        for delegation in _DELEGATIONS:
            setattr(self, delegation.attribute, [])
        original(self, *args, **kwargs)
        if not self.ipv6_addresses and str(self.subnet.assign_ipv6_address_on_creation).lower() == "true":
            self.ipv6_addresses = [str(_free_address6(_find_subnet6(self)))]

    @patches.wrap(ElasticNetworkInterfaces, "create_network_interface")
    def create_call(original: Any, self: Any) -> Any:
        answer = original(self)
        interface = answer.result["NetworkInterface"]
        for delegation in _DELEGATIONS:
            _delete_if_refused(self, interface, functools.partial(delegation.assign_requested, self, interface))
        return answer

    @patches.wrap(ElasticNetworkInterfaces, "assign_private_ip_addresses")
    def assign4(original: Any, self: Any) -> Any:
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        assigned = _DELEGATION4.assign_requested(self, interface)
        answer = original(self)
        answer.result["AssignedIpv4Prefixes"] = [{_DELEGATION4.key: text} for text in assigned]
        return answer

    @patches.wrap(ElasticNetworkInterfaces, "unassign_private_ip_addresses")
    def unassign4(original: Any, self: Any) -> Any:
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        _DELEGATION4.unassign(interface, self._get_param("Ipv4Prefixes", []))
        return original(self)

    @patches.wrap(ElasticNetworkInterfaces, "assign_ipv6_addresses")
    def assign6(original: Any, self: Any) -> Any:
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        before = list(interface.ipv6_addresses)
        assigned = _DELEGATION6.assign_requested(self, interface)
        original(self)
        new = [address for address in interface.ipv6_addresses if address not in before]
        result = {"NetworkInterfaceId": interface.id, "AssignedIpv6Addresses": new, "AssignedIpv6Prefixes": assigned}
        return ActionResult(result)

    @patches.wrap(ElasticNetworkInterfaces, "unassign_ipv6_addresses")
    def unassign6(original: Any, self: Any) -> Any:
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        prefixes = self._get_param("Ipv6Prefixes", [])
        _DELEGATION6.unassign(interface, prefixes)
        addresses = self.ec2_backend.unassign_ipv6_addresses(interface.id, self._get_param("Ipv6Addresses", []))
        result = {
            "NetworkInterfaceId": interface.id,
            "UnassignedIpv6Addresses": addresses,
            "UnassignedIpv6Prefixes": prefixes,
        }
        return ActionResult(result)

    @patches.wrap(Instance, "prep_nics")
    def prepare(original: Any, self: Any, specification: list[dict[str, Any]], *args: Any, **kwargs: Any) -> None:
        original(self, specification, *args, **kwargs)
        for entry in specification:
            interface = self.nics[int(entry["DeviceIndex"])]
            if entry.get("NetworkInterfaceId"):
                continue
            named = [address["Ipv6Address"] for address in entry.get("Ipv6Addresses", [])]
            count = int(entry.get("Ipv6AddressCount") or 0)
            if named or count:
                interface.ipv6_addresses = []
                self.ec2_backend.assign_ipv6_addresses(interface.id, named, count)
            for delegation in _DELEGATIONS:
                prefixes = [prefix[delegation.key] for prefix in entry.get(f"{delegation.key}es", [])]
                delegation.assign(interface, prefixes, int(entry.get(f"{delegation.key}Count") or 0))


def _delete_if_refused(response: Any, interface: Any, step: Callable[[], Any]) -> None:
    """Run a step of an interface's creation; delete the interface where EC2 refuses the step."""
    try:
        step()
    except EC2ClientError:
        response.ec2_backend.delete_network_interface(interface.id)
        raise


def _find_subnet6(interface: Any) -> IPv6Network:
    """Return the IPv6 range of an interface's subnet."""
    for association in interface.subnet.ipv6_cidr_block_associations.values():
        return IPv6Network(association["ipv6CidrBlock"])
    raise InvalidParameterValueError(
        f"({interface.subnet.id}) for parameter subnetId: the subnet has no IPv6 range; it"
    )


def move_elastic_addresses(patches: Patches) -> None:
    """Move an Elastic IP to where it is associated, and to the private address that the call names."""
    private_address = property(
        lambda self: (getattr(self, "named_address", None) or self.eni.private_ip_address) if self.eni else None
    )
    patches.set(ElasticAddress, "private_ip_address", private_address)

    @patches.wrap(ElasticIPAddresses, "associate_address")
    def associate_call(original: Any, self: Any) -> Any:
        named_address = self._get_param("PrivateIpAddress")
        instance, interface = self._get_param("InstanceId"), self._get_param("NetworkInterfaceId")
        if instance and not interface:
            interface = self.ec2_backend.get_instance(instance).nics[0].id
        network_interface = self.ec2_backend.get_network_interface(interface) if interface else None
        previous_public = network_interface.public_ip if network_interface else None
        addresses = (
            [entry["PrivateIpAddress"] for entry in network_interface.private_ip_addresses] if network_interface else []
        )
        if named_address and network_interface and named_address not in addresses:
            raise InvalidParameterValueError(f"({named_address}) for parameter privateIpAddress")
        read = self._get_param
        # "reassociation is automatic", unless the call refuses it (AssociateAddress)
        reassociate = read("AllowReassociation") is not False
        self._get_param = lambda name, *rest: reassociate if name == "AllowReassociation" else read(name, *rest)
        answer = original(self)
        for address in self.ec2_backend.addresses:
            if address.association_id == answer.result["AssociationId"]:
                address.named_address = named_address
        if named_address and network_interface and named_address != network_interface.private_ip_address:
            network_interface.public_ip = previous_public  # the primary address keeps its public address
        return answer

    @patches.wrap(ElasticAddressBackend, "associate_address")
    def associate(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        interfaces = {id(address): address.eni for address in self.addresses}
        moved = original(self, *args, **kwargs)
        previous = interfaces.get(id(moved))
        if previous is not None and previous is not moved.eni and previous.public_ip == moved.public_ip:
            previous.public_ip = None
        for stale in self.addresses:
            if stale is not moved and stale.eni is moved.eni and stale.private_ip_address == moved.private_ip_address:
                stale.eni = stale.instance = stale.association_id = None
        return moved


# --- instances --------------------------------------------------------------------------------------------------------


class _IncorrectState(EC2ClientError):
    def __init__(self, instance: Any, verb: str) -> None:
        text = f"The instance '{instance.id}' is {instance.state}: not in a state from which it can be {verb}."
        super().__init__("IncorrectInstanceState", text)


def check_instance_states(patches: Patches) -> None:
    """Start only stopped instances; stop and reboot only running ones; let a stopped one keep its addresses."""
    transitions = (
        ("start_instances", "started", ("stopped", "running", "pending")),
        ("stop_instances", "stopped", ("running", "pending", "stopping", "stopped")),
        ("reboot_instances", "rebooted", ("running", "pending")),
    )
    for name, verb, states in transitions:

        def change(
            original: Any, self: Any, instance_ids: list[str], *, verb: str = verb, states: tuple[str, ...] = states
        ) -> Any:
            for instance in self.get_multi_instances_by_id(instance_ids):
                if instance.state not in states:
                    raise _IncorrectState(instance, verb)
            return original(self, instance_ids)

        patches.wrap(InstanceBackend, name)(change)

    @patches.wrap(NetworkInterface, "start")
    def start(original: Any, self: Any) -> None:
        if not self.public_ip:  # starting what runs draws no new address
            original(self)

    @patches.wrap(NetworkInterface, "stop")
    def stop(original: Any, self: Any) -> None:
        if not any(address.public_ip == self.public_ip for address in self.ec2_backend.addresses):
            original(self)


def keep_metadata_options(patches: Patches) -> None:
    """Have ModifyInstanceMetadataOptions change only the options that it names."""
    names = {
        "http_tokens": "http_tokens",
        "hop_limit": "http_put_response_hop_limit",
        "http_endpoint": "http_endpoint",
        "http_protocol": "http_protocol_ipv6",
        "metadata_tags": "instance_metadata_tags",
    }

    @patches.wrap(InstanceBackend, "modify_instance_metadata_options")
    def modify(original: Any, self: Any, instance_id: str, **options: Any) -> Any:
        current = self.get_instance(instance_id).metadata_options
        for parameter, attribute in names.items():
            if options.get(parameter) is None:
                options[parameter] = getattr(current, attribute)
        return original(self, instance_id, **options)


#: Families whose instances are launched with unlimited credits unless the call says otherwise.
_UNLIMITED_FAMILIES = ("t3", "t3a", "t4g")


def keep_credit_specifications(patches: Patches) -> None:
    """Have burstable instances keep the CPU credits that they are launched with or changed to.

    Amazon EC2 User Guide, "Key concepts for burstable performance instances"; EC2 API Reference,
    "ModifyInstanceCreditSpecification".
    """
    credits_of: dict[str, str] = {}

    @patches.wrap(InstanceResponse, "run_instances")
    def run(original: Any, self: Any) -> Any:
        answer = original(self)
        if cpu_credits := self._get_param("CreditSpecification.CpuCredits"):
            credits_of.update(dict.fromkeys((instance.id for instance in answer.result.instances), cpu_credits))
        return answer

    def is_burstable(instance_type: str) -> bool:
        return bool(INSTANCE_TYPES.get(instance_type, {}).get("BurstablePerformanceSupported"))

    def read(instance: Any) -> str:
        default = "unlimited" if instance.instance_type.partition(".")[0] in _UNLIMITED_FAMILIES else "standard"
        return credits_of.get(instance.id, default)

    def describe(self: Any) -> Any:
        ids = self._get_param("InstanceIds", [])
        instances = self.ec2_backend.get_multi_instances_by_id(ids) if ids else self.ec2_backend.all_instances()
        rows = [{"InstanceId": i.id, "CpuCredits": read(i)} for i in instances if is_burstable(i.instance_type)]
        return ActionResult({"InstanceCreditSpecifications": rows})

    def modify(self: Any) -> Any:
        successful, unsuccessful = [], []
        for row in self._get_param("InstanceCreditSpecifications", []):
            instance = self.ec2_backend.get_instance(row["InstanceId"])
            if is_burstable(instance.instance_type):
                credits_of[instance.id] = row["CpuCredits"]
                successful.append({"InstanceId": instance.id})
            else:
                message = f"The instance type {instance.instance_type} has no CPU credits."
                error = {"Code": "InstanceCreditSpecification.NotSupported", "Message": message}
                unsuccessful.append({"InstanceId": instance.id, "Error": error})
        return ActionResult(
            {
                "SuccessfulInstanceCreditSpecifications": successful,
                "UnsuccessfulInstanceCreditSpecifications": unsuccessful,
            }
        )

    patches.set(InstanceResponse, "describe_instance_credit_specifications", describe)
    patches.set(InstanceResponse, "modify_instance_credit_specification", modify)


def write_check_to_interface(patches: Patches) -> None:
    """Have ModifyInstanceAttribute set the source/dest check of the primary interface (EC2 API Reference)."""

    @patches.wrap(InstanceBackend, "modify_instance_attribute")
    def modify(original: Any, self: Any, instance_id: str, key: str, value: Any) -> Any:
        instance = original(self, instance_id, key, value)
        if key == "source_dest_check" and (interface := instance.nics.get(0)):
            interface.source_dest_check = value in (True, "true")
        return instance


def defer_termination(runs: Callable[[str], bool]) -> Patch:
    """Return a patch: an instance whose machine `runs` is `shutting-down` until `moto_state.mark_powered_off`."""

    def defer(patches: Patches) -> None:
        @patches.wrap(InstanceBackend, "terminate_instances")
        def terminate(original: Any, self: Any, instance_ids: list[str]) -> Any:
            instances = self.get_multi_instances_by_id(instance_ids)
            protected = [instance.id for instance in instances if instance.disable_api_termination is True]
            later = [instance for instance in instances if runs(instance.id) and instance.state != "terminated"]
            if protected or not later:
                return original(self, protected or instance_ids)
            answers = []
            for instance in instances:
                if instance in later:
                    answers.append((instance, copy.copy(instance._state)))
                    instance._state.name, instance._state.code = "shutting-down", 32
                else:
                    answers += original(self, [instance.id])
            return answers

    return defer


def serve_console_output(read: Callable[[str, int], bytes]) -> Patch:
    """Return a patch: GetConsoleOutput returns the end of what `read` has of an instance, at most 64 KiB of it.

    Source: EC2 API Reference, "GetConsoleOutput"; without output there is no `Output` in the answer.
    """

    def serve(patches: Patches) -> None:
        def get(self: Any) -> Any:
            instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
            output = base64.b64encode(read(instance.id, _CONSOLE_SIZE))
            answer = {"InstanceId": instance.id, "Timestamp": utcnow()}
            return ActionResult(answer | ({"Output": Base64EncodedString.from_encoded_bytes(output)} if output else {}))

        patches.set(General, "get_console_output", get)

    return serve


def tag_snapshots_of_images(patches: Patches) -> None:
    """Have CreateImage take tags for the snapshot too, which moto refuses (EC2 API Reference, "CreateImage")."""

    @patches.wrap(AmiBackend, "create_image")
    def create(original: Any, self: Any, *args: Any, tag_specifications: list[dict[str, Any]]) -> Any:
        others = [entry for entry in tag_specifications if entry["ResourceType"] != "snapshot"]
        image = original(self, *args, tag_specifications=others)
        for entry in tag_specifications:
            if entry["ResourceType"] == "snapshot":
                image.ebs_snapshot.add_tags({tag["Key"]: tag["Value"] for tag in entry["Tags"]})
        return image


def add_root_volume_replacement(patches: Patches) -> None:
    """Add CreateReplaceRootVolumeTask and its Describe; the lab's reconciler replaces the disk."""

    def create(self: Any) -> Any:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        if instance.state != "running":
            raise _IncorrectState(instance, "given another root volume")
        task = {
            "ReplaceRootVolumeTaskId": f"replacevol-{secrets.token_hex(8)}0",
            "InstanceId": instance.id,
            "TaskState": "pending",
            "ImageId": self._get_param("ImageId") or instance.image_id,
        }
        root_volume_tasks(self.ec2_backend).append(task)
        return ActionResult({"ReplaceRootVolumeTask": task})

    def describe(self: Any) -> Any:
        identities = self._get_param("ReplaceRootVolumeTaskIds", [])
        tasks = [
            t
            for t in root_volume_tasks(self.ec2_backend)
            if not identities or t["ReplaceRootVolumeTaskId"] in identities
        ]
        return ActionResult({"ReplaceRootVolumeTasks": tasks})

    patches.set(InstanceResponse, "create_replace_root_volume_task", create)
    patches.set(InstanceResponse, "describe_replace_root_volume_tasks", describe)


def make_zones_of_vpcs_private(patches: Patches) -> None:
    """Make a hosted zone that is created with a VPC private, whatever its HostedZoneConfig says, as Route 53 does."""

    @patches.wrap(Route53, "create_hosted_zone")
    def create(original: Any, self: Any) -> Any:
        read = self._get_bool_param
        has_vpc = bool(self._get_param("VPC.VPCId"))
        self._get_bool_param = lambda key, *rest: has_vpc or read(key, *rest)
        return original(self)


def drop_associations_of_deleted_subnets(patches: Patches) -> None:
    """Drop a deleted subnet's association with its network ACL, which moto keeps, so that the ACL can be deleted.

    Source: Amazon VPC User Guide, "Delete a network ACL".
    """

    @patches.wrap(SubnetBackend, "delete_subnet")
    def delete(original: Any, self: Any, subnet_id: str) -> Any:
        subnet = original(self, subnet_id)
        for acl in self.network_acls.values():
            for id in [id for id, entry in acl._associations.items() if entry.subnet_id == subnet_id]:
                del acl._associations[id]
        return subnet


def add_ipam_pools(patches: Patches) -> None:
    """Add the calls for pools of IPAM."""
    for name, method in METHODS.items():
        patches.set(VPCs, name, method)


def add_quota_increases(patches: Patches) -> None:
    """Approve each RequestServiceQuotaIncrease at once, and answer GetServiceQuota with the value in force.

    `lab.api.validation.quotas` enforces the values.
    """

    def increase(self: Any) -> Any:
        service, code = self._get_param("ServiceCode"), self._get_param("QuotaCode")
        quota = {"ServiceCode": service, "QuotaCode": code, "DesiredValue": float(self._get_param("DesiredValue"))}
        applied_quotas(self.backend)[service, code] = quota["DesiredValue"]
        return ActionResult({"RequestedQuota": {**quota, "Id": secrets.token_hex(16), "Status": "APPROVED"}})

    def get(self: Any) -> Any:
        service, code = self._get_param("ServiceCode"), self._get_param("QuotaCode")
        quota = next((quota for quota in QUOTAS if (quota.service, quota.code) == (service, code)), None)
        if quota is None:
            raise NoSuchResource
        value = applied_quotas(self.backend).get((service, code), float(quota.default))
        answer = {"ServiceCode": service, "QuotaCode": code, "QuotaName": quota.name, "Value": value}
        return ActionResult({"Quota": {**answer, "Adjustable": True, "GlobalQuota": False}})

    patches.set(ServiceQuotasResponse, "request_service_quota_increase", increase)
    patches.set(ServiceQuotasResponse, "get_service_quota", get)


def keep_boundaries(patches: Patches) -> None:
    """Keep the permissions boundaries of users as moto does those of roles, and refuse one that does not exist.

    `lab.api.iam` judges by them.
    """

    def check(backend: IAMBackend, boundary: str | None) -> None:
        # moto knows AWS's own policies only if it is configured so.
        if boundary and ":iam::aws:" not in boundary and boundary not in backend.managed_policies:
            raise NoSuchEntity(f"Scope ARN: {boundary} does not exist or is not attachable.")

    def set_boundary(self: Any) -> Any:
        user = self.backend.get_user(self._get_param("UserName"))
        boundary = self._get_param("PermissionsBoundary")
        check(self.backend, boundary)
        user.permissions_boundary_arn = boundary
        return EmptyResult()

    @patches.wrap(IamResponse, "create_user")
    def create_user(original: Any, self: Any) -> Any:
        boundary = self._get_param("PermissionsBoundary")
        check(self.backend, boundary)
        answer = original(self)
        self.backend.get_user(self._get_param("UserName")).permissions_boundary_arn = boundary
        return answer

    @patches.wrap(IAMBackend, "create_role")
    def create_role(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        check(self, inspect.signature(original).bind(self, *args, **kwargs).arguments["permissions_boundary"])
        return original(self, *args, **kwargs)

    @patches.wrap(IAMBackend, "put_role_permissions_boundary")
    def set_role_boundary(original: Any, self: Any, role_name: str, permissions_boundary: str) -> Any:
        check(self, permissions_boundary)
        return original(self, role_name, permissions_boundary)

    patches.set(IamResponse, "put_user_permissions_boundary", set_boundary)
    patches.set(IamResponse, "delete_user_permissions_boundary", set_boundary)
    # As roles have them, for the answers and for the lab's judge.
    patches.set(User, "permissions_boundary_arn", None)
    patches.set(User, "permissions_boundary", Role.permissions_boundary)


def stamp_metrics(now: Callable[[], datetime.datetime]) -> Patch:
    """Give metric data without a time that of a clock, which CloudWatch has in the lab."""

    def patch(patches: Patches) -> None:
        @patches.wrap(MetricDatumBase, "__init__")
        def create(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
            arguments = inspect.signature(original).bind(self, *args, **kwargs).arguments
            arguments["timestamp"] = arguments.get("timestamp") or now()
            original(**arguments)

    return patch


def wait_for_confirmation(patches: Patches) -> None:
    """Keep e-mail subscriptions of SNS pending: nobody confirms them here, and AWS lets nobody else remove them.

    Amazon SNS API Reference, "Unsubscribe"; the words are the ones that Terraform's AWS provider looks for.
    """

    def is_pending(subscription: Subscription) -> bool:
        return subscription.protocol.startswith("email") and not subscription.confirmed

    @patches.wrap(SNSBackend, "subscribe")
    def subscribe(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        subscription = original(self, *args, **kwargs)
        if is_pending(subscription):
            subscription.attributes |= {"PendingConfirmation": "true", "ConfirmationWasAuthenticated": "false"}
        return subscription

    @patches.wrap(SNSBackend, "unsubscribe")
    def unsubscribe(original: Any, self: Any, subscription_arn: str) -> None:
        subscription = self.subscriptions.get(subscription_arn)
        if subscription and is_pending(subscription):
            raise SNSInvalidParameter(
                "Invalid parameter: SubscriptionArn Reason: "
                "Cannot unsubscribe a subscription that is pending confirmation"
            )
        original(self, subscription_arn)

    @patches.wrap(SNSBackend, "delete_topic")
    def delete_topic(original: Any, self: Any, arn: str) -> None:
        original(self, arn)
        self.subscriptions = {
            key: subscription for key, subscription in self.subscriptions.items() if subscription.topic.arn != arn
        }


def keep_alarm_states(patches: Patches) -> None:
    """Begin with INSUFFICIENT_DATA, and keep state and tags of an alarm that PutMetricAlarm overwrites.

    Amazon CloudWatch API Reference, "PutMetricAlarm".
    """

    @patches.wrap(CloudWatchBackend, "put_metric_alarm")
    def put(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments = inspect.signature(original).bind(self, *args, **kwargs).arguments
        before: Alarm | None = self.alarms.get(arguments["name"])
        if before is not None:
            arguments.pop("tags", None)
        alarm = original(**arguments)
        if before is None:
            alarm.state_value = "INSUFFICIENT_DATA"
        else:
            for name in ("history", "state_reason", "state_reason_data", "state_value", "state_updated_timestamp"):
                setattr(alarm, name, getattr(before, name))
        return alarm


def ignore_bucket_policies(patches: Patches) -> None:
    """Keep moto from judging objects by bucket policies: a Deny whose Condition it does not know denies everything.

    `lab.api.iam` judges them.
    """
    patches.set(FakeBucket, "get_permission", lambda *_: PermissionResult.NEUTRAL)


#: Every patch that needs nothing but moto.
PATCHES: tuple[Patch, ...] = (
    modify_whole_rules,
    keep_groups_on_interfaces,
    complete_vpc_defaults,
    connect_default_vpc,
    report_ipv6_of_subnets,
    read_ignored_parameters,
    drop_ports_of_portless_protocols,
    check_routes_inside_vpc,
    draw_routable_public_addresses,
    draw_free_private_addresses,
    draw_addresses_in_default_subnet,
    add_interface_prefixes,
    move_elastic_addresses,
    check_instance_states,
    keep_metadata_options,
    keep_credit_specifications,
    write_check_to_interface,
    tag_snapshots_of_images,
    add_root_volume_replacement,
    make_zones_of_vpcs_private,
    drop_associations_of_deleted_subnets,
    add_ipam_pools,
    add_quota_increases,
    keep_boundaries,
    wait_for_confirmation,
    keep_alarm_states,
    ignore_bucket_policies,
)
