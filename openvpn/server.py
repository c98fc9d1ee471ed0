"""Render the OpenVPN server's configuration and its file for each client.

Source: the reference manual for OpenVPN 2.6, openvpn(8); the reasons for options that surprise are beside them.
"""

from collections.abc import Iterator

from openvpn.addressing import dynamic_range, first_dynamic6, fixed_addresses, fixed_addresses6, source_macs
from openvpn.model import BLOCKED6, ServerProcess, Tunnel, TunnelClient
from openvpn.paths import Paths
from openvpn.syntax import render_lines, spell_network

#: Hardware addresses that nobody has and that OpenVPN learns from one client of a segment: so a client that sends from
#: some of them before its own, such as one with a bridge, is still reached.
FOREIGN_MACS = 8


def render_server(tunnel: Tunnel, process: ServerProcess | None = None) -> str:
    """Return the configuration of one of the tunnel's processes, by default the first one.

    It names the files of `Paths` and holds no secret. It stays as it is when a client comes or goes, unless others have
    a route to that client's network.
    """
    process = process or tunnel.processes[0]
    return render_lines(
        f"OpenVPN server '{process.instance}'", _server_options(tunnel, process, Paths(process.instance))
    )


def render_ccd(client: TunnelClient, tunnel: Tunnel) -> str:
    """Return the file that the server reads when `client` connects; a client without such a file is refused."""
    return render_lines(f"client {client.name}", _client_options(client, tunnel))


def _server_options(tunnel: Tunnel, process: ServerProcess, paths: Paths) -> Iterator[str]:
    protocol = tunnel.listener.protocol
    yield f"dev {process.adapter}"
    yield f"dev-type {tunnel.layout.device}"
    yield "proto udp" if protocol == "udp" else "proto tcp-server"
    yield f"port {process.port}"
    if not tunnel.data_channel_offload:
        # It takes privileges, which OpenVPN does not have (tun_device).
        yield "disable-dco"
    # systemd-networkd gives the device its addresses and routes (tun_device, segment_bridge).
    yield "ifconfig-noexec"
    yield "route-noexec"

    yield from _segment_options(tunnel, paths) if tunnel.layout.is_segment else _routed_options(tunnel, paths)
    yield from _pushed_options(tunnel)

    yield f"ca {paths.secrets}/ca.crt"
    yield f"cert {paths.secrets}/server.crt"
    yield f"key {paths.secrets}/server.key"
    # A session costs no memory until the client has shown that it receives at its address.
    yield f"tls-crypt-v2 {paths.secrets}/tls-crypt-v2.key force-cookie"
    # OpenVPN waits for the script; the packet filter's rate for new sessions bounds how often it runs.
    yield "script-security 2"
    yield f'tls-crypt-v2-verify "/bin/sh {Paths.verify_key}"'
    if tunnel.listener.sharing > 1:
        # The kernel's route to a client follows it to the process that it has connected to (client_routes.py).
        yield f'client-connect "/bin/sh {Paths.note_session} {paths.runtime}"'
        yield f'client-disconnect "/bin/sh {Paths.note_session} {paths.runtime}"'
    yield "dh none"
    yield "tls-version-min 1.2"
    yield "remote-cert-tls client"
    yield "data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"
    # A revocation list that has expired locks everyone out; a directory cannot expire and needs no CA key here.
    yield f"crl-verify {paths.revoked} dir"
    yield f"client-config-dir {paths.ccd}"
    yield "ccd-exclusive"
    yield f"max-clients {tunnel.max_sessions}"
    yield f"hand-window {tunnel.hand_window}"
    if protocol == "udp":
        # By default OpenVPN answers 100 first packets in 10 s, so forged ones could use all of them up. Its answer is
        # smaller than the packet, so it amplifies nothing.
        yield "connect-freq-initial 100000 10"

    yield "keepalive {} {}".format(*tunnel.keepalive)
    if protocol == "udp":
        yield "explicit-exit-notify 1"
    else:
        # Small packets do not wait until a TCP segment is full; the server pushes the same to clients.
        yield "tcp-nodelay"
    yield f"tun-mtu {tunnel.mtu}"
    if tunnel.layout.is_segment:
        # Frames between clients do not pass the firewall, which sets the segment size of all other connections.
        yield f"mssfix {tunnel.path_mtu} mtu"
    else:
        yield "mssfix 0"
    if protocol == "udp":
        # Routers fragment what is too big for the path. They would drop it, and many networks drop the error, too.
        yield "mtu-disc no"
        # Without it OpenVPN asks before each write whether it would wait, with one of four system calls for a packet.
        # With it a packet is dropped where the write would wait, so it is for a gateway, whose network is faster than
        # OpenVPN, and not in profiles. 2.7 ignores the option.
        yield "fast-io"
        if tunnel.receive_buffer:
            # The kernel allows it by net.core.rmem_max (sysctl).
            yield f"rcvbuf {tunnel.receive_buffer}"
    # The user that the process runs as cannot open keys and device again.
    yield "persist-key"
    yield "persist-tun"

    yield f"management {paths.management} unix"
    yield f"status {paths.status} 10"
    yield "status-version 3"
    yield f"verb {tunnel.verb}"


def _routed_options(tunnel: Tunnel, paths: Paths) -> Iterator[str]:
    yield "topology subnet"
    yield f"server {spell_network(tunnel.pool)} nopool"
    if addresses := dynamic_range(tunnel):
        yield "ifconfig-pool {} {}".format(*addresses)
        yield f"ifconfig-pool-persist {paths.addresses} 60"
    if ipv6 := tunnel.ipv6:
        yield f"ifconfig-ipv6 {ipv6.address}/{ipv6.pool.prefixlen} {ipv6.address + 1}"
        if first := first_dynamic6(tunnel):
            yield f"ifconfig-ipv6-pool {first}/{ipv6.pool.prefixlen}"


def _segment_options(tunnel: Tunnel, paths: Paths) -> Iterator[str]:
    # The bridge has the server's address, not the device, which is a port of the bridge.
    yield "mode server"
    yield "tls-server"
    if tunnel.layout.pushes_addresses:
        yield f'push "route-gateway {tunnel.layout.address}"'
    # OpenVPN identifies clients by certificate, so OpenVPN must hold each client to its own hardware address.
    yield f'learn-address "/bin/sh {Paths.learn} {paths.runtime}"'
    yield f'tls-verify "/bin/sh {Paths.verify_member} {paths.runtime}"'


def _pushed_options(tunnel: Tunnel) -> Iterator[str]:
    if not tunnel.layout.pushes_addresses:
        return
    yield from (f'push "route {spell_network(network)}"' for network in tunnel.routes)
    if tunnel.client_to_client:
        # As declared, neither merged nor limited to what is reachable: OpenVPN does not push a route to the client
        # whose iroute is the same.
        yield from (f'push "route {spell_network(lan)}"' for client in tunnel.members for lan in client.lan)
    if tunnel.ipv6:
        yield from (f'push "route-ipv6 {network}"' for network in tunnel.ipv6.routes)
    yield from (f'push "{option}"' for option in (*redirect_options(tunnel), *resolver_options(tunnel)))


def redirect_options(tunnel: Tunnel) -> Iterator[str]:
    """Yield what a client is pushed so that all of its traffic takes the tunnel.

    Without IPv6 in the tunnel the client answers its own IPv6 packets with an error, so that programs use IPv4.
    """
    if tunnel.blocks_ipv6:
        yield f"ifconfig-ipv6 {BLOCKED6[2]}/{BLOCKED6.prefixlen} {BLOCKED6[1]}"
        yield "redirect-gateway def1 ipv6"
        yield "block-ipv6"
    elif tunnel.redirect:
        yield "redirect-gateway def1"


def resolver_options(tunnel: Tunnel) -> Iterator[str]:
    """Yield what a client is pushed so that it looks names up in the VPC."""
    if tunnel.resolver:
        yield f"dhcp-option DNS {tunnel.resolver}"
        if tunnel.domain:
            yield f"dhcp-option DOMAIN {tunnel.domain}"


def _client_options(client: TunnelClient, tunnel: Tunnel) -> Iterator[str]:
    if macs := source_macs(tunnel).get(client.name) if tunnel.layout.is_segment else None:
        # Each address that a client sends from for the first time costs a run of the script, which everybody waits for.
        yield f"max-routes-per-client {len(macs) + FOREIGN_MACS}"
    if not tunnel.layout.pushes_addresses or client.name == tunnel.bridge:
        return  # The host has its addresses on its bond or its bridge, not on the tunnel's device.
    if address := fixed_addresses(tunnel).get(client.name):
        yield f"ifconfig-push {address} {tunnel.layout.network.netmask}"
    if tunnel.ipv6 and (address6 := fixed_addresses6(tunnel).get(client.name)):
        yield f"ifconfig-ipv6-push {address6}/{tunnel.ipv6.pool.prefixlen} {tunnel.ipv6.address}"
    yield from (f"iroute {spell_network(lan)}" for lan in client.lan)
