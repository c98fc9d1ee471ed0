"""The wires: namespaces, links and rules on this machine, made to match plans.

A lab's namespaces are named ``<prefix><what>``. `Fabric` remembers what it has put into each router, so that a plan that changes
one rule touches one rule; nothing of a running flow is disturbed by what did not change.
"""

import threading
from collections.abc import Iterable

from lab.linux import add_namespace, delete_namespace, ip_batch, namespaces, nft, run, sysctl
from lab.model import Interface, State
from lab.vpc import BACKBONE, BACKBONE6, INTERNET, MTU_INSIDE, MTU_INTERNET, ROUTER6, Plan, link_name

#: Addresses of the lab's Internet services (TEST-NET-1 of RFC 5737; S3 inside the prefix list the API publishes for it).
API = "192.0.2.10"
MIRROR = "192.0.2.20"
RESOLVER = "192.0.2.53"
S3 = "52.216.0.10"

_ROUTER = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
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
        ip_batch(self.internet, addresses)

    def apply(self, state: State, plan: Plan) -> None:
        """Make a VPC's router hold a plan. Idempotent."""
        with self._lock:
            router = self.router(plan.vpc)
            before = self._applied.get(plan.vpc)
            if before is None:
                self._open_router(router, plan.vpc)
            self._link(router, state, plan)
            if before != plan:
                self._configure(router, before, plan)
                self._applied[plan.vpc] = plan

    def close(self, vpc: str) -> None:
        """Take a VPC's router away."""
        with self._lock:
            if self._applied.pop(vpc, None):
                self._links = {name: held for name, held in self._links.items() if held[0] != vpc}
                delete_namespace(self.router(vpc))

    def open_machine(self, instance: str) -> str:
        """Namespace of an instance, made where missing."""
        add_namespace(self.machine(instance))
        return self.machine(instance)

    def close_machine(self, instance: str) -> None:
        """Take an instance's namespace away, links and all."""
        with self._lock:
            self._links = {name: held for name, held in self._links.items() if held[1] != instance}
            delete_namespace(self.machine(instance))

    def routers(self) -> list[str]:
        """Ids of the VPCs that have a router."""
        return list(self._applied)

    def delete_all(self) -> None:
        """Remove every namespace of this lab, known or left by another process."""
        for name in namespaces(self.prefix):
            delete_namespace(name)

    # --- how it is done ------------------------------------------------------------------------------------------------

    def _open_router(self, router: str, vpc: str) -> None:
        delete_namespace(router)
        self._links = {name: held for name, held in self._links.items() if held[0] != vpc}
        add_namespace(router)
        sysctl(router, _ROUTER)
        uplink = f"v{vpc[-12:]}"
        run("ip", "-n", router, "link", "add", INTERNET, "address", _IGW_MAC, "mtu", str(MTU_INTERNET), "type", "veth",
            "peer", "name", uplink, "netns", self.internet)  # fmt: skip
        run("ip", "-n", self.internet, "link", "set", uplink, "address", _BACKBONE_MAC, "mtu", str(MTU_INTERNET), "up")
        ip_batch(
            router,
            [
                f"link set {INTERNET} up",
                f"address replace fe80::2/64 dev {INTERNET} nodad",
                f"neighbour replace {BACKBONE} lladdr {_BACKBONE_MAC} dev {INTERNET} nud permanent",
                f"neighbour replace {BACKBONE6} lladdr {_BACKBONE_MAC} dev {INTERNET} nud permanent",
            ],
        )
        ip_batch(self.internet, [f"address replace {BACKBONE6}/64 dev {uplink} nodad"])

    def _link(self, router: str, state: State, plan: Plan) -> None:
        """Give every interface whose instance is on a veth, and take the others' away."""
        wanted = {name: state.interfaces[name] for name in plan.links}
        for name in [n for n, (vpc, _) in self._links.items() if vpc == plan.vpc and n not in wanted]:
            self._unlink(router, name)
        for name, interface in wanted.items():
            assert interface.instance is not None  # a plan links only interfaces of instances
            if self._links.get(name) == (plan.vpc, interface.instance):
                continue
            if name in self._links:
                self._unlink(router, name)
            self._add_link(router, interface, gateway=str(state.subnets[interface.subnet].cidr[1]),
                           prefix=state.subnets[interface.subnet].cidr.prefixlen)  # fmt: skip
            self._links[name] = (plan.vpc, interface.instance)

    def _add_link(self, router: str, interface: Interface, *, gateway: str, prefix: int) -> None:
        assert interface.instance is not None
        machine = self.open_machine(interface.instance)
        link, name = link_name(interface.id), f"ens{5 + interface.index}"
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
        run("ip", "-n", router, "link", "set", link, "up")
        commands = [f"link set {name} up", f"address replace {interface.primary}/{prefix} brd + dev {name}"]
        commands += [f"address replace {address}/128 dev {name} nodad" for address in interface.addresses6]
        if interface.index == 0:
            commands.append(f"route replace default via {gateway} dev {name}")
            if interface.addresses6:
                commands.append(f"route replace default via {ROUTER6} dev {name}")
        ip_batch(machine, commands)

    def _unlink(self, router: str, interface: str) -> None:
        # Deleting one end deletes both; it is gone already where the machine's namespace went first.
        ip_batch(router, [f"link delete {link_name(interface)}"], force=True)
        self._links.pop(interface, None)

    def _configure(self, router: str, before: Plan | None, plan: Plan) -> None:
        ip_batch(router, [f"address replace {text}" for text in plan.addresses])
        if before is None or before.links != plan.links or before.neighbours != plan.neighbours:
            ip_batch(router, [f"neighbour replace {text}" for text in plan.neighbours])
        # A link that was made anew has lost its routes and rules, so all are set again; `replace` of what is there is harmless.
        ip_batch(router, [f"route replace {text}" for text in plan.routes])
        if before is not None:
            kept = {_route_key(text) for text in plan.routes}
            gone = [text for text in before.routes if _route_key(text) not in kept]
            ip_batch(router, [f"route delete {text}" for text in gone], force=True)
            for family in ("inet", "inet6"):
                gone_rules = [f"rule delete {text}" for text in before.rules if text not in plan.rules]
                ip_batch(router, gone_rules, force=True, family=family)
        new_rules = [text for text in plan.rules if before is None or text not in before.rules]
        for family in ("inet", "inet6"):
            ip_batch(router, [f"rule add {text}" for text in new_rules], family=family)
        if before is None or before.ruleset != plan.ruleset:
            nft(router, plan.ruleset)
        self._publish(router, before, plan)

    def _publish(self, router: str, before: Plan | None, plan: Plan) -> None:
        """Route a VPC's public addresses to it; forget flows of addresses that moved, as AWS does."""
        uplink = f"v{plan.vpc[-12:]}"
        had = before.public if before else ()
        had6 = before.networks6 if before else ()
        commands = []
        for address in plan.public:
            commands.append(f"neighbour replace {address} lladdr {_IGW_MAC} dev {uplink} nud permanent")
            commands.append(f"route replace {address}/32 dev {uplink}")
        commands += [f"route delete {address}/32 dev {uplink}" for address in had if address not in plan.public]
        commands += [f"route replace {network} via fe80::2 dev {uplink}" for network in plan.networks6]
        commands += [f"route delete {network} dev {uplink}" for network in had6 if network not in plan.networks6]
        ip_batch(self.internet, commands, force=True)
        if before is not None and _translations(before) != _translations(plan):
            _forget_translated_flows(router)


def _route_key(text: str) -> tuple[str, str]:
    """Destination and table: what `replace` overwrites and only `delete` takes away."""
    words = text.split()
    return (words[1] if words[0] in ("throw", "blackhole") else words[0], words[-1])


def _translations(plan: Plan) -> list[str]:
    return [line for line in plan.ruleset.splitlines() if " : " in line]


def _forget_translated_flows(router: str) -> None:
    """Drop the conntrack entries of translated flows, so that a moved Elastic IP moves its traffic at once."""
    for kind in ("--src-nat", "--dst-nat"):
        # conntrack exits 1 where nothing matched
        run("ip", "netns", "exec", router, "sh", "-c", f"conntrack --delete {kind} >/dev/null 2>&1 || true")


def interfaces_of(state: State, instance: str) -> Iterable[Interface]:
    """An instance's interfaces in the order of their device index."""
    return sorted((i for i in state.interfaces.values() if i.instance == instance), key=lambda i: i.index)
