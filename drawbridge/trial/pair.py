"""What a pair of gateways promises, as checks: bonded, no ping lost, and what a link that goes costs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from drawbridge.trial import routed
from drawbridge.trial.bond_measure import measure_loss, wait_links
from drawbridge.trial.bonded import BOOT, TAPS, bond_address, check_bond
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment, Progress
from drawbridge.trial.hosts import run_checked, start_private_host
from drawbridge.trial.link_faults import LinkFault, silent_uplink, stopped_unit
from drawbridge.trial.measure import ask_echo, format_rtt, ping, start_echo
from lab import region as labs
from settings.model import Settings

NAMES = ("gateway a", "gateway b")
#: Seconds: a gateway with a kernel of its own boots, installs its packages and fetches its release.
READY = 420.0
_MEASURING = 0.5
_REACHED = 30.0


def applies(settings: Settings) -> bool:
    """Return whether a stack has this trial: two gateways that peer."""
    return settings.pair is not None


def check_pair(deployed: Deployment, progress: Progress) -> list[Check]:
    """Wait until both gateways are bonded, then look at what passes, and take a link away from under them."""
    ends = (deployed, deployed.second)
    hosts = find_gateways(deployed)
    private = [start_private_host(end, f"private-host{n or ''}") for n, end in enumerate(ends)]
    progress("waiting for two gateways, each with a kernel of its own")
    with ThreadPoolExecutor(2) as pool:
        checks = list(
            pool.map(
                lambda pair: routed.check_release(pair[0], called=pair[1], timeout=READY), zip(ends, NAMES, strict=True)
            )
        )
    if not all(one.ok for one in checks):
        return checks
    progress("checking")
    checks += [check_bond(host) for host in hosts]
    checks += [check_mode(deployed, host) for host in hosts]
    if not all(one.ok for one in checks):
        return checks
    checks += check_lossless(hosts)
    if deployed.settings.tunnel.vpc:
        checks += check_between_vpcs(deployed, private)
    for number in (0, 1):
        checks += check_lost_link(deployed, hosts, number)
    return checks


def find_gateways(deployed: Deployment) -> tuple[labs.Host, labs.Host]:
    """Both gateways' machines, under names that a person knows them by."""
    found = [deployed.region.host(end.outputs["gatewayInstanceId"]) for end in (deployed, deployed.second)]
    one, other = (replace(host, name=name) for name, host in zip(NAMES, found, strict=True))
    return one, other


def check_mode(deployed: Deployment, host: labs.Host) -> Check:
    """The bond spreads as the stack file says."""
    found = run_checked(host, "cat", "/sys/class/net/bond0/bonding/mode").split()[0]
    return Check(found == deployed.settings.tunnel.bond, f"{host.name} bonds by {deployed.settings.tunnel.bond}", found)


def check_lossless(hosts: tuple[labs.Host, labs.Host]) -> Iterator[Check]:
    """With both links up nothing is lost, either way."""
    for host, other in (hosts, hosts[::-1]):
        address = bond_address(other)
        quiet = measure_loss(host, address, 4)
        yield Check(quiet.lost == 0, f"{host.name} -> {address} over both links", str(quiet))


def check_between_vpcs(deployed: Deployment, private: list[str]) -> Iterator[Check]:
    """Hosts of either VPC reach the other's, by their own addresses."""
    hosts = [deployed.region.host(name) for name in private]
    for host in hosts:
        host.wait_booted(BOOT)
        start_echo(host)
    for host, other in (hosts, hosts[::-1]):
        found = ping(host, other.address, _REACHED)
        what = f"{host.address} -> {other.address}, from VPC to VPC"
        yield Check(found is not None, what, format_rtt(found))
        answer = ask_echo(host, other.address)
        seen = answer.source if answer else "no answer"
        yield Check(str(seen) == host.address, f"{other.address} sees {host.address} itself", str(seen))


def check_lost_link(deployed: Deployment, hosts: tuple[labs.Host, labs.Host], number: int) -> Iterator[Check]:
    """What it costs when a link is stopped, and when it falls silent."""
    one, other = hosts
    tap, rest = TAPS[number], {TAPS[1 - number]}
    for fault in link_faults(deployed, one, number):
        if deployed.settings.tunnel.bond == "active-backup":
            for host in hosts:  # the one that carries, or losing it would cost nothing
                run_checked(host, "ip", "link", "set", "bond0", "type", "bond", "active_slave", tap)
        loss = measure_loss(one, bond_address(other), fault.max_outage + 5, meanwhile=fault.start)
        has_left = wait_links(one, rest, 2).get(tap) != "up"
        fault.end()
        ok = has_left and loss.gap <= fault.max_outage + _MEASURING
        yield Check(ok, f"{tap}: {fault.name}", str(loss))
        yield check_bond(one)
        yield check_bond(other)


def link_faults(deployed: Deployment, host: labs.Host, number: int) -> list[LinkFault]:
    """Return the ways in which a gateway may lose a link."""
    router = deployed.region.status()["routers"][deployed.outputs["vpcId"]]
    return [stopped_unit(host, TAPS[number]), silent_uplink(router, deployed.settings.tunnel.port + number)]
