#!/usr/bin/env python3
"""Tells the far end of a tunnel which hosts are in this LAN: announce.py DEVICE.

A switch sends what is for a host it does not know to everybody; OpenVPN drops it. When the tunnel starts it knows
none, so a host that says nothing by itself would be lost for as long as others remember its address. Here a frame goes
out in the name of each that the bridge knows, as the kernel's bonding driver does when it moves to another link.
"""

import json
import socket
import subprocess
import sys

BRIDGE = "br0"
#: Of no protocol: to nobody, and nothing answers it (ETH_P_LOOPBACK, linux/if_ether.h).
NOBODY, LOOPBACK = bytes.fromhex("020000000000"), bytes.fromhex("9000")


def main(device: str) -> int:
    """Return the exit status."""
    told = set[str]()
    for ask in (False, True):
        if ask:  # All that speak IPv6 answer, and so are known.
            subprocess.run(["ping", "-c", "2", "-w", "2", f"ff02::1%{BRIDGE}"], capture_output=True, check=False)
        told |= announce(device, hosts(device) - told)
    print(f"{len(told)} hosts of the LAN are announced")
    return 0


def hosts(device: str) -> set[str]:
    """Hardware addresses that the bridge knows, but for those beyond the tunnel."""
    told = subprocess.run(["bridge", "-json", "fdb", "show", "br", BRIDGE], capture_output=True, text=True, check=True)
    entries = json.loads(told.stdout or "[]")
    # The first bit of a group's address is set (IEEE 802).
    return {one["mac"] for one in entries if one.get("ifname") != device and not int(one["mac"][1], 16) & 1}


def announce(device: str, addresses: set[str]) -> set[str]:
    """Send a frame from each of these addresses; which they were."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        for address in addresses:
            wire.send(NOBODY + bytes.fromhex(address.replace(":", "")) + LOOPBACK + bytes(46))
    return addresses


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
