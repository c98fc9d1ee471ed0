"""Check what a pair of gateways promises: they are bonded, lose no ping, and survive the loss of a link."""

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


def check_pair(deployed: Deployment, progress: Progress) -> Iterator[Check]:
    """Wait until both gateways are bonded, then check that packets pass, also when each link is lost."""
    stacks = (deployed, deployed.second)
    hosts = find_gateways(deployed)
    private = [start_private_host(stack, f"private-host{n or ''}") for n, stack in enumerate(stacks)]
    progress("waiting for two gateways, each with a kernel of its own")
    with ThreadPoolExecutor(2) as pool:
        checks = list(
            pool.map(lambda stack, name: routed.check_release(stack, name=name, timeout=READY), stacks, NAMES)
        )
    yield from checks
    if not all(check.ok for check in checks):
        return
    checks = [*map(check_bond, hosts), *(check_mode(deployed, host) for host in hosts)]
    yield from checks
    if not all(check.ok for check in checks):
        return
    yield from check_lossless(hosts)
    if deployed.settings.tunnel.vpc:
        yield from check_between_vpcs(deployed, private)
    for number in (0, 1):
        yield from check_lost_link(deployed, hosts, number)


def find_gateways(deployed: Deployment) -> tuple[labs.Host, labs.Host]:
    """Return both gateways' machines, under names for people."""
    hosts = [deployed.region.host(stack.outputs["gatewayInstanceId"]) for stack in (deployed, deployed.second)]
    first, second = (replace(host, name=name) for name, host in zip(NAMES, hosts, strict=True))
    return first, second


def check_mode(deployed: Deployment, host: labs.Host) -> Check:
    """Check that the bond has the stack's mode."""
    mode = run_checked(host, "cat", "/sys/class/net/bond0/bonding/mode").split()[0]
    return Check(mode == deployed.settings.tunnel.bond, f"{host.name} bonds by {deployed.settings.tunnel.bond}", mode)


def check_lossless(hosts: tuple[labs.Host, labs.Host]) -> Iterator[Check]:
    """Check that nothing is lost in either direction while both links are up."""
    for host, peer in (hosts, hosts[::-1]):
        address = bond_address(peer)
        loss = measure_loss(host, address, 4)
        yield Check(loss.lost == 0, f"{host.name} -> {address} over both links", str(loss))


def check_between_vpcs(deployed: Deployment, private: list[str]) -> Iterator[Check]:
    """Check that hosts of each VPC reach those of the other one, by their own addresses."""
    hosts = [deployed.region.host(name) for name in private]
    for host in hosts:
        host.wait_booted(BOOT)
        start_echo(host)
    for host, peer in (hosts, hosts[::-1]):
        rtt = ping(host, peer.address, _REACHED)
        promise = f"{host.address} -> {peer.address}, from VPC to VPC"
        yield Check(rtt is not None, promise, format_rtt(rtt))
        answer = ask_echo(host, peer.address)
        source = answer.source if answer else "no answer"
        yield Check(str(source) == host.address, f"{peer.address} sees {host.address} itself", str(source))


def check_lost_link(deployed: Deployment, hosts: tuple[labs.Host, labs.Host], number: int) -> Iterator[Check]:
    """Check how long packets are lost when a link is stopped, and when its uplink is silent."""
    gateway, peer = hosts
    tap, rest = TAPS[number], {TAPS[1 - number]}
    for fault in link_faults(deployed, gateway, number):
        if deployed.settings.tunnel.bond == "active-backup":
            for host in hosts:  # the active link, because losing the other one would cost nothing
                run_checked(host, "ip", "link", "set", "bond0", "type", "bond", "active_slave", tap)
        loss = measure_loss(gateway, bond_address(peer), fault.max_outage + 5, meanwhile=fault.start)
        has_left = wait_links(gateway, rest, 2).get(tap) != "up"
        fault.end()
        ok = has_left and loss.gap <= fault.max_outage + _MEASURING
        yield Check(ok, f"{tap}: {fault.name}", str(loss))
        yield check_bond(gateway)
        yield check_bond(peer)


def link_faults(deployed: Deployment, host: labs.Host, number: int) -> list[LinkFault]:
    """Return the ways in which a gateway may lose a link."""
    router = deployed.region.status()["routers"][deployed.outputs["vpcId"]]
    return [stopped_unit(host, TAPS[number]), silent_uplink(router, deployed.settings.tunnel.port + number)]
