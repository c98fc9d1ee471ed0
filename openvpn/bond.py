"""A bond of tunnels on a host: one address over several links, each a TAP tunnel of its own.

The taps outlive the processes on them, and a process holds its tap only while its tunnel is up. So a tap's carrier is
its tunnel's state, and the bonding driver, which watches carriers, does all the rest: no script adds or removes
a slave.

Sources: openvpn(8) of 2.6 (`up-delay`, `bind-dev`, `keepalive`); systemd.netdev(5), systemd.network(5); the kernel's
Documentation/networking/bonding.rst, section 12 and 14 for what the modes need.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from openvpn.model import Mode, Tunnel, hardware_address, text

BOND = "bond0"
MTU = 1500
"""Of the bond and its taps, bytes."""

#: Modes between two hosts that share nothing but the links themselves. balance-alb is none: it tells each peer the
#: address of one slave, and a frame that leaves on another link arrives at another slave, where nobody takes it.
PAIR_MODES: tuple[Mode, ...] = ("balance-xor", "active-backup", "balance-rr")
#: Modes for links that all end in one bridge, which knows a hardware address on one of its ports at a time.
BRIDGE_MODES: tuple[Mode, ...] = ("balance-alb", "active-backup")

_WHY_PAIR = "it tells each peer the address of one slave, and what comes over another link is taken by nobody"
_WHY_SHARED = "it sends from one hardware address over all links, and the gateway's bridge knows it on one at a time"


class BondError(ValueError):
    """Links that cannot be bonded so; the message says why, and what to write instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One tunnel of a bond."""

    number: int
    port: int
    """UDP: of the far end, or this host's own where it listens."""
    peer: str
    """Common name of the far end's certificate."""
    remote: str | None = None
    """Address or name of the far end; None where this host listens for it."""
    line: str | None = None
    """Network interface that the tunnel's packets leave by, where the routes alone do not say it."""
    shared: bool = False
    """Whether the far end serves many: a gateway's bridge, not the one other host."""

    @property
    def interface(self) -> str:
        """The tap."""
        return f"ovn{self.number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bond:
    """What a host needs to hold one address over all of its links."""

    group: str
    """What all hosts of the bond have in common, such as their network."""
    host: str
    address: IPv4Interface
    mode: Mode
    links: tuple[Link, ...]
    gateway: str | None = None
    """Address behind all links that answers ARP, for the watchers; None where the far end runs watchers too."""
    routes: tuple[IPv4Network, ...] = ()
    """Networks behind `gateway`, or, where there is none, behind the other host."""
    other: IPv4Address | None = None
    """The other host's address, where networks are behind that."""
    verb: int = 3
    """How much OpenVPN logs."""
    keepalive: tuple[int, int] = (1, 5)
    """Seconds between a link's pings, and of silence after which it leaves the bond."""

    def __post_init__(self) -> None:
        """Raise `BondError` for a mode that would lose frames on such links."""
        shared = all(link.shared for link in self.links)
        good, why = (BRIDGE_MODES, _WHY_SHARED) if shared else (PAIR_MODES, _WHY_PAIR)
        if self.mode not in good:
            raise BondError(f"{self.host} cannot use {self.mode}: {why}; use {' or '.join(good)}")

    def mac(self, device: str) -> str:
        """Hardware address of one of this host's devices: always the same, and no other host's.

        They are those that `Tunnel.hardware` lets into a segment.
        """
        seed = f"{self.group} {self.host}"
        return hardware_address(seed if device == BOND else f"{seed} {device}")


def of_segment(tunnel: Tunnel, client: str, *, remote: str, server_name: str, lines: Sequence[str] = ()) -> Bond:
    """Return the bond of one client of a segment that several processes serve.

    `lines` are the client's network interfaces by link, where its routes alone do not tell them apart.
    """
    links = tuple(
        Link(number=n, port=port, peer=server_name, remote=remote, line=lines[n] if lines else None, shared=True)
        for n, port in enumerate(tunnel.listener.ports)
    )
    return Bond(
        group=f"{tunnel.pool}",
        host=client,
        address=IPv4Interface((tunnel.addresses[client], tunnel.pool.prefixlen)),
        mode=tunnel.bond or "balance-alb",
        links=links,
        gateway=f"{tunnel.address}",
        routes=tunnel.routes,
        keepalive=tunnel.keepalive,
        verb=tunnel.verb,
    )


def render(bond: Bond) -> dict[str, str]:
    """Return the files that make the bond, by their path on the host without the first slash; none holds a secret.

    `etc/drawbridge/links/<tap>.conf` are OpenVPN's, but for certificates and keys.
    """
    networkd = "etc/systemd/network/30-drawbridge"
    files = {
        f"{networkd}-{BOND}.netdev": text(f"bond of {bond.host}", _bond_device(bond)),
        f"{networkd}-{BOND}.network": text(f"address of {bond.host}", _bond_network(bond)),
    }
    for link in bond.links:
        tap = link.interface
        files |= {
            f"{networkd}-{tap}.link": text(f"tap of link {link.number}", _tap_address(bond, link)),
            f"{networkd}-{tap}.netdev": text(f"tap of link {link.number}", _tap_device(link)),
            f"{networkd}-{tap}.network": text(f"tap of link {link.number}", _tap_network(link)),
            f"etc/drawbridge/links/{tap}.conf": text(f"link {link.number} of {bond.host}", _tunnel(bond, link)),
            f"etc/drawbridge/links/{tap}.env": "".join(f"{line}\n" for line in _watch(bond, link)),
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
    # The only monitor: of ARP's, this host's own kernel would answer for a peer that is gone, and alb has none.
    yield "MIIMonitorSec=100ms"
    if bond.mode == "balance-xor":
        yield "TransmitHashPolicy=layer3+4"
    if bond.mode == "active-backup":
        # Where it went, it stays: to go back would cost a second gap.
        yield "PrimaryReselectPolicy=failure"
        yield "GratuitousARP=3"
        if not any(link.shared for link in bond.links):
            # The far end chooses a link by itself, perhaps the one that waits here: what comes over that is taken too.
            yield "AllSlavesActive=yes"


def _bond_network(bond: Bond) -> Iterator[str]:
    yield "[Match]"
    yield f"Name={BOND}"
    yield "[Link]"
    yield "RequiredForOnline=no"
    yield "[Network]"
    yield f"Address={bond.address}"
    yield "IPv6AcceptRA=no"
    # The address is there before the first link, and stays when the last one goes.
    yield "ConfigureWithoutCarrier=yes"
    yield "IgnoreCarrierLoss=yes"
    for network in bond.routes:
        yield "[Route]"
        yield f"Destination={network}"
        yield f"Gateway={bond.gateway or bond.other}"


def _tap_address(bond: Bond, link: Link) -> Iterator[str]:
    # Not in the .netdev, which does not set it for a tap; nor in the .network, which would set it on a slave again.
    yield "[Match]"
    yield f"OriginalName={link.interface}"
    yield "[Link]"
    yield f"MACAddress={bond.mac(link.interface)}"


def _tap_device(link: Link) -> Iterator[str]:
    yield "[NetDev]"
    yield f"Name={link.interface}"
    yield "Kind=tap"
    yield f"MTUBytes={MTU}"
    yield "[Tap]"
    yield "User=openvpn"


def _tap_network(link: Link) -> Iterator[str]:
    yield "[Match]"
    yield f"Name={link.interface}"
    yield "[Link]"
    yield "RequiredForOnline=no"
    yield "[Network]"
    yield f"Bond={BOND}"


def _tunnel(bond: Bond, link: Link) -> Iterator[str]:
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
        # The far end may change networks; it is known by its certificate.
        yield "float"
        yield "ping-timer-rem"
        yield "tls-server"
        yield "dh none"
        yield "remote-cert-tls client"
    if link.line:
        yield f"bind-dev {link.line}"
    yield f"verify-x509-name {link.peer} name"
    yield "tls-version-min 1.2"
    yield "data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"
    # A handshake that does not end at once is begun anew: the other link carries what there is meanwhile.
    yield "hand-window 8"
    yield "tls-timeout 1"
    yield "keepalive {} {}".format(*bond.keepalive)
    yield "explicit-exit-notify 1"
    # No persist-tun: without a tunnel nobody holds the tap, so it has no carrier, and so the bond leaves it out.
    yield "up-delay"
    yield "persist-key"
    yield f"tun-mtu {MTU}"
    yield "mssfix 1400 mtu"
    yield "auth-nocache"
    yield "auth-retry nointeract"
    yield f"verb {bond.verb}"


def _watch(bond: Bond, link: Link) -> Iterator[str]:
    yield f"TAP={link.interface}"
    yield f"MAC={bond.mac(link.interface)}"
    yield f"BOND={bond.mac(BOND)}"
    yield f"GATEWAY={bond.gateway or ''}"
