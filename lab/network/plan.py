"""AWS's packet rules of one VPC as Linux: a pure function from what the API says to what a router namespace holds.

The router is a network namespace with one veth an interface (``e`` and the last twelve digits of its id), one to the
Internet (``igw0``) and one to AWS's own services for gateway endpoints (``vpce0``). `plan` gives its nftables table,
routes, rules, addresses and neighbours; `lab.network.fabric` puts them there.

What stands where, in the order a packet meets it:

1. prerouting  foreign MACs and (source check) foreign sources are dropped; the internet gateway translates inwards
2. routing     the sender's subnet's route table by ``ip rule iif``; ``local`` is a ``throw`` on to the table of
               interfaces
3. forward     destination check, network ACLs (stateless, only across subnets), security groups
4. postrouting the internet gateway translates to public addresses; without one nothing leaves

What no route of AWS's has an answer for is dropped in silence, as there, and never answered with an ICMP error.

Each interface tracks connections by itself: it has a bit of the connection's mark, which its security groups set when a
rule lets the connection's first packet pass. Where the bit is set, the connection's packets and the ICMP errors about
it pass both ways, whatever becomes of the rules. TCP and UDP that a rule for every address lets pass, and whose answers
a rule for every address and port lets pass, are untracked: no bit is set, and each packet is judged by today's rules.

Sources: Amazon VPC User Guide ("Security group rules", "Network ACL rules", "Route priority", "Internet gateways");
Amazon EC2 User Guide ("Security group connection tracking", "Network MTU", "Instance metadata"); nft(8), ip-route(8).
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from lab.network.state import AclEntry, GroupRule, Interface, Network, RouteTable, SecurityGroup, State, Subnet

INTERNET = "igw0"
ENDPOINTS = "vpce0"
#: Next hop of every VPC and home on the lab's Internet; the same address on each link.
BACKBONE = IPv4Address("192.0.2.1")
BACKBONE6 = "fe80::1"
ROUTER6 = "fe80::1"
METADATA = IPv4Address("169.254.169.254")
METADATA6 = "fd00:ec2::254"
RESOLVER = IPv4Address("169.254.169.253")
MTU_INSIDE = 9001
MTU_INTERNET = 1500
_INTERFACES_TABLE = 1000
#: Bits of a connection's mark: from the next running interface of a VPC on, two share one.
_MARK_BITS = 32
_EVERYTHING = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


@dataclass(frozen=True, slots=True)
class Plan:
    """The content of a VPC's router namespace. Two equal plans need no change."""

    vpc: str
    links: tuple[str, ...]
    """Interfaces (by id) that need a link, because their instance is on."""
    addresses: tuple[str, ...]
    """Arguments of ``ip address replace``."""
    neighbours: tuple[str, ...]
    """Arguments of ``ip neighbour replace``."""
    routes: tuple[str, ...]
    """Arguments of ``ip route replace``, table and all."""
    rules: tuple[str, ...]
    """Arguments of ``ip rule add``."""
    ruleset: str
    """The nftables table, to load as one transaction."""
    public: tuple[IPv4Address, ...] = field(default=())
    """Public addresses the Internet routes to this VPC."""
    networks6: tuple[IPv6Network, ...] = field(default=())
    """IPv6 ranges the Internet routes to this VPC."""
    own6: tuple[tuple[str, tuple[IPv6Address, ...]], ...] = field(default=())
    """IPv6 addresses an interface's machine has by DHCPv6, by interface id."""
    translations: tuple[tuple[IPv4Address, IPv4Address], ...] = field(default=())
    """Pairs (private, public) the internet gateway translates."""
    mark_bits: tuple[tuple[str, int], ...] = field(default=())
    """The bit that says that an interface tracks a connection, by interface id."""

    @classmethod
    def empty(cls, vpc: str) -> "Plan":
        """Return the plan of a new router, which holds nothing."""
        return cls(vpc, links=(), addresses=(), neighbours=(), routes=(), rules=(), ruleset="")

    def mixed_with(self, target: "Plan") -> "Plan":
        """Return what a router may hold when the change from this plan to `target` failed half-way."""
        # `ip` reads over a space at a line's end; no line of a plan has one.
        return replace(
            Plan.empty(self.vpc),
            links=target.links,
            routes=tuple(f"{text} " for text in (*self.routes, *target.routes)),
            rules=tuple(f"{text} " for text in dict.fromkeys((*self.rules, *target.rules))),
            public=(*self.public, *target.public),
            networks6=(*self.networks6, *target.networks6),
            mark_bits=target.mark_bits,
        )


def link_name(interface: str) -> str:
    """Return the name of an interface's link at the router, at most 15 characters."""
    return f"e{interface[-12:]}"


def endpoint_address(vpc: str) -> IPv4Address:
    """Return the address that a VPC's requests have at a gateway endpoint, from the shared space (RFC 6598)."""
    return IPv4Address("100.64.0.0") + int.from_bytes(hashlib.sha256(vpc.encode()).digest()[:4], "big") % (1 << 22)


def plan_vpc(state: State, vpc: str, before: Plan | None = None) -> Plan:
    """Return the plan of one VPC's router.

    Interfaces keep the mark bits that they have in `before`, the plan that the router follows now.
    """
    vpc_state = state.vpcs[vpc]
    up = sorted(
        (i for i in state.interfaces.values() if i.vpc == vpc and i.instance and state.instances[i.instance].on),
        key=lambda interface: interface.id,
    )
    subnets = [subnet for subnet in state.subnets.values() if subnet.vpc == vpc]
    tables = [table for table in state.tables if table.vpc == vpc]
    networks6 = tuple(cidr for cidr in vpc_state.cidrs if isinstance(cidr, IPv6Network))
    mark_bits = _assign_mark_bits(up, dict(before.mark_bits) if before else {})
    online = vpc_state.internet_gateway is not None
    leaves6 = online or any(route.target == "egress-only" for table in tables for route in table.routes)
    return Plan(
        vpc=vpc,
        links=tuple(interface.id for interface in up),
        addresses=tuple(_addresses(up, subnets, vpc_state.cidrs)),
        neighbours=tuple(_render_neighbours(up)),
        routes=tuple(_routes(up, tables, vpc_state.cidrs)),
        rules=tuple(_rules(up, tables)),
        ruleset=_render_ruleset(up, subnets, tables, state, vpc, mark_bits),
        public=tuple(sorted(public for interface in up for _, public in interface.public)) if online else (),
        networks6=networks6 if leaves6 else (),
        translations=tuple(sorted(pair for interface in up for pair in interface.public)) if online else (),
        own6=tuple((interface.id, interface.addresses6) for interface in up),
        mark_bits=tuple(mark_bits.items()),
    )


def _assign_mark_bits(up: Sequence[Interface], before: dict[str, int]) -> dict[str, int]:
    """Return each interface's bit: the bit it has, or the next one that is free."""
    bits = {interface.id: before[interface.id] for interface in up if interface.id in before}
    free = iter(bit for bit in range(_MARK_BITS) if bit not in bits.values())
    for number, interface in enumerate(up):
        if interface.id not in bits:
            bits[interface.id] = next(free, number % _MARK_BITS)
    return dict(sorted(bits.items()))


# --- addresses, neighbours, routes ------------------------------------------------------------------------------------


def _addresses(up: Sequence[Interface], subnets: Sequence[Subnet], cidrs: Iterable[Network]) -> Iterable[str]:
    """The router's own: each subnet's first address, the resolver (base + 2), the metadata service."""
    for subnet in subnets:
        if subnet.cidr:
            yield f"{subnet.cidr[1]}/32 dev lo"
    for cidr in cidrs:
        if isinstance(cidr, IPv4Network):
            yield f"{cidr[2]}/32 dev lo"
    yield f"{RESOLVER}/32 dev lo scope link"
    yield f"{METADATA}/32 dev lo scope link"
    yield f"{METADATA6}/128 dev lo nodad"
    for interface in up:
        yield f"{ROUTER6}/64 dev {link_name(interface.id)} nodad"


def _render_neighbours(up: Sequence[Interface]) -> Iterable[str]:
    """Fixed, so that no answer to an ARP or NDP question of the router's can redirect anything."""
    for interface in up:
        link = link_name(interface.id)
        for address in (*interface.addresses, *interface.addresses6, _link_local(interface.mac)):
            yield f"{address} lladdr {interface.mac} dev {link} nud permanent"


def _link_local(mac: str) -> str:
    """EUI-64 link-local address of a MAC (RFC 4291 appendix A)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    groups = [*octets[:3], 0xFF, 0xFE, *octets[3:]]
    return "fe80::" + ":".join(f"{groups[i] << 8 | groups[i + 1]:x}" for i in range(0, 8, 2))


def _routes(up: Sequence[Interface], tables: Sequence[RouteTable], cidrs: Iterable[Network]) -> Iterable[str]:
    yield from (f"blackhole {cidr} table {_INTERFACES_TABLE}" for cidr in cidrs)
    by_id = {interface.id: interface for interface in up}
    for interface in up:
        link = link_name(interface.id)
        for network in interface.own_ranges:
            if network.num_addresses == 1:
                yield f"{network} dev {link} table {_INTERFACES_TABLE}"
            else:
                yield f"{network} {_render_via(interface, network)} table {_INTERFACES_TABLE}"
    for number, table in enumerate(tables, start=1):
        for route in table.routes:
            yield f"{_render_hop(route.target, route.id, route.destination, by_id)} table {number}"
        for everything in _EVERYTHING:
            if everything not in [route.destination for route in table.routes]:
                yield f"blackhole {everything} table {number}"


def _render_hop(target: str, identity: str, destination: Network, up: dict[str, Interface]) -> str:
    if target == "local":
        return f"throw {destination}"
    if target in ("internet-gateway", "egress-only", "endpoint"):
        backbone = BACKBONE if isinstance(destination, IPv4Network) else BACKBONE6
        return f"{destination} via {backbone} dev {ENDPOINTS if target == 'endpoint' else INTERNET} onlink"
    if target == "interface" and identity in up:
        return f"{destination} {_render_via(up[identity], destination)}"
    return f"blackhole {destination}"


def _render_via(interface: Interface, destination: Network) -> str:
    """Towards an interface for an address that is not its own: by the address the router has a neighbour for."""
    hop = interface.primary if isinstance(destination, IPv4Network) else _link_local(interface.mac)
    return f"via {hop} dev {link_name(interface.id)} onlink"


def _rules(up: Sequence[Interface], tables: Sequence[RouteTable]) -> Iterable[str]:
    """Yield the rules that choose a table: of the sender's subnet, of the edge for what comes in, of the interfaces."""
    by_subnet = {subnet: number for number, table in enumerate(tables, start=1) for subnet in table.subnets}
    for interface in up:
        if interface.subnet in by_subnet:
            yield f"pref 100 iif {link_name(interface.id)} lookup {by_subnet[interface.subnet]}"
    for number, table in enumerate(tables, start=1):
        if table.gateway_edge:
            yield f"pref 200 iif {INTERNET} lookup {number}"
    yield f"pref 300 lookup {_INTERFACES_TABLE}"


# --- the nftables table -----------------------------------------------------------------------------------------------


def _render_ruleset(
    up: Sequence[Interface],
    subnets: Sequence[Subnet],
    tables: Sequence[RouteTable],
    state: State,
    vpc: str,
    mark_bits: dict[str, int],
) -> str:
    online = state.vpcs[vpc].internet_gateway is not None
    groups = [state.groups[name] for name in sorted({name for i in up for name in i.groups if name in state.groups})]
    combinations = sorted({interface.groups for interface in up})
    used = [subnet for subnet in subnets if any(i.subnet == subnet.id for i in up)]
    # A chain stands before the chains that go to it.
    body = [
        *_render_sets(up, groups, state),
        *_render_prerouting(online),
        *_input(),
        *_mark_chains(up, mark_bits),
        "chain ingress {",
        "}",
        *_render_verdicts(up),
        *(line for group in groups for line in _group_chains(group, state)),
        *(line for number, names in enumerate(combinations) for line in _combination_chains(number, names, state)),
        *_interface_chains(up, combinations, tables, mark_bits),
        *_render_ingress(up),
        *(line for subnet in used for line in _acl_chains(subnet, up)),
        *_render_forward(up, used, tables, online),
        *_render_postrouting(vpc, online),
    ]
    inner = "\n".join(f"  {line}" for line in body)
    return f"table inet vpc\ndelete table inet vpc\ntable inet vpc {{\n{inner}\n}}\n"


def _set(name: str, kind: str, elements: Sequence[str], *, interval: bool = False, mapping: bool = False) -> list[str]:
    lines = [f"{'map' if mapping else 'set'} {name} {{", f"  type {kind}"]
    if interval:
        lines.append("  flags interval")
    if elements:
        lines.append(f"  elements = {{ {', '.join(elements)} }}")
    return [*lines, "}"]


def _render_sets(up: Sequence[Interface], groups: Sequence[SecurityGroup], state: State) -> Iterable[str]:
    links = {interface.id: link_name(interface.id) for interface in up}
    ranges = [(interface, network) for interface in up for network in interface.own_ranges]
    own4 = [f'"{links[i.id]}" . {network}' for i, network in ranges if isinstance(network, IPv4Network)]
    own6 = [f'"{links[i.id]}" . {network}' for i, network in ranges if isinstance(network, IPv6Network)]
    public = [(private, public) for interface in up for private, public in interface.public]
    yield from _set("links", "ifname", [f'"{link}"' for link in links.values()])
    yield from _set("checked", "ifname", [f'"{links[i.id]}"' for i in up if i.source_dest_check])
    yield from _set("macs", "ifname . ether_addr", [f'"{links[i.id]}" . {i.mac}' for i in up])
    yield from _set("own4", "ifname . ipv4_addr", own4, interval=True)
    yield from _set("own6", "ifname . ipv6_addr", own6, interval=True)
    yield from _set("to_private", "ipv4_addr : ipv4_addr", [f"{b} : {a}" for a, b in public], mapping=True)
    yield from _set("to_public", "ipv4_addr : ipv4_addr", [f"{a} : {b}" for a, b in public], mapping=True)
    yield from _set("has_public", "ipv4_addr", [str(private) for private, _ in public])
    referred = {rule.group for group in groups for rule in (*group.ingress, *group.egress) if rule.group}
    for name in sorted(referred):
        members = [i for i in state.interfaces.values() if name in i.groups]
        for suffix, kind, family in (("4", "ipv4_addr", IPv4Network), ("6", "ipv6_addr", IPv6Network)):
            group_ranges = {network for i in members for network in i.own_ranges if isinstance(network, family)}
            yield from _set(f"{_name_chain(name)}_{suffix}", kind, _merge_overlaps(sorted(group_ranges)), interval=True)


def _render_prerouting(online: bool) -> Iterable[str]:
    yield from (
        "chain source {",
        "  type filter hook prerouting priority raw; policy accept;",
        "  iifname @links iifname . ether saddr != @macs counter drop",
        "  ip6 saddr fe80::/10 accept",
        "  ip6 saddr :: accept",
        "  iifname @checked meta nfproto ipv4 iifname . ip saddr != @own4 counter drop",
        "  iifname @checked meta nfproto ipv6 iifname . ip6 saddr != @own6 counter drop",
        "}",
    )
    if online:
        yield from (
            "chain translate_in {",
            "  type nat hook prerouting priority dstnat; policy accept;",
            f'  iifname "{INTERNET}" dnat ip to ip daddr map @to_private',
            "}",
        )


def _input() -> Iterable[str]:
    """The services at the router: no security group or ACL applies, yet each is asked from an own address only."""
    yield from (
        "chain input {",
        "  type filter hook input priority filter; policy drop;",
        '  iifname "lo" accept',
        "  icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept",
        "  iifname @links meta nfproto ipv4 iifname . ip saddr != @own4 drop",
        "  iifname @links meta nfproto ipv6 iifname . ip6 saddr != @own6 drop",
        f"  iifname @links ip daddr {METADATA} tcp dport 80 accept",
        f"  iifname @links ip6 daddr {METADATA6} tcp dport 80 accept",
        "  iifname @links meta l4proto { tcp, udp } th dport 53 accept",
        "}",
    )


def _render_forward(
    up: Sequence[Interface], used: Sequence[Subnet], tables: Sequence[RouteTable], online: bool
) -> Iterable[str]:
    yield from (
        "chain forward {",
        "  type filter hook forward priority filter; policy drop;",
        "  oifname @checked meta nfproto ipv4 oifname . ip daddr != @own4 counter drop",
        "  oifname @checked meta nfproto ipv6 oifname . ip6 daddr != @own6 counter drop",
    )
    if online:
        yield f'  oifname "{INTERNET}" ip saddr != @has_public counter drop'
        yield f'  iifname "{INTERNET}" meta nfproto ipv4 ct state new ct status & dnat != dnat counter drop'
        for subnet in used:
            if _egress_only(subnet, tables):
                for cidr in subnet.cidr6:
                    yield f'  iifname "{INTERNET}" ip6 daddr {cidr} ct state new counter drop'
    else:  # what there is leaves by an egress-only gateway, and only answers come back
        yield f'  oifname "{INTERNET}" meta nfproto ipv4 counter drop'
        yield f'  iifname "{INTERNET}" ct state new counter drop'
    for subnet in used:
        members = ", ".join(f'"{link_name(i.id)}"' for i in up if i.subnet == subnet.id)
        yield f"  iifname {{ {members} }} jump {_name_chain(subnet.id)}_out"
    for subnet in used:
        members = ", ".join(f'"{link_name(i.id)}"' for i in up if i.subnet == subnet.id)
        yield f"  oifname {{ {members} }} jump {_name_chain(subnet.id)}_in"
    yield "  ct state invalid drop"
    yield from _dispatch("iifname", up, "goto leave")
    yield f'  iifname "{INTERNET}" goto ingress'
    # Services of AWS's open no connections.
    yield f'  iifname "{ENDPOINTS}" ct state {{ established, related }} goto ingress'
    yield "}"


def _dispatch(side: str, up: Sequence[Interface], verdict: str) -> Iterable[str]:
    """Send the packets of each interface to the chain of its own whose name begins with the verdict's."""
    if up:
        links = [link_name(interface.id) for interface in up]
        elements = [f'"{link}" : {verdict}_{link}' for link in links]
        yield f"  {side} vmap {{ {', '.join(elements)} }}"


def _render_ingress(up: Sequence[Interface]) -> Iterable[str]:
    """Render the chain of packets that may leave their sender."""
    yield "chain ingress {"
    yield from _dispatch("oifname", up, "goto enter")
    yield f'  oifname {{ "{INTERNET}", "{ENDPOINTS}" }} accept'
    yield "}"


def _mark_chains(up: Sequence[Interface], mark_bits: dict[str, int]) -> Iterable[str]:
    """Render a chain for each interface, which marks a connection as tracked there.

    Only a packet that may begin a connection marks it.
    """
    for interface in up:
        mark = f"ct mark set ct mark | {_mark(interface, mark_bits)}"
        yield f"chain mark_{link_name(interface.id)} {{"
        yield f"  ct state {{ new, established }} ct direction original {mark}"
        yield "}"


def _mark(interface: Interface, mark_bits: dict[str, int]) -> str:
    return f"{1 << mark_bits[interface.id]:#x}"


def _render_verdicts(up: Sequence[Interface]) -> Iterable[str]:
    """Render the chains of packets that a group lets pass: out of their sender, or into their receiver."""
    for chain, side, verdict in (("track_out", "iifname", "goto ingress"), ("track_in", "oifname", "accept")):
        yield f"chain {chain} {{"
        yield from _dispatch(side, up, "jump mark")
        yield f"  {verdict}"
        yield "}"


def _interface_chains(
    up: Sequence[Interface],
    combinations: Sequence[tuple[str, ...]],
    tables: Sequence[RouteTable],
    mark_bits: dict[str, int],
) -> Iterable[str]:
    """Two chains an interface: for what leaves it, and for what enters."""
    egress_only = {subnet for table in tables for subnet in table.subnets if _has_egress_only_route(table)}
    for interface in up:
        link, number, bit = link_name(interface.id), combinations.index(interface.groups), _mark(interface, mark_bits)
        yield f"chain leave_{link} {{"
        yield f"  ct mark & {bit} == {bit} goto ingress"
        # Connections through these are tracked, whatever the rules.
        yield f'  oifname "{ENDPOINTS}" goto tracked_out_{number}'
        if interface.subnet in egress_only:
            yield f'  oifname "{INTERNET}" meta nfproto ipv6 goto tracked_out_{number}'
        yield f"  goto out_{number}"
        yield "}"
        yield f"chain enter_{link} {{"
        yield f"  ct mark & {bit} == {bit} accept"
        yield f"  goto in_{number}"
        yield "}"


def _egress_only(subnet: Subnet, tables: Sequence[RouteTable]) -> bool:
    return any(_has_egress_only_route(table) for table in tables if subnet.id in table.subnets)


def _has_egress_only_route(table: RouteTable) -> bool:
    return any(route.target == "egress-only" and route.destination.prefixlen == 0 for route in table.routes)


def _acl_chains(subnet: Subnet, up: Sequence[Interface]) -> Iterable[str]:
    """A subnet's ACL, entry by entry; traffic inside the subnet does not meet it."""
    members = ", ".join(f'"{link_name(i.id)}"' for i in up if i.subnet == subnet.id)
    for suffix, egress, far_side, own_side in (("out", True, "oifname", "daddr"), ("in", False, "iifname", "saddr")):
        yield f"chain {_name_chain(subnet.id)}_{suffix} {{"
        yield f"  {far_side} {{ {members} }} return"
        for entry in subnet.acl:
            if entry.egress == egress:
                yield f"  {_acl_match(entry, own_side)} {'return' if entry.allow else 'counter drop'}"
        yield "  counter drop"
        yield "}"


def _acl_match(entry: AclEntry, side: str) -> str:
    match = f"{_name_family(entry.network)} {side} {entry.network}"
    return " ".join(part for part in (match, _protocol_match(entry.protocol, entry.low, entry.high)) if part)


def _protocol_match(protocol: str, low: int, high: int) -> str:
    """nftables' match of protocol and ports; ports of TCP and UDP, type and code of ICMP, nothing for all."""
    if protocol == "-1":
        return ""
    if protocol in ("tcp", "udp"):
        if low in (-1, 0) and high in (-1, 65535):
            return f"meta l4proto {protocol}"
        return f"{protocol} dport {low}" if low == high else f"{protocol} dport {low}-{high}"
    if protocol in ("icmp", "icmpv6"):
        name = "icmp" if protocol == "icmp" else "ipv6-icmp"
        if low == -1:
            return f"meta l4proto {name}"
        code = "" if high == -1 else f" {protocol} code {high}"
        return f"{protocol} type {low}{code}"
    return f"meta l4proto {protocol}"


def _name_family(network: Network) -> str:
    return "ip" if isinstance(network, IPv4Network) else "ip6"


def _group_chains(group: SecurityGroup, state: State) -> Iterable[str]:
    for suffix, rules, side, verdict in (
        ("egress", group.egress, "daddr", "goto track_out"),
        ("ingress", group.ingress, "saddr", "goto track_in"),
    ):
        yield f"chain {_name_chain(group.id)}_{suffix} {{"
        for rule in rules:
            yield from (f"  {match} {verdict}" for match in _rule_matches(rule, side, state))
        yield "}"


def _rule_matches(rule: GroupRule, side: str, state: State) -> Iterable[str]:
    for family in ("ip", "ip6"):
        if (rule.protocol, family) in (("icmp", "ip6"), ("icmpv6", "ip")):
            continue
        ports = _protocol_match(rule.protocol, rule.low, rule.high)
        if rule.group is not None:
            peer = f"{family} {side} @{_name_chain(rule.group)}_{'4' if family == 'ip' else '6'}"
        else:
            peers = [network for network in rule.peers if _name_family(network) == family]
            if not peers:
                continue
            peer = (
                f"{family} {side} {{ {', '.join(_merge_overlaps(peers))} }}"
                if len(peers) > 1
                else f"{family} {side} {peers[0]}"
            )
        yield f"{peer} {ports}".rstrip()


def _merge_overlaps(networks: Iterable[Network]) -> list[str]:
    """The same ranges, all of one IP version, without overlaps, which an nftables set refuses."""
    return [str(network) for network in ipaddress.collapse_addresses(networks)]  # type: ignore[type-var]


def _combination_chains(number: int, names: tuple[str, ...], state: State) -> Iterable[str]:
    """Chains of a combination of groups: what any group allows is allowed, the rest is dropped.

    The widest rule counts, so the rules that leave a connection untracked come first.
    """
    groups = [state.groups[name] for name in names if name in state.groups]
    egress = [rule for group in groups for rule in group.egress]
    ingress = [rule for group in groups for rule in group.ingress]
    for prefix, suffix, rules, answers, verdict in (
        ("out", "egress", egress, ingress, "goto ingress"),
        ("in", "ingress", ingress, egress, "accept"),
    ):
        yield f"chain tracked_{prefix}_{number} {{"
        yield from (f"  jump {_name_chain(group.id)}_{suffix}" for group in groups)
        yield "  counter drop"
        yield "}"
        yield f"chain {prefix}_{number} {{"
        yield from (f"  {match} {verdict}" for match in _untracked_matches(rules, answers))
        yield f"  goto tracked_{prefix}_{number}"
        yield "}"


def _untracked_matches(rules: Sequence[GroupRule], answers: Sequence[GroupRule]) -> Iterable[str]:
    """Yield the matches of TCP and UDP that groups let pass untracked, given the rules for the other direction."""
    for everything in _EVERYTHING:
        for protocol in ("tcp", "udp"):
            open_rules = [rule for rule in rules if everything in rule.peers and rule.protocol in ("-1", protocol)]
            if any(
                everything in rule.peers
                and (rule.protocol == "-1" or (rule.protocol == protocol and _has_every_port(rule)))
                for rule in answers
            ):
                for rule in open_rules:
                    ports = (-1, -1) if rule.protocol == "-1" else (rule.low, rule.high)
                    family = "ipv4" if everything.version == 4 else "ipv6"
                    yield f"meta nfproto {family} {_protocol_match(protocol, *ports)}"


def _has_every_port(rule: GroupRule) -> bool:
    return rule.low in (-1, 0) and rule.high in (-1, 65535)


def _render_postrouting(vpc: str, online: bool) -> Iterable[str]:
    yield "chain translate_out {"
    yield "  type nat hook postrouting priority srcnat; policy accept;"
    if online:
        yield f'  oifname "{INTERNET}" snat ip to ip saddr map @to_public'
    yield f'  oifname "{ENDPOINTS}" snat ip to {endpoint_address(vpc)}'
    yield "}"


def _name_chain(identity: str) -> str:
    """An nftables name out of an AWS id."""
    return identity.replace("-", "_")
