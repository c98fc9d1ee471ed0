"""Render the kits of clients' own machines, and create the IAM users that fetch them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pulumi

import contract
from components.authority import Authority
from components.bundles_bucket import name_bundles_bucket
from components.firewall import Firewall
from components.kit_user import KitUser, KitUserArgs
from components.vault import Vault
from kits import bridge, links, site
from kits.kit import DynamicRule
from openvpn import bond, lan_bridge
from openvpn.model import Tunnel, TunnelClient
from program.gateway import Location
from settings import model
from settings.model import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class KitValues:
    """The values that a client's kit is rendered from, once AWS has chosen addresses and IDs."""

    names: contract.Names
    region: str
    client: model.Client
    tunnel: Tunnel
    """The tunnel without IPv6."""
    tunnel6: Tunnel
    """The tunnel with IPv6, if it has any."""
    remote: str
    """The gateway's public name, or its address if it has none."""
    dynamic_rule: DynamicRule | None
    """The rule that follows the client's public address, if it has one."""
    bucket: str | None
    """Bucket of the clients' bundles; None if they are in SSM."""

    @property
    def tunnel_client(self) -> TunnelClient:
        """The client as the tunnel knows it."""
        return self.tunnel.clients_by_name[self.client.name]


def _render_bonded(values: KitValues) -> bytes:
    name = values.client.name
    host = bond.create_segment_bond(
        values.tunnel,
        name,
        remote=values.remote,
        server_name=values.names.server,
        uplinks=values.client.lines,
    )
    return links.build(host, names=values.names, region=values.region, bundles={name: name}, bucket=values.bucket)


def _render_bridge(values: KitValues) -> bytes:
    section = values.client.bridge or model.Bridge()
    host = lan_bridge.BridgeHost(
        interface=section.interface, tap=section.tap, gateway6=section.gateway6, timeout=section.timeout
    )
    return bridge.build(
        values.tunnel_client,
        values.tunnel6,
        host,
        names=values.names,
        region=values.region,
        bucket=values.bucket,
        dynamic_rule=values.dynamic_rule,
    )


def _render_site(values: KitValues) -> bytes:
    # A site's host routes IPv4 only, also where the tunnel has IPv6.
    return site.build(
        values.tunnel_client,
        values.tunnel,
        names=values.names,
        region=values.region,
        bucket=values.bucket,
        dynamic_rule=values.dynamic_rule,
    )


@dataclass(frozen=True, slots=True)
class KitKind:
    """The kit of one feature."""

    applies: Callable[[model.Client, model.Tunnel], bool]
    render: Callable[[KitValues], bytes]


#: Kits by feature, as the settings name them. A client that needs a kit gets the first one that applies.
KITS: Mapping[str, KitKind] = {
    "links": KitKind(lambda _, tunnel: tunnel.links > 1, _render_bonded),
    "bridge": KitKind(lambda client, _: client.bridge is not None, _render_bridge),
    "site": KitKind(lambda client, _: bool(client.lan or client.at), _render_site),
}


def render_kits(
    settings: Settings, location: Location, tunnel: Tunnel, tunnel6: pulumi.Output[Tunnel]
) -> dict[str, pulumi.Output[bytes]]:
    """Return the kit of each client that needs one, by the client's name."""
    return {
        client.name: render_kit(settings, location, client, tunnel, tunnel6)
        for client in settings.clients
        if client.needs_kit(settings.tunnel)
    }


def render_kit(
    settings: Settings, location: Location, client: model.Client, tunnel: Tunnel, tunnel6: pulumi.Output[Tunnel]
) -> pulumi.Output[bytes]:
    """Return a client's kit; `tunnel6` is `tunnel` with its IPv6, once AWS has chosen that."""
    in_s3 = settings.secrets.bundles == "s3"
    bucket = name_bundles_bucket(location.names, settings.region) if in_s3 else None
    kind = next(kind for kind in KITS.values() if kind.applies(client, settings.tunnel))

    def render(tunnel6: Tunnel, public_ip: str, dynamic_rule: DynamicRule | None) -> bytes:
        values = KitValues(
            names=location.names,
            region=settings.region,
            client=client,
            tunnel=tunnel,
            tunnel6=tunnel6,
            remote=settings.gateway.hostname or public_ip,
            dynamic_rule=dynamic_rule,
            bucket=bucket,
        )
        return kind.render(values)

    dynamic_rule = find_dynamic_rule(location.firewall, tunnel, client.name)
    return pulumi.Output.all(tunnel6, location.address.public_ip, dynamic_rule).apply(lambda values: render(*values))


def find_dynamic_rule(firewall: Firewall, tunnel: Tunnel, client: str) -> pulumi.Output[DynamicRule | None]:
    """Return the security group rule that follows a client's public address, or None."""
    rule = firewall.dynamic_rules.get(client)
    if rule is None:
        return pulumi.Output.from_input(None)
    return pulumi.Output.all(firewall.security_group_id, rule.security_group_rule_id).apply(
        lambda ids: DynamicRule(
            group_id=ids[0], rule_id=ids[1], listener=tunnel.listener, follows=contract.rule_for(client)
        )
    )


def create_kit_users(
    settings: Settings,
    location: Location,
    authority: Authority,
    vault: Vault,
    kits: Mapping[str, pulumi.Output[bytes]],
) -> None:
    """Create an IAM user for each client with a kit: it may read kit and bundle, and change its own dynamic rule.

    Where the settings forbid IAM users, none is created: links to kits work without one.
    """
    if settings.iam.users == "none":
        return
    firewall = location.firewall
    for client in kits:
        grants = [*authority.bundle_grants(client), vault.kit_grant(client)]
        if client in firewall.dynamic_rules:
            grants.append(firewall.dynamic_rule_grant(client))
        # Deployed stacks have this resource name.
        args = KitUserArgs(
            names=location.names,
            client=client,
            grants=grants,
            permissions_boundary=settings.iam.permissions_boundary,
        )
        KitUser(f"member-{client}", args)
