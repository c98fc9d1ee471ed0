"""Render what a pair runs on: two gateways that hold an address each over two links.

Gateway N serves link N under its own authority and is a client of the other link. A client of a link needs one bundle,
like any other client; a server has its keys where every gateway has them (`Paths`). Both gateways run the files and
watchers of any bonded host (`openvpn.bond`).
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, IPv4Network

from openvpn.bond import Bond, BondLink, render_files
from openvpn.listener import Listener
from openvpn.model import Tunnel, TunnelClient
from openvpn.paths import Paths
from openvpn.syntax import render_lines
from openvpn.topology import BondMode, PairLink

#: Names of the two gateways: each is the common name of the certificate that the other gateway has issued to it.
NAMES = ("a", "b")


def create_bond(
    gateway: int,
    *,
    pool: IPv4Network,
    port: int,
    mode: BondMode,
    servers: Sequence[str],
    remote: str,
    networks: tuple[IPv4Network, ...] = (),
    path_mtu: int = 1400,
    verb: int = 3,
) -> Bond:
    """Return the bond of a gateway, 0 or 1; it has the first or the second address of the pool.

    `port` is the port of link 0, and link 1 has the next. `servers` are the common names of both server certificates,
    `remote` is the other gateway's public address, and `networks` are those behind it. Raises `BondError` for a mode
    that loses frames.
    """
    peer = 1 - gateway
    links = tuple(
        BondLink(
            number=number,
            port=port + number,
            peer=NAMES[peer] if number == gateway else servers[peer],
            remote=None if number == gateway else remote,
        )
        for number in (0, 1)
    )
    return Bond(
        group=f"{pool}",
        host=NAMES[gateway],
        address=IPv4Interface((pool.network_address + 1 + gateway, pool.prefixlen)),
        mode=mode,
        links=links,
        routes=networks,
        peer=pool.network_address + 1 + peer,
        path_mtu=path_mtu,
        verb=verb,
    )


def create_tunnel(gateway: int, bond: Bond, networks: tuple[IPv4Network, ...]) -> Tunnel:
    """Return the tunnel between a gateway and the other one, as the gateway's filter sees it.

    The other gateway is its only client, `networks` are that client's LAN, and nothing is translated.
    """
    peer = TunnelClient(name=NAMES[1 - gateway], address=bond.peer, lan=networks, reachable=networks)
    return Tunnel(
        topology=PairLink(),
        listener=Listener("udp", (bond.links[gateway].port,)),
        pool=bond.address.network,
        nat=False,
        clients=(peer,),
    )


def render_link_profile(bond: Bond, link: int) -> str:
    """Return the profile of a link's client, without keys."""
    return render_files(bond)[_config_path(bond, link)]


def render_gateway_files(bond: Bond) -> dict[str, str]:
    """Return the files of `bond.render_files` for a gateway; where it is a link's client, the bundle is all it needs.

    Drop-ins make the links' units require the filter and tell them where their keys are; systemd reads the drop-ins of
    a template and of its instances in the order of their names.
    """
    units = "etc/systemd/system/drawbridge-link@"
    files = render_files(bond)
    files[f"{units}.service.d/10-gateway.conf"] = render_lines(
        "a link of a gateway", _unit("/etc/drawbridge/links/%i.conf")
    )
    for link in bond.links:
        path = _config_path(bond, link.number)
        if link.remote is None:
            files[path] += "".join(f"{line}\n" for line in _server_options())
        else:
            files[path] = render_lines(f"link {link.number} of {bond.host}: all of it is in the bundle", ())
            lines = [*_RESET, f"ExecStart={_OPENVPN} --config {Paths.secrets}/{link.interface}.ovpn {_STATUS}"]
            title = "a link that another serves"
            files[f"{units}{link.interface}.service.d/20-bundle.conf"] = render_lines(title, lines)
    return files


def bundle_file(bond: Bond, link: int) -> str:
    """Return the name of the file on a gateway that holds the bundle of a link."""
    return f"{bond.links[link].interface}.ovpn"


def _config_path(bond: Bond, link: int) -> str:
    return f"etc/drawbridge/links/{bond.links[link].interface}.conf"


def _server_options() -> Iterator[str]:
    yield f"ca {Paths.secrets}/ca.crt"
    yield f"cert {Paths.secrets}/server.crt"
    yield f"key {Paths.secrets}/server.key"
    yield f"tls-crypt-v2 {Paths.secrets}/tls-crypt-v2.key"
    yield f"crl-verify {Paths.revoked} dir"


_OPENVPN = "/usr/sbin/openvpn --suppress-timestamps"
_STATUS = "--status /run/openvpn-%i/status 10 --status-version 3"
_RESET = ("[Service]", "ExecStart=")


def _unit(config: str) -> Iterator[str]:
    yield "[Unit]"
    yield "Requires=drawbridge-nftables.service"
    yield "After=drawbridge-nftables.service"
    yield "Wants=drawbridge-metrics.timer"
    yield from _RESET
    yield "RuntimeDirectory=openvpn-%i"
    yield "RuntimeDirectoryMode=0750"
    # Record what the link started with, so that the agent knows whether a restart is needed. Without the sandbox, which
    # systemd would set up for this command as well, while the link is down.
    release = "cp -PTf /opt/drawbridge/current /run/openvpn-%i/release"
    yield f"ExecStartPre=+/bin/sh -c '{release} && cp -PTf {Paths.secrets} /run/openvpn-%i/secrets'"
    yield f"ExecStart={_OPENVPN} --config {config} {_STATUS}"
