"""Create one gateway: its network, firewall, address, authority, vault and instance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pulumi

import contract
from components.access import Access, AccessArgs
from components.address import Address, AddressArgs
from components.authority import Authority, AuthorityArgs
from components.connection_log import ConnectionLog, ConnectionLogArgs
from components.existing_vpc import ExistingVpc
from components.firewall import Firewall, FirewallArgs, find_dynamic_ranges
from components.gateway import Gateway, GatewayArgs
from components.grants import Grant
from components.network import Network, NetworkArgs
from components.routes import Routes, RoutesArgs
from components.vault import Vault, VaultArgs
from contract import StackOutput
from openvpn.listener import Listener
from program.preflight import NewVpc, Placement
from settings.model import Lifetimes, Settings, Vpc
from userdata import cloud_config
from userdata.release import Release, Revocation

#: Values of a gateway's stack outputs.
Outputs = Mapping[StackOutput, pulumi.Input[object]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """A gateway's place in its VPC, which exists before its instance."""

    names: contract.Names
    network: Network
    firewall: Firewall
    address: Address


def create_network(
    settings: Settings,
    names: contract.Names,
    vpc: Vpc,
    placement: Placement,
    *,
    listener: Listener,
    routed: tuple[IPv4Network, ...],
) -> Network:
    """Create the gateway's VPC, or use an existing one.

    `routed` are networks behind the gateway that the VPC's hosts see by their own addresses.
    """
    args = NetworkArgs(
        names=names,
        region=settings.region,
        cidr=vpc.cidr,
        zones=placement.zones if isinstance(placement, NewVpc) else (),
        private_prefix=vpc.private_prefix,
        existing=placement if isinstance(placement, ExistingVpc) else None,
        listener=listener,
        ssh=bool(settings.gateway.admin_from or settings.gateway.admin_at),
        behind=routed,
        ipv6=settings.tunnel.has_ipv6,
        opened6=settings.tunnel.open_to,
        announced=settings.tunnel.advertised,
    )
    return Network(names.resource("network"), args)


def create_location(
    settings: Settings,
    names: contract.Names,
    network: Network,
    *,
    listener: Listener,
    routed: tuple[IPv4Network, ...],
    allow_from: tuple[IPv4Network, ...],
    clients_at: Mapping[str, IPv4Address],
) -> Location:
    """Create the gateway's firewall and address in its network.

    The tunnel is open to the ranges `allow_from` and to the addresses that clients have at first (`clients_at`).
    """
    firewall = create_firewall(
        settings,
        names,
        network,
        listener=listener,
        forwards_for=network.cidrs if routed else (),
        allow_from=allow_from,
        clients_at=clients_at,
    )
    translated = not (routed or settings.tunnel.has_ipv6)
    address = create_address(settings, names, network, firewall, source_dest_check=translated)
    return Location(names=names, network=network, firewall=firewall, address=address)


def create_firewall(
    settings: Settings,
    names: contract.Names,
    network: Network,
    *,
    listener: Listener,
    forwards_for: tuple[IPv4Network, ...],
    allow_from: tuple[IPv4Network, ...],
    clients_at: Mapping[str, IPv4Address],
) -> Firewall:
    """Create the gateway's security group."""
    # Only a single address can be a dynamic rule's range, so most stacks need no look-up.
    has_addresses = any(network.prefixlen == 32 for network in (*settings.gateway.admin_from, *allow_from))
    args = FirewallArgs(
        names=names,
        vpc_id=network.vpc_id,
        listener=listener,
        admin_from=settings.gateway.admin_from,
        admin_at=settings.gateway.admin_at,
        allow_from=allow_from,
        clients_at=clients_at,
        dynamic_ranges=find_dynamic_ranges(names) if has_addresses else {},
        forwards_for=forwards_for,
        ipv6=settings.tunnel.has_ipv6,
        opened6=settings.tunnel.open_to,
    )
    return Firewall(names.resource("firewall"), args)


def create_address(
    settings: Settings, names: contract.Names, network: Network, firewall: Firewall, *, source_dest_check: bool
) -> Address:
    """Create the gateway's network interface and public address."""
    prefix = settings.gateway.ipv6_prefix
    args = AddressArgs(
        names=names,
        region=settings.region,
        subnet_id=network.public_subnet_id,
        security_group_id=firewall.security_group_id,
        source_dest_check=source_dest_check,
        ipv6=settings.tunnel.has_ipv6,
        delegated=not settings.tunnel.advertised,
        ipv6_prefix=str(prefix) if prefix else None,
        after=[network],
    )
    return Address(names.resource("address"), args)


def create_routes(
    location: Location,
    destinations: tuple[IPv4Network, ...],
    destination6: pulumi.Input[str | None] | None = None,
) -> Routes:
    """Create the VPC's routes to networks behind the gateway."""
    args = RoutesArgs(
        tables=location.network.route_tables,
        interface_id=location.address.interface_id,
        destinations=destinations,
        edge=location.network.edge,
        destination6=destination6,
    )
    return Routes(location.names.resource("routes"), args)


def create_authority(
    settings: Settings,
    names: contract.Names,
    profiles: Mapping[str, pulumi.Output[str]],
    secrets_key: pulumi.Input[str] | None,
    bundles_bucket: pulumi.Input[str] | None = None,
    requests: Mapping[str, str] | None = None,
) -> Authority:
    """Create the gateway's certificate authority; `profiles` are those of its clients, by name.

    `secrets_key` is the ARN of the KMS key that encrypts its secrets, None for `aws/ssm`; `bundles_bucket` is where
    clients' bundles are, None for SSM; `requests` are the clients' signing requests, by name.
    """
    has_renewal = settings.lifetimes.renewal != Lifetimes().renewal
    args = AuthorityArgs(
        names=names,
        region=settings.region,
        profiles=profiles,
        # Without the default renewal and without days of clients: so deployed stacks have nothing to change.
        lifetimes=settings.lifetimes.model_dump(exclude=None if has_renewal else {"renewal"}),
        days={client.name: client.days for client in settings.clients if client.days},
        rotations=settings.rotations.model_dump(exclude_defaults=True),
        key=secrets_key,
        intelligent_tiering=settings.secrets.tier == "intelligent",
        bucket=bundles_bucket,
        requests=requests or {},
    )
    return Authority(names.resource("authority"), args)


def create_vault(
    settings: Settings,
    names: contract.Names,
    release: pulumi.Output[Release],
    *,
    kits: Mapping[str, pulumi.Output[bytes]] | None = None,
    bucket_of: Vault | None = None,
) -> Vault:
    """Store the gateway's release and its clients' kits in a new bucket, or in that of another vault."""
    args = VaultArgs(
        names=names,
        region=settings.region,
        release=release,
        disposable=settings.disposable,
        kits=kits or {},
        bucket_of=bucket_of,
    )
    return Vault(names.resource("vault"), args)


def create_instance(
    settings: Settings, location: Location, authority: Authority, vault: Vault, more_grants: Sequence[Grant] = ()
) -> Gateway:
    """Create the gateway's instance and role, and its connection log if the stack has one.

    The role may do what log, vault, authority and `more_grants` grant.
    """
    names = location.names
    log = create_connection_log(settings, names)
    grants = [*vault.grants, *authority.grants, *(log.grants if log else ()), *more_grants]
    access_args = AccessArgs(
        names=names,
        region=settings.region,
        grants=grants,
        permissions_boundary=settings.iam.permissions_boundary,
    )
    access = Access(names.resource("access"), access_args)
    args = GatewayArgs(
        names=names,
        region=settings.region,
        interface_id=location.address.interface_id,
        profile=access.profile,
        instance_type=settings.gateway.instance_type,
        image=settings.gateway.image,
        disk_size=settings.gateway.disk_size,
        credits=settings.gateway.credits if settings.gateway.is_burstable else None,
        user_data=cloud_config.render(
            names=names,
            region=settings.region,
            ssh_key=settings.gateway.ssh_key,
            image=settings.gateway.image,
        ),
        after=[location.network, location.address, vault, access],
    )
    return Gateway(names.resource("gateway"), args)


def create_connection_log(settings: Settings, names: contract.Names) -> ConnectionLog | None:
    """Create the gateway's connection log unless it is switched off."""
    if settings.log.days is None:
        return None
    args = ConnectionLogArgs(names=names, retention_days=settings.log.days)
    return ConnectionLog(names.resource("connection-log"), args)


def list_revocations(revoked: Mapping[str, Mapping[str, str]]) -> dict[str, Revocation]:
    """Return revocations by serial; `revoked` is an authority's output."""
    return {serial: Revocation(entry["client"], entry["notAfter"]) for serial, entry in revoked.items()}


def gateway_outputs(location: Location, authority: Authority, vault: Vault, instance: Gateway) -> Outputs:
    """Return the outputs that each gateway of a stack has."""
    return {
        StackOutput.PUBLIC_IP: location.address.public_ip,
        StackOutput.PRIVATE_IP: location.address.private_ip,
        StackOutput.VPC_ID: location.network.vpc_id,
        StackOutput.PUBLIC_SUBNET_ID: location.network.public_subnet_id,
        StackOutput.PRIVATE_SUBNET_ID: location.network.private_subnet_id,
        StackOutput.GATEWAY_INTERFACE_ID: location.address.interface_id,
        StackOutput.GATEWAY_INSTANCE_ID: instance.instance_id,
        StackOutput.SECURITY_GROUP_ID: location.firewall.security_group_id,
        StackOutput.RELEASE: vault.release,
        StackOutput.CLIENTS: authority.clients,
    }


def export_outputs(settings: Settings, vault: Vault, outputs: Outputs) -> None:
    """Export the stack's outputs: those of its first gateway, the region and the bucket."""
    stack = {StackOutput.REGION: settings.region, StackOutput.BUCKET: vault.bucket}
    for key, value in {**stack, **outputs}.items():
        pulumi.export(key, value)
