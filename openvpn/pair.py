"""Two gateways that hold an address each over two links; either serves one of them and is client of the other.

Link N is served by gateway N under its own authority. What a client needs of a link is one bundle, as with any other
client; what a server needs lies where a gateway has it (`Paths`). Both gateways run the files and watchers that any
bonded host has (`openvpn.bond`).
"""

from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network

from openvpn.bond import BOND, Bond, Link, render
from openvpn.listener import Listener
from openvpn.model import Client, Mode, Paths, Tunnel, text

#: The gateways, each by its certificate's common name at the other one.
NAMES = ("a", "b")

#: What is in frames is longer by their header than what TCP's segments are otherwise made for.
_ETHERNET = 14


def bond(
    here: int,
    *,
    pool: IPv4Network,
    port: int,
    mode: Mode,
    servers: tuple[str, str],
    remote: str,
    networks: tuple[IPv4Network, ...] = (),
    verb: int = 3,
) -> Bond:
    """Return the bond of gateway `here`, 0 or 1; it has the first or the second address of the pool.

    `port` is that of link 0, and link 1 has the next. `servers` are the common names of both server certificates,
    `remote` is the other gateway's public address, and `networks` are those behind it. Raises `BondError` for a mode
    that loses frames.
    """
    there = 1 - here
    links = tuple(
        Link(
            number=n,
            port=port + n,
            peer=NAMES[there] if n == here else servers[there],
            remote=None if n == here else remote,
        )
        for n in (0, 1)
    )
    return Bond(
        group=f"{pool}",
        host=NAMES[here],
        address=IPv4Interface((pool.network_address + 1 + here, pool.prefixlen)),
        mode=mode,
        links=links,
        routes=networks,
        other=pool.network_address + 1 + there,
        verb=verb,
    )


def tunnel(here: int, bond: Bond, networks: tuple[IPv4Network, ...]) -> Tunnel:
    """Return what passes between gateway `here` and the other one, for its filter: the bond, and what is behind it.

    The other gateway is the one client, `networks` are its LAN, and nothing is translated.
    """
    other = Client(name=NAMES[1 - here], address=bond.other, lan=networks, reachable=networks)
    return Tunnel(
        within=BOND,
        listener=Listener("udp", (bond.links[here].port,)),
        pool=bond.address.network,
        nat=False,
        clients=(other,),
        path_mtu=1400 - _ETHERNET,
    )


def profile(bond: Bond, link: int) -> str:
    """Return what a client of a link starts with, but for keys."""
    return render(bond)[_conf(bond, link)]


def files(bond: Bond) -> dict[str, str]:
    """Return what `bond.render` does, made for a gateway; of a link it is a client of, the bundle has everything.

    Drop-ins tell the links' units that there is no tunnel without the filter, and where their keys are; systemd reads
    those of a template and of its instances in the order of their names.
    """
    units = "etc/systemd/system/drawbridge-link@"
    made = render(bond)
    made[f"{units}.service.d/10-gateway.conf"] = text("a link of a gateway", _unit("/etc/drawbridge/links/%i.conf"))
    for link in bond.links:
        path = _conf(bond, link.number)
        if link.remote is None:
            made[path] += "".join(f"{line}\n" for line in _served())
        else:
            made[path] = text(f"link {link.number} of {bond.host}: all of it is in the bundle", ())
            started = [*_RESET, f"ExecStart={_OPENVPN} --config {Paths.secrets}/{link.interface}.ovpn {_STATUS}"]
            made[f"{units}{link.interface}.service.d/20-bundle.conf"] = text("a link that another serves", started)
    return made


def bundle(bond: Bond, link: int) -> str:
    """Return the name of the file that a gateway has the bundle of a link in."""
    return f"{bond.links[link].interface}.ovpn"


def _conf(bond: Bond, link: int) -> str:
    return f"etc/drawbridge/links/{bond.links[link].interface}.conf"


def _served() -> Iterator[str]:
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
    # What it started with, for the agent to tell whether it has to start again.
    yield "ExecStartPre=/usr/bin/cp -PTf /opt/drawbridge/current /run/openvpn-%i/release"
    yield f"ExecStartPre=/usr/bin/cp -PTf {Paths.secrets} /run/openvpn-%i/secrets"
    yield f"ExecStart={_OPENVPN} --config {config} {_STATUS}"
