"""What a stack of bonded hosts promises, as checks: hosts at homes with two lines each, set up by their kits."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from drawbridge.trial import routed
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment, Progress
from drawbridge.trial.hosts import HOMES, free_lan, install_kit, must
from drawbridge.trial.links import pings, throughput, wait_links
from lab import region as labs
from lab.linux import nft, run

#: Machines with a kernel of their own take a while: two show what a bond is.
MACHINES = 2
TAPS = ("ovn0", "ovn1")
BOOT = 120.0
BONDED = 90.0
#: Seconds of silence after which a link leaves the bond, and what measuring may add to a gap.
KEEPALIVE, _MEASURING = 5.0, 0.5
#: Seconds that the driver may hold back, with balance-alb, what tells peers to send over another link
#: (`RLB_UPDATE_DELAY` in the kernel's drivers/net/bonding/bond_alb.c).
HELD_BACK = 2.0
_SILENCE = "table inet cut {\n chain c {\n type filter hook forward priority -300; policy drop;\n }\n}\n"
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
        alb = deployed.settings.tunnel.bond in (None, "balance-alb")
        checks += between(deployed.region, hosts[0], hosts[1], HELD_BACK if alb else 0)
        checks.append(killed(hosts[0], hosts[1], TAPS[0]))
        checks.append(rebooted(deployed.region, hosts[1]))
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


def between(running: labs.Region, one: labs.Host, other: labs.Host, held_back: float) -> list[Check]:
    """What passes between two bonded hosts, and what it costs when a link goes, however it does.

    `held_back` is how many seconds more it may cost than OpenVPN and the driver take to notice.
    """
    there, back = address_of(other), address_of(one)
    checks = []
    for host, address in ((one, there), (other, back)):
        quiet = pings(host, address, 4)
        checks.append(Check(quiet.lost == 0, f"{host.name} -> {address} over both links", str(quiet)))
    for tap in TAPS:
        rest = set(TAPS) - {tap}
        for what, fail, mend, most in faults(running, one, tap):
            # Long enough for the fault to be noticed, and for what is sent after that.
            lost = pings(one, there, most + 5, meanwhile=fail)
            left = wait_links(one, rest, 2).get(tap) != "up"
            mend()
            ok = left and lost.gap <= most + held_back + _MEASURING
            checks.append(Check(ok, f"{tap} of {one.name}: {what}", str(lost)))
            checks.append(bonded(one))
    rates = ", ".join(f"{n} streams {throughput(one, other, there, n):.1f} Mbit/s" for n in (1, 8))
    return [*checks, Check(True, f"{one.name} -> {other.name}, lines of {RATE} each", rates)]


def faults(
    running: labs.Region, host: labs.Host, tap: str
) -> list[tuple[str, Callable[[], object], Callable[[], object], float]]:
    """Ways to lose a link: what happens, how to do and to mend it, and the seconds without an answer it may cost."""
    unit, nic = f"drawbridge-link@{tap}", f"eth{TAPS.index(tap)}"
    router = f"{running.name}-{host.name}-{tap}-gw"
    return [
        ("stops", lambda: must(host, "systemctl", "stop", unit), lambda: must(host, "systemctl", "start", unit), 1.0),
        ("its line says nothing", lambda: nft(router, _SILENCE), lambda: nft(router, "delete table inet cut\n"),
         KEEPALIVE + 1),
        ("its cable is pulled", lambda: run("ip", "-n", host.namespace, "link", "set", nic, "down"),
         lambda: run("ip", "-n", host.namespace, "link", "set", nic, "up"), KEEPALIVE + 1),
    ]  # fmt: skip


def killed(one: labs.Host, other: labs.Host, tap: str) -> Check:
    """What it costs when a tunnel's process is killed; systemd starts another one."""
    kill = f"kill -KILL $(systemctl show --property MainPID --value drawbridge-link@{tap})"
    lost = pings(one, address_of(other), KEEPALIVE + 6, meanwhile=lambda: must(one, "sh", "-c", kill))
    return Check(lost.gap <= KEEPALIVE + 1 + _MEASURING, f"{tap} of {one.name}: its process is killed", str(lost))


def rebooted(running: labs.Region, host: labs.Host) -> Check:
    """A host that is cut off its power and comes back is bonded again by itself."""
    running.cut_power(host.name)
    start = monotonic()
    again = running.power_on(host.name)
    again.wait_booted(BOOT)
    found = bonded(again)
    return Check(found.ok, f"{host.name} is bonded after a power cut", f"{monotonic() - start:.0f} s; {found.figure}")
