"""The program: a stack's settings become components, their outputs the stack's."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Network
from typing import Any

import pulumi

import contract
import pair
import settings
from components.access import Access, AccessArgs
from components.address import Address, AddressArgs
from components.authority import Authority, AuthorityArgs
from components.domain import Domain, DomainArgs
from components.firewall import Firewall, FirewallArgs
from components.gateway import Gateway, GatewayArgs
from components.member import Member, MemberArgs
from components.network import Network, NetworkArgs
from components.routes import Routes, RoutesArgs
from components.vault import Vault, VaultArgs
from kits import bridge, links, site
from openvpn import bond, lan
from openvpn.client import render_profile
from openvpn.model import GLOBAL6, Client, Multicast, Tunnel
from openvpn.site import outside
from userdata import cloud_config, release


def deploy(config: settings.Settings) -> None:
    """Declare the stack's resources and outputs."""
    stack, region, machine = config.stack, config.region, config.gateway
    here: dict[str, Any] = {"stack": stack, "region": region}
    doors = {"admin_from": machine.admin_from, "allow_from": machine.allow_from}
    clients_at = {client.name: client.at for client in config.clients if client.at}
    moving = {"admin_at": machine.admin_at, "clients_at": clients_at}
    user_data = cloud_config.render(**here, ssh_key=machine.ssh_key)
    tunnel = offer(config)
    routed, listens = tunnel.routed, {key: getattr(tunnel, key) for key in ("port", "protocol", "links")}
    six: dict[str, Any] = {"ipv6": config.tunnel.ipv6 != "none", "opened6": config.tunnel.open_to}

    place = {
        **config.network.model_dump(exclude={"domain"}),
        **listens,
        "ssh": bool(machine.admin_from or machine.admin_at),
        "behind": routed,
        **six,
    }
    announced = config.tunnel.ipv6 == "advertised"
    network = Network("network", NetworkArgs(**here, **place, announced=announced))
    config.refuse_clash(network.cidr)
    reached = (network.cidr,) if config.tunnel.vpc else ()
    # The VPC's resolver (its base plus two) answers the VPC alone, and so those who are translated into it.
    resolver = network.cidr[2] if config.domain and reached and tunnel.nat else None
    tunnel = replace(tunnel, routes=(*reached, *tunnel.routes), domain=config.domain, resolver=resolver)
    forwards_for = (network.cidr,) if routed else ()
    around: dict[str, Any] = {
        "vpc_id": network.vpc_id,
        **listens,
        "forwards_for": forwards_for,
        **doors,
        **moving,
        **six,
    }
    firewall = Firewall("firewall", FirewallArgs(stack=stack, **around))
    group = firewall.security_group_id
    ends: dict[str, Any] = {"subnet_id": network.public_subnet_id, "security_group_id": group, "ipv6": six["ipv6"]}
    ends |= {"delegated": not announced, "ipv6_prefix": machine.ipv6_prefix and str(machine.ipv6_prefix)}
    checked = not (routed or six["ipv6"])
    address = Address("address", AddressArgs(stack=stack, **ends, source_dest_check=checked, after=[network]))
    interface = address.interface_id
    whole: dict[str, Any] = {"edge": network.edge, "destination6": network.announced6 if announced else None}
    Routes("routes", RoutesArgs(tables=network.route_tables, interface_id=interface, destinations=routed, **whole))

    server = f"{stack}.drawbridge"
    lifetimes, profiles = config.lifetimes.model_dump(), profiles_of(tunnel, address.public_ip, server)
    authority_args = AuthorityArgs(**here, server_name=server, profiles=profiles, lifetimes=lifetimes)
    authority = Authority("authority", authority_args)
    # An address that moves is known to the security group alone.
    beyond = outside(network.cidr, *tunnel.sources)
    filtered: dict[str, Any] = {
        "admin_from": beyond if machine.admin_at else machine.admin_from,
        "allow_from": beyond if clients_at else machine.allow_from,
    }
    prefix6 = network.announced6 if announced else address.ipv6_prefix
    known = pulumi.Output.all(prefix6, network.cidr6)
    offered = known.apply(lambda k: dual(config, tunnel, *k))
    built = pulumi.Output.all(offered, authority.revoked)
    made = built.apply(lambda b: release.build(b[0], **filtered, vpc=reached, revoked=b[1]))
    kits = {
        name: kit_of(config, client, tunnel, offered, firewall, here)
        for name, client in sites(tunnel, clients_at).items()
    }
    kits |= {name: bond_kit(config, name, tunnel, address.public_ip, server, here) for name in bonded(tunnel)}
    vault = Vault("vault", VaultArgs(**here, release=made, throw_away=config.throw_away, kits=kits))
    for name in kits:
        rule = firewall.doors.get(name)
        door = (firewall.security_group_arn, rule.arn) if rule else None
        Member(f"member-{name}", MemberArgs(**here, client=name, bucket=vault.bucket_arn, door=door))
    secrets, bucket, pointer, report = authority.secrets_arn, vault.bucket_arn, vault.pointer_arn, vault.report_arn
    access_args = AccessArgs(**here, secrets=secrets, bucket=bucket, pointer=pointer, report=report)
    access = Access("access", access_args)
    after = [network, address, vault, access]
    box = {**machine.model_dump(include={"instance_type", "image", "disk_size"}), "user_data": user_data}
    gateway_args = GatewayArgs(**box, stack=stack, interface_id=interface, profile=access.profile, after=after)
    gateway = Gateway("gateway", gateway_args)
    if config.domain:
        inside = {"vpc_id": network.vpc_id, "gateway": address.private_ip}
        Domain("domain", DomainArgs(stack=stack, name=config.domain, **inside))

    pulumi.export("region", region)
    pulumi.export("publicIp", address.public_ip)
    pulumi.export("privateIp", address.private_ip)
    pulumi.export("vpcId", network.vpc_id)
    pulumi.export("publicSubnetId", network.public_subnet_id)
    pulumi.export("privateSubnetId", network.private_subnet_id)
    pulumi.export("gatewayInterfaceId", interface)
    pulumi.export("gatewayInstanceId", gateway.instance_id)
    pulumi.export("securityGroupId", group)
    pulumi.export("bucket", vault.bucket)
    pulumi.export("release", vault.release)
    pulumi.export("clients", authority.clients)


def offer(config: settings.Settings) -> Tunnel:
    """Return what the settings say of the tunnel and its clients."""
    others = {"at", "lines", "bridge"}
    clients = tuple(Client(**c.model_dump(exclude=others), bridge=bool(c.bridge)) for c in config.clients)
    groups = tuple(Multicast(group=one.group, ports=one.ports) for one in config.tunnel.multicast)
    values = config.tunnel.model_dump(exclude={"vpc", "multicast", "redirect", "ipv6", "open_to"})
    if config.tunnel.links > 1:
        # A host has to know within seconds that a link is gone: the other one is there.
        values |= {"keepalive": (1, 5), "mtu": bond.MTU}
    if any(client.bridge for client in config.clients):
        values["mtu"] = lan.MTU
    return Tunnel(**values, multicast=groups, redirect=config.tunnel.redirect == "all", clients=clients)


def dual(config: settings.Settings, tunnel: Tunnel, prefix: str | None, vpc: str | None) -> Tunnel:
    """Return the tunnel with the IPv6 it has once AWS has chosen a prefix and the VPC's range."""
    if prefix is None or vpc is None:
        return tunnel
    chosen = config.tunnel.ipv6
    pool = chosen if isinstance(chosen, IPv6Network) else IPv6Network(prefix)
    reached = (IPv6Network(vpc),) if config.tunnel.vpc else ()
    everywhere = config.tunnel.redirect != "none"
    values: dict[str, Any] = {"pool6": pool, "routes6": (GLOBAL6,) if everywhere else reached}
    announced: dict[str, Any] = {"advertised": chosen == "advertised", "default6": everywhere}
    return replace(tunnel, opened6=config.tunnel.open_to, **values, **announced)


def sites(tunnel: Tunnel, clients_at: Mapping[str, IPv4Address]) -> dict[str, Client]:
    """Return the clients that route for a LAN, or keep the way in for their own address open."""
    return {client.name: client for client in tunnel.clients if client.lan or client.name in clients_at}


def kit_of(
    config: settings.Settings,
    client: Client,
    tunnel: Tunnel,
    offered: pulumi.Output[Tunnel],
    firewall: Firewall,
    here: dict[str, Any],
) -> pulumi.Output[bytes]:
    """Return a site's or a bridge's kit; it names the one rule of the security group that follows its address."""
    told = next(one.bridge for one in config.clients if one.name == client.name)
    rule, what = firewall.doors.get(client.name), contract.door(client.name)
    of_rule = {"GROUP": firewall.security_group_id, "RULE": rule.security_group_rule_id} if rule else {}
    known = {"PROTOCOL": tunnel.protocol, "PORT": str(tunnel.port), "DOOR": what}
    door = pulumi.Output.all(**of_rule, **known) if rule else None

    def kit(found: list[Any]) -> bytes:
        if told:
            return bridge.build(client, found[0], lan.Host(**told.model_dump()), **here, door=found[1])
        return site.build(client, tunnel, **here, door=found[1])

    return pulumi.Output.all(offered, door).apply(kit)


def bonded(tunnel: Tunnel) -> list[str]:
    """Return the clients that hold their address over several links."""
    return [client.name for client in tunnel.clients] if tunnel.links > 1 else []


def bond_kit(
    config: settings.Settings, name: str, tunnel: Tunnel, ip: pulumi.Output[str], server: str, here: dict[str, Any]
) -> pulumi.Output[bytes]:
    """Return the kit of a bonded host, the gateway's public address in it."""
    lines = next(client.lines for client in config.clients if client.name == name)

    def kit(address: str) -> bytes:
        made = bond.of_segment(tunnel, name, remote=address, server_name=server, lines=lines)
        return links.build(made, **here, bundles={name: name})

    return ip.apply(kit)


def profiles_of(tunnel: Tunnel, ip: pulumi.Output[str], server: str) -> dict[str, pulumi.Output[str]]:
    """Return each client's profile by its name, the gateway's public address in it."""

    def profile(name: str) -> pulumi.Output[str]:
        return ip.apply(lambda address: render_profile(tunnel, address, server, name))

    return {client.name: profile(client.name) for client in tunnel.clients}


try:
    found = settings.load()
    (pair.deploy if found.pair else deploy)(found)
except (settings.SettingsError, cloud_config.UserDataError) as error:
    raise pulumi.RunError(str(error)) from None
