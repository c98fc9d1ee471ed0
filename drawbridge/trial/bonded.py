"""Check what a stack of bonded hosts promises, with hosts at homes with two uplinks each, set up by their kits."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from drawbridge.operate.stack_records import save_record
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


def check_bonded_hosts(deployed: Deployment, progress: Progress) -> Iterator[Check]:
    """Start the hosts, wait until they are bonded, then take each link away and give it back."""
    names = [client.name for client in deployed.clients[:MACHINES]]
    progress(f"starting {', '.join(names)}, each with a kernel of its own and two lines")
    hosts = [boot_host(deployed, number, name) for number, name in enumerate(names)]
    progress("waiting for the gateway")
    yield routed.check_release(deployed)
    progress(f"waiting for {' and '.join(names)} to boot, and installing their kits")
    with ThreadPoolExecutor(MACHINES) as pool:
        list(pool.map(lambda host: set_up_host(deployed, host), hosts))
    bonds = [check_bond(host) for host in hosts]
    yield from bonds
    if len(hosts) == MACHINES and all(check.ok for check in bonds):
        alb = deployed.settings.tunnel.bond in (None, "balance-alb")
        yield from check_between(deployed.region, hosts[0], hosts[1], DRIVER_DELAY if alb else 0)
        yield check_process_kill(hosts[0], hosts[1], TAPS[0])
        yield check_power_cut(deployed.region, hosts[1])


def boot_host(deployed: Deployment, number: int, name: str) -> labs.Host:
    """Start a host at two homes; it is booting when this returns."""
    region, machine = deployed.region, deployed.name_machine(name)
    deployed.record.clients[name] = [name]
    save_record(region, deployed.record)
    sites = [f"{machine}-{tap}" for tap in TAPS]
    for uplink, site in enumerate(sites):
        used = {entry["public"] for entry in region.status()["sites"]}
        homes = (address for address in HOMES if int(address) >= int(HOMES[10 + 10 * uplink + number]))
        public = next(address for address in homes if str(address) not in used)
        lan = free_lan(deployed.settings, MACHINES * uplink + number)
        region.add_site(site, public=public, lan=lan, rate=UPLINK_RATE)
    return region.add_host(machine, site=sites[0], second_site=sites[1], own_kernel=True)


def set_up_host(deployed: Deployment, host: labs.Host) -> None:
    """Set up a host as its owner does, once it has booted."""
    host.wait_booted(BOOT)
    names = {machine: name for name, machine in deployed.record.machines.items()}
    install_kit(deployed, host, names.get(host.name, host.name))


def check_bond(host: labs.Host) -> Check:
    """Check that both links are up in the bond."""
    states = wait_links(host, TAPS, BONDED)
    figure = ", ".join(f"{tap} {state}" for tap, state in sorted(states.items())) or "no bond"
    return Check(set(states.values()) == {"up"} and len(states) == len(TAPS), f"{host.name} is bonded", figure)


def bond_address(host: labs.Host) -> str:
    """Return a host's address on its bond."""
    links = json.loads(run_checked(host, "ip", "-json", "-4", "address", "show", "dev", "bond0"))
    return str(links[0]["addr_info"][0]["local"])


def check_between(region: labs.Region, left: labs.Host, right: labs.Host, delay: float) -> Iterator[Check]:
    """Check that packets pass between two bonded hosts, also when a link is lost in any way.

    `delay` is the number of seconds that the bonding driver may hold back the change of a link.
    """
    right_address, left_address = bond_address(right), bond_address(left)
    for host, address in ((left, right_address), (right, left_address)):
        loss = measure_loss(host, address, 4)
        yield Check(loss.lost == 0, f"{host.name} -> {address} over both links", str(loss))
    for tap in TAPS:
        rest = set(TAPS) - {tap}
        for fault in link_faults(region, left, tap):
            # Long enough for the fault to be noticed, and for what is sent after that.
            loss = measure_loss(left, right_address, fault.max_outage + 5, meanwhile=fault.start)
            has_left = wait_links(left, rest, 2).get(tap) != "up"
            fault.end()
            ok = has_left and loss.gap <= fault.max_outage + delay + _MEASURING
            yield Check(ok, f"{tap} of {left.name}: {fault.name}", str(loss))
            yield check_bond(left)
    rates = ", ".join(f"{n} streams {measure_throughput(left, right, right_address, n):.1f} Mbit/s" for n in (1, 8))
    yield Check(True, f"{left.name} -> {right.name}, lines of {UPLINK_RATE} each", rates)


def link_faults(region: labs.Region, host: labs.Host, tap: str) -> list[LinkFault]:
    """Return the ways in which a host at two homes may lose a link."""
    nic = f"eth{TAPS.index(tap)}"
    return [
        stopped_unit(host, tap),
        silent_uplink(f"{region.name}-{host.name}-{tap}-gw"),
        LinkFault(
            "its cable is pulled",
            start=lambda: run("ip", "-n", host.namespace, "link", "set", nic, "down"),
            end=lambda: run("ip", "-n", host.namespace, "link", "set", nic, "up"),
            max_outage=KEEPALIVE + 1,
        ),
    ]


def check_process_kill(host: labs.Host, peer: labs.Host, tap: str) -> Check:
    """Check the loss when a link's process is killed; systemd starts it again."""
    kill = f"kill -KILL $(systemctl show --property MainPID --value drawbridge-link@{tap})"
    loss = measure_loss(host, bond_address(peer), KEEPALIVE + 6, meanwhile=lambda: run_checked(host, "sh", "-c", kill))
    return Check(loss.gap <= KEEPALIVE + 1 + _MEASURING, f"{tap} of {host.name}: its process is killed", str(loss))


def check_power_cut(region: labs.Region, host: labs.Host) -> Check:
    """Check that a host is bonded again by itself after a power cut."""
    region.cut_power(host.name)
    start = monotonic()
    rebooted = region.power_on(host.name)
    rebooted.wait_booted(BOOT)
    bonded = check_bond(rebooted)
    return Check(bonded.ok, f"{host.name} is bonded after a power cut", f"{monotonic() - start:.0f} s; {bonded.figure}")
