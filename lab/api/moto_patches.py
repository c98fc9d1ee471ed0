"""What EC2 does and moto does not: mended in moto's own objects, once a process.

Each function below is one thing AWS does, named after it. Only this module and `lab.api.moto_account` know how moto is
made.

Sources: Amazon EC2 User Guide, "Assign prefixes to network interfaces", "Replace the root volume for an Amazon EC2
instance", "Instance lifecycle", "Elastic IP addresses"; Amazon VPC User Guide, "IP addressing for your VPCs and
subnets".
"""

import copy
import functools
import ipaddress
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError, InvalidParameterValueError
from moto.ec2.models import ec2_backends, elastic_ip_addresses, elastic_network_interfaces
from moto.ec2.models.elastic_ip_addresses import ElasticAddress, ElasticAddressBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.route_tables import RouteBackend
from moto.ec2.models.vpcs import VPCBackend
from moto.ec2.responses.elastic_ip_addresses import ElasticIPAddresses
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.network_acls import NetworkACLs

from lab.api.iam import ACCOUNT
from lab.errors import LabError

#: Set aside for tests of networks (RFC 2544), so none of its addresses is anybody's.
_BENCHMARKING = IPv4Network("198.18.0.0/15")
_PRIMARY = "Primary network interface"


def mend() -> None:
    """Mend everything. Later calls change nothing.

    Raises:
        LabError: this moto is made otherwise than the one this module knows.
    """
    if not hasattr(NetworkInterface, _DELEGATION6.attribute):
        _defaults_are_whole()
        _parameters_are_read()
        _public_addresses_are_reachable()
        _private_addresses_are_free()
        _interfaces_have_prefixes()
        _elastic_addresses_move()
        _states_are_respected()
        _routes_stay_outside_the_vpc()
        _metadata_options_are_kept()
        _root_volumes_are_replaced()


def _wrapped(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Decorator: the function is what `owner.name` is from now on, with the original as its first argument."""
    original = getattr(owner, name, None)
    if original is None:
        raise LabError(f"this moto has no {owner.__name__}.{name}; lab/mends.py must learn how it does that now")

    def decorate(replacement: Callable[..., Any]) -> None:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            return replacement(original, *args, **kwargs)

        setattr(owner, name, call)

    return decorate


def _defaults_are_whole() -> None:
    """A VPC's default group lets its members in; where the VPC has IPv6, its default ACL allows that too."""

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

    @_wrapped(VPCBackend, "create_vpc")
    def create(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        made = original(self, *args, **kwargs)
        group = self.get_security_group_from_name("default", vpc_id=made.id)
        if not group.ingress_rules:
            self.authorize_security_group_ingress(group.id, "-1", None, None, [], source_groups=[{"GroupId": group.id}])
        if made.get_cidr_block_association_set(ipv6=True):
            allow_ipv6(self, made.id)
        return made

    @_wrapped(VPCBackend, "associate_vpc_cidr_block")
    def associate(original: Any, self: Any, vpc_id: str, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, vpc_id, *args, **kwargs)
        if self.get_vpc(vpc_id).get_cidr_block_association_set(ipv6=True):
            allow_ipv6(self, vpc_id)
        return answer


def _parameters_are_read() -> None:
    """ICMP types of ACL entries count, and an endpoint's route tables that come later have its route."""
    for name in ("create_network_acl_entry", "replace_network_acl_entry"):

        def entry(original: Any, self: Any) -> Any:
            plain = self._get_param
            names = {"Icmp.Code": "IcmpTypeCode.Code", "Icmp.Type": "IcmpTypeCode.Type"}
            self._get_param = lambda key, *args, **kwargs: plain(names.get(key, key), *args, **kwargs)
            return original(self)

        _wrapped(NetworkACLs, name)(entry)

    @_wrapped(VPCBackend, "modify_vpc_endpoint")
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


# --- addresses --------------------------------------------------------------------------------------------------------


def _public_addresses_are_reachable() -> None:
    """Public addresses are such that packets can go to: moto's own are of 127.0.0.0/8."""
    used: set[IPv4Address] = set()

    def usable(address: IPv4Address) -> bool:
        return 0 < int(address) % 256 < 255

    def draw(*_: Any, **__: Any) -> str:
        while (address := _BENCHMARKING[secrets.randbelow(_BENCHMARKING.num_addresses)]) in used or not usable(address):
            pass
        used.add(address)
        return str(address)

    _wrapped(elastic_ip_addresses, "random_ip")(draw)
    _wrapped(elastic_network_interfaces, "random_public_ip")(draw)


def _private_addresses_are_free() -> None:
    """A drawn private address is nobody else's: neither another interface's nor AWS's, the first four and the last."""

    @_wrapped(elastic_network_interfaces, "random_private_ip")
    def draw(original: Any, cidr: str | None = None, ipv6: bool = False) -> str:
        if cidr is None:
            return str(original(cidr, ipv6))
        subnet = ipaddress.ip_network(cidr)
        if isinstance(subnet, IPv6Network):
            return str(_free_address6(subnet))
        taken = {entry["PrivateIpAddress"] for interface in _interfaces() for entry in interface.private_ip_addresses}
        prefixes = [IPv4Network(text) for interface in _interfaces() for text in _DELEGATION4.of(interface)]
        usable = [address for address in list(subnet)[4:-1] if str(address) not in taken]
        free = [str(address) for address in usable if not any(address in prefix for prefix in prefixes)]
        if not free:
            raise EC2ClientError("InsufficientFreeAddressesInSubnet", f"{cidr} has no free address left")
        return random.choice(free)


def _interfaces() -> list[Any]:
    return [interface for backend in ec2_backends[ACCOUNT].values() for interface in backend.enis.values()]


def _free_address6(subnet: IPv6Network) -> IPv6Address:
    held = _held6()
    while True:
        address = subnet[16 + secrets.randbelow(subnet.num_addresses - 16)]
        if not any(address in network for network in held):
            return address


def _held6() -> list[IPv6Network]:
    """What interfaces hold: addresses and prefixes."""
    held = [(*interface.ipv6_addresses, *_DELEGATION6.of(interface)) for interface in _interfaces()]
    return [IPv6Network(text) for texts in held for text in texts]


def _held4(subnet: Any) -> list[IPv4Network]:
    """What interfaces hold of a subnet: addresses and prefixes."""
    mine = [interface for interface in _interfaces() if interface.subnet.id == subnet.id]
    addresses = [IPv4Network(entry["PrivateIpAddress"]) for i in mine for entry in i.private_ip_addresses]
    return [*addresses, *(IPv4Network(text) for interface in mine for text in _DELEGATION4.of(interface))]


@dataclass(frozen=True, slots=True)
class _Delegation:
    """Prefixes of one IP version, as EC2 names them."""

    version: int
    length: int
    """The one size they have."""

    @property
    def key(self) -> str:
        return f"Ipv{self.version}Prefix"

    @property
    def attribute(self) -> str:
        return f"ipv{self.version}_prefixes"

    def of(self, interface: Any) -> list[str]:
        """What an interface holds."""
        return [entry[self.key] for entry in getattr(interface, self.attribute)]

    def asked_for(self, response: Any, interface: Any) -> list[str]:
        """Give an interface the prefixes that a request asks for."""
        asked = response._get_param(f"{self.key}es", []) or []
        named = [entry[self.key] if isinstance(entry, Mapping) else entry for entry in asked]
        return self.give(interface, named, int(response._get_param(f"{self.key}Count", 0) or 0))

    def give(self, interface: Any, named: list[str], count: int) -> list[str]:
        """Give an interface the prefixes named and so many more; raises `EC2ClientError` where they are not free."""
        if not named and not count:
            return []
        subnet = self._subnet(interface)
        held = _held6() if self.version == 6 else _held4(interface.subnet)
        chosen = [self._parsed(text, subnet) for text in named]
        for prefix in chosen:
            if any(prefix.overlaps(other) for other in held):
                raise InvalidParameterValueError(f"({prefix}) for parameter {self.key}: it is in use; it")
        # Neither the first nor the last of the subnet: there are addresses of AWS's own.
        last = 2 ** max(self.length - subnet.prefixlen, 1) - 1
        for number in random.sample(range(1, last), last - 1):
            if len(chosen) == len(named) + count:
                break
            start = int(subnet.network_address) + (number << subnet.max_prefixlen - self.length)
            drawn: Any = type(subnet)((start, self.length))
            if not any(drawn.overlaps(other) for other in (*held, *chosen)):
                chosen.append(drawn)
        if len(chosen) < len(named) + count:
            raise EC2ClientError("InsufficientCidrBlocks", f"{subnet} has no /{self.length} that is free")
        texts = [str(prefix) for prefix in chosen]
        setattr(interface, self.attribute, [{self.key: text} for text in (*self.of(interface), *texts)])
        return texts

    def take(self, interface: Any, wanted: list[str]) -> None:
        """Take prefixes back; raises `EC2ClientError` where it does not hold them."""
        held = self.of(interface)
        if not {*wanted} <= {*held}:
            raise InvalidParameterValueError(f"({', '.join(wanted)}) for parameter {self.key}")
        setattr(interface, self.attribute, [{self.key: text} for text in held if text not in wanted])

    def _subnet(self, interface: Any) -> IPv4Network | IPv6Network:
        return _subnet6(interface) if self.version == 6 else IPv4Network(interface.subnet.cidr_block)

    def _parsed(self, text: str, subnet: Any) -> Any:
        try:
            prefix = type(subnet)(text)
        except ValueError:
            raise InvalidParameterValueError(f"({text}) for parameter {self.key}") from None
        own = self.version == 4 and (subnet[0] in prefix or subnet[-1] in prefix)
        if prefix.prefixlen != self.length or not prefix.subnet_of(subnet) or own:
            raise InvalidParameterValueError(
                f"({text}) for parameter {self.key}: no /{self.length} of {subnet} that can be given; it"
            )
        return prefix


_DELEGATION4, _DELEGATION6 = _Delegation(version=4, length=28), _Delegation(version=6, length=80)
_DELEGATIONS = (_DELEGATION4, _DELEGATION6)


def _interfaces_have_prefixes() -> None:
    """Interfaces can hold delegated prefixes, and get IPv6 addresses where their subnet assigns them."""
    for delegation in _DELEGATIONS:
        setattr(NetworkInterface, delegation.attribute, ())  # for those being made

    @_wrapped(NetworkInterface, "__init__")
    def create(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        for delegation in _DELEGATIONS:
            setattr(self, delegation.attribute, [])
        original(self, *args, **kwargs)
        if not self.ipv6_addresses and str(self.subnet.assign_ipv6_address_on_creation).lower() == "true":
            self.ipv6_addresses = [str(_free_address6(_subnet6(self)))]

    @_wrapped(ElasticNetworkInterfaces, "create_network_interface")
    def create_call(original: Any, self: Any) -> Any:
        answer = original(self)
        interface = answer.result["NetworkInterface"]
        for delegation in _DELEGATIONS:
            _refusing(self, interface, functools.partial(delegation.asked_for, self, interface))
        return answer

    @_wrapped(ElasticNetworkInterfaces, "assign_private_ip_addresses")
    def assign4(original: Any, self: Any) -> Any:
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        given = _DELEGATION4.asked_for(self, interface)
        answer = original(self)
        answer.result["AssignedIpv4Prefixes"] = [{_DELEGATION4.key: text} for text in given]
        return answer

    @_wrapped(ElasticNetworkInterfaces, "unassign_private_ip_addresses")
    def unassign4(original: Any, self: Any) -> Any:
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        _DELEGATION4.take(interface, self._get_param("Ipv4Prefixes", []))
        return original(self)

    @_wrapped(ElasticNetworkInterfaces, "assign_ipv6_addresses")
    def assign6(original: Any, self: Any) -> Any:
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        before = list(interface.ipv6_addresses)
        given = _DELEGATION6.asked_for(self, interface)
        original(self)
        new = [address for address in interface.ipv6_addresses if address not in before]
        result = {"NetworkInterfaceId": interface.id, "AssignedIpv6Addresses": new, "AssignedIpv6Prefixes": given}
        return ActionResult(result)

    @_wrapped(ElasticNetworkInterfaces, "unassign_ipv6_addresses")
    def unassign6(original: Any, self: Any) -> Any:
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        wanted = self._get_param("Ipv6Prefixes", [])
        _DELEGATION6.take(interface, wanted)
        gone = self.ec2_backend.unassign_ipv6_addresses(interface.id, self._get_param("Ipv6Addresses", []))
        result = {
            "NetworkInterfaceId": interface.id,
            "UnassignedIpv6Addresses": gone,
            "UnassignedIpv6Prefixes": wanted,
        }
        return ActionResult(result)

    @_wrapped(Instance, "prep_nics")
    def prepare(original: Any, self: Any, specification: list[dict[str, Any]], *args: Any, **kwargs: Any) -> None:
        original(self, specification, *args, **kwargs)
        for wanted in specification:
            interface = self.nics[int(wanted["DeviceIndex"])]
            if wanted.get("NetworkInterfaceId"):
                continue
            named = [entry["Ipv6Address"] for entry in wanted.get("Ipv6Addresses", [])]
            count = int(wanted.get("Ipv6AddressCount") or 0)
            if named or count:
                interface.ipv6_addresses = []
                self.ec2_backend.assign_ipv6_addresses(interface.id, named, count)
            for delegation in _DELEGATIONS:
                prefixes = [entry[delegation.key] for entry in wanted.get(f"{delegation.key}es", [])]
                delegation.give(interface, prefixes, int(wanted.get(f"{delegation.key}Count") or 0))


def _refusing(response: Any, interface: Any, call: Callable[[], Any]) -> None:
    """Take back an interface whose making is refused half-way."""
    try:
        call()
    except EC2ClientError:
        response.ec2_backend.delete_network_interface(interface.id)
        raise


def _subnet6(interface: Any) -> IPv6Network:
    """The IPv6 range of an interface's subnet."""
    for association in interface.subnet.ipv6_cidr_block_associations.values():
        return IPv6Network(association["ipv6CidrBlock"])
    raise InvalidParameterValueError(
        f"({interface.subnet.id}) for parameter subnetId: the subnet has no IPv6 range; it"
    )


def _elastic_addresses_move() -> None:
    """An Elastic IP goes where it is associated, away from where it was, to the private address that was named."""
    ElasticAddress.private_ip_address = property(  # type: ignore[assignment, method-assign]
        lambda self: (getattr(self, "inside", None) or self.eni.private_ip_address) if self.eni else None
    )

    @_wrapped(ElasticIPAddresses, "associate_address")
    def associate_call(original: Any, self: Any) -> Any:
        inside = self._get_param("PrivateIpAddress")
        instance, interface = self._get_param("InstanceId"), self._get_param("NetworkInterfaceId")
        if instance and not interface:
            interface = self.ec2_backend.get_instance(instance).nics[0].id
        card = self.ec2_backend.get_network_interface(interface) if interface else None
        had = card.public_ip if card else None
        if inside and card and inside not in [entry["PrivateIpAddress"] for entry in card.private_ip_addresses]:
            raise InvalidParameterValueError(f"({inside}) for parameter privateIpAddress")
        plain = self._get_param
        # "reassociation is automatic", unless it is refused in so many words (AssociateAddress)
        moves = plain("AllowReassociation") is not False
        self._get_param = lambda name, *rest: moves if name == "AllowReassociation" else plain(name, *rest)
        answer = original(self)
        for address in self.ec2_backend.addresses:
            if address.association_id == answer.result["AssociationId"]:
                address.inside = inside
        if inside and card and inside != card.private_ip_address:
            card.public_ip = had  # the primary address keeps its own
        return answer

    @_wrapped(ElasticAddressBackend, "associate_address")
    def associate(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        held = {id(address): address.eni for address in self.addresses}
        moved = original(self, *args, **kwargs)
        left = held.get(id(moved))
        if left is not None and left is not moved.eni and left.public_ip == moved.public_ip:
            left.public_ip = None
        for other in self.addresses:
            if other is not moved and other.eni is moved.eni and other.private_ip_address == moved.private_ip_address:
                other.eni = other.instance = other.association_id = None
        return moved


# --- instances --------------------------------------------------------------------------------------------------------


def _routes_stay_outside_the_vpc() -> None:
    """Inside the VPC's own ranges a route leads to an interface alone, and for a whole subnet or a whole range.

    Amazon VPC User Guide, "Subnet route tables" (rules and considerations) and "Gateway route tables". moto takes
    anything whose target is an interface.
    """

    @_wrapped(RouteBackend, "create_route")
    def create(original: Any, self: Any, route_table_id: str, *args: Any, **kwargs: Any) -> Any:
        four, six = (*args, None, None)[:2]
        named = four or six or kwargs.get("destination_cidr_block") or kwargs.get("destination_ipv6_cidr_block")
        if named and not kwargs.get("local"):
            destination, table = ipaddress.ip_network(named, strict=False), self.get_route_table(route_table_id)
            held = (*self.get_vpc(table.vpc_id)._cidr_block_association_set.values(),)
            ranges = [ipaddress.ip_network(entry["cidr_block"]) for entry in held]
            subnets = [
                ipaddress.ip_network(text)
                for subnet in self.describe_subnets(filters={"vpc-id": table.vpc_id})
                for text in (
                    subnet.cidr_block,
                    *(e["ipv6CidrBlock"] for e in subnet.ipv6_cidr_block_associations.values()),
                )
                if text
            ]
            inside = any(destination.version == r.version and destination.subnet_of(r) for r in ranges)  # type: ignore[arg-type]
            if inside and destination not in (*ranges, *subnets):
                told = f"({named}) for parameter destinationCidrBlock: it is no whole subnet of the VPC's, and it"
                raise InvalidParameterValueError(told)
            if inside and not any(kwargs.get(key) for key in ("interface_id", "nat_gateway_id", "vpc_endpoint_id")):
                told = f"({named}) for parameter destinationCidrBlock: inside the VPC it needs an interface, and it"
                raise InvalidParameterValueError(told)
        return original(self, route_table_id, *args, **kwargs)


class _IncorrectState(EC2ClientError):
    def __init__(self, instance: Any, verb: str) -> None:
        text = f"The instance '{instance.id}' is {instance.state}: not in a state from which it can be {verb}."
        super().__init__("IncorrectInstanceState", text)


def _states_are_respected() -> None:
    """Only a stopped instance starts; only one that runs stops or reboots; a stopped one keeps what it holds."""
    wanted = (
        ("start_instances", "started", ("stopped", "running", "pending")),
        ("stop_instances", "stopped", ("running", "pending", "stopping", "stopped")),
        ("reboot_instances", "rebooted", ("running", "pending")),
    )
    for name, verb, states in wanted:

        def change(
            original: Any, self: Any, instance_ids: list[str], *, verb: str = verb, states: tuple[str, ...] = states
        ) -> Any:
            for instance in self.get_multi_instances_by_id(instance_ids):
                if instance.state not in states:
                    raise _IncorrectState(instance, verb)
            return original(self, instance_ids)

        _wrapped(InstanceBackend, name)(change)

    @_wrapped(NetworkInterface, "start")
    def start(original: Any, self: Any) -> None:
        if not self.public_ip:  # starting what runs draws no new address
            original(self)

    @_wrapped(NetworkInterface, "stop")
    def stop(original: Any, self: Any) -> None:
        if not any(address.public_ip == self.public_ip for address in self.ec2_backend.addresses):
            original(self)


def finder(region: str) -> Callable[[str], bool]:
    """Whether a security group or a prefix list of an id is in an AWS region."""
    backend: Any = ec2_backends[ACCOUNT][region]

    def exists(identity: str) -> bool:
        return identity in backend.managed_prefix_lists or any(identity in groups for groups in backend.groups.values())

    return exists


def _metadata_options_are_kept() -> None:
    """ModifyInstanceMetadataOptions changes what it names and nothing else."""
    names = {
        "http_tokens": "http_tokens",
        "hop_limit": "http_put_response_hop_limit",
        "http_endpoint": "http_endpoint",
        "http_protocol": "http_protocol_ipv6",
        "metadata_tags": "instance_metadata_tags",
    }

    @_wrapped(InstanceBackend, "modify_instance_metadata_options")
    def modify(original: Any, self: Any, instance_id: str, **wanted: Any) -> Any:
        held = self.get_instance(instance_id).metadata_options
        for parameter, attribute in names.items():
            if wanted.get(parameter) is None:
                wanted[parameter] = getattr(held, attribute)
        return original(self, instance_id, **wanted)


def terminate_once_down(runs: Callable[[str], bool]) -> None:
    """An instance told to terminate is `shutting-down`, with all it has, until `powered_off`, if its machine `runs`."""

    @_wrapped(InstanceBackend, "terminate_instances")
    def terminate(original: Any, self: Any, instance_ids: list[str]) -> Any:
        named = self.get_multi_instances_by_id(instance_ids)
        protected = [instance.id for instance in named if instance.disable_api_termination is True]
        later = [instance for instance in named if runs(instance.id) and instance.state != "terminated"]
        if protected or not later:
            return original(self, protected or instance_ids)
        answers = []
        for instance in named:
            if instance in later:
                answers.append((instance, copy.copy(instance._state)))
                instance._state.name, instance._state.code = "shutting-down", 32
            else:
                answers += original(self, [instance.id])
        return answers


def powering_down(region: str, instance: str) -> None:
    """An instance told to stop is `stopping` until its system is down."""
    found = ec2_backends[ACCOUNT][region].get_instance(instance)
    if found.state == "stopped":
        found._state.name, found._state.code = "stopping", 64


def powered_off(region: str, instance: str) -> None:
    """An instance's system went down: it is stopped, or terminated where its launch said so."""
    backend = ec2_backends[ACCOUNT][region]
    found = backend.get_instance(instance)
    state = str(found._state.name)
    asked = found.instance_initiated_shutdown_behavior == "terminate"
    if state == "stopping":
        found._state.name, found._state.code = "stopped", 80
    elif state == "shutting-down" or (state in ("running", "pending") and asked):
        found.terminate()
        detach_terminated(region)
    elif state in ("running", "pending"):
        found.stop()


def detach_terminated(region: str) -> None:
    """Free the interfaces of terminated instances, and delete those made by their launch; moto leaves all attached."""
    backend: Any = ec2_backends[ACCOUNT][region]
    gone = {
        instance.id
        for reservation in backend.reservations.values()
        for instance in reservation.instances
        if instance.state == "terminated"
    }
    for interface in list(backend.enis.values()):
        if interface.instance is None or interface.instance.id not in gone:
            continue
        interface.instance.nics = _NoInterfaces()
        interface.instance = interface.attachment_id = None
        interface.status = "available"
        if interface.description == _PRIMARY:
            _delete(backend, interface)
    for address in backend.addresses:
        if address.instance is not None and address.instance.id in gone:
            address.instance = None
        if address.eni is not None and address.eni.id not in backend.enis:
            address.eni = address.association_id = None


class _NoInterface:
    """What moto asks of the first interface of an instance that has none any more."""

    private_ip_address = None
    public_ip = None


class _NoInterfaces(dict[int, _NoInterface]):
    """A terminated instance's interfaces: none, yet moto still asks for the addresses of number 0."""

    def __missing__(self, index: int) -> _NoInterface:
        return _NoInterface()


def _delete(backend: Any, interface: Any) -> None:
    backend.enis.pop(interface.id, None)
    for entry in interface.private_ip_addresses:
        interface.subnet.del_subnet_ip(entry["PrivateIpAddress"])


def _root_volumes_are_replaced() -> None:
    """CreateReplaceRootVolumeTask and its Describe: the machine itself is `lab.server`'s to replace."""

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
        _tasks(self.ec2_backend).append(task)
        return ActionResult({"ReplaceRootVolumeTask": task})

    def describe(self: Any) -> Any:
        wanted = self._get_param("ReplaceRootVolumeTaskIds", [])
        tasks = [t for t in _tasks(self.ec2_backend) if not wanted or t["ReplaceRootVolumeTaskId"] in wanted]
        return ActionResult({"ReplaceRootVolumeTasks": tasks})

    InstanceResponse.create_replace_root_volume_task = create  # type: ignore[attr-defined]
    InstanceResponse.describe_replace_root_volume_tasks = describe  # type: ignore[attr-defined]


def _tasks(backend: Any) -> list[dict[str, str]]:
    tasks: list[dict[str, str]] = backend.__dict__.setdefault("replace_root_volume_tasks", [])
    return tasks


def root_volume_replaced(region: str, instance: str, state: str = "succeeded") -> None:
    """The tasks to replace an instance's root volume have come to an end."""
    for task in _tasks(ec2_backends[ACCOUNT][region]):
        if task["InstanceId"] == instance and task["TaskState"] == "pending":
            task["TaskState"] = state
