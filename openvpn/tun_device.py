"""Render a routed tunnel's device on the gateway as files for systemd-networkd: it exists at boot and outlives OpenVPN.

The device has the gateway's addresses and the routes to the networks behind clients, so OpenVPN sets up neither: it has
no privilege to do so, and a client's network comes or goes without a restart. With data channel offload OpenVPN creates
the device, which is of a kind that systemd-networkd does not know, and systemd-networkd configures it then.
Source: systemd.netdev(5), systemd.network(5); README.dco.md of OpenVPN, "Routing with ovpn-dco".
"""

from openvpn.model import Tunnel, TunnelIPv6
from openvpn.networkd import USER, name_files, render_wait
from openvpn.topology import Routed


def render_files(tunnel: Tunnel) -> dict[str, str]:
    """Return the files of a routed tunnel by their paths under `/`; none for any other tunnel."""
    if not isinstance(tunnel.topology, Routed):
        return {}
    device = tunnel.layout.interface
    if tunnel.data_channel_offload:
        network = _NETWORK.format(device=device, mtu=tunnel.mtu) + _addresses(tunnel) + _routes_by_clients(tunnel)
        return {
            **name_files({f"{device}.network": network}),
            "etc/systemd/system/openvpn-server@.service.d/routed.conf": _OFFLOAD.format(device=device),
        }
    files = {}
    for adapter in tunnel.adapters:
        files[f"{adapter}.netdev"] = _DEVICE.format(device=adapter)
        files[f"{adapter}.network"] = _NETWORK.format(device=adapter, mtu=tunnel.mtu)
        if tunnel.ipv6 and adapter != device:
            # systemd-networkd switches IPv6 off on a device without an address.
            files[f"{adapter}.network"] += _address6(tunnel.ipv6, 128)
    files[f"{device}.network"] += _addresses(tunnel) + _routes(tunnel)
    shares = tunnel.listener.sharing > 1
    wait = render_wait(tunnel.adapters, wants="drawbridge-client-routes.service" if shares else "")
    sessions = "RuntimeDirectory=openvpn-%i/sessions\n" if shares else ""
    return {**name_files(files), "etc/systemd/system/openvpn-server@.service.d/routed.conf": wait + sessions}


def _addresses(tunnel: Tunnel) -> str:
    text = f"\n[Address]\nAddress={tunnel.layout.address}/{tunnel.layout.network.prefixlen}\n"
    return text + (_address6(tunnel.ipv6, tunnel.ipv6.pool.prefixlen) if tunnel.ipv6 else "")


def _address6(ipv6: TunnelIPv6, prefix: int) -> str:
    return f"\n[Address]\nAddress={ipv6.address}/{prefix}\nDuplicateAddressDetection=none\n"


def _routes(tunnel: Tunnel) -> str:
    # Of several processes' devices the first one has them; the route to a client of another process comes before it.
    metric = "Metric=1024\n" if tunnel.listener.sharing > 1 else ""
    return "".join(f"\n[Route]\nDestination={lan}\n{metric}" for lan in tunnel.lans)


def _routes_by_clients(tunnel: Tunnel) -> str:
    """Return the routes to networks behind clients by the clients' addresses, by which the kernel finds its peers.

    OpenVPN adds the route itself while a client without a fixed address is connected.
    """
    routes = [(lan, client.address) for client in tunnel.clients if client.address for lan in client.lan]
    return "".join(f"\n[Route]\nDestination={lan}\nGateway={address}\n" for lan, address in routes)


#: Who creates a device and hands keys to the kernel needs the privilege; other drop-ins may add more.
_OFFLOAD = """\
[Unit]
Wants=systemd-networkd.service
After=systemd-networkd.service

[Service]
AmbientCapabilities=CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_ADMIN
# Beside a device of the tun driver, which only a release without offload leaves, OpenVPN offloads nothing.
ExecStartPre=+/bin/sh -c '[ ! -e /sys/class/net/{device}/tun_flags ] || ip link delete {device}'
"""

_DEVICE = f"""\
[NetDev]
Name={{device}}
Kind=tun

[Tun]
User={USER}
"""

# The device is up and has its addresses and routes also while OpenVPN does not hold it: it has no carrier then.
_NETWORK = """\
[Match]
Name={device}

[Link]
MTUBytes={mtu}
RequiredForOnline=no

[Network]
ConfigureWithoutCarrier=yes
IgnoreCarrierLoss=yes
LinkLocalAddressing=no
IPv6AcceptRA=no
LLDP=no
"""
