"""Deploy a pair: gateways in VPCs of their own, each the server of one link and a client of the other's.

Each gateway has its own `contract.Names`, network, authority and instance; the bucket is shared.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import TypeVar

import pulumi

from components.authority import Authority
from components.network import Network
from components.peer_ingress import PeerIngress, PeerIngressArgs
from components.vault import Vault
from contract import GATEWAYS, Names, StackOutput
from kits import kit
from openvpn import pair
from openvpn.bond import Bond
from openvpn.listener import Listener
from program.alerts import create_alarms, create_alerts, first_end
from program.gateway import (
    Location,
    Outputs,
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
from program.preflight import SECTIONS, check_account, find_placements, list_vpc_ranges
from program.secrets import create_secrets_key
from program.tunnel import reachable_vpc
from settings.checks.overlaps import check_vpc_overlap
from settings.maintenance import parse_window
from settings.model import Settings
from userdata import release

T = TypeVar("T")


def deploy(settings: Settings) -> None:
    """Declare the stack's resources and outputs."""
    networks = create_networks(settings)
    locations = {gateway: create_gateway_location(settings, gateway, networks) for gateway in networks}
    for gateway in locations:
        connect_to_peer(settings, gateway, locations)
    key = create_secrets_key(settings)
    authorities = {gateway: create_link_authority(settings, gateway, locations, key) for gateway in locations}

    topic = create_alerts(settings)
    vaults: dict[str, Vault] = {}
    outputs: dict[str, Outputs] = {}
    for gateway, location in locations.items():
        authority = authorities[gateway]
        vault = create_vault(
            settings,
            location.names,
            render_release(settings, gateway, locations, authority),
            bucket_of=next(iter(vaults.values()), None),
        )
        vaults[gateway] = vault
        bundle_grants = peer_of(gateway, authorities).bundle_grants(gateway)
        instance = create_instance(settings, location, authority, vault, more_grants=bundle_grants)
        create_alarms(settings, location.names, instance, topic)
        outputs[gateway] = gateway_outputs(location, authority, vault, instance)

    first = GATEWAYS[0]
    export_outputs(settings, vaults[first], outputs[first])
    pulumi.export(StackOutput.PAIR, peer_of(first, outputs))


def peer_of(gateway: str, values: Mapping[str, T]) -> T:
    """Return the value of a gateway's peer. Only here does the program rely on a pair having two gateways."""
    (peer,) = (value for letter, value in values.items() if letter != gateway)
    return peer


def link_of(gateway: str) -> int:
    """Return the number of the link that a gateway serves."""
    return GATEWAYS.index(gateway)


def listener_of(settings: Settings, gateway: str) -> Listener:
    """Return where a gateway serves its link; the links' ports follow each other."""
    return Listener("udp", (settings.tunnel.port + link_of(gateway),))


def routed_networks(
    settings: Settings, gateway: str, ranges: Mapping[str, tuple[IPv4Network, ...]]
) -> tuple[IPv4Network, ...]:
    """Return the networks behind a gateway: its peer's VPC, if hosts of the VPCs reach each other."""
    return reachable_vpc(settings, peer_of(gateway, ranges))


def create_networks(settings: Settings) -> dict[str, Network]:
    """Create each gateway's network."""
    check_account(settings)
    placements = find_placements(settings)
    vpcs = dict(zip(GATEWAYS, settings.vpcs, strict=True))
    ranges = {gateway: list_vpc_ranges(vpc, placements[gateway]) for gateway, vpc in vpcs.items()}
    check_vpc_overlap(settings, dict(zip(SECTIONS, ranges.values(), strict=True)))
    return {
        gateway: create_network(
            settings,
            Names(settings.stack, gateway),
            vpc,
            placements[gateway],
            listener=listener_of(settings, gateway),
            routed=routed_networks(settings, gateway, ranges),
        )
        for gateway, vpc in vpcs.items()
    }


def create_gateway_location(settings: Settings, gateway: str, networks: Mapping[str, Network]) -> Location:
    """Create a gateway's firewall, which lets no tunnel in yet, and its address."""
    ranges = {letter: network.cidrs for letter, network in networks.items()}
    return create_location(
        settings,
        Names(settings.stack, gateway),
        networks[gateway],
        listener=listener_of(settings, gateway),
        routed=routed_networks(settings, gateway, ranges),
        allow_from=(),
        clients_at={},
    )


def connect_to_peer(settings: Settings, gateway: str, locations: Mapping[str, Location]) -> None:
    """Let a gateway's peer in, and route the peer's VPC to the gateway."""
    location, peer = locations[gateway], peer_of(gateway, locations)
    ingress = PeerIngressArgs(
        names=location.names,
        security_group_id=location.firewall.security_group_id,
        listener=listener_of(settings, gateway),
        source=peer.address.public_ip,
    )
    # Deployed stacks have this resource name.
    PeerIngress(location.names.resource("opening"), ingress)
    if destinations := reachable_vpc(settings, peer.network.cidrs):
        create_routes(location, destinations)


def create_link_authority(
    settings: Settings, gateway: str, locations: Mapping[str, Location], secrets_key: pulumi.Input[str] | None
) -> Authority:
    """Create the authority of the link that a gateway serves; its one client is the gateway's peer."""
    location, peer = locations[gateway], peer_of(gateway, locations).names.gateway

    def render_profile(public_ip: str) -> str:
        return pair.render_link_profile(create_bond(settings, peer, locations, remote=public_ip), link_of(gateway))

    profiles = {peer: location.address.public_ip.apply(render_profile)}
    return create_authority(settings, location.names, profiles, secrets_key)


def create_bond(settings: Settings, gateway: str, locations: Mapping[str, Location], *, remote: str) -> Bond:
    """Return the bond of a gateway; `remote` is its peer's public address."""
    tunnel = settings.tunnel
    return pair.create_bond(
        link_of(gateway),
        pool=tunnel.pool,
        port=tunnel.port,
        mode=tunnel.bond or "balance-xor",
        servers=tuple(location.names.server for location in locations.values()),
        remote=remote,
        networks=reachable_vpc(settings, peer_of(gateway, locations).network.cidrs),
        path_mtu=tunnel.path_mtu,
        verb=tunnel.verb,
    )


def render_release(
    settings: Settings, gateway: str, locations: Mapping[str, Location], authority: Authority
) -> pulumi.Output[release.Release]:
    """Return a gateway's release."""
    location, peer = locations[gateway], peer_of(gateway, locations)

    def build(peer_ip: str, revoked: dict[str, dict[str, str]], clients: dict[str, dict[str, str]]) -> release.Release:
        bond = create_bond(settings, gateway, locations, remote=peer_ip)
        bundle = pair.bundle_file(bond, link_of(peer.names.gateway))
        links = release.PairLinks(
            taps=tuple(link.interface for link in bond.links),
            files={**pair.render_gateway_files(bond), **kit.static("links")},
            bundles={bundle: peer.names.bundle(gateway)},
        )
        return release.build(
            pair.create_tunnel(link_of(gateway), bond, reachable_vpc(settings, peer.network.cidrs)),
            admin_from=settings.gateway.admin_from,
            allow_from=(IPv4Network(peer_ip),),
            vpc=reachable_vpc(settings, location.network.cidrs),
            revoked=list_revocations(revoked),
            links=links,
            metrics=settings.gateway.metrics,
            # A half for each, so that the two never restart at once.
            maintenance_window=str(parse_window(settings.gateway.maintenance_window).half(link_of(gateway))),
            clients_end=first_end(settings, clients),
            connection_log=settings.log.days is not None,
        )

    values = pulumi.Output.all(peer.address.public_ip, authority.revoked, authority.clients)
    return values.apply(lambda values: build(*values))
