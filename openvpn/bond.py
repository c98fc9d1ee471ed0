"""Render a host's bond of tunnels: one address over several links, each a TAP tunnel of its own.

The taps outlive the processes on them, and a process holds its tap only while its tunnel is up. So a tap's carrier is
its tunnel's state, and the bonding driver, which watches carriers, does the rest: no script adds or removes a slave.

Sources: openvpn(8) of 2.6 (`up-delay`, `bind-dev`, `keepalive`); systemd.netdev(5), systemd.network(5); the kernel's
Documentation/networking/bonding.rst, section 12 and 14 for what the modes need.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from openvpn.addressing import derive_mac, segment_addresses
from openvpn.model import Tunnel
from openvpn.pull_filter import IGNORE_OTHERS, NEGOTIATED, accept
from openvpn.syntax import render_lines
from openvpn.topology import BOND, BondedSegment, BondMode

MTU = 1500
"""MTU of the bond and its taps, in bytes."""

#: Modes between two hosts that share nothing but the links themselves. balance-alb is not among them: it tells each
#: peer the address of one slave, and a frame that leaves on another link arrives at another slave, which drops it.
PAIR_MODES: tuple[BondMode, ...] = ("balance-xor", "active-backup", "balance-rr")
#: Modes for links that all end in one bridge, which knows a hardware address on one of its ports at a time.
BRIDGE_MODES: tuple[BondMode, ...] = ("balance-alb", "active-backup")

_NOT_FOR_PAIRS = "it tells each peer the address of one slave, and frames that arrive over another link are dropped"
_NOT_FOR_BRIDGES = (
    "it sends from one hardware address over all links, but a bridge knows an address on one port at a time"
)


class BondError(ValueError):
    """Links cannot be bonded in this mode; the message says why, and what to write instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BondLink:
    """One tunnel of a bond."""

    number: int
    port: int
    """UDP port of the far end, or this host's own where it listens."""
    peer: str
    """Common name of the far end's certificate."""
    remote: str | None = None
    """Address or name of the far end; None where this host listens for it."""
    uplink: str | None = None
    """Network interface that the tunnel's packets leave by; None leaves it to the routes."""
    shared: bool = False
    """Whether the far end is a gateway's bridge, which serves many hosts, and not one other host."""

    @property
    def interface(self) -> str:
        """Name of the link's tap."""
        return f"ovn{self.number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bond:
    """A host's address over all of its links."""

    group: str
    """Text that all hosts of the bond have in common, such as their network; hardware addresses follow from it."""
    host: str
    address: IPv4Interface
    mode: BondMode
    links: tuple[BondLink, ...]
    gateway: str | None = None
    """Address behind all links that answers the watchers' ARP; None where the far end runs watchers too."""
    routes: tuple[IPv4Network, ...] = ()
    """Networks behind `gateway`, or, without one, behind `peer`."""
    peer: IPv4Address | None = None
    """The other host's address, if networks are behind that host."""
    path_mtu: int = 1400
    """Smallest path, in bytes, over which TCP passes without a fragment."""
    verb: int = 3
    """How much OpenVPN logs."""
    keepalive: tuple[int, int] = (1, 5)
    """Seconds between a link's pings, and of silence after which it leaves the bond."""

    def __post_init__(self) -> None:
        """Raise `BondError` for a mode that would lose frames on such links."""
        shared = all(link.shared for link in self.links)
        modes, reason = (BRIDGE_MODES, _NOT_FOR_BRIDGES) if shared else (PAIR_MODES, _NOT_FOR_PAIRS)
        if self.mode not in modes:
            raise BondError(f"{self.host} cannot use {self.mode}: {reason}; use {' or '.join(modes)}")

    def mac(self, device: str) -> str:
        """Return the hardware address of one of this host's devices: always the same, and no other host's.

        `addressing.source_macs` lists the same addresses for a segment's filter.
        """
        seed = f"{self.group} {self.host}"
        return derive_mac(seed if device == BOND else f"{seed} {device}")


def create_segment_bond(
    tunnel: Tunnel, client: str, *, remote: str, server_name: str, uplinks: Sequence[str] = ()
) -> Bond:
    """Return the bond of one client of a `BondedSegment`; raises `BondError` for any other tunnel.

    `uplinks` are the client's network interfaces, one for each link, where its routes alone do not separate the links.
    """
    if not isinstance(tunnel.topology, BondedSegment):
        raise BondError(f"{client} cannot bond its tunnels: the segment has one link only; use several")
    links = tuple(
        BondLink(
            number=number,
            port=port,
            peer=server_name,
            remote=remote,
            uplink=uplinks[number] if uplinks else None,
            shared=True,
        )
        for number, port in enumerate(tunnel.listener.ports)
    )
    return Bond(
        group=f"{tunnel.pool}",
        host=client,
        address=IPv4Interface((segment_addresses(tunnel)[client], tunnel.pool.prefixlen)),
        mode=tunnel.topology.mode,
        links=links,
        gateway=f"{tunnel.layout.address}",
        routes=tunnel.routes,
        keepalive=tunnel.keepalive,
        path_mtu=tunnel.path_mtu,
        verb=tunnel.verb,
    )


def render_files(bond: Bond) -> dict[str, str]:
    """Return the files of the bond, by their path on the host without the first slash; none holds a secret.

    `etc/drawbridge/links/<tap>.conf` are OpenVPN's configurations without certificates and keys.
    """
    networkd = "etc/systemd/network/30-drawbridge"
    files = {
        f"{networkd}-{BOND}.netdev": render_lines(f"bond of {bond.host}", _bond_device(bond)),
        f"{networkd}-{BOND}.network": render_lines(f"address of {bond.host}", _bond_network(bond)),
    }
    for link in bond.links:
        tap = link.interface
        files |= {
            f"{networkd}-{tap}.link": render_lines(f"tap of link {link.number}", _tap_address(bond, link)),
            f"{networkd}-{tap}.netdev": render_lines(f"tap of link {link.number}", _tap_device(link)),
            f"{networkd}-{tap}.network": render_lines(f"tap of link {link.number}", _tap_network(link)),
            f"etc/drawbridge/links/{tap}.conf": render_lines(
                f"link {link.number} of {bond.host}", _link_options(bond, link)
            ),
            f"etc/drawbridge/links/{tap}.env": "".join(f"{line}\n" for line in _watcher_variables(bond, link)),
        }
    return files


def _bond_device(bond: Bond) -> Iterator[str]:
    yield "[NetDev]"
    yield f"Name={BOND}"
    yield "Kind=bond"
    yield f"MACAddress={bond.mac(BOND)}"
    yield f"MTUBytes={MTU}"
    yield "[Bond]"
    yield f"Mode={bond.mode}"
    # Only MII monitoring works: with ARP monitoring the local kernel would answer for a dead peer, and balance-alb does
    # not support it.
    yield "MIIMonitorSec=100ms"
    if bond.mode == "balance-xor":
        yield "TransmitHashPolicy=layer3+4"
    if bond.mode == "active-backup":
        # Stay on the link that took over: to switch back would cost a second gap.
        yield "PrimaryReselectPolicy=failure"
        yield "GratuitousARP=3"
        if not any(link.shared for link in bond.links):
            # The far end chooses its link by itself: accept frames on the link that is inactive here as well.
            yield "AllSlavesActive=yes"


def _bond_network(bond: Bond) -> Iterator[str]:
    yield "[Match]"
    yield f"Name={BOND}"
    yield "[Link]"
    yield "RequiredForOnline=no"
    yield "[Network]"
    yield f"Address={bond.address}"
    yield "IPv6AcceptRA=no"
    # The bond has its address before the first link is up and after the last one went down.
    yield "ConfigureWithoutCarrier=yes"
    yield "IgnoreCarrierLoss=yes"
    for network in bond.routes:
        yield "[Route]"
        yield f"Destination={network}"
        yield f"Gateway={bond.gateway or bond.peer}"


def _tap_address(bond: Bond, link: BondLink) -> Iterator[str]:
    # A .netdev does not set the address of a tap, and a .network would set it again on a slave.
    yield "[Match]"
    yield f"OriginalName={link.interface}"
    yield "[Link]"
    yield f"MACAddress={bond.mac(link.interface)}"


def _tap_device(link: BondLink) -> Iterator[str]:
    yield "[NetDev]"
    yield f"Name={link.interface}"
    yield "Kind=tap"
    yield f"MTUBytes={MTU}"
    yield "[Tap]"
    yield "User=openvpn"


def _tap_network(link: BondLink) -> Iterator[str]:
    yield "[Match]"
    yield f"Name={link.interface}"
    yield "[Link]"
    yield "RequiredForOnline=no"
    yield "[Network]"
    yield f"Bond={BOND}"


def _link_options(bond: Bond, link: BondLink) -> Iterator[str]:
    yield f"dev {link.interface}"
    yield "dev-type tap"
    yield "proto udp"
    if link.remote:
        yield f"remote {link.remote} {link.port}"
        yield "nobind"
        yield "resolv-retry infinite"
        yield "connect-retry 1 4"
        yield "client" if link.shared else "tls-client"
        yield "remote-cert-tls server"
    else:
        yield f"port {link.port}"
        # The far end may change its address; its certificate identifies it.
        yield "float"
        yield "ping-timer-rem"
        yield "tls-server"
        yield "dh none"
        yield "remote-cert-tls client"
    if link.uplink:
        yield f"bind-dev {link.uplink}"
    yield f"verify-x509-name {link.peer} name"
    yield "tls-version-min 1.2"
    yield "data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"
    # Restart a slow handshake soon: the other link carries the traffic meanwhile.
    yield "hand-window 8"
    yield "tls-timeout 1"
    yield "keepalive {} {}".format(*bond.keepalive)
    yield "explicit-exit-notify 1"
    # No persist-tun: while the tunnel is down OpenVPN must release the tap, so that the bond sees it without carrier.
    yield "up-delay"
    yield "persist-key"
    yield f"tun-mtu {MTU}"
    yield f"mssfix {bond.path_mtu} mtu"
    # Full frames do not fit an Internet packet, nor a narrow path: routers fragment them instead of dropping them.
    yield "mtu-disc no"
    yield "auth-nocache"
    yield "auth-retry nointeract"
    yield f"verb {bond.verb}"
    if link.remote and link.shared:
        # The bond has addresses and routes; the tap is only its port.
        yield from map(accept, NEGOTIATED)
        yield from IGNORE_OTHERS


def _watcher_variables(bond: Bond, link: BondLink) -> Iterator[str]:
    yield f"TAP={link.interface}"
    yield f"MAC={bond.mac(link.interface)}"
    yield f"BOND={bond.mac(BOND)}"
    yield f"GATEWAY={bond.gateway or ''}"
