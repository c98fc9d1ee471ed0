"""Turn a stack's settings into the values that OpenVPN's files are rendered from."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from openvpn import bond, lan_bridge
from openvpn.listener import Listener
from openvpn.model import GLOBAL6, MulticastRange, Tunnel, TunnelClient, TunnelIPv6
from openvpn.topology import BondedSegment, BridgedSegment, Routed, Segment, Topology
from settings import model
from settings.model import Settings

#: Seconds between pings, and of silence until a bonded host gives a link up: its other link can take over at once.
BONDED_KEEPALIVE = (1, 5)


def tunnel_from_settings(settings: Settings) -> Tunnel:
    """Return the tunnel and its clients, without what depends on the VPC.

    A number of processes that depends on the instance type must be known before (`program.preflight.choose_processes`).
    """
    section = settings.tunnel
    tunnel = Tunnel(
        topology=topology_from_settings(settings),
        listener=replace(
            Listener.consecutive(section.protocol, section.port, section.links),
            sharing=1 if settings.gateway.processes == "auto" else settings.gateway.processes,
        ),
        pool=section.pool,
        routes=section.routes,
        nat=section.nat,
        client_to_client=section.client_to_client,
        multicast=tuple(MulticastRange(group=entry.group, ports=entry.ports) for entry in section.multicast),
        broadcasts=section.broadcasts,
        multicasts=section.multicasts,
        clients_per_address=section.clients_per_address,
        redirect=section.redirect == "all",
        clients=tuple(client_from_settings(client) for client in settings.clients),
        keepalive=section.keepalive,
        path_mtu=section.path_mtu,
        data_channel_offload=section.data_channel_offload,
        verb=section.verb,
    )
    match tunnel.topology:
        case BondedSegment():
            return replace(tunnel, keepalive=BONDED_KEEPALIVE, fixed_mtu=bond.MTU)
        case BridgedSegment():
            return replace(tunnel, fixed_mtu=lan_bridge.MTU)
        case _:
            return tunnel


def topology_from_settings(settings: Settings) -> Topology:
    """Return what the tunnel is: a routed network, or a segment of one kind."""
    section = settings.tunnel
    if section.device == "tun":
        return Routed()
    if section.links > 1:
        return BondedSegment(section.bond or "balance-alb")
    bridge = next((client for client in settings.clients if client.bridge), None)
    return BridgedSegment(bridge.name, bridge.lan[0]) if bridge else Segment()


def client_from_settings(client: model.Client) -> TunnelClient:
    """Return a client of the tunnel."""
    return TunnelClient(
        name=client.name,
        address=client.address,
        lan=client.lan,
        reachable=client.reachable,
        address6=client.address6,
        system=client.system,
        mac=client.mac,
    )


def with_vpc_routes(tunnel: Tunnel, settings: Settings, vpc: tuple[IPv4Network, ...]) -> Tunnel:
    """Return the tunnel with clients' routes to the VPC and its domain; `vpc` has the VPC's ranges."""
    routes = reachable_vpc(settings, vpc)
    # The VPC's resolver (the primary range's base plus two) answers only the VPC, so clients' addresses must be
    # translated.
    needs_resolver = settings.domain is not None or tunnel.redirect
    resolver = vpc[0][2] if needs_resolver and routes and tunnel.nat else None
    return replace(tunnel, routes=(*routes, *tunnel.routes), domain=settings.domain, resolver=resolver)


def with_ipv6(tunnel: Tunnel, settings: Settings, prefix: str | None, vpc: str | None) -> Tunnel:
    """Return the tunnel with IPv6, or without if either range is None.

    `prefix` is the range that AWS has chosen for clients, `vpc` the VPC's IPv6 range.
    """
    if prefix is None or vpc is None:
        return tunnel
    section = settings.tunnel
    redirected = section.redirect != "none"
    routes = (GLOBAL6,) if redirected else (IPv6Network(vpc),) if section.vpc else ()
    ipv6 = TunnelIPv6(
        pool=section.ipv6 if isinstance(section.ipv6, IPv6Network) else IPv6Network(prefix),
        routes=routes,
        open_to=section.open_to,
        advertised=section.advertised,
        default_router=redirected,
    )
    return replace(tunnel, ipv6=ipv6)


def reachable_vpc(settings: Settings, vpc: tuple[IPv4Network, ...]) -> tuple[IPv4Network, ...]:
    """Return the ranges of the VPC that clients may reach: the whole VPC, or none."""
    return vpc if settings.tunnel.vpc else ()
