"""Render a client's profile: its OpenVPN configuration without secrets.

Source: the reference manual for OpenVPN 2.6, openvpn(8).
"""

from collections.abc import Iterator, Sequence

from openvpn import windows
from openvpn.addressing import client_macs
from openvpn.bundle import profile_title
from openvpn.model import System, Tunnel
from openvpn.pull_filter import may_fit, render_filter
from openvpn.syntax import render_lines

#: Characters of a profile that leave room for keys and certificates with the longest names in a parameter of 4,096.
PROFILE_LIMIT = 1390


def render_profile(
    tunnel: Tunnel, remote: str, server_name: str, client: str = "", *, fallback: str | None = None
) -> str:
    """Return a profile without keys.

    The client accepts its own addresses and routes only; on a segment it gets its own hardware address, and on Windows
    its scripts. Where its routes do not fit a parameter, it accepts every IPv4 route. `remote` is the server's public
    address or name, and `fallback` the address that it tries where the name is not found; `server_name` is the common
    name of its certificate, and no other is accepted.
    """
    declared = tunnel.clients_by_name.get(client)
    system: System = declared.system if declared else "linux"
    title = profile_title(server_name, system)
    remotes = (remote, fallback) if fallback else (remote,)
    options = [*_profile_options(tunnel, remotes, server_name, client)]
    windows_options = tuple(windows.render_options(tunnel, client)) if system == "windows" else ()
    for routes_fit in (True, False) if may_fit(tunnel, client, PROFILE_LIMIT) else (False,):
        pulled = render_filter(tunnel, client, lists_routes=routes_fit)
        profile = render_lines(title, (*options, *pulled, *windows_options))
        if len(profile) <= PROFILE_LIMIT:
            break
    return profile


def _profile_options(tunnel: Tunnel, remotes: Sequence[str], server_name: str, client: str) -> Iterator[str]:
    # Without `mssfix`: the server changes the segment size in both directions, and NetworkManager imports no profile
    # with its `mtu` argument.
    yield "client"
    yield f"dev {tunnel.layout.device}"
    declared = tunnel.clients_by_name.get(client)
    if tunnel.layout.is_segment and client != tunnel.bridge and not (declared and declared.mac):
        mac = client_macs(tunnel)[client]
        yield f"lladdr {mac}"
        # udev (`MACAddressPolicy=persistent`, systemd.link(5)) may replace it when it handles the new device late; the
        # gateway drops frames from any other address.
        yield "script-security 2"
        yield f"route-up \"/bin/sh -c 'udevadm settle --timeout=10; ip link set $dev address {mac} || :'\""
    yield f"proto {tunnel.listener.protocol}"
    # A client whose resolver is behind the tunnel cannot look the name up while the tunnel is down.
    yield from (f"remote {remote} {tunnel.listener.ports[0]}" for remote in remotes)
    yield "nobind"
    yield "resolv-retry infinite"
    # The default back-off grows to minutes, so clients would return long after the gateway does. A gateway that
    # restarts is back within 2 s, and a client that came earlier would use up its address's rate of new sessions. The
    # maximum also bounds the pause of 10 s that `auth-retry nointeract` brings.
    yield "server-poll-timeout 10"
    yield "connect-retry 2 2"
    if declared and declared.lan:
        # Sites run Debian's 2.6; 2.7 keeps its keys without the option, and warns of it.
        yield "persist-key"
    yield "persist-tun"
    yield "remote-cert-tls server"
    # Without this option every server certificate of the same CA would be accepted.
    yield f"verify-x509-name {server_name} name"
    yield "tls-version-min 1.2"
    # By default a refused client ends with exit status 0, and no service manager starts it again.
    yield "auth-retry nointeract"
    yield "auth-nocache"
    if tunnel.listener.protocol == "udp":
        # Over TCP, closing the connection has the same effect.
        yield "explicit-exit-notify 1"
    # The server pushes its MTU to 2.6 and later; older clients need it in the profile.
    yield f"tun-mtu {tunnel.mtu}"
    yield f"verb {tunnel.verb}"
