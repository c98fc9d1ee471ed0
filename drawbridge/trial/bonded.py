"""What a stack of bonded hosts promises, as checks: hosts at homes with two lines each, set up by their kits."""

import json
from concurrent.futures import ThreadPoolExecutor

from drawbridge.checks import Check
from drawbridge.trial import routed
from drawbridge.trial.deployment import Deployment, Progress
from drawbridge.trial.hosts import HOMES, free_lan, install_kit, must
from drawbridge.trial.links import pings, throughput, wait_links
from lab import region as labs

#: Machines with a kernel of their own take a while: two show what a bond is.
MACHINES = 2
TAPS = ("ovn0", "ovn1")
BOOT = 120.0
BONDED = 90.0
#: Of each line, so that what two carry is more than what one does.
RATE = "8mbit"


def check(deployed: Deployment, progress: Progress) -> list[Check]:
    """Place the hosts, wait until they are bonded, take a link away from under them and give it back."""
    names = [client.name for client in deployed.settings.clients[:MACHINES]]
    progress(f"starting {', '.join(names)}, each with a kernel of its own and two lines")
    hosts = [boot(deployed, number, name) for number, name in enumerate(names)]
    progress("waiting for the gateway")
    checks = [routed.ready(deployed)]
    progress("installing the hosts' kits")
    with ThreadPoolExecutor(MACHINES) as pool:
        list(pool.map(lambda host: install(deployed, host), hosts))
    progress("checking")
    checks += [bonded(host) for host in hosts]
    if len(hosts) == MACHINES and all(one.ok for one in checks):
        checks += between(*hosts)
    return checks


def boot(deployed: Deployment, number: int, name: str) -> labs.Host:
    """A host at two homes; it is booting when this returns."""
    running = deployed.region
    for line, tap in enumerate(TAPS):
        place = f"{name}-{tap}"
        lan = free_lan(deployed.settings, MACHINES * line + number)
        running.premises(place, public=HOMES[10 + 10 * line + number], lan=lan, rate=RATE)
    return running.add_host(name, premises=f"{name}-{TAPS[0]}", second=f"{name}-{TAPS[1]}", own_kernel=True)


def install(deployed: Deployment, host: labs.Host) -> None:
    """Set a host up as its owner does, once it has booted."""
    host.wait_booted(BOOT)
    install_kit(deployed, host, host.name)


def bonded(host: labs.Host) -> Check:
    """Both links are in the bond."""
    found = wait_links(host, TAPS, BONDED)
    told = ", ".join(f"{tap} {state}" for tap, state in sorted(found.items())) or "no bond"
    return Check(set(found.values()) == {"up"} and len(found) == len(TAPS), f"{host.name} is bonded", told)


def address_of(host: labs.Host) -> str:
    """The address that a host holds on its bond."""
    found = json.loads(must(host, "ip", "-json", "-4", "address", "show", "dev", "bond0"))
    return str(found[0]["addr_info"][0]["local"])


def between(one: labs.Host, other: labs.Host) -> list[Check]:
    """What passes between two bonded hosts, and what it costs when a link goes."""
    there, back = address_of(other), address_of(one)
    checks = []
    for host, address in ((one, there), (other, back)):
        quiet = pings(host, address, 4)
        checks.append(Check(quiet.lost == 0, f"{host.name} -> {address} over both links", str(quiet)))
    for tap in TAPS:
        unit = f"drawbridge-link@{tap}"
        stopped = pings(one, there, 6, meanwhile=lambda unit=unit: must(one, "systemctl", "stop", unit))  # type: ignore[misc]
        ok = stopped.gap <= 1.2 and wait_links(one, set(TAPS) - {tap}, 5).get(tap) != "up"
        checks.append(Check(ok, f"{tap} of {one.name} stops", str(stopped)))
        must(one, "systemctl", "start", unit)
        checks.append(bonded(one))
    rates = ", ".join(f"{n} streams {throughput(one, other, there, n):.1f} Mbit/s" for n in (1, 8))
    return [*checks, Check(True, f"{one.name} -> {other.name}, lines of {RATE} each", rates)]
