"""Serve addresses, metadata and names inside each VPC: DHCP, and what instances find at 169.254.169.254 and +2."""

import base64
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from typing import Any

from werkzeug.serving import BaseWSGIServer

from lab import wsgi
from lab.linux import listen
from lab.network import dns, plan
from lab.network.address_server import AddressServer, Lease, RouterLink
from lab.network.fabric import Fabric, interfaces_of
from lab.network.metadata import InstanceMetadata, MetadataService, NoCredentials
from lab.network.state import Instance, Interface, State, Vpc

#: Role credentials are renewed this many seconds before they end; those issued last six hours.
_RENEW_SECONDS = 3600
_CREDENTIALS_SECONDS = 21600


@dataclass(frozen=True, slots=True)
class _LaunchData:
    """Data of an instance that EC2's description only names."""

    user_data: bytes | None
    public_key: str | None
    role: str | None


class Services:
    """DHCP, metadata and DNS of a lab's VPCs.

    Args:
        fabric: has the VPCs' routers, in which the services listen.
        account: number of the AWS account.
        client: a boto3 client by service and AWS region.
        private_zones: private hosted zones by AWS region and VPC, as they are now.
        trusts_ec2: whether a role's trust policy lets EC2 assume it.
    """

    def __init__(
        self,
        fabric: Fabric,
        *,
        account: str,
        client: Callable[[str, str], Any],
        private_zones: Callable[[str, str], Sequence[dns.PrivateZone]],
        trusts_ec2: Callable[[str], bool],
    ) -> None:
        self._fabric = fabric
        self._account = account
        self._client = client
        self._private_zones = private_zones
        self._trusts_ec2 = trusts_ec2
        self._addresses = AddressServer()
        self._leases: dict[str, dict[RouterLink, Lease]] = {}  # by AWS region
        self._open: dict[str, list[socket.socket | BaseWSGIServer]] = {}  # by VPC
        self._ranges: dict[str, tuple[IPv4Network, ...]] = {}  # by VPC
        self._metadata: dict[str, dict[tuple[str, str], InstanceMetadata]] = {}  # region -> (VPC, private address)
        self._launch_data: dict[tuple[str, str], _LaunchData] = {}  # (region, instance)
        self._credentials: dict[tuple[str, str], tuple[float, dict[str, str]]] = {}  # (instance, role) -> end, keys

    def open(self, region: str, vpc: Vpc) -> None:
        """Serve in a VPC's router; a VPC that is served already keeps its services."""
        self._ranges[vpc.id] = tuple(cidr for cidr in vpc.cidrs if isinstance(cidr, IPv4Network))
        if vpc.id in self._open:
            return
        router = self._fabric.router(vpc.id)
        # One socket an address: an answer from a wildcard socket would come from whatever address the route prefers.
        resolvers = [
            listen(router, address, 53, socket.SOCK_DGRAM)
            for address in (*(str(cidr[2]) for cidr in self._ranges[vpc.id]), str(plan.RESOLVER))
        ]
        for bound in resolvers:
            dns.serve_names(
                bound,
                lambda: self._private_zones(region, vpc.id),
                lambda address: any(IPv4Address(address) in cidr for cidr in self._ranges[vpc.id]),
            )
        service = MetadataService(
            lambda address: self._metadata.get(region, {}).get((vpc.id, address)),
            lambda instance, role: self._issue_credentials(region, instance, role),
        )
        servers = [wsgi.serve(service, listen(router, a, 80)) for a in (str(plan.METADATA), plan.METADATA6)]
        self._open[vpc.id] = [*resolvers, *servers]

    def close(self, vpc: str) -> None:
        """Stop serving in a VPC."""
        for service in self._open.pop(vpc, []):
            # A server's loop wakes every few seconds; nobody waits for that.
            threading.Thread(target=wsgi.close, args=(service,), daemon=True).start()

    def update(self, region: str, state: State) -> None:
        """Answer from now on with what the API says of the instances of an AWS region."""
        instances = [instance for instance in state.instances.values() if instance.on]
        existing = {instance.id for instance in state.instances.values() if instance.state != "terminated"}
        for key in list(self._launch_data):
            if key[0] == region and key[1] not in existing:
                self._launch_data.pop(key, None)
        self._metadata[region] = {
            (interface.vpc, str(address)): self._describe(region, state, instance)
            for instance in instances
            for interface in interfaces_of(state, instance.id)
            for address in (*interface.addresses, *(interface.addresses6 if instance.metadata_ipv6 else ()))
        }

        self._leases[region] = {
            RouterLink(self._fabric.router(interface.vpc), plan.link_name(interface.id), instance.id): _create_lease(
                region, state, interface
            )
            for instance in instances
            for interface in interfaces_of(state, instance.id)
            if state.subnets[interface.subnet].cidr
        }
        self._addresses.update({link: lease for leases in self._leases.values() for link, lease in leases.items()})

    def forget_launch_data(self) -> None:
        """Read user data, keys and roles of the instances anew at the next `update`: one of them has changed."""
        self._launch_data.clear()

    def _describe(self, region: str, state: State, instance: Instance) -> InstanceMetadata:
        interface = next(iter(interfaces_of(state, instance.id)))
        launch = self._launch_data.get((region, instance.id))
        if launch is None:
            launch = self._launch_data[region, instance.id] = self._read_launch_data(region, instance)
        return InstanceMetadata(
            instance_id=instance.id,
            ami_id=instance.image,
            instance_type=instance.type,
            architecture=instance.architecture,
            zone=instance.zone,
            local_ipv4=str(interface.primary),
            public_ipv4=str(interface.public[0][1]) if interface.public else None,
            mac=interface.mac,
            hostname=f"ip-{str(interface.primary).replace('.', '-')}.{_domain(region)}",
            subnet_id=interface.subnet,
            vpc_id=interface.vpc,
            interface_id=interface.id,
            security_groups=interface.groups,
            account=self._account,
            tokens_required=instance.tokens_required,
            hop_limit=instance.hop_limit,
            enabled=instance.metadata_enabled,
            user_data=launch.user_data,
            public_key=launch.public_key,
            profile_arn=instance.profile,
            role=launch.role,
            tags=dict(instance.tags) if instance.tags_in_metadata else {},
        )

    def _read_launch_data(self, region: str, instance: Instance) -> _LaunchData:
        ec2 = self._client("ec2", region)
        attribute = ec2.describe_instance_attribute(InstanceId=instance.id, Attribute="userData")
        encoded = attribute.get("UserData", {}).get("Value")
        key = role = None
        if instance.key_name:
            pairs = ec2.describe_key_pairs(KeyNames=[instance.key_name], IncludePublicKey=True)["KeyPairs"]
            key = pairs[0].get("PublicKey")
        if instance.profile:
            name = instance.profile.rsplit("/", 1)[-1]
            profile = self._client("iam", region).get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
            role = next((r["RoleName"] for r in profile["Roles"]), None)
        return _LaunchData(base64.b64decode(encoded) if encoded else None, key, role)

    def _issue_credentials(self, region: str, instance: str, role: str) -> dict[str, str]:
        """Return credentials of a role for an instance, renewed in time.

        Raises:
            NoCredentials: the role does not let EC2 assume it.
        """
        ends, credentials = self._credentials.get((instance, role), (0.0, {}))
        if ends - time.time() > _RENEW_SECONDS:
            return credentials
        if not self._trusts_ec2(role):
            raise NoCredentials(f"EC2 cannot assume the role {role}: its trust policy does not name EC2")
        issued = self._client("sts", region).assume_role(
            RoleArn=f"arn:aws:iam::{self._account}:role/{role}",
            RoleSessionName=instance,
            DurationSeconds=_CREDENTIALS_SECONDS,
        )["Credentials"]
        credentials = {
            "AccessKeyId": issued["AccessKeyId"],
            "SecretAccessKey": issued["SecretAccessKey"],
            "Token": issued["SessionToken"],
            "Expiration": issued["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self._credentials[instance, role] = (issued["Expiration"].timestamp(), credentials)
        return credentials


def _domain(region: str) -> str:
    """Return the domain of instances' names (Amazon VPC User Guide, "DHCP option sets in Amazon VPC")."""
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def _create_lease(region: str, state: State, interface: Interface) -> Lease:
    subnet = state.subnets[interface.subnet]
    first_range = next(cidr for cidr in state.vpcs[interface.vpc].cidrs if isinstance(cidr, IPv4Network))
    assert subnet.cidr is not None
    has_default_route = interface.index == 0
    return Lease(
        mac=bytes.fromhex(interface.mac.replace(":", "")),
        address=IPv4Interface(f"{interface.primary}/{subnet.cidr.prefixlen}"),
        resolver=first_range[2],
        domain=_domain(region),
        mtu=plan.MTU_INSIDE,
        router=subnet.cidr[1] if has_default_route else None,
        addresses6=interface.addresses6,
        router6=IPv6Address(plan.ROUTER6) if has_default_route and subnet.cidr6 else None,
    )
