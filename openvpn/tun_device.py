"""Render a routed tunnel's device on the gateway as files for systemd-networkd: it exists at boot and outlives OpenVPN.

The device has the gateway's addresses and the routes to the networks behind clients, so OpenVPN sets up neither: it has
no privilege to do so, and a client's network comes or goes without a restart.
Source: systemd.netdev(5), systemd.network(5).
"""

from openvpn.model import Tunnel
from openvpn.networkd import USER, name_files, render_wait
from openvpn.topology import Routed


def render_files(tunnel: Tunnel) -> dict[str, str]:
    """Return the files of a routed tunnel by their paths under `/`; none for any other tunnel."""
    if not isinstance(tunnel.topology, Routed):
        return {}
    device = tunnel.layout.interface
    network = _NETWORK.format(device=device, mtu=tunnel.mtu) + _addresses(tunnel) + _routes(tunnel)
    return {
        **name_files({f"{device}.netdev": _DEVICE.format(device=device), f"{device}.network": network}),
        "etc/systemd/system/openvpn-server@.service.d/routed.conf": render_wait((device,)),
    }


def _addresses(tunnel: Tunnel) -> str:
    text = f"\n[Address]\nAddress={tunnel.layout.address}/{tunnel.layout.network.prefixlen}\n"
    if ipv6 := tunnel.ipv6:
        text += f"\n[Address]\nAddress={ipv6.address}/{ipv6.pool.prefixlen}\nDuplicateAddressDetection=none\n"
    return text


def _routes(tunnel: Tunnel) -> str:
    return "".join(f"\n[Route]\nDestination={lan}\n" for lan in tunnel.lans)


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
