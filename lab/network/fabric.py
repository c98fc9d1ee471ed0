"""The wires: namespaces, links and rules on this machine, made to match plans.

A lab's namespaces are named ``<prefix><what>``. `Fabric` remembers what it has put into each router, so that a plan
that changes one rule touches one rule; nothing of a running flow is disturbed by what did not change.
"""

import os
import threading
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from lab.errors import LabError
from lab.linux import ip_batch, nft, run, sysctl
from lab.namespaces import REGION_VARIABLE, add_namespace, delete_namespace, list_namespaces
from lab.network.plan import (
    BACKBONE,
    BACKBONE6,
    ENDPOINTS,
    INTERNET,
    MTU_INSIDE,
    MTU_INTERNET,
    ROUTER6,
    Plan,
    endpoint_address,
    link_name,
)
from lab.network.state import Interface, State, Subnet

#: Addresses of the lab's Internet services (TEST-NET-1 of RFC 5737; S3 inside the prefix list the API publishes for
#: it).
API = "192.0.2.10"
MIRROR = "192.0.2.20"
RESOLVER = "192.0.2.53"
S3 = "52.216.0.10"
#: The Internet's own IPv6 address (RFC 3849): what its ICMP errors come from.
INTERNET6 = "2001:db8::1"

_ROUTER = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}
#: A router sees both directions of a flow, yet not always every packet of it once; AWS judges no sequence numbers. The
#: rest is how many seconds an idle connection is tracked (Amazon EC2 User Guide, "Idle connection tracking timeout").
_TRACKING = {
    "net/netfilter/nf_conntrack_tcp_be_liberal": "1",
    "net/netfilter/nf_conntrack_tcp_timeout_established": "432000",
    "net/netfilter/nf_conntrack_udp_timeout": "30",
    "net/netfilter/nf_conntrack_udp_timeout_stream": "180",
    "net/netfilter/nf_conntrack_generic_timeout": "600",
}
_IGW_MAC = "02:00:00:00:00:02"
_BACKBONE_MAC = "02:00:00:00:00:01"


class Fabric:
    """All namespaces of one lab. Safe to call from several threads; each call leaves a consistent network."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.internet = f"{prefix}internet"
        self._applied: dict[str, Plan] = {}
        self._links: dict[str, tuple[str, str]] = {}  # interface id -> (VPC, instance) it is linked to
        self._lock = threading.RLock()

    def router(self, vpc: str) -> str:
        """Name of a VPC's router namespace."""
        return f"{self.prefix}{vpc[-12:]}"

    def machine(self, instance: str) -> str:
        """Name of an instance's namespace."""
        return f"{self.prefix}{instance[-12:]}"

    def open_internet(self) -> None:
        """Make the Internet: a router with the addresses of its services, and nowhere else to go."""
        add_namespace(self.internet)
        sysctl(self.internet, _ROUTER)
        addresses = [f"address replace {address}/32 dev lo" for address in (str(BACKBONE), API, MIRROR, RESOLVER, S3)]
        ip_batch(self.internet, [*addresses, f"address replace {INTERNET6}/128 dev lo nodad"])

    def apply(self, state: State, plan: Plan) -> None:
        """Make a VPC's router hold a plan. Idempotent; what failed half-way is done whole the next time."""
        with self._lock:
            router = self.router(plan.vpc)
            before = self._applied.get(plan.vpc)
            if before is None:
                self._open_router(router, plan.vpc)
                before = self._applied[plan.vpc] = Plan.empty(plan.vpc)
            anew = self._link(router, state, plan)
            if not anew and before == plan:
                return
            try:
                self._configure(router, state, before, plan, anew=anew)
            except BaseException:
                self._applied[plan.vpc] = before.mixed_with(plan)
                raise
            self._applied[plan.vpc] = plan

    def close(self, vpc: str) -> None:
        """Take a VPC's router away."""
        with self._lock:
            if self._applied.pop(vpc, None):
                # By name, because a namespace is there for as long as a socket in it is.
                links = [link_name(name) for name, link in self._links.items() if link[0] == vpc]
                commands = [f"link delete {device}" for device in (INTERNET, ENDPOINTS, *links)]
                ip_batch(self.router(vpc), commands, force=True)
                self._links = {name: link for name, link in self._links.items() if link[0] != vpc}
                delete_namespace(self.router(vpc))

    def open_machine(self, instance: str) -> str:
        """Namespace of an instance, made where missing."""
        add_namespace(self.machine(instance))
        return self.machine(instance)

    def close_machine(self, instance: str) -> None:
        """Take an instance's namespace away, links and all."""
        with self._lock:
            self._links = {name: link for name, link in self._links.items() if link[1] != instance}
            delete_namespace(self.machine(instance))

    def applied(self, vpc: str) -> Plan | None:
        """Return the plan that a VPC's router follows, if it has one."""
        return self._applied.get(vpc)

    def routers(self) -> list[str]:
        """Ids of the VPCs that have a router."""
        return list(self._applied)

    def delete_all(self) -> None:
        """Remove every namespace that this region created."""
        for name in list_namespaces(os.environ.get(REGION_VARIABLE, "")):
            delete_namespace(name)

    # --- how it is done -----------------------------------------------------------------------------------------------

    def _open_router(self, router: str, vpc: str) -> None:
        delete_namespace(router)
        self._links = {name: link for name, link in self._links.items() if link[0] != vpc}
        add_namespace(router)
        sysctl(router, _ROUTER)
        for device, far_end in ((INTERNET, f"v{vpc[-12:]}"), (ENDPOINTS, f"w{vpc[-12:]}")):
            run("ip", "-n", router, "link", "add", device, "address", _IGW_MAC, "mtu", str(MTU_INTERNET),
                "type", "veth", "peer", "name", far_end, "address", _BACKBONE_MAC, "mtu", str(MTU_INTERNET),
                "netns", self.internet)  # fmt: skip
            ip_batch(
                router,
                [
                    f"link set {device} up",
                    f"address replace fe80::2/64 dev {device} nodad",
                    f"neighbour replace {BACKBONE} lladdr {_BACKBONE_MAC} dev {device} nud permanent",
                    f"neighbour replace {BACKBONE6} lladdr {_BACKBONE_MAC} dev {device} nud permanent",
                ],
            )
            ip_batch(
                self.internet,
                [
                    f"link set {far_end} up",
                    f"address replace {BACKBONE6}/64 dev {far_end} nodad",
                    f"neighbour replace fe80::2 lladdr {_IGW_MAC} dev {far_end} nud permanent",
                ],
            )
        address, far_end = endpoint_address(vpc), f"w{vpc[-12:]}"
        ip_batch(
            self.internet,
            [
                f"neighbour replace {address} lladdr {_IGW_MAC} dev {far_end} nud permanent",
                f"route replace {address}/32 dev {far_end}",
            ],
        )

    def _link(self, router: str, state: State, plan: Plan) -> bool:
        """Give every interface whose instance is on a veth, and remove the others'; return whether any is new."""
        planned = {name: state.interfaces[name] for name in plan.links}
        for name in [n for n, (vpc, _) in self._links.items() if vpc == plan.vpc and n not in planned]:
            self._unlink(router, name)
        anew = False
        for name, interface in planned.items():
            assert interface.instance is not None  # a plan links only interfaces of instances
            if self._links.get(name) == (plan.vpc, interface.instance):
                continue
            if name in self._links:
                self._unlink(router, name)
            self._add_link(router, interface, state.subnets[interface.subnet])
            self._links[name] = (plan.vpc, interface.instance)
            anew = True
        return anew

    def _add_link(self, router: str, interface: Interface, subnet: Subnet) -> None:
        assert interface.instance is not None
        machine = self.open_machine(interface.instance)
        link, name = link_name(interface.id), device_name(interface)
        run("ip", "-n", router, "link", "add", link, "mtu", str(MTU_INSIDE), "type", "veth",
            "peer", "name", name, "address", interface.mac, "mtu", str(MTU_INSIDE), "netns", machine)  # fmt: skip
        sysctl(
            router,
            {
                f"net/ipv4/conf/{link}/proxy_arp": "1",
                f"net/ipv4/conf/{link}/rp_filter": "0",
                f"net/ipv4/neigh/{link}/proxy_delay": "0",
                f"net/ipv6/conf/{link}/accept_ra": "0",
            },
        )
        # Nobody else can have the address, so nobody is asked before it is used.
        sysctl(machine, {f"net/ipv6/conf/{name}/accept_dad": "0"})
        run("ip", "-n", router, "link", "set", link, "up")
        if subnet.cidr is None:
            raise LabError(f"{subnet.id} is an IPv6-only subnet; the lab starts no machines in one")
        address = f"{interface.primary}/{subnet.cidr.prefixlen}"
        commands = [f"link set {name} up", f"address replace {address} brd + dev {name}"]
        if interface.index == 0:
            commands.append(f"route replace default via {subnet.cidr[1]} dev {name}")
        ip_batch(machine, commands)
        self._give_addresses6(interface, subnet, had=())

    def _give_addresses6(self, interface: Interface, subnet: Subnet, had: tuple[IPv6Address, ...]) -> None:
        """Give an instance what DHCPv6 and router advertisements do: its addresses and its default route."""
        assert interface.instance is not None
        name, machine = device_name(interface), self.machine(interface.instance)
        commands = [f"address replace {a}/128 dev {name} nodad" for a in interface.addresses6 if a not in had]
        commands += [f"address delete {a}/128 dev {name}" for a in had if a not in interface.addresses6]
        if interface.index == 0 and subnet.cidr6:
            commands.append(f"route replace default via {ROUTER6} dev {name}")
        ip_batch(machine, commands, force=True)

    def _unlink(self, router: str, interface: str) -> None:
        # Deleting one end deletes both; it is gone already where the machine's namespace went first.
        ip_batch(router, [f"link delete {link_name(interface)}"], force=True)
        self._links.pop(interface, None)

    def _configure(self, router: str, state: State, before: Plan, plan: Plan, *, anew: bool) -> None:
        # Rules of packets come first: nothing new is ever routed under old ones.
        if before.ruleset != plan.ruleset:
            nft(router, plan.ruleset)
            if not before.ruleset:
                sysctl(router, _TRACKING)
        ip_batch(router, [f"address replace {text}" for text in plan.addresses if anew or text not in before.addresses])
        if anew or before.neighbours != plan.neighbours:
            ip_batch(router, [f"neighbour replace {text}" for text in plan.neighbours])
        # A link that was made anew has lost its routes; a route that stays the same is left alone.
        ip_batch(router, [f"route replace {text}" for text in plan.routes if anew or text not in before.routes])
        remaining = {_route_key(text) for text in plan.routes}
        gone = [text for text in before.routes if _route_key(text) not in remaining]
        ip_batch(router, [f"route delete {text}" for text in gone], force=True)
        for family in ("inet", "inet6"):
            gone_rules = [f"rule delete {text}" for text in before.rules if text not in plan.rules]
            ip_batch(router, gone_rules, force=True, family=family)
            new_rules = [f"rule add {text}" for text in plan.rules if text not in before.rules]
            ip_batch(router, new_rules, family=family)
        had6 = dict(before.own6)
        for name, addresses in plan.own6:
            if name in had6 and had6[name] != addresses:
                interface = state.interfaces[name]
                self._give_addresses6(interface, state.subnets[interface.subnet], had6[name])
        self._publish(router, before, plan)

    def _publish(self, router: str, before: Plan, plan: Plan) -> None:
        """Route a VPC's public addresses to it; forget flows of addresses that moved, as AWS does."""
        uplink = f"v{plan.vpc[-12:]}"
        commands = []
        for address in plan.public:
            commands.append(f"neighbour replace {address} lladdr {_IGW_MAC} dev {uplink} nud permanent")
            commands.append(f"route replace {address}/32 dev {uplink}")
        commands += [
            f"route delete {address}/32 dev {uplink}" for address in before.public if address not in plan.public
        ]
        commands += [f"route replace {network} via fe80::2 dev {uplink}" for network in plan.networks6]
        commands += [
            f"route delete {network} dev {uplink}" for network in before.networks6 if network not in plan.networks6
        ]
        ip_batch(self.internet, commands, force=True)
        _forget_flows(router, {public for _, public in {*before.translations} ^ {*plan.translations}})


def _route_key(text: str) -> tuple[str, str]:
    """Destination and table: what `replace` overwrites and only `delete` takes away."""
    words = text.split()
    return (words[1] if words[0] in ("throw", "blackhole") else words[0], words[-1])


def _forget_flows(router: str, public: set[IPv4Address]) -> None:
    """Drop what conntrack knows of flows translated to these: a moved Elastic IP moves its traffic at once."""
    for address in sorted(public):
        # Flows that began outside were for the address, flows that began inside are answered to it.
        for end in ("--orig-dst", "--reply-dst"):
            # conntrack exits 1 where nothing matched.
            forget = f"conntrack --delete {end} {address} 2>&1 || test $? = 1"
            run("ip", "netns", "exec", router, "sh", "-c", forget)


def device_name(interface: Interface) -> str:
    """Name of an interface on its machine, as on Nitro instances."""
    return f"ens{5 + interface.index}"


def interfaces_of(state: State, instance: str) -> Iterable[Interface]:
    """An instance's interfaces in the order of their device index."""
    return sorted((i for i in state.interfaces.values() if i.instance == instance), key=lambda i: i.index)
