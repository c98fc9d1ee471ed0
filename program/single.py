"""Deploy a stack with one gateway and its clients."""

import pulumi

import contract
from components.address import Address
from components.authority import Authority
from components.domain import Domain, DomainArgs
from components.existing_vpc import ExistingVpc
from components.network import Network
from components.public_name import PublicName, PublicNameArgs
from openvpn.firewall import complement
from openvpn.model import Tunnel
from openvpn.profile import render_profile
from program.alerts import create_alarms, create_alerts, first_end
from program.bundle_sizes import check_bundle_sizes
from program.certificate_requests import read_requests
from program.gateway import (
    Location,
    create_authority,
    create_instance,
    create_location,
    create_network,
    create_routes,
    create_vault,
    export_outputs,
    gateway_outputs,
    list_revocations,
)
from program.kits import create_kit_users, render_kits
from program.preflight import check_account, choose_processes, find_placements, list_vpc_ranges
from program.secrets import create_bundles_bucket, create_secrets_key
from program.tunnel import reachable_vpc, tunnel_from_settings, with_ipv6, with_vpc_routes
from settings.checks.overlaps import check_vpc_overlap
from settings.maintenance import parse_window
from settings.model import Settings
from userdata import release


def deploy(settings: Settings) -> None:
    """Declare the stack's resources and outputs."""
    settings = choose_processes(settings)
    names = contract.Names(settings.stack)
    tunnel = tunnel_from_settings(settings)
    listener, routed = tunnel.listener, tunnel.vpc_routes
    check_account(settings)
    placement = find_placements(settings)[names.gateway]
    if isinstance(placement, ExistingVpc):
        check_vpc_overlap(settings, {"network": placement.cidrs})
    requests = read_requests(settings)
    check_bundle_sizes(settings, names, list_vpc_ranges(settings.network, placement), requests)
    network = create_network(settings, names, settings.network, placement, listener=listener, routed=routed)
    tunnel = with_vpc_routes(tunnel, settings, network.cidrs)
    location = create_location(
        settings,
        names,
        network,
        listener=listener,
        routed=routed,
        allow_from=settings.gateway.allow_from,
        clients_at={client.name: client.at for client in settings.clients if client.at},
    )
    create_routes(location, routed, network.announced6 if settings.tunnel.advertised else None)
    tunnel6 = add_ipv6(settings, tunnel, network, location.address)
    profiles = render_profiles(settings, names, tunnel6, location.address)
    secrets_key = create_secrets_key(settings)
    bundles_bucket = create_bundles_bucket(settings, secrets_key)
    authority = create_authority(settings, names, profiles, secrets_key, bundles_bucket, requests)
    kits = render_kits(settings, location, tunnel, tunnel6)
    vault = create_vault(settings, names, render_release(settings, tunnel6, network, authority), kits=kits)
    create_kit_users(settings, location, authority, vault, kits)
    instance = create_instance(settings, location, authority, vault)
    create_alarms(settings, names, instance, create_alerts(settings))
    create_public_name(settings, location)
    if settings.domain:
        gateway_ip = location.address.private_ip
        args = DomainArgs(names=names, name=settings.domain, vpc_id=network.vpc_id, gateway_ip=gateway_ip)
        Domain(names.resource("domain"), args)
    export_outputs(settings, vault, gateway_outputs(location, authority, vault, instance))


def create_public_name(settings: Settings, location: Location) -> None:
    """Create the record of the gateway's public name, if the settings name a zone for it."""
    hostname, zone_id = settings.gateway.hostname, settings.gateway.hosted_zone_id
    if hostname and zone_id:
        names, public_ip = location.names, location.address.public_ip
        args = PublicNameArgs(names=names, hostname=hostname, zone_id=zone_id, public_ip=public_ip)
        PublicName(names.resource("public-name"), args)


def add_ipv6(settings: Settings, tunnel: Tunnel, network: Network, address: Address) -> pulumi.Output[Tunnel]:
    """Return the tunnel with its IPv6, once AWS has chosen the ranges."""
    prefix = network.announced6 if settings.tunnel.advertised else address.ipv6_prefix
    return pulumi.Output.all(prefix, network.cidr6).apply(lambda ranges: with_ipv6(tunnel, settings, *ranges))


def render_profiles(
    settings: Settings, names: contract.Names, tunnel: pulumi.Output[Tunnel], address: Address
) -> dict[str, pulumi.Output[str]]:
    """Return each client's profile by the client's name, with the gateway's public name and address."""

    def render(client: str) -> pulumi.Output[str]:
        values = pulumi.Output.all(tunnel, address.public_ip)
        return values.apply(lambda values: _render(values[0], values[1], client))

    def _render(tunnel: Tunnel, public_ip: str, client: str) -> str:
        if hostname := settings.gateway.hostname:
            return render_profile(tunnel, hostname, names.server, client, fallback=public_ip)
        return render_profile(tunnel, public_ip, names.server, client)

    return {client.name: render(client.name) for client in settings.clients}


def render_release(
    settings: Settings, tunnel: pulumi.Output[Tunnel], network: Network, authority: Authority
) -> pulumi.Output[release.Release]:
    """Return the gateway's release."""
    gateway = settings.gateway

    def build(
        tunnel: Tunnel, revoked: dict[str, dict[str, str]], clients: dict[str, dict[str, str]]
    ) -> release.Release:
        # Only the security group follows an address that changes, so the gateway's own filter admits any address.
        everyone = complement(*network.cidrs, *tunnel.sources)
        return release.build(
            tunnel,
            admin_from=everyone if gateway.admin_at else gateway.admin_from,
            allow_from=everyone if any(client.at for client in settings.clients) else gateway.allow_from,
            vpc=reachable_vpc(settings, network.cidrs),
            revoked=list_revocations(revoked),
            metrics=gateway.metrics,
            maintenance_window=str(parse_window(gateway.maintenance_window)),
            clients_end=first_end(settings, clients),
            connection_log=settings.log.days is not None,
        )

    return pulumi.Output.all(tunnel, authority.revoked, authority.clients).apply(lambda values: build(*values))
