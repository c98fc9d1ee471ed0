"""Draw a stack from its settings: its networks, gateways, tunnels and clients, and who reaches whom.

Addresses that AWS chooses, such as the Elastic IP, are not in a stack file, so the drawing has only their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from contract import GATEWAYS
from drawbridge.operate import svg
from drawbridge.operate.svg import Block, Style
from openvpn.addressing import segment_addresses
from openvpn.listener import Listener
from openvpn.model import Tunnel, TunnelClient
from openvpn.topology import BondedSegment, BridgedSegment, Layout, PairLink, Routed, Segment, Topology, lay_out
from settings.model import Client, Settings, Vpc
from subnets import plan_subnets

CLIENT = Style("#eef2f7", "#34495e")
LAN = Style("#ffffff", "#66727f")
TUNNEL = Style("#fff7e0", "#8a4b00")
VPC = Style("#f7f3fb", "#6b3fa0")
PUBLIC = Style("#ecf6ea", "#2a702d")
PRIVATE = Style("#e8f3fa", "#145a94")
GATEWAY = Style("#ffffff", "#a83700")
REACH = Style("#fafafa", "#444444")

#: Distances: of the drawing from the image's edge, of its columns, and of two links from each other.
MARGIN, COLUMN_GAP, LINK_GAP = 24, 56, 16

#: Clients that are drawn. With more, the picture would be a list.
MAX_CLIENTS = 12

#: Values of one kind that a box names.
MAX_NAMED = 2

_WORLD = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class Reach:
    """A direction in which connections may be opened."""

    source: str
    destination: str
    how: str


def render_map(settings: Settings) -> str:
    """Return a drawing of the stack as SVG."""
    title = f"Stack {settings.stack} in {settings.region}"
    reaches = list(find_reaches(settings))
    networks = _draw_pair(settings) if settings.pair else _draw_single(settings)
    rows = [(reach.source, "\u2192", reach.destination, reach.how) for reach in reaches] or [("nobody", "", "", "")]
    table = svg.box("Who may open connections to whom", [svg.table(rows)], REACH, width=networks.width)
    drawing = svg.column([svg.text([title], size=18, bold=True), networks, table])
    sentences = [_describe(settings), *(f"{reach.source} to {reach.destination}: {reach.how}." for reach in reaches)]
    return svg.document(drawing, MARGIN, title=title, description=" ".join(sentences))


def find_reaches(settings: Settings) -> Iterator[Reach]:
    """Yield who may open connections to whom over the tunnel; the gateway refuses all others."""
    tunnel = settings.tunnel
    if settings.pair:
        first, second = map(_name_vpc, settings.vpcs)
        if tunnel.vpc:
            yield Reach(first, second, "by the hosts' own addresses, and back")
        else:
            yield Reach("gateway a", "gateway b", "and back; hosts of the VPCs do not reach each other")
        return
    if not settings.clients:
        return
    vpc = _name_vpc(settings.network)
    lans = [str(lan) for client in settings.clients for lan in client.lan]
    reachable = [str(network) for client in settings.clients for network in client.reachable]
    clients = ", ".join(["clients", *lans])
    seen = "seen as the gateway's address" if tunnel.nat else "by their own addresses"
    if tunnel.vpc:
        yield Reach(clients, vpc, f"{seen}, with names of {settings.domain}" if settings.domain else seen)
    if tunnel.redirect == "all":
        yield Reach(clients, "the Internet", "seen as the gateway's Elastic IP")
    elif tunnel.routes:
        yield Reach(clients, ", ".join(map(str, tunnel.routes)), seen)
    if reachable and tunnel.vpc:
        yield Reach(vpc, ", ".join(reachable), "by the hosts' own addresses")
    if tunnel.client_to_client and tunnel.device == "tun":
        yield Reach(clients, ", ".join(["clients", *reachable]), "through the gateway")
    elif tunnel.client_to_client:
        yield Reach(clients, clients, _describe_segment(settings))
    if tunnel.has_ipv6 and tunnel.redirect != "none":
        yield Reach("clients", "the IPv6 Internet", "by their own global addresses")
    elif tunnel.has_ipv6 and tunnel.vpc:
        yield Reach("clients", "the VPC's IPv6 range", "by their own global addresses")
    if tunnel.has_ipv6 and tunnel.open_to:
        yield Reach(", ".join(map(str, tunnel.open_to)), "clients", "by their global IPv6 addresses")


def _describe_segment(settings: Settings) -> str:
    """Return what crosses a segment."""
    count = len(settings.tunnel.multicast)
    multicast = f"multicast of {count} range{'s' if count > 1 else ''}" if count else "all multicast"
    return f"as on one switch, with {multicast}"


def _describe(settings: Settings) -> str:
    """Return the stack in one sentence, for those who do not see the drawing."""
    if settings.pair:
        return f"Two gateways join {' and '.join(map(_name_vpc, settings.vpcs))} over two links."
    names = ", ".join(client.name for client in settings.clients) or "no client yet"
    return (
        f"A gateway in {_name_vpc(settings.network)} and a tunnel with addresses of {settings.tunnel.pool} for {names}."
    )


def _name_vpc(vpc: Vpc) -> str:
    return f"VPC {vpc.vpc_id or vpc.cidr}"


def _draw_single(settings: Settings) -> Block:
    """Return clients, tunnel and VPC of a stack with one gateway."""
    topology = _topology(settings)
    layout = lay_out(topology, settings.tunnel.pool)
    cards = _draw_clients(settings, _client_addresses(settings, topology))
    clients = svg.column(cards)
    ports = Listener.consecutive(settings.tunnel.protocol, settings.tunnel.port, settings.tunnel.links).ports
    vpc = _draw_vpc(settings.network, "gateway", _describe_gateway(settings, layout, layout.address, ports))
    tunnel = _draw_tunnel(settings, topology, layout, ports, height=max(clients.height, vpc.block.height))
    return _join(
        clients, tunnel, vpc.block, svg.centers(cards), [vpc.gateway], depths=(0, vpc.depth), settings=settings
    )


def _draw_pair(settings: Settings) -> Block:
    """Return the two VPCs of a pair and the bond between them."""
    layout, port = lay_out(PairLink(), settings.tunnel.pool), settings.tunnel.port
    first, second = (
        _draw_vpc(vpc, f"gateway {name}", _describe_gateway(settings, layout, layout.address + number, [port + number]))
        for number, (name, vpc) in enumerate(zip(GATEWAYS, settings.vpcs, strict=True))
    )
    lines = [
        f"addresses {settings.tunnel.pool}",
        *(f"link {number}: udp {port + number}, served by gateway {name}" for number, name in enumerate(GATEWAYS)),
    ]
    title, height = f"bond of two links, {settings.tunnel.bond}", max(first.block.height, second.block.height)
    tunnel = svg.box(title, [svg.text(lines)], TUNNEL, height=height)
    depths = (first.depth, second.depth)
    return _join(first.block, tunnel, second.block, [first.gateway], [second.gateway], depths=depths, settings=settings)


def _join(
    left: Block,
    tunnel: Block,
    right: Block,
    left_ends: Sequence[float],
    right_ends: Sequence[float],
    *,
    depths: tuple[float, float],
    settings: Settings,
) -> Block:
    """Return three columns, and a line for each link between the tunnel and each end in the other two columns.

    Ends are heights in the column. `depths` is how far inside of the left and the right column they are.
    """
    links = 2 if settings.pair else settings.tunnel.links
    shifts = [LINK_GAP * (number - (links - 1) / 2) for number in range(links)]
    start = left.width + COLUMN_GAP
    end = start + tunnel.width
    right_start = end + COLUMN_GAP
    spans = [
        *((left.width - depths[0], start, height) for height in left_ends),
        *((end, right_start + depths[1], height) for height in right_ends),
    ]

    def draw(x: float, y: float) -> str:
        lines = [
            svg.line(x + from_x, y + height + shift, x + to_x, y + height + shift, TUNNEL.stroke)
            for from_x, to_x, height in spans
            for shift in shifts
        ]
        boxes = [left.draw(x, y), tunnel.draw(x + start, y), right.draw(x + right_start, y)]
        return "\n".join([*boxes, *lines])

    return Block(right_start + right.width, max(left.height, tunnel.height, right.height), draw)


def _topology(settings: Settings) -> Topology:
    """Return what the tunnel is."""
    if settings.tunnel.device == "tun":
        return Routed()
    if settings.tunnel.links > 1:
        return BondedSegment(settings.tunnel.bond or "balance-alb")
    bridge = next((client for client in settings.clients if client.bridge), None)
    return BridgedSegment(bridge.name, bridge.lan[0]) if bridge else Segment()


def _client_addresses(settings: Settings, topology: Topology) -> Mapping[str, IPv4Address]:
    """Return the tunnel address of each client that always has the same, by its name."""
    if isinstance(topology, Routed) and settings.gateway.processes == 1:
        return {client.name: client.address for client in settings.clients if client.address}
    clients = tuple(TunnelClient(name=client.name, address=client.address) for client in settings.clients)
    return segment_addresses(Tunnel(topology=topology, pool=settings.tunnel.pool, clients=clients))


def _draw_clients(settings: Settings, addresses: Mapping[str, IPv4Address]) -> list[Block]:
    """Return a box for each client, all of one width; further clients have one box together."""
    drawn = settings.clients if len(settings.clients) <= MAX_CLIENTS else settings.clients[: MAX_CLIENTS - 1]
    contents = [(client.name, _describe_client(settings, client, addresses.get(client.name))) for client in drawn]
    if len(drawn) < len(settings.clients):
        contents.append((f"and {len(settings.clients) - len(drawn)} more clients", []))
    contents = contents or [("no clients yet", [])]
    width = max(svg.box(title, content, CLIENT).width for title, content in contents)
    return [svg.box(title, content, CLIENT, width=width) for title, content in contents]


def _describe_client(settings: Settings, client: Client, address: IPv4Address | None) -> list[Block]:
    """Return what a client's box has below the name."""
    lines = []
    if not client.bridge:
        lines.append(f"tunnel address {address}" if address else "any address of the pool")
    if settings.tunnel.has_ipv6:
        lines.append(f"IPv6 address {client.address6}" if client.address6 else "an IPv6 address")
    if client.at:
        lines.append(f"public address {client.at}")
    if client.lines:
        lines.append(f"lines {', '.join(client.lines)}")
    if client.system != "linux":
        lines.append(client.system)
    lans = []
    for lan in client.lan:
        parts = [str(network) for network in client.reachable if network.subnet_of(lan)]
        note = f"AWS reaches {_shorten(parts)}" if parts else "AWS opens no connections"
        lans.append(svg.box(f"{'bridged ' if client.bridge else ''}LAN {lan}", [svg.text([note])], LAN))
    return [svg.text(lines), *lans]


def _draw_tunnel(
    settings: Settings, topology: Topology, layout: Layout, ports: Sequence[int], *, height: float
) -> Block:
    """Return the box between clients and gateway."""
    tunnel = settings.tunnel
    match topology:
        case BondedSegment(mode=mode):
            title = f"bond of two links, {mode}"
        case BridgedSegment():
            title = "one Ethernet segment with a LAN"
        case Segment():
            title = "one Ethernet segment"
        case _:
            title = "routed network"
    lines = [
        f"addresses {tunnel.pool}",
        *([f"in the LAN {layout.network}"] if layout.network != tunnel.pool else []),
        f"OpenVPN, {tunnel.protocol} {', '.join(map(str, ports))}",
        *([f"IPv6: {tunnel.ipv6}"] if tunnel.has_ipv6 else []),
        *(["clients reach each other"] if tunnel.client_to_client else []),
    ]
    return svg.box(title, [svg.text(lines)], TUNNEL, height=height)


def _describe_gateway(settings: Settings, layout: Layout, address: IPv4Address, ports: Sequence[int]) -> Block:
    """Return a gateway's addresses, and the ports that are open at them."""
    gateway = settings.gateway
    if settings.pair:
        sources = "the other gateway"
    else:
        at = ["its clients' addresses"] if any(client.at for client in settings.clients) else []
        sources = _shorten([*map(_name_range, gateway.allow_from), *at]) or "no address"
    admins = [*map(_name_range, gateway.admin_from), *map(str, filter(None, [gateway.admin_at]))]
    return svg.text(
        [
            f"Elastic IP{f', {gateway.hostname}' if gateway.hostname else ''}",
            f"{settings.tunnel.protocol} {', '.join(map(str, ports))} from {sources}",
            f"ssh from {_shorten(admins)}" if admins else "ssh closed",
            f"{layout.interface} {address}",
            *(["delegated IPv6 prefix"] if settings.tunnel.ipv6 not in ("none", "advertised") else []),
            gateway.instance_type,
        ]
    )


@dataclass(frozen=True, slots=True)
class DrawnVpc:
    """A VPC's box, and where the gateway's box is in it."""

    block: Block
    gateway: float
    """Height of the middle of the gateway's box."""
    depth: float
    """Distance of the gateway's box from the left and the right edge."""


def _draw_vpc(vpc: Vpc, name: str, gateway: Block) -> DrawnVpc:
    """Return a VPC, with the gateway in its first public subnet."""
    titles, notes = _describe_subnets(vpc)
    width = max(
        svg.box(name, [gateway], GATEWAY).width + 2 * svg.PADDING,
        *(svg.box(title, [notes] if is_private else [], PUBLIC).width for title, is_private in titles),
    )
    machine = svg.box(name, [gateway], GATEWAY, width=width - 2 * svg.PADDING)
    contents: list[Block] = [machine, *(notes if is_private else svg.text([]) for _, is_private in titles[1:])]
    subnets = [
        svg.box(title, [content], PRIVATE if is_private else PUBLIC, width=width)
        for (title, is_private), content in zip(titles, contents, strict=True)
    ]
    block = svg.box(f"existing VPC {vpc.vpc_id}" if vpc.vpc_id else f"VPC {vpc.cidr}", [svg.column(subnets)], VPC)
    return DrawnVpc(block, 2 * svg.CONTENT_TOP + machine.height / 2, 2 * svg.PADDING)


def _describe_subnets(vpc: Vpc) -> tuple[list[tuple[str, bool]], Block]:
    """Return the title of each subnet and whether it is private, the gateway's first; and what is in private ones."""
    if vpc.vpc_id:
        note = f"route tables {_shorten(vpc.route_table_ids)}" if vpc.route_table_ids else "no routes are added"
        return [(f"public subnet {vpc.subnet_id}", False), ("your hosts", True)], svg.text([note])
    zones = plan_subnets(vpc.cidr, vpc.zones, vpc.private_prefix)
    publics = [(f"public subnet {zone.public}", False) for zone in zones]
    return [*publics, *((f"private subnet {zone.private}", True) for zone in zones)], svg.text(["your hosts"])


def _name_range(network: IPv4Network) -> str:
    return "anywhere" if network == _WORLD else str(network)


def _shorten(names: Sequence[str]) -> str:
    """Return some names, and the number of the others.

    >>> _shorten(["a", "b"]), _shorten(["a", "b", "c"])
    ('a, b', 'a and 2 more')
    """
    if len(names) <= MAX_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: MAX_NAMED - 1])} and {len(names) - MAX_NAMED + 1} more"
