"""Say what a tunnel is: a routed network, a segment that is plain, bridged or bonded, or the link between two gateways.

What depends on it is decided once, in `lay_out`; the rest of the package asks the `Layout` for the value it needs.
"""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Literal, assert_never

#: Modes of the Linux bonding driver, as it names them.
BondMode = Literal["balance-xor", "active-backup", "balance-rr", "balance-alb"]

#: The bridge that a segment's ports are in; no interface of the gateway's host ever is.
BRIDGE = "br0"
#: The bond of a host that has one.
BOND = "bond0"
#: Bytes of an Ethernet frame's header.
ETHERNET_HEADER = 14


@dataclass(frozen=True, slots=True)
class Routed:
    """IP packets are routed; OpenVPN's tun device has the gateway's address."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One Ethernet segment; OpenVPN's tap device is a port of a bridge, which has the gateway's address."""


@dataclass(frozen=True, slots=True)
class BridgedSegment:
    """A segment that is joined to a client's LAN: frames of every host in the LAN come through that client."""

    bridge: str
    """Name of the client that is the bridge."""
    lan: IPv4Network
    """Network of the LAN; the tunnel's pool is a part of it."""


@dataclass(frozen=True, slots=True)
class BondedSegment:
    """A segment that several OpenVPN processes serve; each host bonds its tunnels to all of them."""

    mode: BondMode = "balance-alb"
    """How hosts spread what they send over the links."""


@dataclass(frozen=True, slots=True)
class PairLink:
    """The bond between two gateways; the link's own units run its OpenVPN processes (`openvpn.pair`)."""


Topology = Routed | Segment | BridgedSegment | BondedSegment | PairLink


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Device, interface and addresses of a topology on the gateway."""

    device: Literal["tun", "tap"]
    """OpenVPN's device type: IP packets, or Ethernet frames."""
    interface: str
    """Network interface that has the gateway's address in the tunnel."""
    address: IPv4Address
    """The gateway's address in the tunnel."""
    network: IPv4Network
    """Network that clients see themselves in."""
    pushes_addresses: bool = True
    """Whether OpenVPN gives clients addresses and routes; a bonded host has both on its bond instead."""
    frame_header: int = 0
    """Bytes that the tunnel carries in front of each IP packet."""

    @property
    def is_segment(self) -> bool:
        """Return whether the tunnel is an Ethernet segment."""
        return self.device == "tap"


def lay_out(topology: Topology, pool: IPv4Network) -> Layout:
    """Return the layout of a tunnel whose clients have the addresses of `pool`."""
    routed = Layout(device="tun", interface="tun0", address=pool.network_address + 1, network=pool)
    segment = replace(routed, device="tap", interface=BRIDGE, frame_header=ETHERNET_HEADER)
    match topology:
        case Routed():
            return routed
        case Segment():
            return segment
        case BridgedSegment(lan=lan):
            return replace(segment, network=lan)
        case BondedSegment():
            # The first address is a host's: they may be numbered from it on.
            return replace(segment, address=pool.broadcast_address - 1, pushes_addresses=False)
        case PairLink():
            return replace(routed, interface=BOND, frame_header=ETHERNET_HEADER, pushes_addresses=False)
        case _:
            assert_never(topology)
