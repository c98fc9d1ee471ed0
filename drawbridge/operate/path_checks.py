"""Judge each hop of the path from a client to a host in the VPC, and name what breaks it.

A breakage is a row of `CHECKS`: its name, its hop, the explanation code of AWS's VPC Reachability Analyzer, a function
that finds it in a snapshot, and the remedy. Hops are judged in the order of `PathHop`, so the first broken one is where
a client's packets end.

Source for the codes: Amazon VPC Reachability Analyzer User Guide, "Explanation codes".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Literal

from drawbridge.operate.client_machine import SMALLEST_PATH, ClientDevice, ClientMachine, ClientRoute
from drawbridge.operate.client_states import RECENT
from drawbridge.operate.path_snapshot import (
    ClientRecord,
    ElasticIp,
    PathSnapshot,
    Unread,
    UnreadError,
    VpcInterface,
    require,
)
from drawbridge.operate.vpc_rules import (
    EPHEMERAL_PORTS,
    EVERYWHERE,
    Packet,
    SubnetAcl,
    VpcRoute,
    VpcRouteTable,
    find_route_table,
    select_rules,
)

#: Stands for a client whose public address is not known (RFC 5737): nobody has a route or a rule for it alone.
_ANY_CLIENT = IPv4Address("198.51.100.1")


class PathHop(StrEnum):
    """The hops between a client and a host, in the order in which a packet passes them."""

    MACHINE = "client's machine"
    NAME = "name"
    ELASTIC_IP = "Elastic IP"
    INSTANCE = "instance"
    INTERNET = "route to the Internet"
    NETWORK_ACL = "network ACL"
    SECURITY_GROUP = "security group"
    LISTENER = "OpenVPN"
    TLS = "TLS"
    CLIENT = "client"
    ADDRESS = "address"
    ROUTE = "client's route"
    RESOLVER = "client's resolver"
    FORWARDING = "forwarding"
    TRANSLATION = "translation"
    VPC_ROUTE = "VPC's route back"
    HOST_RULES = "host's rules"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class PathCheck:
    """One way in which a hop breaks."""

    name: str
    hop: PathHop
    code: str
    """The Reachability Analyzer's explanation code; empty where it has none."""
    find: Callable[[PathSnapshot], str | None]
    """Returns what is broken, with its value, or None; raises `UnreadError`."""
    remedy: str
    """What to do; the names in braces are those of `_remedy_values`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HopResult:
    """The judgement on one hop."""

    hop: PathHop
    state: Literal["ok", "broken", "unknown", "skipped"]
    """`unknown`: something that it depends on could not be read; `skipped`: the path does not have this hop."""
    breakage: str = ""
    """Name of the row of `CHECKS` that found it."""
    code: str = ""
    finding: str = ""
    """What is broken, or why the hop could not be judged or is skipped."""
    remedy: str = ""
    permission: str = ""
    """The permission without which the hop could not be judged."""


def judge_path(snapshot: PathSnapshot) -> tuple[HopResult, ...]:
    """Return the judgement on every hop, in their order."""
    return tuple(_judge_hop(snapshot, hop) for hop in PathHop)


def find_first_broken(results: Iterable[HopResult]) -> HopResult | None:
    """Return the first hop that is broken; None if none is."""
    return next((result for result in results if result.state == "broken"), None)


def _judge_hop(snapshot: PathSnapshot, hop: PathHop) -> HopResult:
    unread: Unread | None = None
    try:
        if reason := _find_skip_reason(snapshot, hop):
            return HopResult(hop=hop, state="skipped", finding=reason)
    except UnreadError as error:
        unread = error.unread
    for check in CHECKS:
        if check.hop != hop:
            continue
        try:
            finding = check.find(snapshot)
        except UnreadError as error:
            unread = unread or error.unread
            continue
        if finding:
            return HopResult(
                hop=hop,
                state="broken",
                breakage=check.name,
                code=check.code,
                finding=finding,
                remedy=check.remedy.format_map(_remedy_values(snapshot)),
            )
    if unread:
        return HopResult(hop=hop, state="unknown", finding=unread.reason, permission=unread.permission)
    return HopResult(hop=hop, state="ok")


def _remedy_values(snapshot: PathSnapshot) -> dict[str, str]:
    client, elastic_ip, interface = snapshot.client, snapshot.elastic_ip, snapshot.interface
    address = elastic_ip.address if isinstance(elastic_ip, ElasticIp) else "its Elastic IP"
    return {
        "stack": snapshot.stack,
        "client": client.name if isinstance(client, ClientRecord) else "NAME",
        "address": str(address),
        "interface": interface.id if isinstance(interface, VpcInterface) else "the gateway's interface",
    }


# --- parts of the snapshot that several checks need -------------------------------------------------------------------


def _client(path: PathSnapshot) -> ClientRecord:
    client = require(path.client)
    if client is None:
        raise UnreadError(Unread("no client is named"))
    return client


def _interface(path: PathSnapshot) -> VpcInterface:
    interface = require(path.interface)
    if interface is None:
        raise UnreadError(Unread("the gateway has no network interface"))
    return interface


def _host(path: PathSnapshot) -> VpcInterface:
    host = require(path.host)
    if host is None:
        raise UnreadError(Unread(f"the VPC has no interface with {path.target}"))
    return host


def _acl_of(path: PathSnapshot, subnet: str) -> SubnetAcl:
    acl = next((acl for acl in require(path.acls) if subnet in acl.subnets), None)
    if acl is None:
        raise UnreadError(Unread(f"no network ACL of {subnet} is seen"))
    return acl


def _table_of(path: PathSnapshot, subnet: str) -> VpcRouteTable:
    table = find_route_table(require(path.route_tables), subnet)
    if table is None:
        raise UnreadError(Unread(f"no route table of {subnet} is seen"))
    return table


def _visible_source(path: PathSnapshot) -> IPv4Address:
    """Return the address that a host sees as the client's."""
    release = require(path.release)
    if release.translates:
        return _interface(path).address
    client = require(path.client)
    if client and client.address:
        return client.address
    if not release.sources:
        raise UnreadError(Unread("the release names no addresses of clients"))
    return release.sources[0][2]


def _leaves_vpc(path: PathSnapshot) -> bool:
    return path.target is not None and not any(path.target in network for network in require(path.vpc_ranges))


def _find_skip_reason(path: PathSnapshot, hop: PathHop) -> str:
    """Return why the path does not have a hop; empty if it has it. Raises `UnreadError`."""
    match hop:
        case PathHop.MACHINE | PathHop.RESOLVER if path.machine is None:
            return "not read: --here, or --machine FILE"
        case PathHop.MACHINE | PathHop.RESOLVER if _client(path).remote is None:
            return "the client has no bundle"
        case PathHop.RESOLVER if _client(path).resolver is None:
            return "the stack gives clients no name server"
        case PathHop.NAME if path.client is None:
            return "no client is named"
        case PathHop.NAME if _client(path).remote is None:
            return "the client has no bundle"
        case PathHop.TLS if path.verdict is None:
            return "no bundle is probed"
        case PathHop.CLIENT | PathHop.ADDRESS if path.client is None:
            return "no client is named"
        case PathHop.ROUTE if path.target is None and path.machine is None:
            return "no host is named: --to ADDRESS"
        case PathHop.HOST_RULES | PathHop.HOST if path.target is None:
            return "no host is named: --to ADDRESS"
        case PathHop.HOST_RULES | PathHop.HOST if _leaves_vpc(path):
            return f"{path.target} is outside the VPC"
        case PathHop.VPC_ROUTE if require(path.release).translates:
            return f"hosts see {_interface(path).address}, the gateway's own address"
        case PathHop.TRANSLATION if not require(path.release).translates:
            return "hosts see the clients' own addresses"
    return ""


# --- the client's machine ---------------------------------------------------------------------------------------------


def _machine(path: PathSnapshot) -> ClientMachine:
    if path.machine is None:
        raise UnreadError(Unread("the client's machine is not read"))
    return path.machine


def _remote_route(path: PathSnapshot) -> tuple[IPv4Address, ClientRoute | None] | None:
    """Return the gateway's address and the machine's route to it; None if the address is not known."""
    resolved, elastic_ip = require(path.resolved), path.elastic_ip
    address = next(iter(resolved), elastic_ip.address if isinstance(elastic_ip, ElasticIp) else None)
    return None if address is None else (address, _machine(path).find_route(address))


def _find_no_way_out(path: PathSnapshot) -> str | None:
    remote = _remote_route(path)
    return f"the machine has no route to {remote[0]}" if remote and remote[1] is None else None


def _find_looped_route(path: PathSnapshot) -> str | None:
    remote = _remote_route(path)
    if remote is None or remote[1] is None or not _is_tunnel(path, remote[1].device):
        return None
    return f"the machine sends packets for {remote[0]} into the tunnel itself, {remote[1].device}"


def _find_black_hole(path: PathSnapshot) -> str | None:
    release = require(path.release)
    if release.protocol == "tcp" or not path.path_sizes.get(SMALLEST_PATH):
        return None
    if path.path_sizes.get(release.path_mtu, True):
        return None
    return f"packets of {release.path_mtu} bytes are lost without an answer, those of {SMALLEST_PATH} arrive"


def _list_tunnels(path: PathSnapshot) -> list[ClientDevice]:
    """Return the machine's devices in the tunnel's network."""
    client = require(path.client)
    if client is None or client.tunnel_gateway is None:
        raise UnreadError(Unread("the bundle does not name the gateway's address in the tunnel"))
    return _machine(path).list_devices(client.tunnel_gateway)


def _is_tunnel(path: PathSnapshot, device: str) -> bool:
    return device in {tunnel.name for tunnel in _list_tunnels(path)}


def _find_no_tunnel(path: PathSnapshot) -> str | None:
    if path.machine is None or _list_tunnels(path):
        return None
    return f"no device of the machine is in a network with {_client(path).tunnel_gateway}, the gateway in the tunnel"


def _find_two_tunnels(path: PathSnapshot) -> str | None:
    tunnels = [device.name for device in _list_tunnels(path) if device.is_tunnel] if path.machine else []
    return f"{' and '.join(tunnels)} are tunnels to the gateway" if len(tunnels) > 1 else None


def _wanted_networks(path: PathSnapshot) -> tuple[IPv4Network, ...]:
    """Return the networks that the machine is to reach through the tunnel."""
    return (IPv4Network(path.target),) if path.target else _client(path).routes


def _find_local_network(path: PathSnapshot) -> str | None:
    if path.machine is None or not _list_tunnels(path):
        return None
    for route in path.machine.routes:
        if route.destination == EVERYWHERE or _is_tunnel(path, route.device):
            continue
        for network in _wanted_networks(path):
            if not network.overlaps(route.destination):
                continue
            address = max(network, route.destination, key=lambda part: part.prefixlen)[0]
            if path.machine.find_route(address) == route:
                return f"{route.destination} is behind {route.device} on the machine, {network} is to be in the VPC"
    return None


def _find_missing_tunnel_route(path: PathSnapshot) -> str | None:
    if path.machine is None or not _list_tunnels(path):
        return None
    for network in _wanted_networks(path):
        route = path.machine.find_route(network[0])
        if route is None or not _is_tunnel(path, route.device):
            device = f"sends it to {route.device}" if route else "has no route to it"
            return f"{network} is to be reached through the tunnel, and the machine {device}"
    return None


def _find_other_resolver(path: PathSnapshot) -> str | None:
    resolver, resolvers = _client(path).resolver, _machine(path).resolvers
    if resolver is None or resolver in resolvers:
        return None
    if resolvers and all(address.is_loopback for address in resolvers):
        raise UnreadError(Unread("the machine asks a resolver of its own, which does not say whom it asks"))
    return f"the machine asks {', '.join(map(str, sorted(resolvers))) or 'nobody'}, not the VPC's {resolver}"


# --- from the client to the instance ----------------------------------------------------------------------------------


def _is_name(host: str) -> bool:
    try:
        IPv4Address(host)
    except AddressValueError:
        return True
    return False


def _find_unknown_name(path: PathSnapshot) -> str | None:
    remote, elastic_ip = _client(path).remote, require(path.elastic_ip)
    if remote is None or not _is_name(remote.host) or require(path.resolved):
        return None
    if elastic_ip and str(elastic_ip.address) in _client(path).fallbacks:
        return None
    return f"{remote.host} has no IPv4 address in DNS"


def _find_name_elsewhere(path: PathSnapshot) -> str | None:
    remote = _client(path).remote
    return _describe_elsewhere(path) if remote and _is_name(remote.host) else None


def _find_remote_elsewhere(path: PathSnapshot) -> str | None:
    remote = _client(path).remote
    return _describe_elsewhere(path) if remote and not _is_name(remote.host) else None


def _describe_elsewhere(path: PathSnapshot) -> str | None:
    remote, resolved, elastic_ip = _client(path).remote, require(path.resolved), require(path.elastic_ip)
    if remote is None or elastic_ip is None or not resolved or elastic_ip.address in resolved:
        return None
    if _is_name(remote.host):
        return f"{remote.host} is {', '.join(map(str, resolved))}, the gateway's address {elastic_ip.address}"
    return f"the bundle leads to {remote.host}, the gateway's address is {elastic_ip.address}"


def _find_other_listener(path: PathSnapshot) -> str | None:
    remote, release = _client(path).remote, require(path.release)
    if remote is None or not release.ports or (remote.protocol, remote.port) in _listener_ports(path):
        return None
    ports = " or ".join(map(str, release.ports))
    return f"the bundle leads to {remote.protocol} {remote.port}, the gateway listens on {release.protocol} {ports}"


def _listener_ports(path: PathSnapshot) -> list[tuple[str, int]]:
    release = require(path.release)
    return [(release.protocol, port) for port in release.ports]


def _find_missing_elastic_ip(path: PathSnapshot) -> str | None:
    return None if require(path.elastic_ip) else "the stack has no Elastic IP"


def _find_loose_elastic_ip(path: PathSnapshot) -> str | None:
    elastic_ip = require(path.elastic_ip)
    if elastic_ip is None:
        return None
    if not elastic_ip.interface:
        return f"{elastic_ip.address} belongs to no network interface"
    interface = _interface(path)
    if elastic_ip.interface != interface.id:
        return f"{elastic_ip.address} belongs to {elastic_ip.interface}, not to the gateway's {interface.id}"
    return None


def _find_missing_interface(path: PathSnapshot) -> str | None:
    return None if require(path.interface) else "the gateway has no network interface"


def _find_missing_instance(path: PathSnapshot) -> str | None:
    return None if require(path.instances) else "the gateway has no instance"


def _find_stopped_instance(path: PathSnapshot) -> str | None:
    instances = require(path.instances)
    if not instances or any(instance.state == "running" for instance in instances):
        return None
    return ", ".join(f"{instance.id} is {instance.state}" for instance in instances)


def _find_detached_interface(path: PathSnapshot) -> str | None:
    interface, instances = _interface(path), require(path.instances)
    if not instances:
        return None
    if interface.attachment != "attached" or not interface.instance:
        return f"{interface.id} is {interface.attachment or 'attached to nothing'}"
    if interface.instance not in {instance.id for instance in instances}:
        return f"{interface.id} is attached to {interface.instance}, which is not the gateway's instance"
    return None


def _find_impaired_instance(path: PathSnapshot) -> str | None:
    checks = require(path.impaired)
    return ", ".join(f"the {name} status check says {word}" for name, word in checks.items()) or None


# --- the gateway's subnet ---------------------------------------------------------------------------------------------


def _find_missing_internet_gateway(path: PathSnapshot) -> str | None:
    interface = _interface(path)
    return None if require(path.internet_gateways) else f"{interface.vpc} has no internet gateway"


def _internet_route(path: PathSnapshot) -> tuple[VpcRouteTable, VpcRoute | None]:
    """Return the route table of the gateway's subnet, and its route to the client."""
    table = _table_of(path, _interface(path).subnet)
    return table, table.find_route(path.source or _ANY_CLIENT)


def _find_missing_default_route(path: PathSnapshot) -> str | None:
    table, route = _internet_route(path)
    return None if route else f"{table.id} has no route to {path.source or EVERYWHERE}"


def _find_dead_default_route(path: PathSnapshot) -> str | None:
    table, route = _internet_route(path)
    if route is None or route.is_active:
        return None
    return f"{route.destination} of {table.id} leads to {route.target or 'a target'} that is gone"


def _find_other_default_route(path: PathSnapshot) -> str | None:
    table, route = _internet_route(path)
    if route is None or not route.is_active or route.target in require(path.internet_gateways):
        return None
    return f"{route.destination} of {table.id} leads to {route.target}, not to the VPC's internet gateway"


def _find_acl_inbound(path: PathSnapshot) -> str | None:
    acl = _acl_of(path, _interface(path).subnet)
    for protocol, port in _listener_ports(path):
        if refusal := _judge_acl(acl, Packet(peer=path.source, protocol=protocol, port=port), outbound=False):
            return refusal
    return None


def _find_acl_outbound(path: PathSnapshot) -> str | None:
    acl, protocol = _acl_of(path, _interface(path).subnet), require(path.release).protocol
    for port in EPHEMERAL_PORTS:
        if refusal := _judge_acl(acl, Packet(peer=path.source, protocol=protocol, port=port), outbound=True):
            return refusal
    return None


def _judge_acl(acl: SubnetAcl, packet: Packet, *, outbound: bool) -> str | None:
    """Return what an ACL refuses; raises `UnreadError` if that depends on a peer that is not known."""
    if acl.admits(packet, outbound=outbound):
        return None
    entry = acl.find_entry(packet, outbound=outbound)
    if packet.peer is None and entry is None:
        ranges = [
            str(entry.cidr)
            for entry in acl.entries
            if entry.allows and entry.is_outbound == outbound and packet.matches(entry.protocol, entry.ports)
        ]
        if ranges:
            raise UnreadError(Unread(f"{acl.id} admits {', '.join(ranges)} alone; give the client's address: --from"))
    rule = f"rule {entry.number}" if entry else "no rule that allows it"
    port = "" if packet.port is None else f" port {packet.port}"
    subject = "everything" if packet.protocol is None else f"{packet.protocol}{port}"
    return f"{acl.id} refuses {subject} {'to' if outbound else 'from'} {packet.peer or 'anywhere'}: {rule}"


def _find_empty_group(path: PathSnapshot) -> str | None:
    groups = ", ".join(_interface(path).groups)
    return None if select_rules(require(path.rules), "ingress") else f"{groups} lets nothing in"


def _find_closed_port(path: PathSnapshot) -> str | None:
    for protocol, port in _listener_ports(path):
        if not _open_ranges(path, protocol, port):
            return f"{', '.join(_interface(path).groups)} has {protocol} {port} open to nobody"
    return None


def _find_refused_source(path: PathSnapshot) -> str | None:
    rules = select_rules(require(path.rules), "ingress")
    for protocol, port in _listener_ports(path):
        packet = Packet(peer=path.source, protocol=protocol, port=port)
        ranges = _open_ranges(path, protocol, port)
        if not ranges or any(rule.applies(packet) for rule in rules):
            continue
        finding = f"{', '.join(_interface(path).groups)} has {protocol} {port} open to {', '.join(ranges)} alone"
        if path.source is None:
            raise UnreadError(Unread(f"{finding}; give the client's public address: --from"))
        return f"{finding}, the client comes from {path.source}"
    return None


def _open_ranges(path: PathSnapshot, protocol: str, port: int) -> list[str]:
    """Return the peers outside the VPC for which the gateway's security groups have a port open."""
    packet = Packet(peer=None, protocol=protocol, port=port)
    internal = () if isinstance(path.vpc_ranges, Unread) else path.vpc_ranges
    return [
        str(rule.cidr or rule.group or rule.prefix_list)
        for rule in select_rules(require(path.rules), "ingress")
        if packet.matches(rule.protocol, rule.ports)
        and not (rule.cidr and any(rule.cidr.subnet_of(network) for network in internal))
    ]


# --- the gateway ------------------------------------------------------------------------------------------------------


def _find_missing_report(path: PathSnapshot) -> str | None:
    report = require(path.report)
    return f"its report is {report.state}: {report.reason}" if report.state in ("missing", "pending") else None


def _find_stale_report(path: PathSnapshot) -> str | None:
    report = require(path.report)
    return report.reason if report.state == "stale" else None


def _find_failed_gateway(path: PathSnapshot) -> str | None:
    report = require(path.report)
    return report.reason or report.state if report.state == "failed" else None


def _find_old_release(path: PathSnapshot) -> str | None:
    report, release = require(path.report), require(path.release)
    if report.state in ("refused", "degraded"):
        return f"{report.state}: {report.reason}"
    if report.state == "ready" and report.release != release.sha256:
        return f"the gateway runs release {report.release[:12]}, the stack's is {release.sha256[:12]}"
    return None


def _find_no_listener(path: PathSnapshot) -> str | None:
    return path.verdict.finding if path.verdict and path.verdict.state == "nothing" else None


def _find_refused_handshake(path: PathSnapshot) -> str | None:
    if path.verdict is None or path.verdict.state == "fine":
        return None
    if path.verdict.state == "configuration":
        return path.verdict.finding
    raise UnreadError(Unread(f"no TLS from here: {path.verdict.finding}"))


# --- the client's identity and address --------------------------------------------------------------------------------


def _find_pending_client(path: PathSnapshot) -> str | None:
    client = _client(path)
    return f"{client.name} is in the stack file and has no bundle yet" if client.state == "pending" else None


def _find_revoked_client(path: PathSnapshot) -> str | None:
    client = _client(path)
    if client.state != "revoked":
        return None
    when = f" on {client.revoked:%Y-%m-%d %H:%M} UTC" if client.revoked else ""
    return f"{client.name} was revoked{when}"


def _find_revoked_certificate(path: PathSnapshot) -> str | None:
    client = _client(path)
    if client.state == "enrolled" and client.serial in require(path.release).revoked:
        return f"the gateway refuses the bundle's certificate, serial {client.serial}"
    return None


def _find_ended_certificate(path: PathSnapshot) -> str | None:
    client = _client(path)
    if client.state != "enrolled" or client.not_after is None or client.not_after > path.now:
        return None
    return f"the certificate of {client.name} ended on {client.not_after:%Y-%m-%d}"


def _find_old_bundle(path: PathSnapshot) -> str | None:
    client = _client(path)
    return None if client.is_current else f"the bundle is not the one that {client.name} has now"


def _find_unknown_client(path: PathSnapshot) -> str | None:
    client, clients = _client(path), require(path.release).clients
    if client.state != "enrolled" or clients is None or client.name in clients:
        return None
    return f"the gateway's release does not let {client.name} in"


def _find_refused_connection(path: PathSnapshot) -> str | None:
    refusal = require(path.refusal)
    if refusal is None or path.now - refusal.time > RECENT:
        return None
    return f"refused at {refusal.time:%Y-%m-%d %H:%M} UTC from {refusal.address}: {refusal.reason}"


def _find_shared_bundle(path: PathSnapshot) -> str | None:
    addresses = require(path.session).alternates
    return f"sessions from {' and '.join(addresses)} end each other" if addresses else None


def _find_foreign_address(path: PathSnapshot) -> str | None:
    client, sources = _client(path), require(path.release).sources
    if client.address is None or any(client.address in network for network in sources):
        return None
    return f"the bundle accepts {client.address} alone, the gateway's pool is {', '.join(map(str, sources))}"


# --- through the gateway ----------------------------------------------------------------------------------------------


def _find_missing_client_route(path: PathSnapshot) -> str | None:
    release = require(path.release)
    takes_all = EVERYWHERE in release.destinations
    if path.target is None or takes_all or any(path.target in network for network in release.routes):
        return None
    return f"clients get routes to {', '.join(map(str, release.routes)) or 'nothing'}, not to {path.target}"


def _find_refused_forwarding(path: PathSnapshot) -> str | None:
    destinations = require(path.release).destinations
    if path.target is None or any(path.target in network for network in destinations):
        return None
    return f"the gateway forwards to {', '.join(map(str, destinations)) or 'nothing'}, not to {path.target}"


def _find_unforwarded_range(path: PathSnapshot) -> str | None:
    destinations = require(path.release).destinations
    if path.target is not None or not destinations:
        return None
    missing = [
        str(network)
        for network in require(path.vpc_ranges)
        if not any(network.subnet_of(destination) for destination in destinations)
    ]
    return f"the gateway does not forward to {', '.join(missing)} of the VPC" if missing else None


def _find_refused_egress(path: PathSnapshot) -> str | None:
    peer = path.target or require(path.vpc_ranges)[0][4]
    packet = Packet(peer=peer, protocol=path.target_protocol, port=path.target_port)
    host_groups = path.host.groups if isinstance(path.host, VpcInterface) else ()
    if any(rule.applies(packet, host_groups) for rule in select_rules(require(path.rules), "egress")):
        return None
    return f"{', '.join(_interface(path).groups)} lets nothing out to {peer}"


def _find_checked_source(path: PathSnapshot) -> str | None:
    interface = _interface(path)
    if require(path.release).translates or not interface.source_dest_check:
        return None
    return f"{interface.id} has the source/destination check on, and clients' addresses are not translated"


def _return_routes(path: PathSnapshot) -> list[tuple[VpcRouteTable, VpcRoute | None]]:
    """Return the route tables of the host, or of all subnets, each with its route to the client."""
    source = _visible_source(path)
    if path.target is None or _leaves_vpc(path):
        tables = {table.id: table for table in require(path.route_tables) if table.subnets or table.is_main}
    else:
        table = _table_of(path, _host(path).subnet)
        tables = {table.id: table}
    return [(table, table.find_route(source)) for table in tables.values()]


def _find_pool_in_vpc(path: PathSnapshot) -> str | None:
    source = _visible_source(path)
    overlapping = [str(network) for network in require(path.vpc_ranges) if source in network]
    return f"{source} is in the VPC's own range {', '.join(overlapping)}" if overlapping else None


def _find_missing_return_route(path: PathSnapshot) -> str | None:
    routes = _return_routes(path)
    if any(route and route.destination != EVERYWHERE for _, route in routes):
        return None
    return f"{', '.join(table.id for table, _ in routes)}: no route to {_visible_source(path)}"


def _find_dead_return_route(path: PathSnapshot) -> str | None:
    for table, route in _return_routes(path):
        if route and not route.is_active:
            return f"{route.destination} of {table.id} leads to {route.target or 'a target'} that is gone"
    return None


def _find_other_return_route(path: PathSnapshot) -> str | None:
    interface = _interface(path)
    for table, route in _return_routes(path):
        if route and route.is_active and route.destination != EVERYWHERE and route.target != interface.id:
            return f"{route.destination} of {table.id} leads to {route.target}, not to {interface.id}"
    return None


# --- the host ---------------------------------------------------------------------------------------------------------


def _find_gateway_acl_to_host(path: PathSnapshot) -> str | None:
    interface, host = _interface(path), _host(path)
    if interface.subnet == host.subnet:
        return None
    acl = _acl_of(path, interface.subnet)
    request = Packet(peer=path.target, protocol=path.target_protocol, port=path.target_port)
    reply = Packet(
        peer=path.target, protocol=path.target_protocol, port=EPHEMERAL_PORTS[1] if path.target_protocol else None
    )
    return _judge_acl(acl, request, outbound=True) or _judge_acl(acl, reply, outbound=False)


def _find_host_acl_inbound(path: PathSnapshot) -> str | None:
    host = _host(path)
    if _interface(path).subnet == host.subnet:
        return None
    packet = Packet(peer=_visible_source(path), protocol=path.target_protocol, port=path.target_port)
    return _judge_acl(_acl_of(path, host.subnet), packet, outbound=False)


def _find_host_acl_outbound(path: PathSnapshot) -> str | None:
    host = _host(path)
    if _interface(path).subnet == host.subnet:
        return None
    for port in EPHEMERAL_PORTS if path.target_protocol else (None,):
        packet = Packet(peer=_visible_source(path), protocol=path.target_protocol, port=port)
        if refusal := _judge_acl(_acl_of(path, host.subnet), packet, outbound=True):
            return refusal
    return None


def _find_empty_host_group(path: PathSnapshot) -> str | None:
    host = _host(path)
    return None if select_rules(require(path.host_rules), "ingress") else f"{', '.join(host.groups)} lets nothing in"


def _find_closed_host(path: PathSnapshot) -> str | None:
    host, rules = _host(path), select_rules(require(path.host_rules), "ingress")
    source = _visible_source(path)
    # AWS takes forwarded packets for the gateway's only if they have its address.
    groups = _interface(path).groups if require(path.release).translates else ()
    packet = Packet(peer=source, protocol=path.target_protocol, port=path.target_port)
    if not rules or any(rule.applies(packet, groups) for rule in rules):
        return None
    if lists := [rule.prefix_list for rule in rules if rule.prefix_list]:
        raise UnreadError(Unread(f"whether {source} is in {', '.join(lists)} is not read"))
    port = f" {path.target_protocol} {path.target_port or ''}".rstrip() if path.target_protocol else ""
    return f"{', '.join(host.groups)} of {path.target} does not let{port} in from {source}"


def _find_missing_host(path: PathSnapshot) -> str | None:
    if require(path.host) is not None:
        return None
    return f"no network interface of {_interface(path).vpc} has {path.target}"


def _find_stopped_host(path: PathSnapshot) -> str | None:
    state = require(path.host_state)
    return None if state in ("", "running") else f"{_host(path).instance} is {state}"


# --- the table --------------------------------------------------------------------------------------------------------

_RESTORE = "pulumi up --refresh --stack {stack} restores it"
_RESTORE_OR_ADD = f"{_RESTORE}; in a VPC that is not the stack's own, "
_FETCH = "drawbridge client fetch {client} --stack {stack} --force, and import it"
_LOGS = "drawbridge gateway logs --stack {stack}"

_MACHINE_CHECKS = (
    PathCheck(
        "remote-without-route",
        PathHop.MACHINE,
        "NO_ROUTE_TO_DESTINATION",
        _find_no_way_out,
        "connect the machine to the Internet: it has no default route",
    ),
    PathCheck(
        "remote-through-tunnel",
        PathHop.MACHINE,
        "",
        _find_looped_route,
        "take the gateway's address out of drawbridge:tunnel.routes, or reconnect",
    ),
    PathCheck(
        "path-black-hole",
        PathHop.MACHINE,
        "",
        _find_black_hole,
        "drawbridge:tunnel.pathMtu: 1280, then: pulumi up --stack {stack}; or use another network",
    ),
)
CHECKS = (
    *_MACHINE_CHECKS,
    PathCheck(
        "name-not-found",
        PathHop.NAME,
        "",
        _find_unknown_name,
        "create its A record with {address}, or ask another resolver",
    ),
    PathCheck(
        "name-elsewhere",
        PathHop.NAME,
        "",
        _find_name_elsewhere,
        "point its A record to {address}, and wait for the record's TTL",
    ),
    PathCheck("remote-elsewhere", PathHop.NAME, "", _find_remote_elsewhere, f"fetch the bundle again: {_FETCH}"),
    PathCheck("listener-elsewhere", PathHop.NAME, "", _find_other_listener, f"fetch the bundle again: {_FETCH}"),
    PathCheck(
        "elastic-ip-missing",
        PathHop.ELASTIC_IP,
        "NO_SOURCE_OR_DESTINATION",
        _find_missing_elastic_ip,
        "pulumi up --refresh --stack {stack} allocates another; every client needs its bundle again",
    ),
    PathCheck(
        "elastic-ip-elsewhere",
        PathHop.ELASTIC_IP,
        "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS",
        _find_loose_elastic_ip,
        "associate {address} with {interface}, or: pulumi up --refresh --stack {stack}",
    ),
    PathCheck("interface-missing", PathHop.INSTANCE, "NO_SOURCE_OR_DESTINATION", _find_missing_interface, _RESTORE),
    PathCheck("instance-missing", PathHop.INSTANCE, "NO_SOURCE_OR_DESTINATION", _find_missing_instance, _RESTORE),
    PathCheck(
        "instance-stopped",
        PathHop.INSTANCE,
        "BAD_STATE",
        _find_stopped_instance,
        "start it: aws ec2 start-instances --instance-ids ID; it keeps its address",
    ),
    PathCheck(
        "interface-detached",
        PathHop.INSTANCE,
        "BAD_STATE_ATTACHMENT",
        _find_detached_interface,
        "pulumi up --refresh --stack {stack} gives {interface} an instance again",
    ),
    PathCheck(
        "instance-impaired",
        PathHop.INSTANCE,
        "BAD_STATE",
        _find_impaired_instance,
        "system: stop and start it, so that it moves to other hardware; instance: reboot it, and read its console",
    ),
    PathCheck(
        "internet-gateway-missing",
        PathHop.INTERNET,
        "BAD_STATE_ATTACHMENT",
        _find_missing_internet_gateway,
        f"{_RESTORE_OR_ADD}attach one",
    ),
    PathCheck(
        "default-route-missing",
        PathHop.INTERNET,
        "NO_ROUTE_TO_DESTINATION",
        _find_missing_default_route,
        f"{_RESTORE_OR_ADD}add 0.0.0.0/0 to the internet gateway",
    ),
    PathCheck(
        "default-route-dead",
        PathHop.INTERNET,
        "BAD_STATE_ROUTE",
        _find_dead_default_route,
        f"{_RESTORE_OR_ADD}have the route lead to the internet gateway",
    ),
    PathCheck(
        "default-route-elsewhere",
        PathHop.INTERNET,
        "MORE_SPECIFIC_ROUTE",
        _find_other_default_route,
        f"{_RESTORE_OR_ADD}have the route lead to the internet gateway, or remove it",
    ),
    PathCheck(
        "acl-inbound",
        PathHop.NETWORK_ACL,
        "SUBNET_ACL_RESTRICTION",
        _find_acl_inbound,
        f"{_RESTORE_OR_ADD}allow the tunnel's port in",
    ),
    PathCheck(
        "acl-outbound",
        PathHop.NETWORK_ACL,
        "SUBNET_ACL_RESTRICTION",
        _find_acl_outbound,
        f"{_RESTORE_OR_ADD}allow ports 1024 to 65535 out: an ACL does not know replies",
    ),
    PathCheck("group-empty", PathHop.SECURITY_GROUP, "SG_HAS_NO_RULES", _find_empty_group, _RESTORE),
    PathCheck("group-port-closed", PathHop.SECURITY_GROUP, "ENI_SG_RULES_MISMATCH", _find_closed_port, _RESTORE),
    PathCheck(
        "group-source-refused",
        PathHop.SECURITY_GROUP,
        "ENI_SG_RULES_MISMATCH",
        _find_refused_source,
        "add the address to drawbridge:gateway.allowFrom; a client with `at`: drawbridge access allow-me --client "
        "{client} --stack {stack}",
    ),
    PathCheck(
        "report-missing",
        PathHop.LISTENER,
        "",
        _find_missing_report,
        "wait two minutes after a deployment; then read its console: drawbridge gateway status --stack {stack}",
    ),
    PathCheck(
        "report-stale",
        PathHop.LISTENER,
        "",
        _find_stale_report,
        "read its console: drawbridge gateway status --stack {stack}; if it has hung, reboot the instance",
    ),
    PathCheck("gateway-failed", PathHop.LISTENER, "", _find_failed_gateway, _LOGS),
    PathCheck(
        "release-not-in-force",
        PathHop.LISTENER,
        "",
        _find_old_release,
        f"wait a minute after a deployment; then: {_LOGS}; drawbridge gateway retry --stack {{stack}}",
    ),
    PathCheck("listener-closed", PathHop.LISTENER, "", _find_no_listener, _LOGS),
    PathCheck("handshake-refused", PathHop.TLS, "", _find_refused_handshake, f"fetch the bundle again: {_FETCH}"),
    PathCheck("client-pending", PathHop.CLIENT, "", _find_pending_client, "deploy it: pulumi up --stack {stack}"),
    PathCheck(
        "client-revoked",
        PathHop.CLIENT,
        "",
        _find_revoked_client,
        "add it to drawbridge:clients again for a new bundle, then: pulumi up --stack {stack}",
    ),
    PathCheck("bundle-outdated", PathHop.CLIENT, "", _find_old_bundle, f"fetch the bundle again: {_FETCH}"),
    PathCheck(
        "certificate-revoked", PathHop.CLIENT, "", _find_revoked_certificate, f"fetch the bundle again: {_FETCH}"
    ),
    PathCheck(
        "certificate-ended",
        PathHop.CLIENT,
        "",
        _find_ended_certificate,
        f"pulumi up --stack {{stack}} renews it; then {_FETCH}",
    ),
    PathCheck(
        "client-not-in-release", PathHop.CLIENT, "", _find_unknown_client, "deploy it: pulumi up --stack {stack}"
    ),
    PathCheck(
        "tunnel-down",
        PathHop.ADDRESS,
        "",
        _find_no_tunnel,
        "start OpenVPN on the machine, and read its log there",
    ),
    PathCheck(
        "tunnel-twice",
        PathHop.ADDRESS,
        "",
        _find_two_tunnels,
        "stop one of them: their sessions end each other",
    ),
    PathCheck(
        "connection-refused",
        PathHop.ADDRESS,
        "",
        _find_refused_connection,
        "see drawbridge client history {client} --stack {stack}, and docs/gateway.md for the reasons",
    ),
    PathCheck(
        "bundle-used-twice",
        PathHop.ADDRESS,
        "",
        _find_shared_bundle,
        "give each machine a client of its own; if only one is yours, see docs/stolen.md",
    ),
    PathCheck("address-outside-pool", PathHop.ADDRESS, "", _find_foreign_address, f"fetch the bundle again: {_FETCH}"),
    PathCheck(
        "route-not-pushed",
        PathHop.ROUTE,
        "NO_ROUTE_TO_DESTINATION",
        _find_missing_client_route,
        "add its network to drawbridge:tunnel.routes, or set drawbridge:tunnel.vpc; then: pulumi up --stack {stack}, "
        f"and {_FETCH}",
    ),
    PathCheck(
        "network-is-local",
        PathHop.ROUTE,
        "MORE_SPECIFIC_ROUTE",
        _find_local_network,
        "use another network there, such as a phone's; for good, choose a VPC range that homes do not use",
    ),
    PathCheck(
        "tunnel-route-missing",
        PathHop.ROUTE,
        "NO_ROUTE_TO_DESTINATION",
        _find_missing_tunnel_route,
        "have the machine's OpenVPN or NetworkManager accept the gateway's routes, and reconnect",
    ),
    PathCheck(
        "resolver-elsewhere",
        PathHop.RESOLVER,
        "",
        _find_other_resolver,
        "have the machine take the tunnel's name server: docs/systems says how",
    ),
    PathCheck(
        "forwarding-refused",
        PathHop.FORWARDING,
        "FIREWALL_RULES_RESTRICTION",
        _find_refused_forwarding,
        "add its network to drawbridge:tunnel.routes; then: pulumi up --stack {stack}",
    ),
    PathCheck(
        "range-not-forwarded",
        PathHop.FORWARDING,
        "FIREWALL_RULES_RESTRICTION",
        _find_unforwarded_range,
        "the VPC has a range that the release does not know: pulumi up --stack {stack}",
    ),
    PathCheck("group-outbound", PathHop.FORWARDING, "ENI_SG_RULES_MISMATCH", _find_refused_egress, _RESTORE),
    PathCheck(
        "source-dest-check",
        PathHop.VPC_ROUTE,
        "ENI_SOURCE_DEST_CHECK_RESTRICTION",
        _find_checked_source,
        "aws ec2 modify-network-interface-attribute --network-interface-id {interface} --no-source-dest-check, or: "
        "pulumi up --refresh --stack {stack}",
    ),
    PathCheck(
        "pool-in-vpc",
        PathHop.VPC_ROUTE,
        "HIGHER_PRIORITY_ROUTE",
        _find_pool_in_vpc,
        "choose another drawbridge:tunnel.pool, or remove that range from the VPC: its local route comes first",
    ),
    PathCheck(
        "return-route-missing",
        PathHop.VPC_ROUTE,
        "NO_ROUTE_TO_DESTINATION",
        _find_missing_return_route,
        f"{_RESTORE_OR_ADD}name the table in drawbridge:network.routeTableIds",
    ),
    PathCheck("return-route-dead", PathHop.VPC_ROUTE, "BAD_STATE_ROUTE", _find_dead_return_route, _RESTORE),
    PathCheck(
        "return-route-elsewhere",
        PathHop.VPC_ROUTE,
        "MORE_SPECIFIC_ROUTE",
        _find_other_return_route,
        f"remove that route, or: {_RESTORE}",
    ),
    PathCheck(
        "gateway-acl-to-host",
        PathHop.HOST_RULES,
        "SUBNET_ACL_RESTRICTION",
        _find_gateway_acl_to_host,
        f"{_RESTORE_OR_ADD}allow the host's subnet both ways in the ACL of the gateway's",
    ),
    PathCheck(
        "host-acl-inbound",
        PathHop.HOST_RULES,
        "SUBNET_ACL_RESTRICTION",
        _find_host_acl_inbound,
        f"{_RESTORE_OR_ADD}allow that address in",
    ),
    PathCheck(
        "host-acl-outbound",
        PathHop.HOST_RULES,
        "SUBNET_ACL_RESTRICTION",
        _find_host_acl_outbound,
        f"{_RESTORE_OR_ADD}allow replies to that address out, ports 1024 to 65535",
    ),
    PathCheck(
        "host-group-empty",
        PathHop.HOST_RULES,
        "SG_HAS_NO_RULES",
        _find_empty_host_group,
        "add a rule to the host's security group for the gateway's address, or for the clients' if hosts see those",
    ),
    PathCheck(
        "host-group-closed",
        PathHop.HOST_RULES,
        "ENI_SG_RULES_MISMATCH",
        _find_closed_host,
        "add a rule for that address to the host's security group",
    ),
    PathCheck(
        "host-missing", PathHop.HOST, "NO_SOURCE_OR_DESTINATION", _find_missing_host, "look its address up in EC2"
    ),
    PathCheck("host-stopped", PathHop.HOST, "BAD_STATE", _find_stopped_host, "start the host"),
)
