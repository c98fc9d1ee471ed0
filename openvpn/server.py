"""The server's configuration and its file for each client.

Source: the reference manual for OpenVPN 2.6, openvpn(8); the reasons for options that surprise are beside them.
"""

from collections.abc import Iterator

from openvpn.model import Client, Paths, Process, Tunnel, netmask, text


def render_server(tunnel: Tunnel, process: Process | None = None) -> str:
    """Return the configuration of one of the tunnel's processes, by default the first one.

    It names the files of `Paths` and holds no secret.
    It changes with the networks behind clients, and not when a client without one comes or goes.
    """
    process = process or tunnel.processes[0]
    return text(f"OpenVPN server '{process.instance}'", _server(tunnel, process, Paths(process.instance)))


def render_ccd(client: Client, tunnel: Tunnel) -> str:
    """Return what the server reads when `client` connects; a client without such a file is refused."""
    return text(f"client {client.name}", _ccd(client, tunnel))


def _server(tunnel: Tunnel, process: Process, paths: Paths) -> Iterator[str]:
    protocol = tunnel.listener.protocol
    yield f"dev {process.adapter}"
    yield f"dev-type {tunnel.device}"
    yield "proto udp" if protocol == "udp" else "proto tcp-server"
    yield f"port {process.port}"
    # The kernel module is another for 2.6 than for 2.7, and is built anew for each kernel; without it, neither matters.
    yield "disable-dco"

    yield from _segment(tunnel) if tunnel.device == "tap" else _routed(tunnel, paths)
    yield from _pushed(tunnel)

    yield f"ca {paths.secrets}/ca.crt"
    yield f"cert {paths.secrets}/server.crt"
    yield f"key {paths.secrets}/server.key"
    yield f"tls-crypt-v2 {paths.secrets}/tls-crypt-v2.key"
    yield "dh none"
    yield "tls-version-min 1.2"
    yield "remote-cert-tls client"
    yield "data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"
    # A directory cannot expire and needs no CA key here; a list that has expired locks everyone out.
    yield f"crl-verify {paths.revoked} dir"
    yield f"client-config-dir {paths.ccd}"
    yield "ccd-exclusive"
    yield f"max-clients {tunnel.max_clients}"

    yield "keepalive {} {}".format(*tunnel.keepalive)
    if protocol == "udp":
        yield "explicit-exit-notify 1"
    else:
        # A small packet does not wait for one that would fill a segment; clients are told the same.
        yield "tcp-nodelay"
    yield f"tun-mtu {tunnel.mtu}"
    yield f"mssfix {tunnel.path_mtu} mtu"
    # Keys and device cannot be opened again by the user that the process runs as.
    yield "persist-key"
    yield "persist-tun"

    yield f"management {paths.management} unix"
    yield f"status {paths.status} 10"
    yield "status-version 3"
    yield f"verb {tunnel.verb}"


def _routed(tunnel: Tunnel, paths: Paths) -> Iterator[str]:
    yield "topology subnet"
    yield f"server {netmask(tunnel.pool)} nopool"
    if tunnel.dynamic:
        yield "ifconfig-pool {} {}".format(*tunnel.dynamic)
        yield f"ifconfig-pool-persist {paths.addresses} 60"
    if tunnel.address6 and tunnel.pool6:
        yield f"ifconfig-ipv6 {tunnel.address6}/{tunnel.pool6.prefixlen} {tunnel.address6 + 1}"
        if tunnel.dynamic6:
            yield f"ifconfig-ipv6-pool {tunnel.dynamic6}/{tunnel.pool6.prefixlen}"
    yield from (f"route {netmask(lan)}" for lan in tunnel.lans)


def _segment(tunnel: Tunnel) -> Iterator[str]:
    # The bridge has the server's address, not the device, which is a port of it.
    yield "mode server"
    yield "tls-server"
    if not tunnel.is_bonded:
        yield f'push "route-gateway {tunnel.address}"'
    if tunnel.bridged and tunnel.listener.protocol == "udp":
        # A LAN's largest frames are larger in the tunnel than the Internet takes, which is to part them, not to refuse.
        yield "mtu-disc no"
    # OpenVPN tells clients apart by certificate, so it is here that each is held to its own hardware address.
    yield "script-security 2"
    yield f'learn-address "/bin/sh {Paths.learn}"'


def _pushed(tunnel: Tunnel) -> Iterator[str]:
    if tunnel.is_bonded:
        return  # A bonded host's addresses and routes are its bond's, not its tunnels'.
    yield from (f'push "route {netmask(network)}"' for network in tunnel.routes)
    if tunnel.client_to_client:
        # Just as declared, neither merged nor only what is reachable: OpenVPN spares an owner what equals its iroute.
        yield from (f'push "route {netmask(lan)}"' for client in tunnel.members for lan in client.lan)
    yield from (f'push "route-ipv6 {network}"' for network in tunnel.routes6)
    if tunnel.redirect:
        yield 'push "redirect-gateway def1"'
    if tunnel.domain and tunnel.resolver:
        yield f'push "dhcp-option DNS {tunnel.resolver}"'
        yield f'push "dhcp-option DOMAIN {tunnel.domain}"'


def _ccd(client: Client, tunnel: Tunnel) -> Iterator[str]:
    if tunnel.is_bonded or client.bridge:
        return  # Their hosts' addresses are no tunnel's.
    address = tunnel.addresses[client.name] if tunnel.device == "tap" else client.address
    if address:
        yield f"ifconfig-push {address} {tunnel.network.netmask}"
    if tunnel.pool6 and (address6 := tunnel.addresses6.get(client.name)):
        yield f"ifconfig-ipv6-push {address6}/{tunnel.pool6.prefixlen} {tunnel.address6}"
    yield from (f"iroute {netmask(lan)}" for lan in client.lan)
