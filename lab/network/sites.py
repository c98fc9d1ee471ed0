"""Create sites outside of AWS (a home, an office or a café behind a NAT router) and hosts on the lab's Internet itself.

Sources: RFC 5737 and RFC 2544 for addresses worth using here; tc-tbf(8), nft(8).
"""

import hashlib
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address

from lab.errors import LabError
from lab.linux import ip_batch, nft, run, sysctl
from lab.namespaces import add_namespace, delete_namespace
from lab.network.fabric import Fabric
from lab.network.plan import BACKBONE, BACKBONE6

_MAC = "02:00:00:00:00:03"
_BACKBONE_MAC = "02:00:00:00:00:01"


@dataclass
class Site:
    """A LAN behind a NAT router, which has its first address and translates everything to `public`."""

    name: str
    public: IPv4Address
    lan: IPv4Network
    mtu: int = 1500
    """Of the line to the Internet, in bytes."""
    rate: str | None = None
    """Of the line, both ways, as tc(8) spells it (``20mbit``)."""
    hosts: dict[str, IPv4Interface] = field(default_factory=dict)

    def router(self, fabric: Fabric) -> str:
        """Return the name of the router's namespace."""
        return f"{fabric.prefix}{self.name}-gw"

    def open(self, fabric: Fabric) -> None:
        """Create the router, its line and its LAN's bridge."""
        router, line = self.router(fabric), _name_device("p", self.name)
        delete_namespace(router)
        add_namespace(router)
        sysctl(router, {"net/ipv4/ip_forward": "1"})
        run("ip", "-n", router, "link", "add", "wan0", "address", _MAC, "mtu", str(self.mtu), "type", "veth",
            "peer", "name", line, "netns", fabric.internet)  # fmt: skip
        ip_batch(
            fabric.internet,
            [
                f"link set {line} address {_BACKBONE_MAC} mtu {self.mtu} up",
                f"neighbour replace {self.public} lladdr {_MAC} dev {line} nud permanent",
                f"route replace {self.public}/32 dev {line}",
            ],
        )
        ip_batch(
            router,
            [
                f"address add {self.public}/32 dev wan0",
                "link set wan0 up",
                f"neighbour replace {BACKBONE} lladdr {_BACKBONE_MAC} dev wan0 nud permanent",
                f"route add default via {BACKBONE} dev wan0 onlink",
                "link add lan0 type bridge forward_delay 0",
                f"address add {self.lan[1]}/{self.lan.prefixlen} dev lan0",
                "link set lan0 up",
            ],
        )
        nft(router, _RULESET)
        if self.rate:
            for namespace, device in ((router, "wan0"), (fabric.internet, line)):
                run("ip", "netns", "exec", namespace, "tc", "qdisc", "replace", "dev", device, "root",
                    "tbf", "rate", self.rate, "burst", "32kb", "latency", "50ms")  # fmt: skip

    def move(self, fabric: Fabric, public: IPv4Address) -> None:
        """Give the site another public address, as a provider does."""
        line = _name_device("p", self.name)
        ip_batch(
            fabric.internet,
            [
                f"route delete {self.public}/32 dev {line}",
                f"neighbour replace {public} lladdr {_MAC} dev {line} nud permanent",
                f"route replace {public}/32 dev {line}",
            ],
        )
        ip_batch(
            self.router(fabric),
            [
                f"address add {public}/32 dev wan0",
                f"address delete {self.public}/32 dev wan0",
                f"route replace default via {BACKBONE} dev wan0 onlink",
            ],
        )
        self.public = public

    def forward_port(self, fabric: Fabric, port: int, host: str) -> None:
        """Hand a UDP port of the public address on to a host, as a home router's port forwarding does."""
        to = f"{self.hosts[host].ip}:{port}"
        nft(self.router(fabric), f'add rule inet home forwarded iifname "wan0" udp dport {port} dnat ip to {to}\n')

    def add_route(self, fabric: Fabric, network: IPv4Network, via: IPv4Address) -> None:
        """Have the site's router send a network's packets to a host of its LAN."""
        ip_batch(self.router(fabric), [f"route replace {network} via {via} dev lan0"])

    def add_host(self, fabric: Fabric, name: str, address: IPv4Address | None = None, line: int = 0) -> str:
        """Plug a host into the LAN and return the name of its namespace.

        The host gets ``eth<line>`` with an address and a default route. Its first line creates the namespace; the
        routes of further ones have a higher metric.

        Raises:
            LabError: the address is in use, or outside of the LAN.
        """
        if name not in self.hosts:
            used = {host.ip for host in self.hosts.values()} | {self.lan[1]}
            chosen = address or next((free for free in list(self.lan.hosts())[9:] if free not in used), None)
            if chosen is None or chosen in used or chosen not in self.lan:
                raise LabError(
                    f"{name} cannot have address {address} at {self.name}: it is in use or outside {self.lan}"
                )
            self.hosts[name] = IPv4Interface((chosen, self.lan.prefixlen))
        namespace, port, router = f"{fabric.prefix}{name}", _name_device("h", name), self.router(fabric)
        if line == 0:
            delete_namespace(namespace)
        add_namespace(namespace)
        nic = f"eth{line}"
        # A namespace goes when the last process in it has: the link may outlive the host for a moment.
        ip_batch(router, [f"link delete {port}"], force=True)
        run("ip", "-n", router, "link", "add", port, "type", "veth", "peer", "name", nic, "netns", namespace)
        ip_batch(router, [f"link set {port} master lan0 up"])
        ip_batch(
            namespace,
            [
                f"address add {self.hosts[name]} brd + dev {nic}",
                f"link set {nic} up",
                f"route add default via {self.lan[1]} dev {nic}" + (f" metric {100 * line}" if line else ""),
            ],
        )
        return namespace

    def close(self, fabric: Fabric) -> None:
        """Remove the router and the hosts' namespaces."""
        for name in self.hosts:
            delete_namespace(f"{fabric.prefix}{name}")
        delete_namespace(self.router(fabric))


@dataclass(frozen=True, slots=True)
class InternetHost:
    """A host with public addresses of its own and nothing in front of it: a server, a VPS, an attacker."""

    name: str
    address: IPv4Address
    address6: IPv6Address | None = None

    def open(self, fabric: Fabric) -> str:
        """Create its namespace with ``eth0`` on the Internet; return the namespace's name."""
        namespace, line = f"{fabric.prefix}{self.name}", _name_device("s", self.name)
        delete_namespace(namespace)
        add_namespace(namespace)
        ip_batch(fabric.internet, [f"link delete {line}"], force=True)
        run("ip", "-n", namespace, "link", "add", "eth0", "address", _MAC, "type", "veth",
            "peer", "name", line, "address", _BACKBONE_MAC, "netns", fabric.internet)  # fmt: skip
        at_internet = [
            f"link set {line} up",
            f"neighbour replace {self.address} lladdr {_MAC} dev {line} nud permanent",
            f"route replace {self.address}/32 dev {line}",
        ]
        at_host = [
            f"address add {self.address}/32 dev eth0",
            "link set eth0 up",
            f"neighbour replace {BACKBONE} lladdr {_BACKBONE_MAC} dev eth0 nud permanent",
            f"route add default via {BACKBONE} dev eth0 onlink",
        ]
        if self.address6:
            at_internet += [
                f"neighbour replace {self.address6} lladdr {_MAC} dev {line} nud permanent",
                f"route replace {self.address6}/128 dev {line}",
            ]
            at_host += [
                f"address add {self.address6}/128 dev eth0 nodad",
                f"neighbour replace {BACKBONE6} lladdr {_BACKBONE_MAC} dev eth0 nud permanent",
                f"route add default via {BACKBONE6} dev eth0",
            ]
        ip_batch(fabric.internet, at_internet)
        ip_batch(namespace, at_host)
        return namespace


_RULESET = """
table inet home {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct status dnat accept
    iifname "lan0" accept
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "lan0" accept
    icmp type echo-request accept
  }
  chain forwarded {
    type nat hook prerouting priority dstnat; policy accept;
  }
  chain translate {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "wan0" masquerade
  }
}
"""


def _name_device(letter: str, name: str) -> str:
    """Return an interface name (at most 15 characters) for a name of any length."""
    return f"{letter}{name}" if len(name) < 14 else f"{letter}{hashlib.sha256(name.encode()).hexdigest()[:12]}"
