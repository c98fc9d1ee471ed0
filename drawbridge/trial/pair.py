"""What a pair of gateways promises, as checks: bonded, no ping lost, and what a link that goes costs."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from drawbridge.trial import routed
from drawbridge.trial.bonded import BOOT, KEEPALIVE, TAPS, address_of, bonded
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment, Progress
from drawbridge.trial.hosts import must, start_private_host
from drawbridge.trial.links import pings, wait_links
from drawbridge.trial.measure import ask, figure, ping, serve
from lab import region as labs
from lab.linux import nft

NAMES = ("gateway a", "gateway b")
#: Seconds: a gateway with a kernel of its own boots, installs its packages and fetches its release.
READY = 420.0
_MEASURING = 0.5
_REACHED = 30.0


def check(deployed: Deployment, progress: Progress) -> list[Check]:
    """Wait until both gateways are bonded, then look at what passes, and take a link away from under them."""
    ends = (deployed, deployed.second)
    hosts = gateways(deployed)
    private = [start_private_host(end, f"private-host{n or ''}") for n, end in enumerate(ends)]
    progress("waiting for two gateways, each with a kernel of its own")
    with ThreadPoolExecutor(2) as pool:
        checks = list(
            pool.map(lambda pair: routed.ready(pair[0], called=pair[1], timeout=READY), zip(ends, NAMES, strict=True))
        )
    if not all(one.ok for one in checks):
        return checks
    progress("checking")
    checks += [bonded(host) for host in hosts]
    checks += [mode(deployed, host) for host in hosts]
    if not all(one.ok for one in checks):
        return checks
    checks += lossless(hosts)
    if deployed.settings.tunnel.vpc:
        checks += between_vpcs(deployed, private)
    for number in (0, 1):
        checks += lost_link(deployed, hosts, number)
    return checks


def gateways(deployed: Deployment) -> tuple[labs.Host, labs.Host]:
    """Both gateways' machines, under names that a person knows them by."""
    found = [deployed.region.host(end.outputs["gatewayInstanceId"]) for end in (deployed, deployed.second)]
    one, other = (
        labs.Host(name, host.leader, host.address, host.namespace, host.own_kernel)
        for name, host in zip(NAMES, found, strict=True)
    )
    return one, other


def mode(deployed: Deployment, host: labs.Host) -> Check:
    """The bond spreads as the stack file says."""
    found = must(host, "cat", "/sys/class/net/bond0/bonding/mode").split()[0]
    return Check(found == deployed.settings.tunnel.bond, f"{host.name} bonds by {deployed.settings.tunnel.bond}", found)


def lossless(hosts: tuple[labs.Host, labs.Host]) -> Iterator[Check]:
    """With both links up nothing is lost, either way."""
    for host, other in (hosts, hosts[::-1]):
        address = address_of(other)
        quiet = pings(host, address, 4)
        yield Check(quiet.lost == 0, f"{host.name} -> {address} over both links", str(quiet))


def between_vpcs(deployed: Deployment, private: list[str]) -> Iterator[Check]:
    """Hosts of either VPC reach the other's, by their own addresses."""
    hosts = [deployed.region.host(name) for name in private]
    for host in hosts:
        host.wait_booted(BOOT)
        serve(host)
    for host, other in (hosts, hosts[::-1]):
        found = ping(host, other.address, _REACHED)
        what = f"{host.address} -> {other.address}, from VPC to VPC"
        yield Check(found is not None, what, figure(found))
        answer = ask(host, other.address)
        seen = answer.source if answer else "no answer"
        yield Check(str(seen) == host.address, f"{other.address} sees {host.address} itself", str(seen))


def lost_link(deployed: Deployment, hosts: tuple[labs.Host, labs.Host], number: int) -> Iterator[Check]:
    """What it costs when a link is stopped, and when it falls silent."""
    one, other = hosts
    tap, rest = TAPS[number], {TAPS[1 - number]}
    for what, fail, mend, most in faults(deployed, one, number):
        if deployed.settings.tunnel.bond == "active-backup":
            for host in hosts:  # the one that carries, or losing it would cost nothing
                must(host, "ip", "link", "set", "bond0", "type", "bond", "active_slave", tap)
        lost = pings(one, address_of(other), most + 5, meanwhile=fail)
        left = wait_links(one, rest, 2).get(tap) != "up"
        mend()
        yield Check(lost.gap <= most + _MEASURING and left, f"{tap}: {what}", str(lost))
        yield bonded(one)
        yield bonded(other)


def faults(
    deployed: Deployment, host: labs.Host, number: int
) -> list[tuple[str, Callable[[], object], Callable[[], object], float]]:
    """Ways to lose a link: what happens, how to do and to mend it, and the seconds without an answer it may cost."""
    unit, port = f"drawbridge-link@{TAPS[number]}", deployed.settings.tunnel.port + number
    router = deployed.region.status()["routers"][deployed.outputs["vpcId"]]
    silence = (
        "table inet cut {\n chain c {\n type filter hook forward priority -300; policy accept;\n"
        f" udp dport {port} drop\n udp sport {port} drop\n }}\n}}\n"
    )
    return [
        ("stops", lambda: must(host, "systemctl", "stop", unit), lambda: must(host, "systemctl", "start", unit), 1.0),
        ("its line says nothing", lambda: nft(router, silence), lambda: nft(router, "delete table inet cut\n"),
         KEEPALIVE + 1),
    ]  # fmt: skip
