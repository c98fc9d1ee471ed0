"""A host that is a bridge between its LAN and a segment: what systemd-networkd is to make of it, and its filter.

The LAN's interface and OpenVPN's TAP are ports of one bridge, and that has the host's addresses. What of them the host
had before, only it knows; here is what the segment adds.
Source: systemd.netdev(5), systemd.network(5), openvpn(8) of 2.6; nft(8), "BRIDGE ADDRESS FAMILY".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, collapse_addresses
from string import Template
from textwrap import indent
from typing import Literal

from openvpn.model import BRIDGE, GLOBAL6, Client, Tunnel

MTU = 1500
"""Of a bridged segment, bytes: that of the LAN, whose hosts know of no smaller one; larger parcels travel in parts."""

TAP = "tap0"
TABLE = "bridge drawbridge"
#: Where the host's own files for systemd-networkd wait until they are proven.
PLACE = "etc/drawbridge/bridge"


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What the stack file says of a bridging host."""

    interface: str | None = None
    """Its interface in the LAN; without it, that of its default route."""
    tap: Literal["persistent", "dynamic"] = "persistent"
    gateway6: IPv6Address | None = None
    """Router of its IPv6 default route."""
    timeout: int = 60
    """Seconds it has to prove that it is still reached."""


def render(client: Client, tunnel: Tunnel, host: Host) -> Mapping[str, str]:
    """Return the host's files by their paths under `/`."""
    persistent = host.tap == "persistent"
    files = {
        f"{PLACE}/{BRIDGE}.netdev": _DEVICE,
        f"{PLACE}/{BRIDGE}.network": "".join(_added(client, tunnel, host)),
        "etc/drawbridge/bridge.env": f"NIC={host.interface or ''}\nTIMEOUT={host.timeout}\n",
        "etc/drawbridge/site.nft": render_nftables(tunnel),
        f"etc/systemd/system/openvpn-client@{client.name}.service.d/drawbridge.conf": _unit(
            persistent, tunnel.listener.protocol
        ),
    }
    return files | ({f"{PLACE}/{TAP}.network": _PORT} if persistent else {})


def render_nftables(tunnel: Tunnel) -> str:
    """Return a file for `nft -f`: what may cross between LAN and tunnel, whatever the gateway lets through.

    From the tunnel come only frames of the segment's own hosts, and packets of networks that it routes; neither side
    gets the other's DHCP leases, routers or spanning trees.
    """
    values = {
        "TAP": TAP,
        "SEGMENT": str(tunnel.pool),
        "FAR": ", ".join(map(str, collapse_addresses(_without(tunnel.network, (tunnel.pool, *tunnel.routes))))),
    }
    body = indent(Template(_TABLE).substitute(values), "    ")
    return f"# What may cross the bridge\ntable {TABLE}\ndelete table {TABLE}\n\ntable {TABLE} {{\n{body}}}\n"


def _without(lan: IPv4Network, networks: tuple[IPv4Network, ...]) -> Iterator[IPv4Network]:
    """A route may be wider than the LAN, whose own addresses come from its own side alone."""
    pool, *routes = networks
    yield pool
    for route in routes:
        if lan.subnet_of(route):
            yield from route.address_exclude(lan)
        elif not route.subnet_of(lan):
            yield route


def _added(client: Client, tunnel: Tunnel, host: Host) -> Iterator[str]:
    """The bridge's sections beyond what the host's interface had: its part in the segment."""
    own = tunnel.addresses6.get(client.name)
    if own and tunnel.pool6:
        yield f"\n[Address]\nAddress={own}/{tunnel.pool6.prefixlen}\n"
    yield from (f"\n[Route]\nDestination={network}\nGateway={tunnel.address}\n" for network in tunnel.routes)
    if own and tunnel.address6:
        # Its own way to the Internet is not the tunnel's, whatever that is to others: the admin may come over it.
        inside = (network for network in tunnel.routes6 if network != GLOBAL6)
        route = "\n[Route]\nDestination={}\nGateway={}\nPreferredSource={}\n"
        yield from (route.format(network, tunnel.address6, own) for network in inside)
    if host.gateway6:
        router = str(host.gateway6).partition("%")[0]
        yield f"\n[Route]\nGateway={router}\nGatewayOnLink=yes\n"


def _unit(persistent: bool, protocol: str) -> str:
    return _UNIT.format(
        before=_MADE if persistent else "",
        whole=" --mtu-disc no" if protocol == "udp" else "",
        tap=TAP,
    )


# Without a spanning tree: there is one bridge to a segment, so no loop; and a port that waits 30 s forwards nothing.
_DEVICE = f"""\
[NetDev]
Name={BRIDGE}
Kind=bridge

[Bridge]
STP=no
ForwardDelaySec=0
MulticastSnooping=no
"""

# It has a carrier only while OpenVPN holds it.
_PORT = f"""\
[Match]
Name={TAP}

[Link]
MTUBytes={MTU}
Promiscuous=yes
RequiredForOnline=no

[Network]
Bridge={BRIDGE}
ConfigureWithoutCarrier=yes
LinkLocalAddressing=no
IPv6AcceptRA=no
LLDP=no
"""

_MADE = f"""\
ExecStartPre=/bin/sh -c 'ip link show {TAP} >/dev/null 2>&1 || ip tuntap add dev {TAP} mode tap'
ExecStartPre=/usr/lib/systemd/systemd-networkd-wait-online --timeout=20 --interface={TAP}:no-carrier
"""

# The host's addresses are its bridge's, and so is its way into the segment: OpenVPN sets none.
_UNIT = """\
[Unit]
Requires=drawbridge-bridge.service drawbridge-site.service
After=drawbridge-bridge.service drawbridge-site.service
StartLimitIntervalSec=0

[Service]
{before}ExecStart=
ExecStart=/usr/sbin/openvpn --suppress-timestamps --config %i.conf --dev {tap} --dev-type tap \\
    --ifconfig-noexec --route-noexec{whole} \\
    --script-security 2 --up "/bin/sh /usr/local/lib/drawbridge/tunnel-up" --up-restart
ExecStopPost=-/bin/sh -c 'ip link delete {tap} 2>/dev/null'
# Of all of root's processes, which are more than the ten of the unit.
LimitNPROC=infinity
Restart=always
RestartSec=5
"""

_TABLE = """\
set far {
    type ipv4_addr
    flags interval
    elements = { $FAR }
}
counter refused {
}
chain kept {
    ether type != { arp, ip, ip6 } counter name refused drop
    udp sport { 67, 68, 546, 547 } udp dport { 67, 68, 546, 547 } counter name refused drop
    icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } counter name refused drop
}
chain from_tunnel {
    type filter hook prerouting priority filter; policy accept;
    iifname != "$TAP" accept
    jump kept
    arp saddr ip != { 0.0.0.0, $SEGMENT } counter name refused drop
    ip saddr != @far counter name refused drop
}
chain into_tunnel {
    type filter hook postrouting priority filter; policy accept;
    oifname "$TAP" jump kept
}
"""
