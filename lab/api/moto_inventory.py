"""Look up in moto's state what the rules of `lab.api.validation` depend on."""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends
from moto.route53.models import route53_backends
from moto.servicequotas.models import servicequotas_backends
from moto.ssm.models import ssm_backends

from lab.api.iam import ACCOUNT, KmsKey

#: The key of a SecureString that names none.
DEFAULT_KEY = "alias/aws/ssm"


@dataclass(frozen=True, slots=True)
class Image:
    """An AMI: its architecture, the size in GiB of the snapshot behind its root device, and its state."""

    architecture: str
    root_device: str
    snapshot_size: int
    state: str


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface, with the instance that it is attached to, if any."""

    id: str
    zone: str
    instance: str | None


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance's AMI and availability zone."""

    image: str
    zone: str


@dataclass(frozen=True, slots=True)
class ZoneRecord:
    """A record of a hosted zone, with its name in lower case and a final dot."""

    name: str
    type: str
    identifier: str | None
    """Set identifier, of a record of several with one name."""
    ttl: int | None
    values: tuple[str, ...]
    """None for an alias."""


def find_memory(instance_type: str) -> int | None:
    """Return the memory of an instance type in MiB, or None for an unknown type."""
    size = INSTANCE_TYPES.get(instance_type, {}).get("MemoryInfo", {}).get("SizeInMiB")
    return None if size is None else int(size)


class Inventory:
    """The resources that an AWS region of the account has now."""

    def __init__(self, region: str) -> None:
        self.region = region

    # Made on first use: EC2's takes moto a second.

    @functools.cached_property
    def _ec2(self) -> Any:
        return ec2_backends[ACCOUNT][self.region]

    @functools.cached_property
    def _ssm(self) -> Any:
        return ssm_backends[ACCOUNT][self.region]

    @functools.cached_property
    def _kms(self) -> Any:
        return kms_backends[ACCOUNT][self.region]

    # --- EC2 ----------------------------------------------------------------------------------------------------------

    def find_interface(self, identity: str) -> Interface | None:
        """Return a network interface, or None."""
        interface = self._ec2.enis.get(identity)
        if interface is None:
            return None
        instance = interface.instance.id if interface.instance is not None else None
        return Interface(identity, str(interface.subnet.availability_zone), instance)

    def find_image(self, identity: str) -> Image | None:
        """Return an AMI, or None."""
        ami = self._ec2.amis.get(identity)
        if ami is None:
            return None
        size = int(ami.ebs_snapshot.volume.size)
        return Image(str(ami.architecture), str(ami.root_device_name), size, str(ami.state))

    def find_own_image(self, name: str) -> str | None:
        """Return the ID of the account's image of a name, or None."""
        images = (ami for ami in self._ec2.amis.values() if str(ami.owner_id) == ACCOUNT)
        return next((str(ami.id) for ami in images if ami.name == name), None)

    def find_instance(self, identity: str) -> Instance | None:
        """Return an instance, or None."""
        for reservation in self._ec2.reservations.values():
            for instance in reservation.instances:
                if instance.id == identity:
                    return Instance(str(instance.image_id), str(instance.placement.zone))
        return None

    def find_subnet_zone(self, identity: str) -> str | None:
        """Return the availability zone of a subnet, or None."""
        for subnets in self._ec2.subnets.values():
            for subnet in subnets.values():
                if subnet.id == identity:
                    return str(subnet.availability_zone)
        return None

    def list_subnet_interfaces(self, subnet: str) -> tuple[str, ...]:
        """Return the network interfaces in a subnet."""
        return tuple(str(interface.id) for interface in self._list_interfaces() if interface.subnet.id == subnet)

    def list_group_users(self, group: str) -> tuple[str, ...]:
        """Return the network interfaces with a security group, and the other groups whose rules name it."""
        interfaces = (entry for entry in self._list_interfaces() if group in [each.id for each in entry.group_set])
        peers = (
            peer
            for groups in self._ec2.groups.values()
            for peer in groups.values()
            if peer.id != group
            and any(rule.source_group.get("GroupId") == group for rule in (*peer.ingress_rules, *peer.egress_rules))
        )
        return tuple(str(user.id) for user in (*interfaces, *peers))

    def list_vpc_dependents(self, vpc: str) -> tuple[str, ...]:
        """Return what a VPC has of internet gateways and of its own security groups and network ACLs."""
        gateways = (entry for entry in self._ec2.internet_gateways.values() if entry.vpc and entry.vpc.id == vpc)
        groups = (group for group in self._ec2.groups.get(vpc, {}).values() if group.name != "default")
        acls = (acl for acl in self._ec2.network_acls.values() if acl.vpc_id == vpc and not acl.default)
        return tuple(str(entry.id) for entry in (*gateways, *groups, *acls))

    def _list_interfaces(self) -> Iterator[Any]:
        """Yield moto's interfaces but those that it still attaches to instances which have been terminated."""
        for interface in self._ec2.enis.values():
            if interface.instance is None or interface.instance.state != "terminated":
                yield interface

    def list_architectures(self, instance_type: str) -> tuple[str, ...]:
        """Return the processor architectures of an instance type; none for an unknown type."""
        return tuple(INSTANCE_TYPES.get(instance_type, {}).get("ProcessorInfo", {}).get("SupportedArchitectures", ()))

    def list_zones(self, instance_type: str) -> tuple[str, ...]:
        """Return the availability zones of the region that offer an instance type."""
        offerings = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(self.region, ())
        return tuple(sorted(entry["Location"] for entry in offerings if entry["InstanceType"] == instance_type))

    def count_vpcs(self) -> int:
        """Return the number of VPCs, the default VPC among them."""
        return len(self._ec2.vpcs)

    def count_internet_gateways(self) -> int:
        """Return the number of internet gateways."""
        return len(self._ec2.internet_gateways)

    def count_addresses(self) -> int:
        """Return the number of Elastic IPs."""
        return len(self._ec2.addresses)

    def count_acl_entries(self, acl: str, *, egress: bool, ipv6: bool) -> int:
        """Return the number of a network ACL's entries of one direction and IP version, the last one left out."""
        entries = self._ec2.network_acls[acl].network_acl_entries if acl in self._ec2.network_acls else ()
        return sum(
            str(entry.egress).lower() == str(egress).lower()
            and bool(entry.ipv6_cidr_block) == ipv6
            and int(entry.rule_number) <= 32766
            for entry in entries
        )

    def count_routes(self, table: str, *, ipv6: bool) -> int:
        """Return the number of a route table's own routes of one IP version."""
        if table not in self._ec2.route_tables:
            return 0
        routes = self._ec2.route_tables[table].routes
        return sum(not route.local and bool(route.destination_ipv6_cidr_block) == ipv6 for route in routes)

    def find_quota(self, service: str, code: str) -> float | None:
        """Return the value that Service Quotas has applied, or None where it keeps the default."""
        applied: dict[tuple[str, str], float] = applied_quotas(servicequotas_backends[ACCOUNT][self.region])
        return applied.get((service, code))

    # --- other services -----------------------------------------------------------------------------------------------

    def find_parameter_type(self, name: str) -> str | None:
        """Return the type of an SSM parameter, or None if there is none."""
        parameter = self._find_parameter(name)
        return str(parameter.parameter_type) if parameter else None

    def find_parameter_tier(self, name: str) -> str | None:
        """Return the tier of an SSM parameter, or None if there is none."""
        parameter = self._find_parameter(name)
        return str(parameter.tier) if parameter else None

    def _find_parameter(self, name: str) -> Any:
        """Return moto's latest version of an SSM parameter, or None."""
        # moto's dictionary has keys of its own; only its operators know them.
        return self._ssm._parameters[name][-1] if name in self._ssm._parameters else None

    def list_secure_parameters(self, name: str, *, below: bool = False) -> Iterator[tuple[str, str]]:
        """Yield name and key of a SecureString, or of all SecureStrings below a path."""
        latest = [versions[-1] for versions in self._ssm._parameters.values() if versions]
        for parameter in latest if below else filter(None, [self._find_parameter(name)]):
            if below and not parameter.name.startswith(f"{name.rstrip('/')}/"):
                continue
            if parameter.parameter_type == "SecureString":
                yield str(parameter.name), str(parameter.keyid)

    def find_key(self, identity: str) -> KmsKey | None:
        """Return a KMS key by its id, ARN, alias or alias ARN; `aws/ssm` exists from its first use on."""
        identity = identity.rpartition(":")[2].removeprefix("key/")
        if identity == DEFAULT_KEY:
            return KmsKey(f"arn:aws:kms:{self.region}:{ACCOUNT}:{DEFAULT_KEY}", _ssm_key_policy(self.region), True)
        if identity.startswith("alias/"):
            identity = self._kms.get_key_id_from_alias(identity) or ""
        key = self._kms.keys.get(identity)
        return KmsKey(str(key.arn), json.loads(key.policy), bool(key.enabled)) if key is not None else None

    def list_private_zone_names(self, vpc: str) -> tuple[str, ...]:
        """Return the names of the private hosted zones of a VPC."""
        zones = route53_backends[ACCOUNT]["aws"].zones.values()
        return tuple(
            str(zone.name)
            for zone in zones
            if zone.private_zone and vpc in [entry.get("vpc_id") for entry in zone.vpcs]
        )

    def find_zone_name(self, identity: str) -> str | None:
        """Return the name of a hosted zone, or None."""
        zone = route53_backends[ACCOUNT]["aws"].zones.get(identity.rpartition("/")[2])
        return str(zone.name) if zone is not None else None

    def list_records(self, identity: str) -> tuple[ZoneRecord, ...]:
        """Return the records of a hosted zone; none if there is no such zone."""
        zone = route53_backends[ACCOUNT]["aws"].zones.get(identity.rpartition("/")[2])
        return tuple(
            ZoneRecord(
                name=str(record.name).lower(),
                type=str(record.type),
                identifier=record.set_identifier,
                ttl=None if record.ttl is None else int(record.ttl),
                values=tuple(record.records),
            )
            for record in (zone.rrsets if zone is not None else ())
        )

    def find_inline_policies(self, owner: str, name: str) -> Mapping[str, str]:
        """Return the inline policies of a `User`, `Role` or `Group` by their names; none if there is no such owner."""
        iam: Any = iam_backends[ACCOUNT]["aws"]
        owners = {"User": iam.users, "Role": iam.roles, "Group": iam.groups}[owner]
        return next((each.policies for each in owners.values() if each.name == name), {})

    def find_profile_age(self, name: str) -> float | None:
        """Return the seconds since an instance profile was created, or None if there is none."""
        profiles = iam_backends[ACCOUNT]["aws"].instance_profiles.values()
        profile = next((profile for profile in profiles if profile.name == name), None)
        if profile is None:
            return None
        return (datetime.now(UTC) - profile.create_date.replace(tzinfo=UTC)).total_seconds()


def _ssm_key_policy(region: str) -> Mapping[str, Any]:
    """Return the policy of the AWS managed key of SSM: every principal of the account may use it through SSM.

    Source: AWS KMS Developer Guide, "AWS managed keys"; Systems Manager User Guide, "Restricting access to Parameter
    Store parameters".
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": "*"},
                "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
                "Resource": "*",
                "Condition": {
                    "StringEquals": {
                        "kms:ViaService": f"ssm.{region}.amazonaws.com",
                        "kms:CallerAccount": ACCOUNT,
                    }
                },
            },
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                "Action": ["kms:Describe*", "kms:Get*", "kms:List*", "kms:RevokeGrant"],
                "Resource": "*",
            },
        ],
    }


def applied_quotas(backend: Any) -> dict[tuple[str, str], float]:
    """Return the mutable quotas of a region that differ from AWS's defaults, by service and quota code."""
    quotas: dict[tuple[str, str], float] = backend.__dict__.setdefault("applied_quotas", {})
    return quotas
