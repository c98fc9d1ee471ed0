"""Two hosts outside of AWS with two lines each, bonded by kits and keys that are made here, without a stack.

Each host listens on one line, whose router forwards a port to it, and is client of the other over the second; there are
two authorities.
"""

import base64
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from contract import Names
from drawbridge.trial.bond_measure import wait_links as links_up
from drawbridge.trial.hosts import run_checked
from kits import links
from lab.errors import LabError
from lab.region import Host, Region
from openvpn.bond import Bond, BondLink
from openvpn.bundle import render_bundle
from openvpn.topology import BondMode
from pki import tls_crypt
from pki.authority import CertificateAuthority

NAMES = ("left", "right")
PORT = 1194
RATE = "8mbit"
_DAYS = timedelta(days=30)
BOOT = 300.0
BONDED = 120.0


@dataclass(frozen=True)
class Pair:
    """Both ends, `left` (10.0.0.1) and `right` (10.0.0.2)."""

    region: Region
    left: Host
    right: Host

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.left, self.right


def build_pair(region: Region, mode: BondMode = "balance-xor", rate: str | None = RATE) -> Pair:
    """Boot both hosts and install their kits; tunnels are starting when it returns."""
    hosts, names = [], NAMES
    for number, name in enumerate(names):
        for line in (0, 1):
            region.add_site(
                f"{name}{line}", public=public_address(number, line), lan=lan_network(number, line), rate=rate
            )
        hosts.append(region.add_host(name, site=f"{name}0", second_site=f"{name}1", own_kernel=True))
    for line, name in enumerate(names):
        # Link N is served by host N, on the line that the link uses.
        region.forward_port(f"{name}{line}", PORT + line, name)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(set_up_host, hosts, pair_bonds(names, mode), issue_bundles(names)))
    return Pair(region, *hosts)


def set_up_host(host: Host, bond: Bond, keys: Mapping[str, str]) -> None:
    """What a user does on a host: put the keys in place, install the kit."""
    host.wait_booted(BOOT)
    for tap, text in keys.items():
        write_secret(host, f"/etc/openvpn/client/{tap}.conf", text)
    install_kit(host, bond)


def public_address(host: int, line: int) -> IPv4Address:
    return IPv4Address("203.0.113.40") + 10 * host + line


def lan_network(host: int, line: int) -> IPv4Network:
    return IPv4Network(f"192.168.{40 + 10 * host + line}.0/24")


def pair_bonds(names: tuple[str, str], mode: BondMode) -> tuple[Bond, Bond]:
    """What each host's kit is made from."""

    def bond(me: int) -> Bond:
        other = 1 - me
        ends = tuple(
            BondLink(
                number=link,
                port=PORT + link,
                peer=names[other] if link == me else f"{names[other]}.drawbridge",
                remote=None if link == me else str(public_address(other, link)),
                uplink=f"eth{link}",
            )
            for link in (0, 1)
        )
        return Bond(group="pair", host=names[me], address=IPv4Interface(f"10.0.0.{me + 1}/24"), mode=mode, links=ends)

    return bond(0), bond(1)


def issue_bundles(names: tuple[str, str], *, start: datetime | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """Certificates and keys of each host by tap; link N is under host N's own authority."""
    now = start or datetime.now(UTC)
    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for server in (0, 1):
        authority = CertificateAuthority.create(f"Pair {names[server]}", _DAYS, now)
        own = authority.issue_server(f"{names[server]}.drawbridge", _DAYS, now)
        key = tls_crypt.server_key()
        peer = authority.issue_client(names[1 - server], _DAYS, now)
        parts = {
            server: (own.certificate, own.key, key),
            1 - server: (peer.certificate, peer.key, tls_crypt.client_key(key)),
        }
        for host, rest in parts.items():
            found[host][f"ovn{server}"] = render_bundle("# keys\n", authority.certificate, *rest)
    return found


def install_kit(host: Host, bond: Bond) -> None:
    """Unpack and install a kit as its user does; keys are there already."""
    archive = links.build(bond, names=Names("pair"), region="eu-west-1", bundles={})
    text = base64.b64encode(archive).decode()
    run_checked(
        host, "sh", "-c", "rm -rf /var/tmp/kit && mkdir /var/tmp/kit && base64 -d | tar xz -C /var/tmp/kit", stdin=text
    )
    run_checked(host, "sh", "/var/tmp/kit/install", timeout=180)


def write_secret(host: Host, path: str, text: str) -> None:
    """Write a secret file."""
    run_checked(host, "install", "-D", "-m", "0600", "/dev/stdin", path, stdin=text)


def wait_links(host: Host, *up: str, seconds: float = BONDED) -> None:
    """Wait until exactly these links are up in the bond."""

    found = links_up(host, up, seconds)
    assert {name for name, state in found.items() if state == "up"} == set(up), (
        f"{host.name} after {seconds} s: {found}"
    )


def wait_bonded(pair: Pair, seconds: float = BONDED) -> None:
    """Wait until both links are up at both ends."""
    for host in pair.hosts:
        wait_links(host, "ovn0", "ovn1", seconds=seconds)


def read_boot_id(host: Host) -> str:
    """What tells one boot of a machine from another; nothing while it is down."""
    try:
        return host.run(["cat", "/proc/sys/kernel/random/boot_id"], timeout=2).stdout
    except LabError:
        return ""


def change_mode(pair: Pair, mode: BondMode) -> None:
    """Install kits of another mode on hosts that have theirs, and wait until they are bonded again."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(install_kit, pair.hosts, pair_bonds(NAMES, mode)))
    wait_bonded(pair)
