"""Worlds whose gateways are virtual machines: Debian's cloud kernel, its list of packages for EC2, 512 MiB.

Shows what neither a container nor User-Mode Linux can: that modules load inside the units' sandboxes, that the limits
of cgroup v2 hold, that the network comes by DHCP, and that the filter of `pair` is in force. The machines' hardware is
emulated, so no figure says anything of speed. Does not prove that an Elastic Network Adapter or arm64 does the same.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from drawbridge.operate.stack_files import find_stack_file
from drawbridge.trial import bonded, hosts, ipv6, pair, routed, segment
from drawbridge.trial.bond_measure import measure_loss
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.measure import ping
from lab.errors import LabError, MachineDown
from lab.region import Host, disposable_region
from settings.stack_file import read_stack_file
from tests.support import packages
from tests.support.injected import inject_datagram
from tests.support.waiting import until

WORLDS = ["lab", "ipv6", "bonded", "pair"]
#: Seconds until a gateway that is emulated has booted, installed its packages and reported.
READY = 3600.0
BOOT = 1800.0
#: The image for EC2 has the package whose newer version is offered.
UPGRADED = "openvpn"
#: Message that systemd logs with the resources that a run of a unit has used (SD_MESSAGE_UNIT_RESOURCES).
RESOURCES = "ae8f7b866b0347b9af31fe1c80b127c0"
Figure = Callable[[str, object], None]


@dataclass(frozen=True)
class World:
    """A deployed world."""

    name: str
    stack: Deployment

    @property
    def ends(self) -> tuple[Deployment, ...]:
        """A deployment for each gateway."""
        return (self.stack, self.stack.second) if self.name == "pair" else (self.stack,)

    @property
    def gateways(self) -> tuple[Host, ...]:
        return tuple(end.gateway for end in self.ends)

    def units(self, end: Deployment) -> list[str]:
        """OpenVPN's units on a gateway."""
        report = json.loads(end.client("ssm").get_parameter(Name=end.names.report)["Parameter"]["Value"])
        return list(report["units"])


@pytest.fixture(scope="module", params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with disposable_region() as region:
        region.use_virtual_machines(True)
        stack = deploy(region, request.param, read_stack_file(find_stack_file(request.param)), lambda _: None)
        region.use_virtual_machines(False)
        yield World(request.param, stack)


def wait_ready(end: Deployment) -> dict[str, object]:
    """Return the gateway's report once it is ready, or the last one; what took too long is tried again."""
    deadline = time.monotonic() + READY
    report: dict[str, object] = {}
    while report.get("state") not in ("ready", "refused") and time.monotonic() < deadline:
        report = routed.wait_report(end, end.outputs["release"], 60)
        time.sleep(1)
    return report


def test_the_release_runs(world: World, record_property: Figure) -> None:
    start, seconds = time.monotonic(), []
    for end in world.ends:
        report = wait_ready(end)
        console = next(end.region.directory.glob(f"machines/{end.outputs['gatewayInstanceId']}/console.log"))
        assert report.get("state") == "ready", f"{report}\n{console.read_text(errors='replace')[-3000:]}"
        seconds.append(f"{time.monotonic() - start:.0f} s")
    record_property("figure", ", ".join(seconds))


def test_nothing_failed_at_boot(world: World, record_property: Figure) -> None:
    for host in world.gateways:
        state = host.wait_booted(BOOT)
        failed = run_checked(host, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
        release = run_checked(host, "uname", "-r").strip()
        memory = run_checked(host, "sh", "-c", "free -m | awk '/^Mem/ {print $2, $7}'").split()
        record_property("figure", f"{state}, kernel {release}, {memory[0]} MiB, of which {memory[1]} available")
        assert state == "running", failed


def hold(checks: list[Check]) -> str:
    """Return the checks' number and the last figure; fail where one does not hold."""
    failed = [f"{check.promise}: {check.figure}" for check in checks if not check.ok]
    assert checks and not failed, failed
    return f"{len(checks)} checks, {checks[-1].promise}: {checks[-1].figure}"


def ignore(_: str) -> None:
    """Show no progress."""


def test_packets_pass_as_the_world_promises(world: World, record_property: Figure) -> None:
    stack, checks = world.stack, list[Check]()
    if hosts.applies(stack.settings):
        hosts.place_hosts(stack, ignore)
        checks += ipv6.check_ipv6(stack) if ipv6.applies(stack.settings) else []
        checks += routed.check_routed(stack) if routed.applies(stack.settings) else []
        checks += segment.check_segment(stack) if segment.applies(stack.settings) else []
    elif bonded.applies(stack.settings):
        members = [bonded.boot_host(stack, number, name) for number, name in enumerate(("left", "right"))]
        for member in members:
            bonded.set_up_host(stack, member)
        checks += [bonded.check_bond(member) for member in members]
        loss = measure_loss(members[0], bonded.bond_address(members[1]), 5)
        checks.append(Check(loss.lost == 0, "left -> right", str(loss)))
    else:
        gateways = pair.find_gateways(stack)
        checks += [bonded.check_bond(gateway) for gateway in gateways]
        checks += [pair.check_mode(stack, gateway) for gateway in gateways]
        checks += pair.check_lossless(gateways)
        private = [hosts.start_private_host(end, f"private-host{n or ''}") for n, end in enumerate(world.ends)]
        checks += pair.check_between_vpcs(stack, private)
    record_property("figure", hold(checks))


def check_cgroup(world: World, end: Deployment) -> str:
    """Show that the hierarchy is cgroup v2."""
    kind = run_checked(end.gateway, "stat", "-f", "-c", "%T", "/sys/fs/cgroup").strip()
    assert kind == "cgroup2fs"
    return kind


def check_memory_max(world: World, end: Deployment) -> str:
    """Show that the units' limits are known to the kernel, and that the kernel holds a unit to such a limit."""
    limits = {
        unit: run_checked(end.gateway, "systemctl", "show", "-P", "EffectiveMemoryMax", unit).strip()
        for unit in ("drawbridge-agent.service", "drawbridge-metrics.service")
    }
    assert limits == {"drawbridge-agent.service": str(256 << 20), "drawbridge-metrics.service": str(128 << 20)}
    run = ["systemd-run", "--quiet", "--wait", "--collect", "-p", "MemoryMax=32M", "-p", "MemorySwapMax=0"]
    assert end.gateway.run([*run, "python3", "-c", "bytearray(1 << 20)"], timeout=120).returncode == 0, "the control"
    assert end.gateway.run([*run, "python3", "-c", "bytearray(96 << 20)"], timeout=120).returncode != 0
    return "agent 256 MiB, metrics 128 MiB; more is killed"


def check_device_policy(world: World, end: Deployment) -> str:
    """Show that a process in an OpenVPN unit's cgroup opens /dev/net/tun and no disk."""
    for unit in world.units(end):
        group = run_checked(end.gateway, "systemctl", "show", "-P", "ControlGroup", unit).strip()
        join = f"echo $$ >'/sys/fs/cgroup{group}/cgroup.procs' && "
        assert end.gateway.run(["sh", "-c", "head -c1 /dev/vda >/dev/null"]).returncode == 0, "the control"
        run_checked(end.gateway, "sh", "-c", f"{join} exec 3<>/dev/net/tun")
        disk = end.gateway.run(["sh", "-c", f"{join} exec head -c1 /dev/vda"])
        assert disk.returncode and "Operation not permitted" in disk.stderr, disk
    return ", ".join(world.units(end))


def check_modules(world: World, end: Deployment) -> str:
    """Show that the modules are loaded, and that nothing but the gateway's own units asked for them."""
    modules = {"tun", "nf_tables", "nf_conntrack"}
    modules |= {"bonding"} if world.name == "pair" else {"bridge"} if world.name != "lab" else set()
    loaded = {line.split()[0] for line in run_checked(end.gateway, "cat", "/proc/modules").splitlines()}
    assert modules <= loaded
    return ", ".join(sorted(modules))


def check_network(world: World, end: Deployment) -> str:
    """Show that netplan's file is in use, that the boot waited for ens5 alone, and that DHCP gave the address."""
    host = end.gateway
    assert run_checked(host, "systemctl", "is-active", "systemd-networkd-wait-online").strip() == "active"
    commands = run_checked(host, "systemctl", "show", "-P", "ExecStart", "systemd-networkd-wait-online")
    assert set(re.findall(r" -i ([^ :]+)", commands)) == {"ens5"}, commands
    status = json.loads(run_checked(host, "networkctl", "--json=short", "status", "ens5"))
    assert (status["AdministrativeState"], status["OperationalState"]) == ("configured", "routable")
    assert "netplan" in status["NetworkFile"]
    kinds = sorted({address["ConfigSource"] for address in status["Addresses"] if "ConfigSource" in address})
    assert "DHCPv4" in kinds
    assert world.name != "ipv6" or "DHCPv6" in kinds
    times = [f"{edge}TimestampMonotonic" for edge in ("InactiveExit", "ActiveEnter")]
    show = ["systemctl", "show", "-P", ",".join(times), "systemd-networkd-wait-online"]
    start, online = map(int, run_checked(host, *show).split())
    return f"{', '.join(kinds)}; MTU {status['MTU']}; waited {(online - start) / 1e6:.0f} s"


def count(host: Host, counter: str) -> int:
    """Return a counter of the gateway's own table."""
    text = run_checked(host, "nft", "--json", "list", "counter", "inet", "drawbridge", counter)
    return int(next(entry["counter"]["packets"] for entry in json.loads(text)["nftables"] if "counter" in entry))


def interface_mac(host: Host) -> str:
    return run_checked(host, "cat", "/sys/class/net/ens5/address").strip()


def check_filter(world: World, end: Deployment) -> str:
    """Show that packets meet the table: one to a closed port is counted, one to the tunnel's port is not."""
    host, mac = end.gateway, interface_mac(end.gateway)
    target = IPv4Address(end.outputs["privateIp"])
    number = world.ends.index(end)
    peer = IPv4Address(world.ends[1 - number].outputs["publicIp"] if len(world.ends) > 1 else "203.0.113.200")
    before = count(host, "refused_input")
    for _ in range(3):
        inject_datagram(host, mac, source=peer, target=target, port=world.stack.settings.tunnel.port + number)
    assert count(host, "refused_input") == before, "the control"
    for _ in range(3):
        inject_datagram(host, mac, source=peer, target=target, port=4789)
    until(lambda: count(host, "refused_input") >= before + 3, 10)
    assert "NOT IN FORCE" not in run_checked(host, "journalctl", "--no-pager", "-b", "-u", "drawbridge-nftables")
    return f"{count(host, 'refused_input') - before} of 3 refused"


def check_conntrack(world: World, end: Deployment) -> str:
    """Show the size of the connection table and how long it keeps an idle connection."""
    root = "/proc/sys/net/netfilter/nf_conntrack_"
    names = ("max", "buckets", "tcp_timeout_established")
    values = dict(zip(names, run_checked(end.gateway, "cat", *(root + name for name in names)).split(), strict=True))
    assert values["max"] == "65536" and values["tcp_timeout_established"] == "7440"
    return ", ".join(f"{name} {value}" for name, value in values.items())


def check_reverse_path(world: World, end: Deployment) -> str:
    """Show that a source of the tunnel's that comes in by ens5 is dropped by the kernel, and a right one is not."""
    host, mac, target = end.gateway, interface_mac(end.gateway), IPv4Address(end.outputs["privateIp"])

    def dropped() -> int:
        return int(run_checked(host, "nstat", "-asz", "TcpExtIPReversePathFilter").split()[-2])

    before = dropped()
    inject_datagram(host, mac, source=IPv4Address("198.51.100.7"), target=target, port=4789)
    assert dropped() == before, "the control"
    forged = world.stack.settings.tunnel.pool.network_address + 77
    for _ in range(3):
        inject_datagram(host, mac, source=forged, target=target, port=4789)
    until(lambda: dropped() >= before + 3, 10)
    values = run_checked(host, "sh", "-c", "grep -H . /proc/sys/net/ipv4/conf/*/rp_filter | cut -d/ -f7-")
    return "; ".join(values.replace("/rp_filter:", " ").split("\n")).strip("; ")


CHECKS: dict[str, Callable[[World, Deployment], str]] = {
    "cgroup v2": check_cgroup,
    "MemoryMax": check_memory_max,
    "DevicePolicy": check_device_policy,
    "modules": check_modules,
    "netplan, DHCP, wait-online": check_network,
    "nftables in force": check_filter,
    "conntrack": check_conntrack,
    "strict rp_filter": check_reverse_path,
}


@pytest.mark.parametrize("check", CHECKS)
def test_state(world: World, check: str, record_property: Figure) -> None:
    figures = [CHECKS[check](world, end) for end in world.ends]
    record_property("figure", "; ".join(dict.fromkeys(figures)))


def read_peaks(host: Host, units: list[str]) -> dict[str, int]:
    """Return the most memory, MiB, that each unit has used in any run of this boot, also in one that goes on."""
    text = run_checked(host, "systemctl", "show", "-p", "Id,MemoryPeak", *units)
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    runs = [(block["Id"], int(block["MemoryPeak"])) for block in blocks if block["MemoryPeak"].isdigit()]
    journal = run_checked(host, "journalctl", "-b", "-o", "json", f"MESSAGE_ID={RESOURCES}", timeout=300)
    entries = [json.loads(line) for line in journal.splitlines()]
    runs += [(entry["UNIT"], int(entry["MEMORY_PEAK"])) for entry in entries if "MEMORY_PEAK" in entry]
    return {unit: max(peak for name, peak in runs if name == unit) >> 20 for unit in units}


def wait_run(host: Host, unit: str) -> None:
    """Wait until a unit has run and no run goes on."""
    show = ["systemctl", "show", "-P", "ExecMainExitTimestampMonotonic", unit]
    until(lambda: run_checked(host, *show).strip() not in ("", "0"), BOOT)


def test_memory(world: World, record_property: Figure) -> None:
    """Each unit's peak. A run of the metrics may still have to come."""
    for end in world.ends:
        agent, metrics = "drawbridge-agent.service", "drawbridge-metrics.service"
        wait_run(end.gateway, metrics)
        assert run_checked(end.gateway, "systemctl", "show", "-P", "Result", metrics).strip() == "success"
        peaks = read_peaks(end.gateway, [*world.units(end), agent, metrics])
        figure = ", ".join(f"{unit.removesuffix('.service')} {peak} MiB" for unit, peak in peaks.items())
        record_property("figure", figure)
        assert peaks[agent] < 256 and peaks[metrics] < 128


@pytest.mark.parametrize("world", ["pair"], indirect=True, scope="module")
def test_no_packet_for_metadata_comes_out_of_the_bond(world: World, record_property: Figure) -> None:
    """The other gateway asks for this one's credentials over the bond; this gateway's filter drops it."""
    first, second = world.gateways
    mac = run_checked(first, "cat", "/sys/class/net/bond0/address").strip()
    run_checked(second, "ip", "neigh", "replace", "169.254.169.254", "lladdr", mac, "dev", "bond0")
    try:
        before = count(first, "metadata")
        done = second.run(["ping", "-n", "-c", "3", "-W", "1", "-I", "bond0", "169.254.169.254"])
        assert done.returncode == 1
        until(lambda: count(first, "metadata") >= before + 3, 10)
        assert ping(second, bonded.bond_address(first), 5) is not None, "the control"
        record_property("figure", f"{count(first, 'metadata') - before} of 3 dropped")
    finally:
        run_checked(second, "ip", "neigh", "delete", "169.254.169.254", "dev", "bond0")


@pytest.mark.parametrize("world", ["lab"], indirect=True, scope="module")
def test_an_unattended_upgrade_fits(world: World, tmp_path: Path, record_property: Figure) -> None:
    """A newer OpenVPN is offered as Debian's; the daily unit installs it within the machine's memory."""
    host = world.stack.gateway
    before = packages.installed_version(host, UPGRADED)
    packages.offer_newer(host, UPGRADED, tmp_path)
    packages.install_upgrades(host, 1800)
    after = packages.installed_version(host, UPGRADED)
    peak = int(run_checked(host, "systemctl", "show", "-P", "MemoryPeak", "apt-daily-upgrade.service")) >> 20
    log = run_checked(host, "sh", "-c", "cat /var/log/unattended-upgrades/*.log; journalctl -k --no-pager | tail -50")
    record_property("figure", f"{before} -> {after}, MemoryPeak {peak} MiB")
    assert after.endswith("+newer"), log
    assert "Out of memory" not in log
    client = world.stack.region.host(world.stack.settings.clients[0].name)
    assert ping(client, world.stack.outputs["privateIp"], 120) is not None


def boot_id(host: Host) -> str:
    try:
        return host.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
    except (MachineDown, LabError):
        return ""


@pytest.mark.parametrize("world", ["lab", "pair"], indirect=True, scope="module")
def test_all_comes_back_after_a_reboot(world: World, record_property: Figure) -> None:
    end, start = world.stack, time.monotonic()
    before, units = boot_id(end.gateway), world.units(end)
    end.client("ec2").reboot_instances(InstanceIds=[end.outputs["gatewayInstanceId"]])
    until(lambda: boot_id(end.gateway) not in ("", before), BOOT)
    state = end.gateway.wait_booted(BOOT)
    failed = run_checked(end.gateway, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
    record_property("figure", f"{state} after {time.monotonic() - start:.0f} s")
    assert state == "running", failed
    assert run_checked(end.gateway, "systemctl", "is-active", *units).split() == ["active"] * len(units)
    if world.name == "pair":
        for gateway in pair.find_gateways(world.stack):
            assert bonded.check_bond(gateway).ok
    else:
        client = end.region.host(end.settings.clients[0].name)
        assert ping(client, end.outputs["privateIp"], 180) is not None


@pytest.mark.parametrize("world", ["lab", "pair"], indirect=True, scope="module")
@pytest.mark.parametrize("check", CHECKS)
def test_state_after_the_reboot(world: World, check: str, record_property: Figure) -> None:
    record_property("figure", CHECKS[check](world, world.stack))
