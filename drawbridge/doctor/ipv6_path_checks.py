"""Judge the IPv6 part of a path inside the tunnel: the clients' range, the routes and the rules.

The tunnel itself is between IPv4 addresses, and hosts in the VPC have their way back by its `local` route. Source for
the codes: Amazon VPC Reachability Analyzer User Guide, "Explanation codes".
"""

from ipaddress import IPv6Address, IPv6Network

from drawbridge.doctor.path_hops import RESTORE, RESTORE_OR_ADD, PathCheck, PathHop
from drawbridge.doctor.path_snapshot import Ipv6Host, Ipv6Path, PathSnapshot, Unread, UnreadError, interface_of, require
from drawbridge.doctor.vpc_rules import (
    EPHEMERAL_PORTS,
    Packet,
    SubnetAcl,
    VpcRoute,
    VpcRouteTable,
    find_route_table,
    select_rules,
)

EVERYWHERE6 = IPv6Network("::/0")

#: Stands for a host on the Internet (RFC 3849): nobody has a route or a rule for it alone.
_ANY_HOST = IPv6Address("2001:db8::1")


def _ipv6(path: PathSnapshot) -> Ipv6Path:
    ipv6 = require(path.ipv6)
    if ipv6 is None:
        raise UnreadError(Unread("the tunnel has no IPv6"))
    return ipv6


def _clients(path: PathSnapshot) -> IPv6Network:
    clients = require(path.release).clients6
    if clients is None:
        raise UnreadError(Unread("the tunnel has no IPv6"))
    return clients


def _host(path: PathSnapshot) -> Ipv6Host | None:
    return _ipv6(path).host if path.target6 else None


# --- the clients' addresses -------------------------------------------------------------------------------------------


def _find_no_ipv6(path: PathSnapshot) -> str | None:
    if path.target6 is None or require(path.release).clients6 is not None:
        return None
    return f"clients have no IPv6 addresses, and {path.target6} is one"


def _find_missing_range(path: PathSnapshot) -> str | None:
    interface = interface_of(path)
    if not _ipv6(path).vpc_ranges:
        return f"{interface.vpc} has no IPv6 range"
    return None if interface.subnet in _ipv6(path).subnets else f"{interface.subnet} has no IPv6 range"


def _find_other_prefix(path: PathSnapshot) -> str | None:
    clients, interface, ipv6 = _clients(path), interface_of(path), _ipv6(path)
    routes = [
        route.destination
        for table in ipv6.route_tables
        for route in table.routes
        if route.target == interface.id and route.is_active
    ]
    networks = [network for network in (*ipv6.prefixes, *routes) if isinstance(network, IPv6Network)]
    if any(clients.subnet_of(network) for network in networks):
        return None
    return f"clients are in {clients}, and AWS leads {', '.join(map(str, networks)) or 'nothing'} to {interface.id}"


# --- routes -----------------------------------------------------------------------------------------------------------


def _internet_route(path: PathSnapshot) -> tuple[VpcRouteTable, VpcRoute | None] | None:
    """Return the route of the gateway's subnet to the Internet; None if clients do not take it."""
    if not _is_forwarded(path, _ANY_HOST):
        return None
    subnet = interface_of(path).subnet
    table = find_route_table(_ipv6(path).route_tables, subnet)
    if table is None:
        raise UnreadError(Unread(f"no route table of {subnet} is seen"))
    return table, table.find_route(_ANY_HOST)


def _find_missing_route(path: PathSnapshot) -> str | None:
    match _internet_route(path):
        case (table, None):
            return f"{table.id} has no route to {EVERYWHERE6}"
    return None


def _find_dead_route(path: PathSnapshot) -> str | None:
    match _internet_route(path):
        case (table, VpcRoute(is_active=False) as route):
            return f"{route.destination} of {table.id} leads to {route.target or 'a target'} that is gone"
    return None


def _find_other_route(path: PathSnapshot) -> str | None:
    match _internet_route(path):
        case (table, VpcRoute() as route) if not route.target.startswith(("igw-", "eigw-")):
            return f"{route.destination} of {table.id} leads to {route.target}, not to an internet gateway"
    return None


# --- rules ------------------------------------------------------------------------------------------------------------


def _destination(path: PathSnapshot) -> IPv6Address | None:
    """Return the host, or an address of the VPC; None if clients do not reach the VPC by IPv6."""
    if path.target6 is not None:
        return path.target6
    ranges = [network for network in _ipv6(path).vpc_ranges if _is_forwarded(path, network[4])]
    return ranges[0][4] if ranges else None


def _is_forwarded(path: PathSnapshot, address: IPv6Address) -> bool:
    return any(address in network for network in require(path.release).destinations6)


def _find_refused_forwarding(path: PathSnapshot) -> str | None:
    destinations = require(path.release).destinations6
    if path.target6 is not None and not _is_forwarded(path, path.target6):
        return f"the gateway forwards to {', '.join(map(str, destinations)) or 'nothing'}, not to {path.target6}"
    missing = [str(network) for network in _ipv6(path).vpc_ranges if not _is_forwarded(path, network[4])]
    return f"the gateway does not forward to {', '.join(missing)} of the VPC" if destinations and missing else None


def _find_closed_egress(path: PathSnapshot) -> str | None:
    destination, groups = _destination(path), interface_of(path).groups
    if destination is None:
        return None
    host = _host(path)
    packet = Packet(peer=destination, protocol=path.target_protocol, port=path.target_port)
    if any(rule.applies(packet, host.groups if host else ()) for rule in select_rules(_ipv6(path).rules, "egress")):
        return None
    return f"{', '.join(groups)} lets nothing out to {destination}"


def _acl_of(path: PathSnapshot, subnet: str) -> SubnetAcl:
    acl = next((acl for acl in _ipv6(path).acls if subnet in acl.subnets), None)
    if acl is None:
        raise UnreadError(Unread(f"no network ACL of {subnet} is seen"))
    return acl


def _judge_acl(path: PathSnapshot, subnet: str, peer: IPv6Address, *, outbound: bool, is_reply: bool) -> str | None:
    """Return what the ACL of a subnet refuses of requests, or of replies, whose ports nobody knows before."""
    acl, protocol = _acl_of(path, subnet), path.target_protocol
    ports: tuple[int | None, ...] = (path.target_port,)
    if is_reply:
        ports = EPHEMERAL_PORTS if protocol else (None,)
    for port in ports:
        if not acl.admits(Packet(peer=peer, protocol=protocol, port=port), outbound=outbound):
            subject = f"{protocol or 'everything'}{'' if port is None else f' port {port}'}"
            return f"{acl.id} refuses {subject} {'to' if outbound else 'from'} {peer}"
    return None


def _find_gateway_acl(path: PathSnapshot) -> str | None:
    destination, subnet, host = _destination(path), interface_of(path).subnet, _host(path)
    # An ACL does not see what stays in its subnet.
    if destination is None or (host and host.subnet == subnet):
        return None
    outgoing = _judge_acl(path, subnet, destination, outbound=True, is_reply=False)
    return outgoing or _judge_acl(path, subnet, destination, outbound=False, is_reply=True)


def _find_missing_host(path: PathSnapshot) -> str | None:
    address, interface = path.target6, interface_of(path)
    if address is None or _host(path) or not any(address in network for network in _ipv6(path).vpc_ranges):
        return None
    return f"no network interface of {interface.vpc} has {address}"


def _find_host_acl(path: PathSnapshot) -> str | None:
    host, client = _host(path), _clients(path)[2]
    if host is None or host.subnet == interface_of(path).subnet:
        return None
    incoming = _judge_acl(path, host.subnet, client, outbound=False, is_reply=False)
    return incoming or _judge_acl(path, host.subnet, client, outbound=True, is_reply=True)


def _find_closed_host(path: PathSnapshot) -> str | None:
    host, client = _host(path), _clients(path)[2]
    if host is None:
        return None
    packet = Packet(peer=client, protocol=path.target_protocol, port=path.target_port)
    rules = select_rules(host.rules, "ingress")
    if any(rule.applies(packet) for rule in rules):
        return None
    if lists := [rule.prefix_list for rule in rules if rule.prefix_list]:
        raise UnreadError(Unread(f"whether {client} is in {', '.join(lists)} is not read"))
    port = f" {path.target_protocol} {path.target_port or ''}".rstrip() if path.target_protocol else ""
    return f"{', '.join(host.groups)} of {path.target6} does not let{port} in from {_clients(path)}"


IPV6_CHECKS = (
    PathCheck(
        "ipv6-not-in-tunnel",
        PathHop.IPV6_ADDRESS,
        "",
        _find_no_ipv6,
        "set drawbridge:tunnel.ipv6: delegated, then: pulumi up --stack {stack}",
    ),
    PathCheck("ipv6-range-missing", PathHop.IPV6_ADDRESS, "", _find_missing_range, RESTORE),
    PathCheck(
        "ipv6-prefix-elsewhere",
        PathHop.IPV6_ADDRESS,
        "NO_ROUTE_TO_DESTINATION",
        _find_other_prefix,
        "pulumi up --refresh --stack {stack} delegates a prefix again; if it is another one, every client needs its "
        "bundle again",
    ),
    PathCheck(
        "ipv6-route-missing",
        PathHop.IPV6_ROUTE,
        "NO_ROUTE_TO_DESTINATION",
        _find_missing_route,
        f"{RESTORE_OR_ADD}add ::/0 to the internet gateway",
    ),
    PathCheck(
        "ipv6-route-dead",
        PathHop.IPV6_ROUTE,
        "BAD_STATE_ROUTE",
        _find_dead_route,
        f"{RESTORE_OR_ADD}have ::/0 lead to the internet gateway",
    ),
    PathCheck(
        "ipv6-route-elsewhere",
        PathHop.IPV6_ROUTE,
        "MORE_SPECIFIC_ROUTE",
        _find_other_route,
        f"{RESTORE_OR_ADD}have ::/0 lead to the internet gateway",
    ),
    PathCheck(
        "ipv6-not-forwarded",
        PathHop.IPV6_RULES,
        "FIREWALL_RULES_RESTRICTION",
        _find_refused_forwarding,
        "set drawbridge:tunnel.vpc, or the VPC has a range that the release does not know: pulumi up --stack {stack}",
    ),
    PathCheck("ipv6-group-outbound", PathHop.IPV6_RULES, "ENI_SG_RULES_MISMATCH", _find_closed_egress, RESTORE),
    PathCheck(
        "ipv6-gateway-acl",
        PathHop.IPV6_RULES,
        "SUBNET_ACL_RESTRICTION",
        _find_gateway_acl,
        f"{RESTORE_OR_ADD}allow the host's range both ways in the ACL of the gateway's subnet",
    ),
    PathCheck(
        "ipv6-host-missing",
        PathHop.IPV6_RULES,
        "NO_SOURCE_OR_DESTINATION",
        _find_missing_host,
        "look its address up in EC2; an instance needs one of its subnet's IPv6 range",
    ),
    PathCheck(
        "ipv6-host-acl",
        PathHop.IPV6_RULES,
        "SUBNET_ACL_RESTRICTION",
        _find_host_acl,
        f"{RESTORE_OR_ADD}allow the clients' range in, and replies to it out",
    ),
    PathCheck(
        "ipv6-host-group-closed",
        PathHop.IPV6_RULES,
        "ENI_SG_RULES_MISMATCH",
        _find_closed_host,
        "add a rule for the clients' IPv6 range to the host's security group: its rules for IPv4 do not count",
    ),
)
