"""A segment's bridge on the gateway: files for systemd-networkd, so that it is there at boot and outlives OpenVPN.

The bridge has the gateway's address, and its ports are OpenVPN's devices alone. A port in hairpin mode sends frames
back out of where they came from: so clients of one process meet in the kernel, where the filter sees them, and not
inside OpenVPN (`client-to-client`), where none does.
Source: systemd.netdev(5), systemd.network(5), systemd-networkd-wait-online(8).
"""

from collections.abc import Mapping, Sequence

from openvpn.model import BRIDGE, Paths, Tunnel, text

_DIRECTORY = "etc/systemd/network"


def render(tunnel: Tunnel, adapters: Sequence[str] = ()) -> Mapping[str, str]:
    """Return the files of a segment by their paths under `/`; none for a tunnel that is routed.

    `adapters` are all ports of the bridge where it has more than the tunnel's own.
    """
    if tunnel.device != "tap":
        return {}
    ports = adapters or tunnel.adapters
    files = {
        f"{BRIDGE}.netdev": _BRIDGE_DEVICE.format(mac=tunnel.mac),
        f"{BRIDGE}.network": _BRIDGE.format(
            mtu=tunnel.mtu,
            router="IPv6SendRA=yes\n" if tunnel.advertised else "",
            addresses=_addresses(tunnel) + _advertisements(tunnel),
        ),
    }
    for port in ports:
        files |= {f"{port}.netdev": _PORT_DEVICE.format(port=port), f"{port}.network": _port(port, tunnel)}
    return {
        # Before what the host has itself: the first file that fits an interface counts.
        **{f"{_DIRECTORY}/10-drawbridge-{name}": content for name, content in files.items()},
        "etc/systemd/system/openvpn-server@.service.d/segment.conf": _unit(ports),
        Paths.members.lstrip("/"): render_members(tunnel),
    }


def render_members(tunnel: Tunnel) -> str:
    """Return whose each hardware address of a segment is: one, and a client's name, a line.

    A bridge's client has all that are not listed, since nobody knows those of its LAN's hosts; the gateway's is listed
    under a name that no client can have.
    """
    lines = [f"{mac} {name}" for name, owned in tunnel.hardware.items() for mac in owned]
    if tunnel.bridged:
        lines += [f"{tunnel.mac} -", f"* {tunnel.bridged.name}"]
    return text("hardware addresses", lines)


def _addresses(tunnel: Tunnel) -> str:
    text = f"[Address]\nAddress={tunnel.address}/{tunnel.network.prefixlen}\n"
    if tunnel.pool6:
        # To ask whether somebody has it takes a port with a carrier, so it would not be there before the first client.
        text += f"\n[Address]\nAddress={tunnel.address6}/{tunnel.pool6.prefixlen}\nDuplicateAddressDetection=none\n"
    return text


def _advertisements(tunnel: Tunnel) -> str:
    if not (tunnel.advertised and tunnel.pool6):
        return ""
    # Seconds; 0: not the way to everywhere, only to what is named (RFC 4191).
    routes = "".join(f"\n[IPv6RoutePrefix]\nRoute={network}\n" for network in tunnel.routes6)
    lifetime = 1800 if tunnel.default6 else 0
    return f"\n[IPv6SendRA]\nRouterLifetimeSec={lifetime}\nEmitDNS=no\n\n[IPv6Prefix]\nPrefix={tunnel.pool6}\n{routes}"


def _port(port: str, tunnel: Tunnel) -> str:
    return _PORT.format(port=port, bridge=BRIDGE, mtu=tunnel.mtu, hairpin="yes" if tunnel.client_to_client else "no")


def _unit(ports: Sequence[str]) -> str:
    waited = " ".join(f"--interface={name}:no-carrier" for name in (*ports, BRIDGE))
    return _UNIT.format(waited=waited)


# Without an address of its own a bridge takes its ports', and clients would see another gateway after each boot.
_BRIDGE_DEVICE = f"""\
[NetDev]
Name={BRIDGE}
Kind=bridge
MACAddress={{mac}}

[Bridge]
STP=no
ForwardDelaySec=0
# Nobody here asks who listens to which group, and a bridge that is told nothing would drop what it takes for unwanted.
MulticastSnooping=no
"""

# Up, with its address, also while no client is there: a port has a carrier only while OpenVPN holds it.
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

# OpenVPN runs as a user of its own, and opens the device without any right to make one.
_PORT_DEVICE = """\
[NetDev]
Name={port}
Kind=tap

[Tap]
User=openvpn
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
"""

# Not before the device is there and in the bridge: OpenVPN would make one of its own under that name.
_UNIT = """\
[Unit]
Wants=systemd-networkd.service
After=systemd-networkd.service

[Service]
ExecStartPre=/usr/lib/systemd/systemd-networkd-wait-online --timeout=20 {waited}
"""
