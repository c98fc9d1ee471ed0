"""Derive the IPv4, IPv6 and hardware addresses of a tunnel's clients, so that each client keeps the same ones."""

from collections.abc import Mapping
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

from openvpn.model import Tunnel, derive_once
from openvpn.topology import BondedSegment

#: Offset of the first IPv6 address that OpenVPN hands out by itself: behind a /16 of IPv4 addresses, the largest pool.
DYNAMIC6 = 1 << 16


def dynamic_range(tunnel: Tunnel) -> tuple[IPv4Address, IPv4Address] | None:
    """Return the first and last address for clients without one of their own; None if all are in use.

    OpenVPN does not keep fixed addresses out of the range it hands out, so the two must be apart. The pool's upper
    half is used where no fixed address lies in it and it is large enough: then fixed addresses come and go below it
    without a change of the server's configuration, that is without a restart. Otherwise it is the longest free run.
    """
    if tunnel.listener.sharing > 1:
        return None  # Each process would hand out the same ones.
    pool = tunnel.pool
    fixed = sorted({c.address for c in tunnel.clients if c.address} | {tunnel.layout.address})
    half = pool.network_address + pool.num_addresses // 2
    if fixed[-1] < half and sum(c.address is None for c in tunnel.clients) < pool.num_addresses // 2:
        return half, pool.broadcast_address - 1
    runs = [(a + 1, b - 1) for a, b in pairwise([*fixed, pool.broadcast_address]) if int(b) - int(a) > 1]
    return max(runs, key=lambda run: int(run[1]) - int(run[0]), default=None)


@derive_once
def segment_addresses(tunnel: Tunnel) -> Mapping[str, IPv4Address]:
    """Return the address of each client by its name, where all are fixed.

    The filter of a segment names them, and processes that share a port give a client the same one.

    A client that declares none gets an address that follows from its name, or the next free one; so one more client
    changes no other's. A bridge has none: its host has addresses of the LAN.
    """
    addresses = {client.name: client.address for client in tunnel.members if client.address}
    used, size = {*addresses.values(), tunnel.layout.address}, tunnel.pool.num_addresses - 2
    for client in tunnel.members:
        if client.name not in addresses:
            start = int.from_bytes(_digest(f"{tunnel.pool} {client.name}")[:4])
            candidates = (tunnel.pool.network_address + 1 + (start + step) % size for step in range(size))
            addresses[client.name] = next(address for address in candidates if address not in used)
            used.add(addresses[client.name])
    return addresses


@derive_once
def fixed_addresses(tunnel: Tunnel) -> Mapping[str, IPv4Address]:
    """Return the address of each client that always has the same, by its name."""
    if tunnel.layout.is_segment or tunnel.listener.sharing > 1:
        return segment_addresses(tunnel)
    return {client.name: client.address for client in tunnel.clients if client.address}


@derive_once
def fixed_addresses6(tunnel: Tunnel) -> Mapping[str, IPv6Address]:
    """Return the IPv6 address of each client that always has the same, by its name."""
    if tunnel.ipv6 is None:
        return {}
    fixed, pool = fixed_addresses(tunnel), tunnel.ipv6.pool
    offsets = {name: int(address) - int(tunnel.pool.network_address) for name, address in fixed.items()}
    chosen = {c.name: int(c.address6) & int(pool.hostmask) for c in tunnel.clients if c.address6}
    # Where a client has chosen what another client's IPv4 address leads to, the other one moves out of the way.
    occupied = set(chosen.values())
    offsets = {name: offset + 2 * DYNAMIC6 if offset in occupied else offset for name, offset in offsets.items()}
    return {name: pool[offset] for name, offset in (offsets | chosen).items()}


def first_dynamic6(tunnel: Tunnel) -> IPv6Address | None:
    """Return the first IPv6 address for clients without one of their own, behind those that IPv4 ones lead to."""
    return tunnel.ipv6.pool[DYNAMIC6] if tunnel.ipv6 and dynamic_range(tunnel) else None


def gateway_mac(tunnel: Tunnel) -> str:
    """Return the gateway's hardware address on a segment; it stays when the machine is replaced."""
    return derive_mac(f"{tunnel.pool}")


@derive_once
def client_macs(tunnel: Tunnel) -> Mapping[str, str]:
    """Return the hardware address of each client of a segment by its name: declared, or derived from the name."""
    return {client.name: client.mac or derive_mac(f"{tunnel.pool} {client.name}") for client in tunnel.members}


@derive_once
def source_macs(tunnel: Tunnel) -> Mapping[str, tuple[str, ...]]:
    """Return all hardware addresses that frames of each client of a segment may come from, by the client's name."""
    macs = client_macs(tunnel)
    if isinstance(tunnel.topology, BondedSegment):
        return {name: derive_bond_macs(f"{tunnel.pool}", name, len(tunnel.listener.ports)) for name in macs}
    return {name: (mac,) for name, mac in macs.items()}


def derive_mac(seed: str) -> str:
    """Return a locally administered unicast MAC address (IEEE 802) that is always the same for the same seed.

    >>> derive_mac("10.9.0.0/24 robot")
    '02:8d:6b:3d:2c:f4'
    """
    return ":".join(f"{byte:02x}" for byte in (2, *_digest(seed)[:5]))


def derive_bond_macs(group: str, host: str, links: int) -> tuple[str, ...]:
    """Return a bonded host's hardware addresses: its bond's, each tap's, and each tap's watcher's."""
    taps = tuple(derive_mac(f"{group} {host} ovn{number}") for number in range(links))
    return derive_mac(f"{group} {host}"), *taps, *map(derive_probe_mac, taps)


def derive_probe_mac(mac: str) -> str:
    """Return the address that a tap's watcher sends from: no device has it, so only the far end can answer to it.

    >>> derive_probe_mac("02:8d:6b:3d:2c:f4")
    '06:8d:6b:3d:2c:f4'
    """
    return f"{int(mac[:2], 16) | 4:02x}{mac[2:]}"


def derive_link_local(mac: str) -> IPv6Address:
    """Return the link-local address that an interface derives from its hardware address (RFC 4291, 2.5.1).

    >>> derive_link_local("02:00:00:00:00:01")
    IPv6Address('fe80::ff:fe00:1')
    """
    octets = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:])


def _digest(seed: str) -> bytes:
    return sha256(seed.encode()).digest()
