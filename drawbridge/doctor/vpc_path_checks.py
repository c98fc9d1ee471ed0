"""Judge the VPC's part of a path: the way in from the Internet, the routes back to clients, and the host.

Source for the codes: Amazon VPC Reachability Analyzer User Guide, "Explanation codes".
"""

from ipaddress import IPv4Address, IPv4Network

from drawbridge.doctor.path_hops import RESTORE, RESTORE_OR_ADD, PathCheck, PathHop
from drawbridge.doctor.path_snapshot import (
    PathSnapshot,
    Unread,
    UnreadError,
    host_of,
    interface_of,
    leaves_vpc,
    require,
)
from drawbridge.doctor.vpc_rules import (
    EPHEMERAL_PORTS,
    EVERYWHERE,
    Packet,
    SubnetAcl,
    VpcRoute,
    VpcRouteTable,
    find_route_table,
    select_rules,
)
from drawbridge.operate.deployed_release import ServerPort

#: Stands for a client whose public address is not known (RFC 5737): nobody has a route or a rule for it alone.
_ANY_CLIENT = IPv4Address("198.51.100.1")


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
        return interface_of(path).address
    client = require(path.client)
    if client and client.address:
        return client.address
    # In a pair, hosts of the other VPC speak with those of this one; the first network is the bond's own.
    sources = release.sources[1:] if release.is_pair else release.sources
    if not sources:
        raise UnreadError(Unread("the release names no addresses of clients"))
    return sources[0][4 if release.is_pair else 2]


def _find_missing_elastic_ip(path: PathSnapshot) -> str | None:
    return None if require(path.elastic_ip) else "the stack has no Elastic IP"


def _find_loose_elastic_ip(path: PathSnapshot) -> str | None:
    elastic_ip = require(path.elastic_ip)
    if elastic_ip is None:
        return None
    if not elastic_ip.interface:
        return f"{elastic_ip.address} belongs to no network interface"
    interface = interface_of(path)
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
    interface, instances = interface_of(path), require(path.instances)
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


def _find_missing_internet_gateway(path: PathSnapshot) -> str | None:
    interface = interface_of(path)
    return None if require(path.internet_gateways) else f"{interface.vpc} has no internet gateway"


def _internet_route(path: PathSnapshot) -> tuple[VpcRouteTable, VpcRoute | None]:
    """Return the route table of the gateway's subnet, and its route to the client."""
    table = _table_of(path, interface_of(path).subnet)
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
    acl = _acl_of(path, interface_of(path).subnet)
    for listener in require(path.release).listeners:
        packet = Packet(peer=path.source, protocol=listener.protocol, port=listener.port)
        if refusal := _judge_acl(acl, packet, outbound=False):
            return refusal + (f"; it is link {listener.link}" if listener.link else "")
    return None


def _find_acl_outbound(path: PathSnapshot) -> str | None:
    acl, protocol = _acl_of(path, interface_of(path).subnet), require(path.release).protocol
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
    groups = ", ".join(interface_of(path).groups)
    return None if select_rules(require(path.rules), "ingress") else f"{groups} lets nothing in"


def _find_closed_port(path: PathSnapshot) -> str | None:
    for listener in require(path.release).listeners:
        if not _open_ranges(path, listener):
            return f"{', '.join(interface_of(path).groups)} has {listener} open to nobody"
    return None


def _find_refused_source(path: PathSnapshot) -> str | None:
    rules = select_rules(require(path.rules), "ingress")
    for listener in require(path.release).listeners:
        packet = Packet(peer=path.source, protocol=listener.protocol, port=listener.port)
        ranges = _open_ranges(path, listener)
        if not ranges or any(rule.applies(packet) for rule in rules):
            continue
        finding = f"{', '.join(interface_of(path).groups)} has {listener} open to {', '.join(ranges)} alone"
        if path.source is None:
            raise UnreadError(Unread(f"{finding}; give the client's public address: --from"))
        return f"{finding}, the client comes from {path.source}"
    return None


def _open_ranges(path: PathSnapshot, listener: ServerPort) -> list[str]:
    """Return the peers outside the VPC for which the gateway's security groups have a port open."""
    packet = Packet(peer=None, protocol=listener.protocol, port=listener.port)
    internal = () if isinstance(path.vpc_ranges, Unread) else path.vpc_ranges
    return [
        str(rule.cidr or rule.group or rule.prefix_list)
        for rule in select_rules(require(path.rules), "ingress")
        if packet.matches(rule.protocol, rule.ports)
        and not (isinstance(rule.cidr, IPv4Network) and any(rule.cidr.subnet_of(network) for network in internal))
    ]


def _find_checked_source(path: PathSnapshot) -> str | None:
    interface = interface_of(path)
    if require(path.release).translates or not interface.source_dest_check:
        return None
    return f"{interface.id} has the source/destination check on, and clients' addresses are not translated"


def _return_routes(path: PathSnapshot) -> list[tuple[VpcRouteTable, VpcRoute | None]]:
    """Return the route tables of the host, or of all subnets, each with its route to the client."""
    source = _visible_source(path)
    if path.target is None or leaves_vpc(path):
        tables = {table.id: table for table in require(path.route_tables) if table.subnets or table.is_main}
    else:
        table = _table_of(path, host_of(path).subnet)
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
    interface = interface_of(path)
    for table, route in _return_routes(path):
        if route and route.is_active and route.destination != EVERYWHERE and route.target != interface.id:
            return f"{route.destination} of {table.id} leads to {route.target}, not to {interface.id}"
    return None


def _find_gateway_acl_to_host(path: PathSnapshot) -> str | None:
    interface, host = interface_of(path), host_of(path)
    if interface.subnet == host.subnet:
        return None
    acl = _acl_of(path, interface.subnet)
    request = Packet(peer=path.target, protocol=path.target_protocol, port=path.target_port)
    reply = Packet(
        peer=path.target, protocol=path.target_protocol, port=EPHEMERAL_PORTS[1] if path.target_protocol else None
    )
    return _judge_acl(acl, request, outbound=True) or _judge_acl(acl, reply, outbound=False)


def _find_host_acl_inbound(path: PathSnapshot) -> str | None:
    host = host_of(path)
    if interface_of(path).subnet == host.subnet:
        return None
    packet = Packet(peer=_visible_source(path), protocol=path.target_protocol, port=path.target_port)
    return _judge_acl(_acl_of(path, host.subnet), packet, outbound=False)


def _find_host_acl_outbound(path: PathSnapshot) -> str | None:
    host = host_of(path)
    if interface_of(path).subnet == host.subnet:
        return None
    for port in EPHEMERAL_PORTS if path.target_protocol else (None,):
        packet = Packet(peer=_visible_source(path), protocol=path.target_protocol, port=port)
        if refusal := _judge_acl(_acl_of(path, host.subnet), packet, outbound=True):
            return refusal
    return None


def _find_empty_host_group(path: PathSnapshot) -> str | None:
    host = host_of(path)
    return None if select_rules(require(path.host_rules), "ingress") else f"{', '.join(host.groups)} lets nothing in"


def _find_closed_host(path: PathSnapshot) -> str | None:
    host, rules = host_of(path), select_rules(require(path.host_rules), "ingress")
    source = _visible_source(path)
    # AWS takes forwarded packets for the gateway's only if they have its address.
    groups = interface_of(path).groups if require(path.release).translates else ()
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
    return f"no network interface of {interface_of(path).vpc} has {path.target}"


def _find_stopped_host(path: PathSnapshot) -> str | None:
    state = require(path.host_state)
    return None if state in ("", "running") else f"{host_of(path).instance} is {state}"


VPC_CHECKS = (
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
    PathCheck("interface-missing", PathHop.INSTANCE, "NO_SOURCE_OR_DESTINATION", _find_missing_interface, RESTORE),
    PathCheck("instance-missing", PathHop.INSTANCE, "NO_SOURCE_OR_DESTINATION", _find_missing_instance, RESTORE),
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
        f"{RESTORE_OR_ADD}attach one",
    ),
    PathCheck(
        "default-route-missing",
        PathHop.INTERNET,
        "NO_ROUTE_TO_DESTINATION",
        _find_missing_default_route,
        f"{RESTORE_OR_ADD}add 0.0.0.0/0 to the internet gateway",
    ),
    PathCheck(
        "default-route-dead",
        PathHop.INTERNET,
        "BAD_STATE_ROUTE",
        _find_dead_default_route,
        f"{RESTORE_OR_ADD}have the route lead to the internet gateway",
    ),
    PathCheck(
        "default-route-elsewhere",
        PathHop.INTERNET,
        "MORE_SPECIFIC_ROUTE",
        _find_other_default_route,
        f"{RESTORE_OR_ADD}have the route lead to the internet gateway, or remove it",
    ),
    PathCheck(
        "acl-inbound",
        PathHop.NETWORK_ACL,
        "SUBNET_ACL_RESTRICTION",
        _find_acl_inbound,
        f"{RESTORE_OR_ADD}allow the tunnel's port in",
    ),
    PathCheck(
        "acl-outbound",
        PathHop.NETWORK_ACL,
        "SUBNET_ACL_RESTRICTION",
        _find_acl_outbound,
        f"{RESTORE_OR_ADD}allow ports 1024 to 65535 out: an ACL does not know replies",
    ),
    PathCheck("group-empty", PathHop.SECURITY_GROUP, "SG_HAS_NO_RULES", _find_empty_group, RESTORE),
    PathCheck("group-port-closed", PathHop.SECURITY_GROUP, "ENI_SG_RULES_MISMATCH", _find_closed_port, RESTORE),
    PathCheck(
        "group-source-refused",
        PathHop.SECURITY_GROUP,
        "ENI_SG_RULES_MISMATCH",
        _find_refused_source,
        "add the address to drawbridge:gateway.allowFrom; a client with `at`: drawbridge access allow-me --client "
        "{client} --stack {stack}",
    ),
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
        f"{RESTORE_OR_ADD}name the table in drawbridge:network.routeTableIds",
    ),
    PathCheck("return-route-dead", PathHop.VPC_ROUTE, "BAD_STATE_ROUTE", _find_dead_return_route, RESTORE),
    PathCheck(
        "return-route-elsewhere",
        PathHop.VPC_ROUTE,
        "MORE_SPECIFIC_ROUTE",
        _find_other_return_route,
        f"remove that route, or: {RESTORE}",
    ),
    PathCheck(
        "gateway-acl-to-host",
        PathHop.HOST_RULES,
        "SUBNET_ACL_RESTRICTION",
        _find_gateway_acl_to_host,
        f"{RESTORE_OR_ADD}allow the host's subnet both ways in the ACL of the gateway's",
    ),
    PathCheck(
        "host-acl-inbound",
        PathHop.HOST_RULES,
        "SUBNET_ACL_RESTRICTION",
        _find_host_acl_inbound,
        f"{RESTORE_OR_ADD}allow that address in",
    ),
    PathCheck(
        "host-acl-outbound",
        PathHop.HOST_RULES,
        "SUBNET_ACL_RESTRICTION",
        _find_host_acl_outbound,
        f"{RESTORE_OR_ADD}allow replies to that address out, ports 1024 to 65535",
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
