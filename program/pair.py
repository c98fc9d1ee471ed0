"""A pair as a program: two gateways in two VPCs, each server of one link and client of the other.

Each has its own `contract.Names`; the two share the bucket.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

import pulumi

import contract
from components.access import Access, AccessArgs
from components.address import Address, AddressArgs
from components.authority import Authority, AuthorityArgs
from components.firewall import Firewall, FirewallArgs
from components.gateway import Gateway, GatewayArgs
from components.network import Network, NetworkArgs
from components.peer_ingress import Opening, OpeningArgs
from components.routes import Routes, RoutesArgs
from components.vault import Vault, VaultArgs
from kits import kit
from openvpn import pair
from openvpn.bond import Bond
from settings.checks.overlaps import check_vpc_overlap
from settings.model import Pair, Settings, Vpc
from userdata import cloud_config, release

ENDS = contract.GATEWAYS


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway is."""

    network: Network
    group: pulumi.Output[str]
    address: Address


def deploy(config: Settings) -> None:
    """Declare the stack's resources and outputs."""
    places = found(config)
    check_vpc_overlap(config, places[0].network.cidr, places[1].network.cidr)
    for number in range(len(ENDS)):
        here, there = places[number], places[1 - number]
        opening = OpeningArgs(
            names=names(config, number),
            security_group_id=here.group,
            port=config.tunnel.port + number,
            source=there.address.public_ip,
        )
        Opening(names(config, number).resource("opening"), opening)
        if config.tunnel.vpc:
            tables, to = here.network.route_tables, (there.network.cidr,)
            routes = RoutesArgs(tables=tables, interface_id=here.address.interface_id, destinations=to)
            Routes(names(config, number).resource("routes"), routes)
    authorities = [authority(config, number, places) for number in (0, 1)]
    first: Vault | None = None
    for number in range(len(ENDS)):
        vault, outputs = gateway(config, number, places, authorities, first)
        first = first or vault
        if number:
            pulumi.export(contract.StackOutput.PAIR, outputs)
        else:
            for key, value in {"region": config.region, **outputs, "bucket": vault.bucket}.items():
                pulumi.export(key, value)


def found(config: Settings) -> list[Place]:
    """Make both gateways' places; an existing VPC comes first, because only AWS knows its range."""
    both: tuple[Vpc, ...] = (config.network, config.pair or Pair())
    ranges, made = [vpc.cidr for vpc in both], dict[int, Place]()
    for number in sorted((0, 1), key=lambda n: both[n].vpc_id is None):
        made[number] = place(config, number, both[number], ranges[1 - number])
        ranges[number] = made[number].network.cidr
    return [made[0], made[1]]


def place(config: Settings, number: int, vpc: Vpc, other: IPv4Network) -> Place:
    """Make a gateway's network, and its address in there; `other` is the range of the other gateway's VPC."""
    machine, tunnel = config.gateway, config.tunnel
    behind = (other,) if tunnel.vpc else ()
    common: dict[str, Any] = {"names": names(config, number)}
    made = NetworkArgs(
        **common,
        **vpc.model_dump(exclude={"domain"}),
        region=config.region,
        port=tunnel.port + number,
        ssh=bool(machine.admin_from),
        behind=behind,
    )
    network = Network(names(config, number).resource("network"), made)
    firewall = Firewall(
        names(config, number).resource("firewall"),
        FirewallArgs(
            **common,
            vpc_id=network.vpc_id,
            port=tunnel.port + number,
            admin_from=machine.admin_from,
            allow_from=(),
            forwards_for=(network.cidr,) if tunnel.vpc else (),
        ),
    )
    group = firewall.security_group_id
    reached: dict[str, Any] = {"subnet_id": network.public_subnet_id, "security_group_id": group}
    address = AddressArgs(**common, **reached, source_dest_check=not tunnel.vpc, after=[network])
    return Place(network, group, Address(names(config, number).resource("address"), address))


def names(config: Settings, number: int) -> contract.Names:
    """Return the names of a gateway."""
    return contract.Names(config.stack, ENDS[number])


def bond(config: Settings, number: int, places: list[Place], remote: str) -> Bond:
    """Return the bond of a gateway, `remote` being the other one's public address."""
    tunnel = config.tunnel
    return pair.create_bond(
        number,
        pool=tunnel.pool,
        port=tunnel.port,
        mode=tunnel.bond or "balance-xor",
        servers=(names(config, 0).server, names(config, 1).server),
        remote=remote,
        networks=(places[1 - number].network.cidr,) if tunnel.vpc else (),
        verb=tunnel.verb,
    )


def authority(config: Settings, number: int, places: list[Place]) -> Authority:
    """Make the authority of the link that a gateway serves; its one client is the other gateway."""
    other = 1 - number
    remote = places[number].address.public_ip
    profile = remote.apply(lambda ip: pair.render_link_profile(bond(config, other, places, ip), number))
    made = AuthorityArgs(
        names=names(config, number),
        region=config.region,
        server_name=names(config, number).server,
        profiles={pair.NAMES[other]: profile},
        lifetimes=config.lifetimes.model_dump(),
    )
    return Authority(names(config, number).resource("authority"), made)


def gateway(
    config: Settings, number: int, places: list[Place], authorities: list[Authority], first: Vault | None
) -> tuple[Vault, dict[str, pulumi.Input[Any]]]:
    """Make a gateway and what it runs on; return its vault, and its outputs."""
    other, machine = 1 - number, config.gateway
    here, there, own = places[number], places[other], authorities[number]
    common: dict[str, Any] = {"names": names(config, number), "region": config.region}
    reached = (here.network.cidr,) if config.tunnel.vpc else ()

    def build(remote: str, revoked: dict[str, str]) -> release.Release:
        made = bond(config, number, places, remote)
        bundle = names(config, other).bundle(pair.NAMES[number])
        links = release.PairLinks(
            taps=tuple(link.interface for link in made.links),
            files={**pair.render_gateway_files(made), **kit.static("links")},
            bundles={pair.bundle_file(made, other): bundle},
        )
        return release.build(
            pair.create_tunnel(number, made, (there.network.cidr,) if config.tunnel.vpc else ()),
            admin_from=machine.admin_from,
            allow_from=(IPv4Network(remote),),
            vpc=reached,
            revoked=revoked,
            links=links,
        )

    built = pulumi.Output.all(there.address.public_ip, own.revoked).apply(lambda known: build(*known))
    vault_args = VaultArgs(**common, release=built, throw_away=config.disposable, within=first)
    vault = Vault(names(config, number).resource("vault"), vault_args)
    access_args = AccessArgs(
        **common,
        secrets=own.secrets_arn,
        bucket=vault.bucket_arn,
        pointer=vault.pointer_arn,
        report=vault.report_arn,
        bundles=[authorities[other].bundle_arns[pair.NAMES[number]]],
    )
    access = Access(names(config, number).resource("access"), access_args)
    user_data = cloud_config.render(**common, ssh_key=machine.ssh_key)
    gateway_args = GatewayArgs(
        **machine.model_dump(include={"instance_type", "image", "disk_size"}),
        names=names(config, number),
        interface_id=here.address.interface_id,
        profile=access.profile,
        user_data=user_data,
        after=[here.network, here.address, vault, access],
    )
    made = Gateway(names(config, number).resource("gateway"), gateway_args)
    return vault, {
        "publicIp": here.address.public_ip,
        "privateIp": here.address.private_ip,
        "vpcId": here.network.vpc_id,
        "publicSubnetId": here.network.public_subnet_id,
        "privateSubnetId": here.network.private_subnet_id,
        "gatewayInterfaceId": here.address.interface_id,
        "gatewayInstanceId": made.instance_id,
        "securityGroupId": here.group,
        "release": vault.release,
        "clients": own.clients,
    }
