r"""Render what a client accepts of the options that its server pushes.

The program knows all that it has the gateway push, so a profile accepts that and ignores the rest: a gateway that was
taken over cannot give its clients other routes, a resolver or a default route.

Source: openvpn(8) of 2.6, `--pull-filter`: the first filter whose text an option begins with decides. The end needs
two filters. OpenVPN 2 compares texts, so `route` alone would not find an option that the server has quoted
(`"route" 0.0.0.0 128.0.0.0`); `""` finds every option. OpenVPN 3 compares words, for which a single quote mark stands
for an empty word: that finds every option, and the last line is never reached, which old versions cannot read.
"""

import re
from collections.abc import Iterator, Set
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from openvpn.addressing import fixed_addresses, fixed_addresses6
from openvpn.model import Tunnel, derive_once
from openvpn.server import redirect_options, resolver_options
from openvpn.syntax import spell_network

#: Options that every server pushes by itself, with OpenVPN 2.6 and 2.7. None of them changes where packets go.
NEGOTIATED = (
    "ping",
    "peer-id ",
    "cipher ",
    "key-derivation ",
    "protocol-flags ",
    "tun-mtu ",
    "socket-flags TCP_NODELAY",
    "push-continuation ",
)

#: Ignores every option that no line before has accepted.
IGNORE_OTHERS = (r'pull-filter ignore "\""', 'pull-filter ignore ""')


def render_filter(tunnel: Tunnel, client: str = "", *, lists_routes: bool = True) -> Iterator[str]:
    """Yield the options that accept what a tunnel's server pushes to a client, and ignore everything else.

    `lists_routes` is whether only the tunnel's routes are accepted, or every IPv4 route.
    """
    yield from map(accept, NEGOTIATED)
    if tunnel.layout.pushes_addresses:
        yield from map(accept, _addresses(tunnel, client))
        if lists_routes:
            yield from map(accept, _routes(tunnel, client))
        else:
            yield accept("route ")
        if tunnel.ipv6:
            yield from (accept(f"route-ipv6 {network}") for network in tunnel.ipv6.routes)
        yield from map(accept, (*redirect_options(tunnel), *resolver_options(tunnel)))
    yield from IGNORE_OTHERS


def accept(option: str) -> str:
    """Return the line that accepts options which begin so."""
    return f'pull-filter accept "{option}"'


_OWN_ADDRESS = re.compile(r'^pull-filter accept "ifconfig (\d+\.\d+\.\d+\.\d+) ', re.MULTILINE)


def own_address(profile: str) -> IPv4Address | None:
    """Return the tunnel address that a profile accepts alone; None if it accepts any, or gets none.

    >>> own_address('pull-filter accept "ifconfig 10.8.0.20 255.255.255.0"')
    IPv4Address('10.8.0.20')
    """
    match = _OWN_ADDRESS.search(profile)
    try:
        return IPv4Address(match[1]) if match else None
    except ValueError:
        return None


_ACCEPTED = re.compile(r'^pull-filter accept "([^"]+)"', re.MULTILINE)


def accepted_options(profile: str) -> tuple[str, ...]:
    """Return how the options begin that a profile accepts.

    >>> accepted_options('pull-filter accept "ping"\\npull-filter accept "route 10.1.0.0 255.255.0.0"\\n')
    ('ping', 'route 10.1.0.0 255.255.0.0')
    """
    return tuple(_ACCEPTED.findall(profile))


@derive_once
def _without_sharing(tunnel: Tunnel) -> Tunnel:
    """Return the tunnel as if one process served it: a bundle stays as it is when the gateway gets more of them."""
    return replace(tunnel, listener=replace(tunnel.listener, sharing=1))


def _addresses(tunnel: Tunnel, client: str) -> Iterator[str]:
    """Yield how the options begin that give a client its addresses; with its own address, they are whole."""
    if not tunnel.layout.is_segment:
        yield "topology subnet"
    yield f"route-gateway {tunnel.layout.address}"
    if client == tunnel.bridge:
        return  # Its host has addresses of the LAN.
    single = _without_sharing(tunnel)
    address = fixed_addresses(single).get(client)
    yield f"ifconfig {address} {tunnel.layout.network.netmask}" if address else "ifconfig "
    if ipv6 := tunnel.ipv6:
        address6 = fixed_addresses6(single).get(client)
        yield f"ifconfig-ipv6 {address6}/{ipv6.pool.prefixlen} {ipv6.address}" if address6 else "ifconfig-ipv6 "


def _routes(tunnel: Tunnel, client: str) -> Iterator[str]:
    """Yield the routes that are pushed to a client: not those to its own networks."""
    networks: list[IPv4Network] = [*tunnel.routes]
    if tunnel.client_to_client:
        networks += [lan for member in tunnel.members if member.name != client for lan in member.lan]
    yield from (f"route {spell_network(network)}" for network in dict.fromkeys(networks))


def may_fit(tunnel: Tunnel, client: str, limit: int) -> bool:
    """Return False if a client's routes alone need more than `limit` characters, which rendering them would show too.

    With networks behind many clients, rendering them all for each client would take most of a deployment's time.
    """
    declared = tunnel.clients_by_name.get(client)
    routes = len(_pushed_networks(tunnel)) - (len(declared.lan) if declared else 0)
    return routes * len(accept(f"route {spell_network(_SHORTEST)}")) <= limit


#: A network that needs no more characters than any other one.
_SHORTEST = IPv4Network("0.0.0.0/1")


@derive_once
def _pushed_networks(tunnel: Tunnel) -> Set[IPv4Network]:
    """Return the networks that clients are pushed routes to."""
    lans = (lan for member in tunnel.members for lan in member.lan) if tunnel.client_to_client else ()
    return {*tunnel.routes, *lans}
