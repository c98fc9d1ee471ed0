"""One gateway with clients: a stack's settings become components, their outputs the stack's."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

import pulumi

import contract
from components.access import Access, AccessArgs
from components.address import Address, AddressArgs
from components.authority import Authority, AuthorityArgs
from components.domain import Domain, DomainArgs
from components.firewall import Firewall, FirewallArgs
from components.gateway import Gateway, GatewayArgs
from components.kit_user import Member, MemberArgs
from components.network import Network, NetworkArgs
from components.routes import Routes, RoutesArgs
from components.vault import Vault, VaultArgs
from kits import bridge, links, site
from openvpn import bond, lan_bridge
from openvpn.firewall import complement
from openvpn.listener import Listener
from openvpn.model import GLOBAL6, MulticastRange, Tunnel, TunnelClient, TunnelIPv6
from openvpn.profile import render_profile
from openvpn.topology import BondedSegment, BridgedSegment, Routed, Segment, Topology
from settings.checks.overlaps import check_vpc_overlap
from settings.model import Settings
from userdata import cloud_config, release


def deploy(config: Settings) -> None:
    """Declare the stack's resources and outputs."""
    offered = offer(config)
    network = place(config, offered)
    check_vpc_overlap(config, network.cidr)
    tunnel = into(config, offered, network.cidr)
    firewall = guard(config, tunnel, network)
    address = reach(config, tunnel, network, firewall)
    authority = Authority(
        "authority",
        AuthorityArgs(
            names=names(config),
            region=config.region,
            server_name=names(config).server,
            profiles=profiles(config, tunnel, address.public_ip),
            lifetimes=config.lifetimes.model_dump(),
        ),
    )
    vault = supply(config, tunnel, network, firewall, address, authority)
    gateway = machine(config, network, address, authority, vault)
    if config.domain:
        inside = DomainArgs(names=names(config), name=config.domain, vpc_id=network.vpc_id, gateway=address.private_ip)
        Domain("domain", inside)

    pulumi.export("region", config.region)
    pulumi.export("publicIp", address.public_ip)
    pulumi.export("privateIp", address.private_ip)
    pulumi.export("vpcId", network.vpc_id)
    pulumi.export("publicSubnetId", network.public_subnet_id)
    pulumi.export("privateSubnetId", network.private_subnet_id)
    pulumi.export("gatewayInterfaceId", address.interface_id)
    pulumi.export("gatewayInstanceId", gateway.instance_id)
    pulumi.export("securityGroupId", firewall.security_group_id)
    pulumi.export("bucket", vault.bucket)
    pulumi.export("release", vault.release)
    pulumi.export("clients", authority.clients)


def place(config: Settings, tunnel: Tunnel) -> Network:
    """Make or adopt the VPC."""
    doors = config.gateway
    args = NetworkArgs(
        names=names(config),
        region=config.region,
        **config.network.model_dump(exclude={"domain"}),
        port=tunnel.listener.ports[0],
        protocol=tunnel.listener.protocol,
        links=len(tunnel.listener.ports),
        ssh=bool(doors.admin_from or doors.admin_at),
        behind=tunnel.vpc_routes,
        ipv6=config.tunnel.has_ipv6,
        opened6=config.tunnel.open_to,
        announced=config.tunnel.advertised,
    )
    return Network("network", args)


def guard(config: Settings, tunnel: Tunnel, network: Network) -> Firewall:
    """Make the security group."""
    args = FirewallArgs(
        names=names(config),
        vpc_id=network.vpc_id,
        port=tunnel.listener.ports[0],
        protocol=tunnel.listener.protocol,
        links=len(tunnel.listener.ports),
        admin_from=config.gateway.admin_from,
        admin_at=config.gateway.admin_at,
        allow_from=config.gateway.allow_from,
        clients_at=clients_at(config),
        forwards_for=(network.cidr,) if tunnel.vpc_routes else (),
        ipv6=config.tunnel.has_ipv6,
        opened6=config.tunnel.open_to,
    )
    return Firewall("firewall", args)


def reach(config: Settings, tunnel: Tunnel, network: Network, firewall: Firewall) -> Address:
    """Make the gateway's interface and public address, and the routes that lead to networks behind it."""
    advertised, prefix = config.tunnel.advertised, config.gateway.ipv6_prefix
    args = AddressArgs(
        names=names(config),
        subnet_id=network.public_subnet_id,
        security_group_id=firewall.security_group_id,
        source_dest_check=not (tunnel.vpc_routes or config.tunnel.has_ipv6),
        ipv6=config.tunnel.has_ipv6,
        delegated=not advertised,
        ipv6_prefix=str(prefix) if prefix else None,
        after=[network],
    )
    address = Address("address", args)
    routes = RoutesArgs(
        tables=network.route_tables,
        interface_id=address.interface_id,
        destinations=tunnel.vpc_routes,
        edge=network.edge,
        destination6=network.announced6 if advertised else None,
    )
    Routes("routes", routes)
    return address


def supply(
    config: Settings,
    tunnel: Tunnel,
    network: Network,
    firewall: Firewall,
    address: Address,
    authority: Authority,
) -> Vault:
    """Put the gateway's release and the clients' kits where they fetch them, and let each client to its own."""
    prefix6 = network.announced6 if config.tunnel.advertised else address.ipv6_prefix
    whole = pulumi.Output.all(prefix6, network.cidr6).apply(lambda known: dual(config, tunnel, *known))
    # An address that moves is known to the security group alone.
    beyond = complement(network.cidr, *tunnel.sources)
    admin_from = beyond if config.gateway.admin_at else config.gateway.admin_from
    allow_from = beyond if clients_at(config) else config.gateway.allow_from
    vpc = reached(config, network.cidr)

    def build(made: Tunnel, revoked: dict[str, str]) -> release.Release:
        return release.build(made, admin_from=admin_from, allow_from=allow_from, vpc=vpc, revoked=revoked)

    kits = {client.name: kit_of(config, client, tunnel, whole, firewall) for client in sites(config, tunnel)}
    kits |= {name: bond_kit(config, name, tunnel, address.public_ip) for name in bonded(tunnel)}
    args = VaultArgs(
        names=names(config),
        region=config.region,
        release=pulumi.Output.all(whole, authority.revoked).apply(lambda known: build(*known)),
        throw_away=config.disposable,
        kits=kits,
    )
    vault = Vault("vault", args)
    for name in kits:
        rule = firewall.doors.get(name)
        door = (firewall.security_group_arn, rule.arn) if rule else None
        member = MemberArgs(names=names(config), region=config.region, client=name, bucket=vault.bucket_arn, door=door)
        Member(f"member-{name}", member)
    return vault


def machine(config: Settings, network: Network, address: Address, authority: Authority, vault: Vault) -> Gateway:
    """Make the instance, and the role by which it reads what is its own."""
    role = AccessArgs(
        names=names(config),
        region=config.region,
        secrets=authority.secrets_arn,
        bucket=vault.bucket_arn,
        pointer=vault.pointer_arn,
        report=vault.report_arn,
    )
    access = Access("access", role)
    args = GatewayArgs(
        names=names(config),
        **config.gateway.model_dump(include={"instance_type", "image", "disk_size"}),
        user_data=cloud_config.render(names=names(config), region=config.region, ssh_key=config.gateway.ssh_key),
        interface_id=address.interface_id,
        profile=access.profile,
        after=[network, address, vault, access],
    )
    return Gateway("gateway", args)


def names(config: Settings) -> contract.Names:
    """Return the names of the gateway."""
    return contract.Names(config.stack)


def clients_at(config: Settings) -> dict[str, IPv4Address]:
    """Return the public addresses of clients that the tunnel is open to one by one."""
    return {client.name: client.at for client in config.clients if client.at}


def reached(config: Settings, vpc: IPv4Network) -> tuple[IPv4Network, ...]:
    """Return what clients reach of the VPC: its range, or nothing."""
    return (vpc,) if config.tunnel.vpc else ()


def offer(config: Settings) -> Tunnel:
    """Return what the settings say of the tunnel and its clients."""
    others = {"at", "lines", "bridge"}
    clients = tuple(TunnelClient(**c.model_dump(exclude=others)) for c in config.clients)
    groups = tuple(MulticastRange(group=one.group, ports=one.ports) for one in config.tunnel.multicast)
    values = config.tunnel.model_dump(
        exclude={"vpc", "multicast", "redirect", "ipv6", "open_to", "port", "protocol", "links", "device", "bond"}
    )
    values["topology"] = topology_of(config)
    values["listener"] = Listener.consecutive(config.tunnel.protocol, config.tunnel.port, config.tunnel.links)
    if config.tunnel.links > 1:
        # A host has to know within seconds that a link is gone: the other one is there.
        values |= {"keepalive": (1, 5), "mtu": bond.MTU}
    if any(client.bridge for client in config.clients):
        values["mtu"] = lan_bridge.MTU
    return Tunnel(**values, multicast=groups, redirect=config.tunnel.redirect == "all", clients=clients)


def topology_of(config: Settings) -> Topology:
    """Return what the settings make of the tunnel: a routed network, or which kind of segment."""
    if config.tunnel.device == "tun":
        return Routed()
    if config.tunnel.links > 1:
        return BondedSegment(config.tunnel.bond or "balance-alb")
    bridge = next((client for client in config.clients if client.bridge), None)
    return BridgedSegment(bridge.name, bridge.lan[0]) if bridge else Segment()


def into(config: Settings, tunnel: Tunnel, vpc: IPv4Network) -> Tunnel:
    """Return the tunnel with what it gives clients of the VPC: routes, and its names."""
    found = reached(config, vpc)
    # The VPC's resolver (its base plus two) answers the VPC alone, and so those who are translated into it.
    resolver = vpc[2] if config.domain and found and tunnel.nat else None
    return replace(tunnel, routes=(*found, *tunnel.routes), domain=config.domain, resolver=resolver)


def dual(config: Settings, tunnel: Tunnel, prefix: str | None, vpc: str | None) -> Tunnel:
    """Return the tunnel with the IPv6 it has once AWS has chosen a prefix and the VPC's range."""
    if prefix is None or vpc is None:
        return tunnel
    chosen = config.tunnel.ipv6
    pool = chosen if isinstance(chosen, IPv6Network) else IPv6Network(prefix)
    reached = (IPv6Network(vpc),) if config.tunnel.vpc else ()
    everywhere = config.tunnel.redirect != "none"
    ipv6 = TunnelIPv6(
        pool=pool,
        routes=(GLOBAL6,) if everywhere else reached,
        open_to=config.tunnel.open_to,
        advertised=config.tunnel.advertised,
        default_router=everywhere,
    )
    return replace(tunnel, ipv6=ipv6)


def sites(config: Settings, tunnel: Tunnel) -> list[TunnelClient]:
    """Return the clients that route for a LAN, or keep the way in for their own address open, by a kit (for Debian)."""
    moving = clients_at(config)
    linux = [client for client in tunnel.clients if client.system == "linux"]
    return [client for client in linux if client.lan or client.name in moving]


def kit_of(
    config: Settings, client: TunnelClient, tunnel: Tunnel, whole: pulumi.Output[Tunnel], firewall: Firewall
) -> pulumi.Output[bytes]:
    """Return a site's or a bridge's kit; it names the one rule of the security group that follows its address."""
    told = next(one.bridge for one in config.clients if one.name == client.name)
    rule, what = firewall.doors.get(client.name), contract.rule_for(client.name)
    of_rule = {"GROUP": firewall.security_group_id, "RULE": rule.security_group_rule_id} if rule else {}
    known = {"PROTOCOL": tunnel.listener.protocol, "PORT": str(tunnel.listener.ports[0]), "FOLLOWS": what}
    door = pulumi.Output.all(**of_rule, **known) if rule else None
    here = {"stack": config.stack, "region": config.region}

    def kit(found: list[Any]) -> bytes:
        if told:
            return bridge.build(client, found[0], lan_bridge.BridgeHost(**told.model_dump()), **here, door=found[1])
        return site.build(client, tunnel, **here, door=found[1])

    return pulumi.Output.all(whole, door).apply(kit)


def bonded(tunnel: Tunnel) -> list[str]:
    """Return the clients that hold their address over several links."""
    return [client.name for client in tunnel.clients] if isinstance(tunnel.topology, BondedSegment) else []


def bond_kit(config: Settings, name: str, tunnel: Tunnel, ip: pulumi.Output[str]) -> pulumi.Output[bytes]:
    """Return the kit of a bonded host, the gateway's public address in it."""
    lines = next(client.lines for client in config.clients if client.name == name)

    def kit(address: str) -> bytes:
        made = bond.create_segment_bond(tunnel, name, remote=address, server_name=names(config).server, uplinks=lines)
        return links.build(made, stack=config.stack, region=config.region, bundles={name: name})

    return ip.apply(kit)


def profiles(config: Settings, tunnel: Tunnel, ip: pulumi.Output[str]) -> dict[str, pulumi.Output[str]]:
    """Return each client's profile by its name, the gateway's public address in it."""

    def profile(name: str) -> pulumi.Output[str]:
        return ip.apply(lambda address: render_profile(tunnel, address, names(config).server, name))

    return {client.name: profile(client.name) for client in tunnel.clients}
