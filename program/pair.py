"""A pair as a program: two gateways in two VPCs, each server of one link and client of the other.

The first has the names that every stack's gateway has, the second those of `contract.SECOND` beside them; what the two
share is the bucket.
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
from settings.model import Pair, Settings, Vpc
from settings.parse import check_vpc_overlap
from userdata import cloud_config, release

ENDS = ("", contract.SECOND)


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
    for number, end in enumerate(ENDS):
        here, there = places[number], places[1 - number]
        opening = OpeningArgs(
            stack=config.stack,
            security_group_id=here.group,
            port=config.tunnel.port + number,
            source=there.address.public_ip,
            end=end,
        )
        Opening(contract.at(end, "opening"), opening)
        if config.tunnel.vpc:
            tables, to = here.network.route_tables, (there.network.cidr,)
            routes = RoutesArgs(tables=tables, interface_id=here.address.interface_id, destinations=to)
            Routes(contract.at(end, "routes"), routes)
    authorities = [authority(config, number, places) for number in (0, 1)]
    first: Vault | None = None
    for number, end in enumerate(ENDS):
        vault, outputs = gateway(config, number, places, authorities, first)
        first = first or vault
        if end:
            pulumi.export(contract.SECOND_OUTPUT, outputs)
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
    end, machine, tunnel = ENDS[number], config.gateway, config.tunnel
    behind = (other,) if tunnel.vpc else ()
    common: dict[str, Any] = {"stack": config.stack, "end": end}
    made = NetworkArgs(
        **common,
        **vpc.model_dump(exclude={"domain"}),
        region=config.region,
        port=tunnel.port + number,
        ssh=bool(machine.admin_from),
        behind=behind,
    )
    network = Network(contract.at(end, "network"), made)
    firewall = Firewall(
        contract.at(end, "firewall"),
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
    return Place(network, group, Address(contract.at(end, "address"), address))


def server(config: Settings, number: int) -> str:
    """Return the common name of a gateway's server certificate."""
    return ".".join(filter(None, (ENDS[number], config.stack, "drawbridge")))


def bond(config: Settings, number: int, places: list[Place], remote: str) -> Bond:
    """Return the bond of a gateway, `remote` being the other one's public address."""
    tunnel = config.tunnel
    return pair.bond(
        number,
        pool=tunnel.pool,
        port=tunnel.port,
        mode=tunnel.bond or "balance-xor",
        servers=(server(config, 0), server(config, 1)),
        remote=remote,
        networks=(places[1 - number].network.cidr,) if tunnel.vpc else (),
        verb=tunnel.verb,
    )


def authority(config: Settings, number: int, places: list[Place]) -> Authority:
    """Make the authority of the link that a gateway serves; its one client is the other gateway."""
    other = 1 - number
    remote = places[number].address.public_ip
    profile = remote.apply(lambda ip: pair.profile(bond(config, other, places, ip), number))
    made = AuthorityArgs(
        stack=config.stack,
        end=ENDS[number],
        region=config.region,
        server_name=server(config, number),
        profiles={pair.NAMES[other]: profile},
        lifetimes=config.lifetimes.model_dump(),
    )
    return Authority(contract.at(ENDS[number], "authority"), made)


def gateway(
    config: Settings, number: int, places: list[Place], authorities: list[Authority], first: Vault | None
) -> tuple[Vault, dict[str, pulumi.Input[Any]]]:
    """Make a gateway and what it runs on; return its vault, and its outputs."""
    end, other, machine = ENDS[number], 1 - number, config.gateway
    here, there, own = places[number], places[other], authorities[number]
    common: dict[str, Any] = {"stack": config.stack, "region": config.region, "end": end}
    reached = (here.network.cidr,) if config.tunnel.vpc else ()

    def build(remote: str, revoked: dict[str, str]) -> release.Release:
        made = bond(config, number, places, remote)
        bundle = contract.Names(config.stack, ENDS[other]).bundle(pair.NAMES[number])
        links = release.Links(
            taps=tuple(link.interface for link in made.links),
            files={**pair.files(made), **kit.static("links")},
            bundles={pair.bundle(made, other): bundle},
        )
        return release.build(
            pair.tunnel(number, made, (there.network.cidr,) if config.tunnel.vpc else ()),
            admin_from=machine.admin_from,
            allow_from=(IPv4Network(remote),),
            vpc=reached,
            revoked=revoked,
            links=links,
        )

    built = pulumi.Output.all(there.address.public_ip, own.revoked).apply(lambda known: build(*known))
    vault_args = VaultArgs(**common, release=built, throw_away=config.throw_away, within=first)
    vault = Vault(contract.at(end, "vault"), vault_args)
    access_args = AccessArgs(
        **common,
        secrets=own.secrets_arn,
        bucket=vault.bucket_arn,
        pointer=vault.pointer_arn,
        report=vault.report_arn,
        bundles=[authorities[other].bundle_arns[pair.NAMES[number]]],
    )
    access = Access(contract.at(end, "access"), access_args)
    user_data = cloud_config.render(**common, ssh_key=machine.ssh_key)
    gateway_args = GatewayArgs(
        **machine.model_dump(include={"instance_type", "image", "disk_size"}),
        stack=config.stack,
        end=end,
        interface_id=here.address.interface_id,
        profile=access.profile,
        user_data=user_data,
        after=[here.network, here.address, vault, access],
    )
    made = Gateway(contract.at(end, "gateway"), gateway_args)
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
