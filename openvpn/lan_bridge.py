"""Render the files of a host that bridges its LAN to a segment: systemd-networkd's, OpenVPN's unit and the filter.

The LAN's interface and OpenVPN's TAP are ports of one bridge, which has the host's addresses. Only the host knows which
addresses it had before; these files hold what the segment adds.
Source: systemd.netdev(5), systemd.network(5), openvpn(8) of 2.6; nft(8), "BRIDGE ADDRESS FAMILY".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, collapse_addresses
from string import Template
from typing import Literal

from openvpn.addressing import client_macs, fixed_addresses6, gateway_mac
from openvpn.model import GLOBAL6, Tunnel, TunnelClient
from openvpn.nft import render_table
from openvpn.topology import BRIDGE

MTU = 1500
"""MTU of a bridged segment in bytes: the LAN's, since its hosts use no smaller one. Larger packets are fragmented."""

TAP = "tap0"
TABLE = "bridge drawbridge"
#: Where the host's new files for systemd-networkd wait until the host has shown that it is still reached with them.
STAGING_DIRECTORY = "etc/drawbridge/bridge"


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeHost:
    """The stack file's settings of a bridging host."""

    interface: str | None = None
    """Its interface in the LAN; None is the interface of its default route."""
    tap: Literal["persistent", "dynamic"] = "persistent"
    gateway6: IPv6Address | None = None
    """Router of its IPv6 default route."""
    timeout: int = 60
    """Seconds it has to prove that it is still reached."""


def render_files(client: TunnelClient, tunnel: Tunnel, host: BridgeHost) -> Mapping[str, str]:
    """Return the host's files by their paths under `/`."""
    persistent = host.tap == "persistent"
    files = {
        f"{STAGING_DIRECTORY}/{BRIDGE}.netdev": _DEVICE,
        f"{STAGING_DIRECTORY}/{BRIDGE}.network": "".join(_segment_sections(client, tunnel, host)),
        "etc/drawbridge/bridge.env": f"NIC={host.interface or ''}\nTIMEOUT={host.timeout}\n",
        "etc/drawbridge/site.nft": render_nftables(tunnel),
        f"etc/systemd/system/openvpn-client@{client.name}.service.d/drawbridge.conf": _unit(persistent, tunnel),
    }
    return files | ({f"{STAGING_DIRECTORY}/{TAP}.network": _PORT} if persistent else {})


def render_nftables(tunnel: Tunnel) -> str:
    """Return a file for `nft -f` that filters between LAN and tunnel, whatever the gateway lets through.

    Only frames of the segment's own hosts and packets of networks that it routes may come out of the tunnel. Neither
    side gets the other's DHCP leases, routers or spanning trees, nor frames from its own hardware addresses: the
    gateway sends multicast back to where it came from, and suspends a client that sends from others' addresses.
    Frames from new addresses in the LAN pass slowly, since each address is work for the gateway.
    """
    far = collapse_addresses((tunnel.pool, *_routes_outside_lan(tunnel)))
    macs = [gateway_mac(tunnel), *client_macs(tunnel).values()]
    values = {"TAP": TAP, "SEGMENT": str(tunnel.pool), "FAR": ", ".join(map(str, far)), "MACS": ", ".join(macs)}
    return render_table("What may cross the bridge", TABLE, Template(_RULES).substitute(values))


def _routes_outside_lan(tunnel: Tunnel) -> Iterator[IPv4Network]:
    """Yield the tunnel's routes without the LAN's addresses, which may come from the LAN alone."""
    lan = tunnel.layout.network
    for route in tunnel.routes:
        if lan.subnet_of(route):
            yield from route.address_exclude(lan)
        elif not route.subnet_of(lan):
            yield route


def _segment_sections(client: TunnelClient, tunnel: Tunnel, host: BridgeHost) -> Iterator[str]:
    """Yield the bridge's sections for the segment, which come after those that the host's interface had."""
    ipv6, address6 = tunnel.ipv6, fixed_addresses6(tunnel).get(client.name)
    if ipv6 and address6:
        yield f"\n[Address]\nAddress={address6}/{ipv6.pool.prefixlen}\n"
    gateway = tunnel.layout.address
    yield from (f"\n[Route]\nDestination={network}\nGateway={gateway}\n" for network in tunnel.routes)
    if ipv6 and address6:
        # The host keeps its own way to the Internet, even if other clients use the tunnel's: its administrator may be
        # connected over it.
        networks = (network for network in ipv6.routes if network != GLOBAL6)
        route = "\n[Route]\nDestination={}\nGateway={}\nPreferredSource={}\n"
        yield from (route.format(network, ipv6.address, address6) for network in networks)
    if host.gateway6:
        router = str(host.gateway6).partition("%")[0]
        yield f"\n[Route]\nGateway={router}\nGatewayOnLink=yes\n"


def _unit(persistent: bool, tunnel: Tunnel) -> str:
    return _UNIT.format(
        create_tap=_CREATE_TAP if persistent else "",
        mtu_disc=" --mtu-disc no" if tunnel.listener.protocol == "udp" else "",
        tap=TAP,
    )


# No spanning tree: a segment has one bridge, so there is no loop, and a port would wait 30 s before it forwards.
_DEVICE = f"""\
[NetDev]
Name={BRIDGE}
Kind=bridge

[Bridge]
STP=no
ForwardDelaySec=0
MulticastSnooping=no
"""

# The TAP has a carrier only while OpenVPN holds it.
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

_CREATE_TAP = f"""\
ExecStartPre=/bin/sh -c 'ip link show {TAP} >/dev/null 2>&1 || ip tuntap add dev {TAP} mode tap'
ExecStartPre=/usr/lib/systemd/systemd-networkd-wait-online --timeout=20 --interface={TAP}:no-carrier
"""

# The bridge has the host's addresses and routes, so OpenVPN must not set any (--ifconfig-noexec, --route-noexec).
_UNIT = """\
[Unit]
Requires=drawbridge-bridge.service drawbridge-site.service
After=drawbridge-bridge.service drawbridge-site.service
StartLimitIntervalSec=0

[Service]
{create_tap}ExecStart=
ExecStart=/usr/sbin/openvpn --suppress-timestamps --config %i.conf --dev {tap} --dev-type tap \\
    --ifconfig-noexec --route-noexec{mtu_disc} \\
    --script-security 2 --up "/bin/sh /usr/local/lib/drawbridge/tunnel-up" --up-restart
ExecStopPost=-/bin/sh -c 'ip link delete {tap} 2>/dev/null'
# The packaged unit limits root to 10 processes in total; lift that.
LimitNPROC=infinity
Restart=always
RestartSec=5
"""

# Clients that join the segment later are known once they were heard.
_RULES = """\
set far {
    type ipv4_addr
    flags interval
    elements = { $FAR }
}
set members {
    type ether_addr
    elements = { $MACS }
}
set segment_hosts {
    type ether_addr
    size 4096
    flags dynamic
    timeout 1h
}
set lan_hosts {
    type ether_addr
    size 4096
    flags dynamic
    timeout 1h
}
counter refused {
}
chain kept {
    ether type != { arp, ip, ip6 } counter name refused drop
    udp sport { 67, 68, 546, 547 } udp dport { 67, 68, 546, 547 } counter name refused drop
    igmp type membership-query counter name refused drop
    exthdr frag exists ip6 hoplimit 255 counter name refused drop
    ip6 daddr ff00::/8 exthdr frag exists frag nexthdr != udp counter name refused drop
    icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect, mld-listener-query } counter name refused drop
}
chain from_tunnel {
    type filter hook prerouting priority filter; policy accept;
    iifname != "$TAP" accept
    jump kept
    arp saddr ip != { 0.0.0.0, $SEGMENT } counter name refused drop
    ip saddr != @far counter name refused drop
    ether saddr @lan_hosts counter name refused drop
    update @segment_hosts { ether saddr }
}
chain into_tunnel {
    type filter hook postrouting priority filter; policy accept;
    oifname != "$TAP" accept
    jump kept
    ether saddr @members counter name refused drop
    ether saddr @segment_hosts counter name refused drop
    ether saddr != @lan_hosts limit rate over 10/second burst 20 packets counter name refused drop
    update @lan_hosts { ether saddr } accept
    counter name refused drop
}
"""
