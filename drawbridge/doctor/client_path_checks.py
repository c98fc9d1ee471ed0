"""Judge the client's part of a path: its machine, the name that it looks up, its bundle, its address and its routes."""

from ipaddress import AddressValueError, IPv4Address, IPv4Network

from drawbridge.doctor.client_machine import SMALLEST_PATH, ClientDevice, ClientMachine, ClientRoute
from drawbridge.doctor.path_hops import FETCH, PathCheck, PathHop
from drawbridge.doctor.path_snapshot import ElasticIp, PathSnapshot, Unread, UnreadError, client_of, require
from drawbridge.doctor.vpc_rules import EVERYWHERE
from drawbridge.operate.client_states import RECENT
from openvpn.model import packet_size


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
    size = release.path_mtu if path.segment_size is None else packet_size(path.segment_size, release.frame_header)
    if path.path_sizes.get(size, True):
        return None
    finding = f"packets of {size} bytes are lost without an answer, those of {SMALLEST_PATH} arrive"
    if path.segment_size is None and release.measures_paths:
        # The gateway has the client send smaller ones if it has measured that, and a connection alone shows it.
        raise UnreadError(Unread(f"{finding}; to see which the client sends, name a host that answers: --to, --port"))
    return finding


def _list_tunnels(path: PathSnapshot) -> list[ClientDevice]:
    """Return the machine's devices in the tunnel's network."""
    client, machine = client_of(path), _machine(path)
    if client.tunnel_gateway is not None:
        return machine.list_devices(client.tunnel_gateway)
    release = require(path.release)
    # A bond has its address from the host's kit, and the bundle names none.
    if not release.links:
        raise UnreadError(Unread("the bundle does not name the gateway's address in the tunnel"))
    return [
        device
        for device in machine.devices.values()
        if any(address.ip in network for address in device.addresses for network in release.sources)
    ]


def _is_tunnel(path: PathSnapshot, device: str) -> bool:
    return device in {tunnel.name for tunnel in _list_tunnels(path)}


def _find_no_tunnel(path: PathSnapshot) -> str | None:
    if path.machine is None or _list_tunnels(path):
        return None
    gateway = client_of(path).tunnel_gateway
    if gateway is None:
        return (
            f"no device of the machine is in {', '.join(map(str, require(path.release).sources))}, the bond's network"
        )
    return f"no device of the machine is in a network with {gateway}, the gateway in the tunnel"


def _find_link_down(path: PathSnapshot) -> str | None:
    """Return which tunnels of a bond the machine does not have, or has without a connection."""
    if path.machine is None:
        return None
    down = []
    for link in require(path.release).links:
        device = path.machine.devices.get(link)
        if device is None or not device.is_up:
            down.append(f"link {link} is {'missing' if device is None else 'down'}")
    return f"of the machine's bond, {' and '.join(down)}" if down else None


def _find_two_tunnels(path: PathSnapshot) -> str | None:
    tunnels = [device.name for device in _list_tunnels(path) if device.is_tunnel] if path.machine else []
    return f"{' and '.join(tunnels)} are tunnels to the gateway" if len(tunnels) > 1 else None


def _wanted_networks(path: PathSnapshot) -> tuple[IPv4Network, ...]:
    """Return the networks that the machine is to reach through the tunnel."""
    return (IPv4Network(path.target),) if path.target else client_of(path).routes


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
    resolver, resolvers = client_of(path).resolver, _machine(path).resolvers
    if resolver is None or resolver in resolvers:
        return None
    if resolvers and all(address.is_loopback for address in resolvers):
        raise UnreadError(Unread("the machine asks a resolver of its own, which does not say whom it asks"))
    return f"the machine asks {', '.join(map(str, sorted(resolvers))) or 'nobody'}, not the VPC's {resolver}"


def _is_name(host: str) -> bool:
    try:
        IPv4Address(host)
    except AddressValueError:
        return True
    return False


def _find_unknown_name(path: PathSnapshot) -> str | None:
    remote, elastic_ip = client_of(path).remote, require(path.elastic_ip)
    if remote is None or not _is_name(remote.host) or require(path.resolved):
        return None
    if elastic_ip and str(elastic_ip.address) in client_of(path).fallbacks:
        return None
    return f"{remote.host} has no IPv4 address in DNS"


def _find_name_elsewhere(path: PathSnapshot) -> str | None:
    remote = client_of(path).remote
    return _describe_elsewhere(path) if remote and _is_name(remote.host) else None


def _find_remote_elsewhere(path: PathSnapshot) -> str | None:
    remote = client_of(path).remote
    return _describe_elsewhere(path) if remote and not _is_name(remote.host) else None


def _describe_elsewhere(path: PathSnapshot) -> str | None:
    remote, resolved, elastic_ip = client_of(path).remote, require(path.resolved), require(path.elastic_ip)
    if remote is None or elastic_ip is None or not resolved or elastic_ip.address in resolved:
        return None
    if _is_name(remote.host):
        return f"{remote.host} is {', '.join(map(str, resolved))}, the gateway's address {elastic_ip.address}"
    return f"the bundle leads to {remote.host}, the gateway's address is {elastic_ip.address}"


def _find_other_listener(path: PathSnapshot) -> str | None:
    remote, listeners = client_of(path).remote, require(path.release).listeners
    if (
        remote is None
        or not listeners
        or (remote.protocol, remote.port) in [(at.protocol, at.port) for at in listeners]
    ):
        return None
    ports = " or ".join(map(str, listeners))
    return f"the bundle leads to {remote.protocol} {remote.port}, the gateway listens on {ports}"


def _find_pending_client(path: PathSnapshot) -> str | None:
    client = client_of(path)
    return f"{client.name} is in the stack file and has no bundle yet" if client.state == "pending" else None


def _find_revoked_client(path: PathSnapshot) -> str | None:
    client = client_of(path)
    if client.state != "revoked":
        return None
    when = f" on {client.revoked:%Y-%m-%d %H:%M} UTC" if client.revoked else ""
    return f"{client.name} was revoked{when}"


def _find_revoked_certificate(path: PathSnapshot) -> str | None:
    client = client_of(path)
    if client.state == "enrolled" and client.serial in require(path.release).revoked:
        return f"the gateway refuses the bundle's certificate, serial {client.serial}"
    return None


def _find_ended_certificate(path: PathSnapshot) -> str | None:
    client = client_of(path)
    if client.state != "enrolled" or client.not_after is None or client.not_after > path.now:
        return None
    return f"the certificate of {client.name} ended on {client.not_after:%Y-%m-%d}"


def _find_old_bundle(path: PathSnapshot) -> str | None:
    client = client_of(path)
    return None if client.is_current else f"the bundle is not the one that {client.name} has now"


def _find_unknown_client(path: PathSnapshot) -> str | None:
    client, clients = client_of(path), require(path.release).clients
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
    client, sources = client_of(path), require(path.release).sources
    if client.address is None or any(client.address in network for network in sources):
        return None
    return f"the bundle accepts {client.address} alone, the gateway's pool is {', '.join(map(str, sources))}"


def _find_missing_client_route(path: PathSnapshot) -> str | None:
    release = require(path.release)
    takes_all = EVERYWHERE in release.destinations
    # A bond has its routes from the host's kit, or the gateway's release.
    if path.target is None or takes_all or release.links or any(path.target in network for network in release.routes):
        return None
    return f"clients get routes to {', '.join(map(str, release.routes)) or 'nothing'}, not to {path.target}"


CLIENT_CHECKS = (
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
        "have the machine answer pings through the tunnel; or drawbridge:tunnel.pathMtu: 1280, then: pulumi up --stack "
        "{stack}; or use another network",
    ),
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
    PathCheck("remote-elsewhere", PathHop.NAME, "", _find_remote_elsewhere, f"fetch the bundle again: {FETCH}"),
    PathCheck("listener-elsewhere", PathHop.NAME, "", _find_other_listener, f"fetch the bundle again: {FETCH}"),
    PathCheck("client-pending", PathHop.CLIENT, "", _find_pending_client, "deploy it: pulumi up --stack {stack}"),
    PathCheck(
        "client-revoked",
        PathHop.CLIENT,
        "",
        _find_revoked_client,
        "add it to drawbridge:clients again for a new bundle, then: pulumi up --stack {stack}",
    ),
    PathCheck("bundle-outdated", PathHop.CLIENT, "", _find_old_bundle, f"fetch the bundle again: {FETCH}"),
    PathCheck("certificate-revoked", PathHop.CLIENT, "", _find_revoked_certificate, f"fetch the bundle again: {FETCH}"),
    PathCheck(
        "certificate-ended",
        PathHop.CLIENT,
        "",
        _find_ended_certificate,
        f"pulumi up --stack {{stack}} renews it; then {FETCH}",
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
        "link-down",
        PathHop.ADDRESS,
        "",
        _find_link_down,
        "read the link's log on the machine: journalctl -u drawbridge-link@LINK; docs/links.md says what it means",
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
    PathCheck("address-outside-pool", PathHop.ADDRESS, "", _find_foreign_address, f"fetch the bundle again: {FETCH}"),
    PathCheck(
        "route-not-pushed",
        PathHop.ROUTE,
        "NO_ROUTE_TO_DESTINATION",
        _find_missing_client_route,
        "add its network to drawbridge:tunnel.routes, or set drawbridge:tunnel.vpc; then: pulumi up --stack {stack}, "
        f"and {FETCH}",
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
)
