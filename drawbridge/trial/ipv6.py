"""What a stack with IPv6 promises, as checks: global addresses, which the Internet sees, and reaches where it may."""

import json
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from drawbridge.trial import hosts
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import MACHINES, tunnel_interface
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
    """A host that speaks IPv6, right on the Internet; it is started once."""
    known = {host["name"] for host in deployed.region.status()["hosts"]}
    host = deployed.region.add_internet_host("six", address=SERVER, address6=SERVER6)
    if host.name not in known:
        host.wait_booted()
    return host


def global_address(host: labs.Host, device: str, *, made: bool = False) -> IPv6Address:
    """A machine's global address in the tunnel, waited for; raises LabError after a minute.

    It is the one that the gateway gave it, or the one that it has `made` of what the gateway advertises.
    """
    found = list[str]()

    def there() -> bool:
        done = host.run(["ip", "-json", "-6", "address", "show", "dev", device, "scope", "global", "-tentative"])
        links = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        entries = [one for link in links for one in link.get("addr_info", []) if one]
        found[:] = [one["local"] for one in entries if bool(one.get("dynamic")) == made]
        return bool(found)

    if not wait_until(there, _TUNNEL_SECONDS):
        raise LabError(f"{host.name} has no IPv6 address on {device} after {_TUNNEL_SECONDS} s")
    return IPv6Address(found[0])


def check_ipv6(deployed: Deployment) -> list[Check]:
    """Each client has an address of its own that the Internet sees, and that it reaches if the stack says so."""
    settings, server, made = deployed.settings, start_internet_host(deployed), []
    for client in settings.clients[:MACHINES]:
        host = deployed.region.host(client.name)
        if client.bridge and not client.address6:
            continue  # Its host has what its LAN gives it.
        address = global_address(
            host, tunnel_interface(client, settings.tunnel) if client.bridge else f"{settings.tunnel.device}0"
        )
        if client.address6:
            ends = int(address) & 0xFFFF_FFFF_FFFF == int(client.address6) & 0xFFFF_FFFF_FFFF
            made.append(Check(ends, f"{client.name} has the address it is to have", str(address)))
        if client.bridge:
            continue  # Nor does it go another way than before.
        out = settings.tunnel.redirect != "none"
        found = ping(host, SERVER6, _TUNNEL_SECONDS if out else 2)
        what = f"{client.name} -> IPv6 Internet" if out else f"{client.name} -> IPv6 Internet not through the tunnel"
        made.append(Check((found is not None) == out, what, format_rtt(found)))
        if out:
            seen = packets_arrive(server, f"icmp6 and src {address}", partial(ping, host, SERVER6, 2))
            made.append(Check(seen, f"the Internet sees {client.name} as itself", str(address)))
        opened = any(SERVER6 in network for network in settings.tunnel.open_to)
        back = ping(server, str(address), 10 if opened else 2)
        what = f"IPv6 Internet -> {client.name}" if opened else f"IPv6 Internet -> {client.name} dropped"
        made.append(Check((back is not None) == opened, what, format_rtt(back)))
        if settings.tunnel.advertised:
            own = global_address(host, f"{settings.tunnel.device}0", made=True)
            say = partial(host.run, ["ping", "-n", "-c", "3", "-W", "1", "-I", str(own), str(SERVER6)])
            seen = packets_arrive(server, f"icmp6 and src {own}", say) if out else own != address
            made.append(Check(seen, f"{client.name} has made itself an address of what is advertised", str(own)))
    return made
