"""Check what a stack with IPv6 promises: global addresses that the Internet sees, and reaches if the stack says so."""

import json
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from drawbridge.trial import hosts
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import tunnel_interface
from drawbridge.trial.measure import format_rtt, packets_arrive, ping, wait_until
from lab import region as labs
from lab.errors import LabError
from settings.model import Settings

#: A host on the IPv6 Internet, with an address for documentation (RFC 3849) and its like of IPv4 (RFC 5737).
SERVER, SERVER6 = IPv4Address("198.51.100.66"), IPv6Address("2001:db8:6::66")
_TUNNEL_SECONDS = 60


def applies(settings: Settings) -> bool:
    """Return whether a stack has this trial: clients with global IPv6 addresses."""
    return hosts.applies(settings) and settings.tunnel.has_ipv6


def start_internet_host(deployed: Deployment) -> labs.Host:
    """Return a host on the lab's IPv6 Internet; start it if necessary."""
    names = {host["name"] for host in deployed.region.status()["hosts"]}
    host = deployed.region.add_internet_host(deployed.share_machine("six"), address=SERVER, address6=SERVER6)
    if host.name not in names:
        host.wait_booted()
    return host


def global_address(host: labs.Host, device: str, *, dynamic: bool = False) -> IPv6Address:
    """Wait for a machine's global address in the tunnel and return it; raises LabError after a minute.

    It is the one that the gateway assigned, or the `dynamic` one, formed from the prefix that the gateway advertises.
    """
    addresses = list[str]()

    def has_address() -> bool:
        done = host.run(["ip", "-json", "-6", "address", "show", "dev", device, "scope", "global", "-tentative"])
        links = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        entries = [entry for link in links for entry in link.get("addr_info", []) if entry]
        addresses[:] = [entry["local"] for entry in entries if bool(entry.get("dynamic")) == dynamic]
        return bool(addresses)

    if not wait_until(has_address, _TUNNEL_SECONDS):
        raise LabError(f"{host.name} has no IPv6 address on {device} after {_TUNNEL_SECONDS} s")
    return IPv6Address(addresses[0])


def find_private_address(deployed: Deployment) -> IPv6Address:
    """Return the IPv6 address of the private host; raises LabError if it has none."""
    reservations = deployed.client("ec2").describe_instances(
        Filters=[
            {"Name": "subnet-id", "Values": [deployed.private_subnet]},
            {"Name": "instance-state-name", "Values": ["running"]},
        ]
    )["Reservations"]
    interfaces = [row for entry in reservations for item in entry["Instances"] for row in item["NetworkInterfaces"]]
    addresses = [row["Ipv6Address"] for interface in interfaces for row in interface.get("Ipv6Addresses", ())]
    if not addresses:
        raise LabError("the private host has no IPv6 address")
    return IPv6Address(addresses[0])


def check_private_ssh(host: labs.Host, address: IPv6Address) -> Check:
    """Check that a client reaches SSH on the private host by IPv6.

    The port is below those of replies, which network ACLs let in from everywhere.
    """
    banner = ["timeout", "5", "bash", "-c", f"head -c 4 < /dev/tcp/{address}/22"]
    answers = wait_until(lambda: host.run(banner).stdout == "SSH-", 10)
    promise = f"{host.name} -> private host [{address}]:22"
    return Check(answers, promise, "SSH answers" if answers else "no answer")


def check_ipv6(deployed: Deployment) -> Iterator[Check]:
    """Check that each client has a global address that the Internet sees, and reaches if the stack says so."""
    settings, server = deployed.settings, start_internet_host(deployed)
    private = find_private_address(deployed) if settings.tunnel.vpc else None
    for client in deployed.clients:
        host = deployed.host(client.name)
        if client.bridge and not client.address6:
            continue  # Its host has the addresses of its LAN.
        address = global_address(
            host, tunnel_interface(client, settings.tunnel) if client.bridge else f"{settings.tunnel.device}0"
        )
        if client.address6:
            ends = int(address) & 0xFFFF_FFFF_FFFF == int(client.address6) & 0xFFFF_FFFF_FFFF
            yield Check(ends, f"{client.name} has its configured address", str(address))
        if client.bridge:
            continue  # Its default route stays that of its LAN.
        out = settings.tunnel.redirect != "none"
        rtt = ping(host, SERVER6, _TUNNEL_SECONDS if out else 2)
        promise = f"{client.name} -> IPv6 Internet" if out else f"{client.name} -> IPv6 Internet not through the tunnel"
        yield Check((rtt is not None) == out, promise, format_rtt(rtt))
        if out:
            seen = packets_arrive(server, f"icmp6 and src {address}", partial(ping, host, SERVER6, 2))
            yield Check(seen, f"the Internet sees {client.name} as itself", str(address))
        if private is not None:
            yield check_private_ssh(host, private)
        opened = any(SERVER6 in network for network in settings.tunnel.open_to)
        rtt_back = ping(server, str(address), 10 if opened else 2)
        promise = f"IPv6 Internet -> {client.name}" if opened else f"IPv6 Internet -> {client.name} dropped"
        yield Check((rtt_back is not None) == opened, promise, format_rtt(rtt_back))
        if settings.tunnel.advertised:
            advertised = global_address(host, f"{settings.tunnel.device}0", dynamic=True)
            send = partial(host.run, ["ping", "-n", "-c", "3", "-W", "1", "-I", str(advertised), str(SERVER6)])
            seen = packets_arrive(server, f"icmp6 and src {advertised}", send) if out else advertised != address
            yield Check(seen, f"{client.name} has formed an address from the advertised prefix", str(advertised))
