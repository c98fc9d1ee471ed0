"""What a stack of bonded hosts promises, as checks: hosts at homes with two lines each, set up by their kits."""

import json
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from drawbridge.trial import routed
from drawbridge.trial.bond_measure import measure_loss, measure_throughput, wait_links
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment, Progress
from drawbridge.trial.hosts import HOMES, free_lan, install_kit, run_checked
from drawbridge.trial.link_faults import KEEPALIVE, LinkFault, silent_uplink, stopped_unit
from lab import region as labs
from lab.linux import run
from settings.model import Settings

#: Machines with a kernel of their own take a while: two show what a bond is.
MACHINES = 2
TAPS = ("ovn0", "ovn1")
BOOT = 120.0
BONDED = 90.0
#: Seconds that measuring may add to a gap.
_MEASURING = 0.5
#: Seconds that the driver may hold back, with balance-alb, what tells peers to send over another link
#: (`RLB_UPDATE_DELAY` in the kernel's drivers/net/bonding/bond_alb.c).
DRIVER_DELAY = 2.0
#: Of each line, so that what two carry is more than what one does.
UPLINK_RATE = "8mbit"


def applies(settings: Settings) -> bool:
    """Return whether a stack has this trial: hosts that bond several links."""
    return settings.pair is None and settings.tunnel.links > 1


def check_bonded_hosts(deployed: Deployment, progress: Progress) -> list[Check]:
    """Place the hosts, wait until they are bonded, take a link away from under them and give it back."""
    names = [client.name for client in deployed.settings.clients[:MACHINES]]
    progress(f"starting {', '.join(names)}, each with a kernel of its own and two lines")
    hosts = [boot_host(deployed, number, name) for number, name in enumerate(names)]
    progress("waiting for the gateway")
    checks = [routed.check_release(deployed)]
    progress("installing the hosts' kits")
    with ThreadPoolExecutor(MACHINES) as pool:
        list(pool.map(lambda host: set_up_host(deployed, host), hosts))
    progress("checking")
    checks += [check_bond(host) for host in hosts]
    if len(hosts) == MACHINES and all(one.ok for one in checks):
        alb = deployed.settings.tunnel.bond in (None, "balance-alb")
        checks += check_between(deployed.region, hosts[0], hosts[1], DRIVER_DELAY if alb else 0)
        checks.append(check_process_kill(hosts[0], hosts[1], TAPS[0]))
        checks.append(check_power_cut(deployed.region, hosts[1]))
    return checks


def boot_host(deployed: Deployment, number: int, name: str) -> labs.Host:
    """A host at two homes; it is booting when this returns."""
    running = deployed.region
    for line, tap in enumerate(TAPS):
        place = f"{name}-{tap}"
        lan = free_lan(deployed.settings, MACHINES * line + number)
        running.add_site(place, public=HOMES[10 + 10 * line + number], lan=lan, rate=UPLINK_RATE)
    return running.add_host(name, site=f"{name}-{TAPS[0]}", second_site=f"{name}-{TAPS[1]}", own_kernel=True)


def set_up_host(deployed: Deployment, host: labs.Host) -> None:
    """Set a host up as its owner does, once it has booted."""
    host.wait_booted(BOOT)
    install_kit(deployed, host, host.name)


def check_bond(host: labs.Host) -> Check:
    """Both links are in the bond."""
    found = wait_links(host, TAPS, BONDED)
    told = ", ".join(f"{tap} {state}" for tap, state in sorted(found.items())) or "no bond"
    return Check(set(found.values()) == {"up"} and len(found) == len(TAPS), f"{host.name} is bonded", told)


def bond_address(host: labs.Host) -> str:
    """The address that a host holds on its bond."""
    found = json.loads(run_checked(host, "ip", "-json", "-4", "address", "show", "dev", "bond0"))
    return str(found[0]["addr_info"][0]["local"])


def check_between(running: labs.Region, one: labs.Host, other: labs.Host, held_back: float) -> list[Check]:
    """What passes between two bonded hosts, and what it costs when a link goes, however it does.

    `held_back` is how many seconds more it may cost than OpenVPN and the driver take to notice.
    """
    there, back = bond_address(other), bond_address(one)
    checks = []
    for host, address in ((one, there), (other, back)):
        quiet = measure_loss(host, address, 4)
        checks.append(Check(quiet.lost == 0, f"{host.name} -> {address} over both links", str(quiet)))
    for tap in TAPS:
        rest = set(TAPS) - {tap}
        for fault in link_faults(running, one, tap):
            # Long enough for the fault to be noticed, and for what is sent after that.
            loss = measure_loss(one, there, fault.max_outage + 5, meanwhile=fault.start)
            has_left = wait_links(one, rest, 2).get(tap) != "up"
            fault.end()
            ok = has_left and loss.gap <= fault.max_outage + held_back + _MEASURING
            checks.append(Check(ok, f"{tap} of {one.name}: {fault.name}", str(loss)))
            checks.append(check_bond(one))
    rates = ", ".join(f"{n} streams {measure_throughput(one, other, there, n):.1f} Mbit/s" for n in (1, 8))
    return [*checks, Check(True, f"{one.name} -> {other.name}, lines of {UPLINK_RATE} each", rates)]


def link_faults(running: labs.Region, host: labs.Host, tap: str) -> list[LinkFault]:
    """Return the ways in which a host at two homes may lose a link."""
    nic = f"eth{TAPS.index(tap)}"
    return [
        stopped_unit(host, tap),
        silent_uplink(f"{running.name}-{host.name}-{tap}-gw"),
        LinkFault(
            "its cable is pulled",
            start=lambda: run("ip", "-n", host.namespace, "link", "set", nic, "down"),
            end=lambda: run("ip", "-n", host.namespace, "link", "set", nic, "up"),
            max_outage=KEEPALIVE + 1,
        ),
    ]


def check_process_kill(one: labs.Host, other: labs.Host, tap: str) -> Check:
    """What it costs when a tunnel's process is killed; systemd starts another one."""
    kill = f"kill -KILL $(systemctl show --property MainPID --value drawbridge-link@{tap})"
    lost = measure_loss(one, bond_address(other), KEEPALIVE + 6, meanwhile=lambda: run_checked(one, "sh", "-c", kill))
    return Check(lost.gap <= KEEPALIVE + 1 + _MEASURING, f"{tap} of {one.name}: its process is killed", str(lost))


def check_power_cut(running: labs.Region, host: labs.Host) -> Check:
    """A host that is cut off its power and comes back is bonded again by itself."""
    running.cut_power(host.name)
    start = monotonic()
    again = running.power_on(host.name)
    again.wait_booted(BOOT)
    found = check_bond(again)
    return Check(found.ok, f"{host.name} is bonded after a power cut", f"{monotonic() - start:.0f} s; {found.figure}")
