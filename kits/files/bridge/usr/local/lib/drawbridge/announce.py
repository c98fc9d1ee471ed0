#!/usr/bin/env python3
"""Announces the hosts of this LAN to the far end of a tunnel: announce.py DEVICE.

A switch floods frames for unknown hosts; OpenVPN drops them. When the tunnel starts OpenVPN knows no host, so a host
that sends nothing by itself would stay unreachable for as long as others have its address in their caches. So this
sends a frame in the name of each host that the bridge knows, as the kernel's bonding driver does when it fails over.
"""

import json
import socket
import subprocess
import sys

BRIDGE = "br0"
#: Hosts that are announced at most, this one first: OpenVPN learns 256 addresses of a client, and would not learn this
#: host's own after those that somebody on the LAN has made up.
MOST = 128
#: An address that no host has, and an EtherType that nothing answers (ETH_P_LOOPBACK, linux/if_ether.h).
NO_HOST, LOOPBACK = bytes.fromhex("020000000000"), bytes.fromhex("9000")


def main(device: str) -> int:
    """Announce all hosts and return the exit status."""
    announced = set[str]()
    for ping_first in (False, True):
        if ping_first:  # All hosts with IPv6 answer, so that the bridge learns them.
            subprocess.run(["ping", "-c", "2", "-w", "2", f"ff02::1%{BRIDGE}"], capture_output=True, check=False)
        hosts = [address for address in known_hosts(device) if address not in announced]
        announced |= announce(device, hosts[: MOST - len(announced)])
    print(f"{len(announced)} hosts of the LAN are announced")
    return 0


def known_hosts(device: str) -> list[str]:
    """Return the hardware addresses that the bridge knows, its own first, without those at the tunnel's far end."""
    result = subprocess.run(
        ["bridge", "-json", "fdb", "show", "br", BRIDGE], capture_output=True, text=True, check=True
    )
    entries = json.loads(result.stdout or "[]")
    # The first bit of a group's address is set (IEEE 802).
    near = [entry for entry in entries if entry.get("ifname") != device and not int(entry["mac"][1], 16) & 1]
    near.sort(key=lambda entry: entry.get("state") != "permanent")
    return [str(entry["mac"]) for entry in near]


def announce(device: str, addresses: list[str]) -> set[str]:
    """Send a frame from each of these addresses, and return them."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        for address in addresses:
            wire.send(NO_HOST + bytes.fromhex(address.replace(":", "")) + LOOPBACK + bytes(46))
    return set(addresses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
