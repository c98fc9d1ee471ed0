"""The one typed, frozen and validated view of a stack's configuration.

`parse` takes the configuration as the stack file spells it and either returns `Settings` or raises `SettingsError` with
every problem there is, so that a stack file is mended once and not once per error. It reaches nothing: no file, no
network, no AWS.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from itertools import combinations
from typing import TypeVar

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from endpoint import decode, is_loopback
from settings.model import (
    LAB,
    POOLS,
    SAFE_STACK,
    Client,
    Gateway,
    Lifetimes,
    Network,
    Pair,
    Section,
    Settings,
    Tunnel,
    Vpc,
)
from settings.problems import NAMESPACE, REMEDIES, Problem, SettingsError, explain, problem_at, show, suggest

#: Keys of the namespace.
SECTIONS = ("network", "gateway", "pair", "tunnel", "clients", "lifetimes")

#: Characters; an IAM user's name (64) has project and stack in it as well.
MEMBER = 31

LINK_LOCAL = IPv4Network("169.254.0.0/16")

#: What a pair's tunnel has; its other keys are for tunnels with clients.
OF_A_PAIR = {"device", "links", "bond", "pool", "port", "vpc", "verb"}

#: The interface that has a bridging host's addresses; OpenVPN's TAP and the LAN's interface are its ports.
BRIDGE = "br0"


def parse(raw: Mapping[str, object], *, stack: str, endpoint: str | None) -> Settings:
    """Return the settings of `stack`; raises `SettingsError` with all problems.

    `raw` has the configuration's keys with their namespace (`drawbridge:network`, `aws:region`), values as in a stack
    file or as the JSON that Pulumi makes of them. `endpoint` is the URL of the AWS API, None for AWS itself.
    """
    problems = [*_check_stack(stack, endpoint), *_unknown_keys(raw)]
    values = {key: decode(raw.get(f"{NAMESPACE}:{key}")) for key in SECTIONS}

    region = raw.get("aws:region")
    if not isinstance(region, str) or not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        problems.append(
            Problem("aws:region", show(region), "is no AWS region", "run `pulumi config set aws:region eu-west-1`")
        )
    network = _section(Network, "network", values["network"], problems)
    gateway = _section(Gateway, "gateway", values["gateway"], problems)
    tunnel = _section(Tunnel, "tunnel", values["tunnel"], problems)
    lifetimes = _section(Lifetimes, "lifetimes", values["lifetimes"], problems)
    clients = _clients(values["clients"], problems)
    paired = f"{NAMESPACE}:pair" in raw
    pair = _section(Pair, "pair", values["pair"], problems) if paired else None

    if network:
        problems += _check_network(network, tunnel, clients)
    if gateway and not paired:
        problems += _check_gateway(gateway, clients)
    if gateway:
        problems += _check_admin(gateway)
    if tunnel and not paired:
        problems += _check_pool(tunnel, clients)
        problems += _check_segment(tunnel, clients)
        problems += _check_port(tunnel)
        problems += _check_bridge(tunnel, clients)
        problems += _check_links(tunnel, clients)
        problems += _check_ipv6(tunnel, gateway, clients)
        problems += _check_advertised(tunnel, gateway, network)
    if pair:
        problems += _check_network(pair, tunnel, {}, "pair")
        problems += _check_pair(pair, network, gateway, tunnel, values["clients"])
    if lifetimes:
        problems += _check_lifetimes(lifetimes)
    problems += _check_clients(clients)
    problems += _overlaps(
        _ranges(network, pair, _of_pair(tunnel) if pair and tunnel else tunnel, clients), _bridged(clients)
    )

    if problems or not (network and gateway and tunnel and lifetimes):
        raise SettingsError(problems)
    return Settings.model_construct(
        stack=stack,
        region=str(region),
        network=network,
        gateway=gateway,
        tunnel=_of_pair(tunnel) if pair else tunnel,
        clients=tuple(clients.values()),
        lifetimes=lifetimes,
        pair=pair,
    )


_S = TypeVar("_S", bound=Section)


def _section(model: type[_S], key: str, value: object, problems: list[Problem]) -> _S | None:
    try:
        return model.model_validate({} if value is None else value)
    except ValidationError as error:
        # A default that follows from another key is no finding of its own when that one is wrong.
        found = [one for one in error.errors(include_url=False) if one["type"] != "default_factory_not_called"]
        problems += [explain(model, key, value, details) for details in found]
        return None


def _clients(value: object, problems: list[Problem]) -> dict[int, Client]:
    """The clients that are right by themselves, by their place in the list."""
    if not isinstance(value, list | None):
        reason, remedy = "is no list", "write one entry for each client: - {name: alice}"
        problems.append(Problem(f"{NAMESPACE}:clients", show(value), reason, remedy))
        return {}
    parsed = {i: _section(Client, f"clients[{i}]", entry or {}, problems) for i, entry in enumerate(value or [])}
    return {i: client for i, client in parsed.items() if client}


def _unknown_keys(raw: Mapping[str, object]) -> Iterator[Problem]:
    for key, value in raw.items():
        namespace, _, name = key.rpartition(":")
        if namespace == NAMESPACE and name not in SECTIONS:
            yield Problem(key, show(value), "has an unknown key", suggest(name, SECTIONS))


def _check_stack(stack: str, endpoint: str | None) -> Iterator[Problem]:
    if not SAFE_STACK.fullmatch(stack):
        remedy = "use 1 to 20 of a-z, 0-9 and '-', a letter first and no '-' last"
        yield Problem("stack", stack, "cannot be part of a bucket's name", remedy)
    if stack == LAB and not (endpoint and is_loopback(endpoint)):
        remedy = "deploy it with `drawbridge lab up`, or choose another stack for AWS"
        yield Problem("stack", LAB, f"would be deployed to {endpoint or 'AWS itself'}", remedy)


def _check_network(
    network: Vpc, tunnel: Tunnel | None, clients: Mapping[int, Client], key: str = "network"
) -> Iterator[Problem]:
    given = network.model_fields_set
    if network.vpc_id is None and network.subnet_id is None:
        # A public and a private /24 for each zone.
        narrowest = 24 - (2 * network.zones - 1).bit_length()
        if not 16 <= network.cidr.prefixlen <= narrowest:
            remedy = f"write a range from /16 to /{narrowest}"
            yield problem_at(f"{key}.cidr", network.cidr, "is no size for the VPC", remedy)
        elif (least := _least_prefix(network)) > network.private_prefix:
            reason = f"leaves no room for {network.zones} private subnets in {NAMESPACE}:{key}.cidr {network.cidr}"
            remedy = f"write {least} or more" if least < 24 else "write 24"
            yield problem_at(f"{key}.privatePrefix", network.private_prefix, reason, remedy)
        if network.route_table_ids:
            ids = ", ".join(network.route_table_ids)
            remedy = "leave it out, or give vpcId and subnetId"
            yield problem_at(f"{key}.routeTableIds", ids, "is for an existing VPC", remedy)
        return
    for name, value in (("vpcId", network.vpc_id), ("subnetId", network.subnet_id)):
        if value is None:
            yield problem_at(f"{key}.{name}", "(missing)", "is needed for an existing VPC", REMEDIES[name])
    for name in ("cidr", "zones", "privatePrefix"):
        if name in {to_camel(field) for field in given}:
            remedy = "leave it out, or leave vpcId and subnetId out"
            yield problem_at(f"{key}.{name}", network.model_dump(by_alias=True)[name], "is for a new VPC", remedy)
    routed = (tunnel and not tunnel.nat) or any(client.reachable for client in clients.values())
    if routed and not network.route_table_ids:
        yield problem_at(
            f"{key}.routeTableIds",
            "(missing)",
            "is needed where the existing VPC opens connections to clients",
            "name the route tables that shall lead to them",
        )


def _least_prefix(network: Vpc) -> int:
    """The shortest prefix of private subnets for which the VPC has room; the public ones' /24s lie in front of them."""

    def fits(prefix: int) -> bool:
        blocks = max(1, 2 ** (prefix - 22)) + network.zones
        return prefix >= network.cidr.prefixlen and blocks <= 2 ** (prefix - network.cidr.prefixlen)

    return next((prefix for prefix in range(17, 24) if fits(prefix)), 24)


def _check_gateway(gateway: Gateway, clients: Mapping[int, Client]) -> Iterator[Problem]:
    shut_out = [client.name for client in clients.values() if client.at is None]
    if not gateway.allow_from and (shut_out or not clients):
        reason = f"lets nobody reach the tunnel from anywhere: {', '.join(shut_out) or 'no client'}"
        yield problem_at("gateway.allowFrom", "[]", reason, "name ranges, or give each client `at`, its public address")


def _check_admin(gateway: Gateway) -> Iterator[Problem]:
    # Two halves of the world are the world: what counts is how many addresses there are.
    world = sum(network.num_addresses for network in collapse_addresses(gateway.admin_from)) >= 2**31
    if world and not gateway.admin_from_anywhere:
        ranges = ", ".join(map(str, gateway.admin_from))
        remedy = "name your own addresses, or say it twice with adminFromAnywhere: true"
        yield problem_at("gateway.adminFrom", ranges, "opens SSH to the world", remedy)


def _check_pool(tunnel: Tunnel, clients: Mapping[int, Client]) -> Iterator[Problem]:
    if not 16 <= tunnel.pool.prefixlen <= 29:
        yield problem_at("tunnel.pool", tunnel.pool, "is no size for a pool", "write a range from /16 to /29")
        return
    if len(clients) > tunnel.room:
        reason = f"has room for {tunnel.room} clients, not {len(clients)}"
        yield problem_at("tunnel.pool", tunnel.pool, reason, "widen it")
    for i, client in clients.items():
        if client.address is None:
            continue
        first, last = tunnel.pool.network_address + 1, tunnel.pool.broadcast_address - 1
        first, last = (first + 1, last) if tunnel.links == 1 else (first, last - 1)
        if not first <= client.address <= last:
            reason = f"is no client's address in {NAMESPACE}:tunnel.pool {tunnel.pool}"
            yield problem_at(f"clients[{i}].address", client.address, reason, f"choose one from {first} to {last}")


def _check_segment(tunnel: Tunnel, clients: Mapping[int, Client]) -> Iterator[Problem]:
    """What differs between routing and a segment."""
    if tunnel.device == "tun":
        for key in sorted({"multicast", "broadcasts"} & tunnel.model_fields_set):
            value = "; ".join(str(one.group) for one in tunnel.multicast) if key == "multicast" else tunnel.broadcasts
            remedy = f"leave it out, or write {NAMESPACE}:tunnel.device: tap"
            yield problem_at(f"tunnel.{key}", value, "crosses no tunnel that routes", remedy)
        for i, client in clients.items():
            if client.mac:
                yield problem_at(f"clients[{i}].mac", client.mac, "is for a segment", "leave it out")
        return
    if tunnel.pool.prefixlen < 20:
        remedy = "write a range from /20 to /29"
        yield problem_at("tunnel.pool", tunnel.pool, "is too wide for one segment, which all broadcasts cross", remedy)
    if tunnel.redirect == "all":
        yield problem_at("tunnel.redirect", "all", "needs a tunnel that routes", "write none, or device: tun")
    for n, one in enumerate(tunnel.multicast):
        if not one.group.is_multicast:
            remedy = "write a part of 224.0.0.0/4 or ff00::/8"
            yield problem_at(f"tunnel.multicast[{n}].group", one.group, "is no multicast", remedy)
        if one.ports[0] > one.ports[1]:
            yield problem_at(f"tunnel.multicast[{n}].ports", list(one.ports), "is no range", "write [first, last]")
    for i, client in clients.items():
        if client.system == "phone":
            remedy = "write device: tun, or leave the client out"
            yield problem_at(f"clients[{i}].system", "phone", "cannot join a segment: no phone has TAP devices", remedy)
        if client.system == "windows" and not client.mac:
            reason = "is needed on Windows, where no bundle can set it"
            yield problem_at(
                f"clients[{i}].mac", "(missing)", reason, "write what `getmac /v` shows of the TAP adapter"
            )
        if client.lan and not client.bridge:
            lans = ", ".join(map(str, client.lan))
            remedy = "write bridge: {} beside it, device: tun, or leave it out"
            yield problem_at(f"clients[{i}].lan", lans, "cannot be routed to on a segment", remedy)


#: Ports that the gateway listens on for others, and whose.
TAKEN = {
    ("tcp", 22): "SSH's",
    ("tcp", 53): "the resolver's",
    ("udp", 53): "the resolver's",
    ("udp", 68): "DHCP's",
    ("udp", 546): "DHCP's",
}


def _check_port(tunnel: Tunnel) -> Iterator[Problem]:
    for port in range(tunnel.port, tunnel.port + tunnel.links):
        if owner := TAKEN.get((tunnel.protocol, port)):
            remedy = f"write {443 if tunnel.protocol == 'tcp' else 1194}, or another one"
            yield problem_at("tunnel.port", port, f"is {owner} on the gateway", remedy)
    if tunnel.links > 1 and tunnel.protocol == "tcp":
        reason = "would hold a link's packets back behind each one that is lost"
        yield problem_at("tunnel.protocol", "tcp", reason, "write udp, or links: 1")


def _check_bridge(tunnel: Tunnel, clients: Mapping[int, Client]) -> Iterator[Problem]:
    """What a bridge to a LAN needs: one network on both sides, and one way between them."""
    bridges = {i: client for i, client in clients.items() if client.bridge}
    for i, client in bridges.items():
        key = f"clients[{i}].bridge"
        if tunnel.device == "tun":
            remedy = f"write {NAMESPACE}:tunnel.device: tap, or leave it out: `lan` alone is routed"
            yield problem_at(key, client.name, "joins no LAN to a tunnel that routes", remedy)
            continue
        if tunnel.links > 1:
            yield problem_at(key, client.name, "has no bond in its kit", "write links: 1, or leave it out")
        if client.system != "linux":
            reason = "cannot be a bridge: its kit is for Debian"
            yield problem_at(f"clients[{i}].system", client.system, reason, "write linux, or leave bridge out")
        for name in ("address", "mac"):
            if value := getattr(client, name):
                reason = "is nobody's: a bridge's host has its LAN's address, and each host of the LAN its own"
                yield problem_at(f"clients[{i}].{name}", value, reason, "leave it out")
        if i != (first := next(iter(bridges))):
            reason = f"is a second bridge beside clients[{first}]: in one LAN they make a loop, in two they mix them"
            yield problem_at(key, client.name, reason, "keep one of them")
        yield from _check_bridged_lan(tunnel, f"clients[{i}].lan", client.lan)
        yield from _check_router(f"{key}.gateway6", client.bridge.gateway6 if client.bridge else None)


def _check_bridged_lan(tunnel: Tunnel, key: str, lans: tuple[IPv4Network, ...]) -> Iterator[Problem]:
    if len(lans) != 1:
        shown = ", ".join(map(str, lans)) or "(missing)"
        yield problem_at(
            key, shown, "is not one range: that of the LAN which is bridged", "write one, as [192.168.1.0/24]"
        )
        return
    lan, pool = lans[0], tunnel.pool
    if not lan.supernet_of(pool) or lan == pool:
        example = list(lan.subnets(new_prefix=min(lan.prefixlen + 2, 29)))[-1] if lan.prefixlen < 29 else lan
        reason = f"is no part of the LAN {lan}, which a bridge makes one network with the segment"
        remedy = f"write one whose addresses that LAN's router hands out to nobody, such as {example}"
        yield problem_at("tunnel.pool", pool, reason, remedy)
    elif lan[1] in pool:
        reason = f"holds {lan[1]}, the first address of the LAN {lan}, which is as a rule its router's"
        yield problem_at("tunnel.pool", pool, reason, "choose another part of it")


def _check_router(key: str, router: IPv6Address | None) -> Iterator[Problem]:
    """A link-local address alone says nothing of where it is: each interface has that network (RFC 4007, 6)."""
    if router is None:
        return
    if router.is_multicast or router.is_unspecified or router.is_loopback:
        yield problem_at(key, router, "is no router's address", "write one like fe80::254%br0, or leave it out")
    elif router.is_link_local and router.scope_id != BRIDGE:
        bare = str(router).partition("%")[0]
        wrong = (
            "is on an interface that is a port of the bridge" if router.scope_id else "is link-local, of no interface"
        )
        yield problem_at(key, router, wrong, f"write {bare}%{BRIDGE}")
    elif router.scope_id and not router.is_link_local:
        yield problem_at(key, router, "has an interface, and needs none", f"write {str(router).partition('%')[0]}")


def _check_links(tunnel: Tunnel, clients: Mapping[int, Client]) -> Iterator[Problem]:
    """What several links need of each other."""
    if tunnel.links == 1:
        if tunnel.bond:
            yield problem_at("tunnel.bond", tunnel.bond, "is for several links", "write links: 2, or leave it out")
        for i, client in clients.items():
            if client.lines:
                remedy = f"leave it out, or write {NAMESPACE}:tunnel.links: 2"
                yield problem_at(f"clients[{i}].lines", ", ".join(client.lines), "is for several links", remedy)
        return
    if tunnel.device != "tap":
        yield problem_at("tunnel.links", tunnel.links, "can be bonded on a segment only", "write device: tap")
    elif not tunnel.client_to_client:
        reason = "lets no bonded host meet another: they do so on the gateway's bridge"
        yield problem_at("tunnel.clientToClient", "false", reason, "write true")
    if tunnel.bond in ("balance-xor", "balance-rr"):
        reason = "sends from one hardware address over both links, which the gateway's bridge knows on one at a time"
        yield problem_at("tunnel.bond", tunnel.bond, reason, "write balance-alb or active-backup")
    if tunnel.has_ipv6:
        yield problem_at(
            "tunnel.ipv6", tunnel.ipv6, "is given to no bonded host by its kit", "leave it out, or links: 1"
        )
    if tunnel.port == 65535:
        yield problem_at("tunnel.port", tunnel.port, "leaves no port for the second link", "write 65534 or less")
    for i, client in clients.items():
        if client.system != "linux":
            reason = "has no bonding driver"
            yield problem_at(f"clients[{i}].system", client.system, reason, "write linux, or leave the client out")
        if client.at:
            reason = "is one address, and a bonded host has one for each line"
            remedy = f"leave it out, and name all of them in {NAMESPACE}:gateway.allowFrom"
            yield problem_at(f"clients[{i}].at", client.at, reason, remedy)
        if client.mac:
            yield problem_at(f"clients[{i}].mac", client.mac, "is set by a bonded host's kit", "leave it out")
        if client.lines and len(set(client.lines)) != tunnel.links:
            shown = ", ".join(client.lines)
            yield problem_at(f"clients[{i}].lines", shown, "is not one interface a link", "name two, or none")


def _check_ipv6(tunnel: Tunnel, gateway: Gateway | None, clients: Mapping[int, Client]) -> Iterator[Problem]:
    prefix = gateway.ipv6_prefix if gateway else None
    if prefix and prefix.prefixlen != 80:
        yield problem_at("gateway.ipv6Prefix", prefix, "cannot be delegated", "write a /80, the only size there is")
        return
    if not tunnel.has_ipv6:
        needs: list[tuple[str, object]] = [("gateway.ipv6Prefix", prefix), ("tunnel.openTo", tunnel.open_to or None)]
        needs += [("tunnel.redirect", "ipv6" if tunnel.redirect == "ipv6" else None)]
        needs += [(f"clients[{i}].address6", client.address6) for i, client in clients.items()]
        for key, value in needs:
            if value is not None:
                shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
                yield problem_at(key, shown, "needs IPv6", f"write {NAMESPACE}:tunnel.ipv6: delegated, or leave it out")
        return
    if isinstance(tunnel.ipv6, IPv6Network):
        if prefix is None:
            remedy = "name it, or write delegated for all of the one that AWS chooses"
            yield problem_at("gateway.ipv6Prefix", "(missing)", f"is what {tunnel.ipv6} must be a part of", remedy)
        elif not tunnel.ipv6.subnet_of(prefix):
            reason = f"is outside the delegated {NAMESPACE}:gateway.ipv6Prefix {prefix}"
            yield problem_at("tunnel.ipv6", tunnel.ipv6, reason, "write a part of that, or delegated for all of it")
        elif tunnel.ipv6.prefixlen > 108:
            yield problem_at("tunnel.ipv6", tunnel.ipv6, "is too small", "write a range from /80 to /108")
    pool = tunnel.ipv6 if isinstance(tunnel.ipv6, IPv6Network) else prefix
    ends = dict[int, int]()
    for i, client in clients.items():
        if client.address6 is None:
            continue
        key, end = f"clients[{i}].address6", int(client.address6) & (2**48 - 1)
        if end != int(client.address6) and not (pool and client.address6 in pool):
            where = f"no address in {pool}" if pool else "more than the end of an address, and no prefix is named"
            yield problem_at(key, client.address6, f"is {where}", "write its end alone, such as ::10")
        if end < 2:
            yield problem_at(key, client.address6, "is the gateway's own, or no address", "write ::2 or above")
        if end in ends:
            yield problem_at(key, client.address6, f"is also clients[{ends[end]}]'s", "give each its own")
        ends[end] = i


def _check_pair(
    pair: Pair, network: Network | None, gateway: Gateway | None, tunnel: Tunnel | None, clients: object
) -> Iterator[Problem]:
    """What two gateways that meet each other alone cannot have, and what they need."""
    alone = "the gateways of a pair serve each other and nobody else"
    if clients:
        yield problem_at("clients", "a list with entries", f"has no place: {alone}", "leave it out")
    if network and network.domain:
        yield problem_at("network.domain", network.domain, "is for a gateway with clients", "leave it out")
    for key, one in (("network", network), ("pair", pair)):
        if one and one.vpc_id and not one.route_table_ids and tunnel and tunnel.vpc:
            reason = "is needed where the existing VPC is to reach the other one"
            remedy = f"name the route tables that shall lead there, or write {NAMESPACE}:tunnel.vpc: false"
            yield problem_at(f"{key}.routeTableIds", "(missing)", reason, remedy)
    if gateway:
        if "allow_from" in gateway.model_fields_set:
            ranges = ", ".join(map(str, gateway.allow_from))
            reason = "has no place: each gateway's link is open to the other's address alone"
            yield problem_at("gateway.allowFrom", ranges, reason, "leave it out")
        if gateway.admin_at:
            reason = "opens one gateway, and a pair has two"
            yield problem_at("gateway.adminAt", gateway.admin_at, reason, "name a range in adminFrom")
        if gateway.ipv6_prefix:
            yield problem_at("gateway.ipv6Prefix", gateway.ipv6_prefix, f"is for clients: {alone}", "leave it out")
    if tunnel is None:
        return
    given = tunnel.model_fields_set
    for name in sorted(given - OF_A_PAIR):
        yield problem_at(f"tunnel.{to_camel(name)}", getattr(tunnel, name), f"is for clients: {alone}", "leave it out")
    for name, value in (("device", "tap"), ("links", 2)):
        if name in given and getattr(tunnel, name) != value:
            reason = "cannot be a pair's, which is two Ethernet links"
            yield problem_at(f"tunnel.{name}", getattr(tunnel, name), reason, f"write {value}, or leave it out")
    if tunnel.bond == "balance-alb":
        reason = "tells each peer the address of one link, and what comes over the other is taken by nobody"
        remedy = "write balance-xor, active-backup or balance-rr"
        yield problem_at("tunnel.bond", tunnel.bond, f"loses frames between two hosts: it {reason}", remedy)
    if not 16 <= _of_pair(tunnel).pool.prefixlen <= 30:
        yield problem_at("tunnel.pool", tunnel.pool, "is no size for a pair", "write a range from /16 to /30")
    if tunnel.port == 65535:
        yield problem_at("tunnel.port", tunnel.port, "leaves no port for the second link", "write 65534 or less")
    if tunnel.port < 1024:
        yield problem_at("tunnel.port", tunnel.port, "needs a right that no link of a pair has", "write 1024 or more")


def _of_pair(tunnel: Tunnel) -> Tunnel:
    """What a pair's tunnel is, whether or not it says so."""
    pool = tunnel.pool if "pool" in tunnel.model_fields_set else POOLS["tap"]
    implied = {"device": "tap", "links": 2, "bond": tunnel.bond or "balance-xor", "nat": False, "pool": pool}
    return tunnel.model_copy(update=implied)


def _check_advertised(tunnel: Tunnel, gateway: Gateway | None, network: Network | None) -> Iterator[Problem]:
    """What a /64 of the segment's own needs."""
    if not tunnel.advertised:
        return
    if tunnel.device != "tap":
        remedy = "write device: tap, or ipv6: delegated"
        yield problem_at("tunnel.ipv6", "advertised", "needs a segment: no advertisement crosses a tun device", remedy)
    if network and network.vpc_id:
        reason = "needs a subnet and a route table of its own, which an existing VPC does not get"
        yield problem_at("tunnel.ipv6", "advertised", reason, "write delegated, or leave vpcId and subnetId out")
    if gateway and gateway.ipv6_prefix:
        reason = "is not delegated where a whole subnet is the segment's"
        yield problem_at("gateway.ipv6Prefix", gateway.ipv6_prefix, reason, "leave it out, or write ipv6: delegated")


def _check_lifetimes(lifetimes: Lifetimes) -> Iterator[Problem]:
    for key in ("server", "client"):
        if (days := getattr(lifetimes, key)) > lifetimes.ca:
            reason = f"outlives {NAMESPACE}:lifetimes.ca {lifetimes.ca}"
            yield problem_at(f"lifetimes.{key}", days, reason, f"write {lifetimes.ca} or less")


def _check_clients(clients: Mapping[int, Client]) -> Iterator[Problem]:
    for i, client in clients.items():
        if client.lan and client.system != "linux" and not client.bridge:
            reason = "has no kit to route for its LAN with"
            yield problem_at(f"clients[{i}].system", client.system, reason, "write linux, or leave lan out")
    for (i, one), (j, other) in combinations(clients.items(), 2):
        if one.name == other.name:
            yield problem_at(f"clients[{j}].name", other.name, f"is also clients[{i}]'s", "give each its own")
        if one.address is not None and one.address == other.address:
            yield problem_at(f"clients[{j}].address", other.address, f"is also clients[{i}]'s", "give each its own")
        if one.mac and one.mac == other.mac:
            yield problem_at(f"clients[{j}].mac", other.mac, f"is also clients[{i}]'s", "give each its own")
        if one.at is not None and one.at == other.at:
            remedy = "give it to one: they come from there together"
            yield problem_at(f"clients[{j}].at", other.at, f"is also clients[{i}]'s", remedy)
    for i, client in clients.items():
        if (client.lan or client.at) and len(client.name) > MEMBER:
            reason, remedy = "is too long for the IAM user of a site", f"use at most {MEMBER} characters"
            yield problem_at(f"clients[{i}].name", client.name, reason, remedy)
        for n, network in enumerate(client.reachable):
            if not any(network.subnet_of(lan) for lan in client.lan):
                lans = ", ".join(map(str, client.lan)) or "(empty)"
                reason = f"is outside {NAMESPACE}:clients[{i}].lan {lans}"
                yield problem_at(
                    f"clients[{i}].reachable[{n}]", network, reason, "choose a part of lan, or add it there"
                )


_Ranges = list[tuple[str, IPv4Network]]


def _ranges(
    network: Network | None, pair: Pair | None, tunnel: Tunnel | None, clients: Mapping[int, Client]
) -> _Ranges:
    """Everything that must be apart for routing to be unambiguous, with its key."""
    ranges: _Ranges = []
    for key, vpc in (("network", network), ("pair", pair)):
        if vpc and not vpc.vpc_id:
            ranges.append((f"{key}.cidr", vpc.cidr))
    if tunnel:
        ranges.append(("tunnel.pool", tunnel.pool))
    ranges += [(f"clients[{i}].lan[{n}]", lan) for i, client in clients.items() for n, lan in enumerate(client.lan)]
    if tunnel:
        ranges += [(f"tunnel.routes[{n}]", route) for n, route in enumerate(tunnel.routes)]
    return ranges


def _bridged(clients: Mapping[int, Client]) -> list[tuple[str, str]]:
    """Ranges that are one network because somebody bridges them."""
    return [("tunnel.pool", f"clients[{i}].lan[0]") for i, client in clients.items() if client.bridge]


def _overlaps(ranges: _Ranges, together: Collection[tuple[str, str]] = ()) -> Iterator[Problem]:
    """Find what is not apart; pairs of keys in `together` need not be."""
    for (first, one), (second, other) in combinations(ranges, 2):
        # A pushed route may well be a wider or narrower piece of a LAN or of another route; the longest prefix decides.
        if second.startswith("tunnel.routes") and not first.startswith(("network.", "pair.", "tunnel.pool")):
            continue
        if one.overlaps(other) and (first, second) not in together:
            reason = f"overlaps {NAMESPACE}:{first} {one}"
            yield problem_at(second, other, reason, "choose a range clear of it")
    for key, network in ranges:
        if network.overlaps(LINK_LOCAL):
            yield problem_at(key, network, "holds link-local addresses, AWS's metadata too", "choose another range")


def check_vpc_overlap(settings: Settings, vpc: IPv4Network, other: IPv4Network | None = None) -> None:
    """Raise `SettingsError` if a VPC's range overlaps another; of an existing VPC, only AWS knows it.

    `other` is that of a pair's second one.
    """
    vpcs = [("network.vpcId", vpc), *([("pair.vpcId", other)] if other else [])]
    ranges = [*vpcs, *_ranges(None, None, settings.tunnel, dict(enumerate(settings.clients)))]
    if problems := list(_overlaps(ranges, _bridged(dict(enumerate(settings.clients))))):
        raise SettingsError(problems)
