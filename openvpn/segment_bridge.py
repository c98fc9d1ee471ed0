"""Render a segment's bridge on the gateway as files for systemd-networkd: it exists at boot and outlives OpenVPN.

The bridge has the gateway's address, and only OpenVPN's devices are its ports, one of each process. A port in hairpin
mode sends frames back out where they came in: so frames between clients of one process pass the kernel, where the
filter sees them, instead of staying inside OpenVPN (`client-to-client`), where no filter does. Where clients are kept
apart, ports are also isolated: frames of one process's clients go to no other process.
Source: systemd.netdev(5), systemd.network(5).
"""

from collections.abc import Mapping

from openvpn.addressing import gateway_mac, source_macs
from openvpn.model import Tunnel
from openvpn.networkd import USER, name_files, render_wait
from openvpn.paths import Paths
from openvpn.syntax import render_lines
from openvpn.topology import BRIDGE


def render_files(tunnel: Tunnel) -> Mapping[str, str]:
    """Return the files of a segment by their paths under `/`; none for a tunnel that is routed."""
    if not tunnel.layout.is_segment:
        return {}
    files = {
        f"{BRIDGE}.netdev": _BRIDGE_DEVICE.format(mac=gateway_mac(tunnel)),
        f"{BRIDGE}.network": _BRIDGE.format(
            mtu=tunnel.mtu,
            router="IPv6SendRA=yes\n" if tunnel.ipv6 and tunnel.ipv6.advertised else "",
            addresses=_addresses(tunnel) + _advertisements(tunnel),
        ),
    }
    for port in tunnel.adapters:
        files |= {f"{port}.netdev": _PORT_DEVICE.format(port=port), f"{port}.network": _port(port, tunnel)}
    return {
        **name_files(files),
        "etc/systemd/system/openvpn-server@.service.d/segment.conf": _unit(tunnel),
        Paths.members.lstrip("/"): render_members(tunnel),
    }


def render_members(tunnel: Tunnel) -> str:
    """Return shell commands that set `owner` to the name of the client that has the hardware address `mac`.

    It is empty for an address that nobody has; the gateway has a name that no client can have. `bridge` is the client
    that may use every address that nobody has, since those of its LAN's hosts are unknown.
    """
    owners = {mac: name for name, macs in source_macs(tunnel).items() for mac in macs} | {gateway_mac(tunnel): "-"}
    patterns = [f"{mac}) owner={name} ;;" for mac, name in owners.items()]
    lines = [f"bridge={tunnel.bridge or ''}", "case $mac in", *patterns, "*) owner= ;;", "esac"]
    return render_lines("hardware addresses", lines)


def _addresses(tunnel: Tunnel) -> str:
    text = f"[Address]\nAddress={tunnel.layout.address}/{tunnel.layout.network.prefixlen}\n"
    if ipv6 := tunnel.ipv6:
        # Duplicate address detection needs a port with a carrier: the address would wait for the first client.
        text += f"\n[Address]\nAddress={ipv6.address}/{ipv6.pool.prefixlen}\nDuplicateAddressDetection=none\n"
    return text


def _advertisements(tunnel: Tunnel) -> str:
    ipv6 = tunnel.ipv6
    if ipv6 is None or not ipv6.advertised:
        return ""
    routes = "".join(f"\n[IPv6RoutePrefix]\nRoute={network}\n" for network in ipv6.routes)
    # Seconds; a router with a lifetime of 0 is not a default router, only a router to its prefixes (RFC 4191).
    lifetime = 1800 if ipv6.default_router else 0
    return f"\n[IPv6SendRA]\nRouterLifetimeSec={lifetime}\nEmitDNS=no\n\n[IPv6Prefix]\nPrefix={ipv6.pool}\n{routes}"


def _port(port: str, tunnel: Tunnel) -> str:
    hairpin, isolated = ("yes", "no") if tunnel.client_to_client else ("no", "yes")
    return _PORT.format(port=port, bridge=BRIDGE, mtu=tunnel.mtu, hairpin=hairpin, isolated=isolated)


def _unit(tunnel: Tunnel) -> str:
    units, directories = ["drawbridge-suspend@%i.path"], ["openvpn-%i/refused", "openvpn-%i/suspended"]
    if tunnel.listener.sharing > 1:
        units.append("drawbridge-client-routes.service")
        directories.append("openvpn-%i/sessions")
    wait = render_wait((*tunnel.adapters, BRIDGE), wants=" ".join(units))
    return f"{wait}RuntimeDirectory={' '.join(directories)}\n"


# A bridge without a hardware address of its own takes a port's, so clients would see another gateway after each boot.
_BRIDGE_DEVICE = f"""\
[NetDev]
Name={BRIDGE}
Kind=bridge
MACAddress={{mac}}

[Bridge]
STP=no
ForwardDelaySec=0
# There is no IGMP/MLD querier here; with snooping on, the bridge would drop multicast.
MulticastSnooping=no
"""

# The bridge is up and has its address without any client: a port has a carrier only while OpenVPN holds it.
_BRIDGE = f"""\
[Match]
Name={BRIDGE}

[Link]
MTUBytes={{mtu}}
RequiredForOnline=no

[Network]
ConfigureWithoutCarrier=yes
IgnoreCarrierLoss=yes
LinkLocalAddressing=ipv6
IPv6AcceptRA=no
LLDP=no
{{router}}
{{addresses}}"""

_PORT_DEVICE = f"""\
[NetDev]
Name={{port}}
Kind=tap

[Tap]
User={USER}
"""

_PORT = """\
[Match]
Name={port}

[Link]
MTUBytes={mtu}
RequiredForOnline=no

[Network]
Bridge={bridge}
ConfigureWithoutCarrier=yes
LinkLocalAddressing=no
LLDP=no

[Bridge]
HairPin={hairpin}
Isolated={isolated}
"""
