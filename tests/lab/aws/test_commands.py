"""Commands in machines that go down, and what a region gets because a stack file names it.

A command ends within seconds of its machine, and the machine's next boot answers.

Does not prove it of machines with a kernel of their own beyond a power cut.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from drawbridge.operate.stack_records import load_record
from drawbridge.trial.adoption import adopt, remove_adopted
from lab.errors import MachineDown
from lab.linux import Process
from lab.region import Host, Region
from settings.parse import parse
from tests.support import waiting
from tests.support.cloud import client

#: A system takes a few seconds to shut down, and more on a busy machine.
SECONDS = 20.0


@pytest.fixture(scope="module")
def host(region: Region) -> Iterator[Host]:
    region.add_site("home", public=IPv4Address("203.0.113.30"), lan=IPv4Network("192.168.30.0/24"))
    host = region.add_host("guest", site="home")
    host.wait_booted()
    yield host


def reboot(region: Region) -> None:
    region.reboot_host("guest")


def lose_power(region: Region) -> None:
    region.cut_power("guest")
    region.power_on("guest")


@pytest.mark.parametrize("go_down", [reboot, lose_power])
def test_a_command_ends_with_its_machine_and_the_next_boot_takes_the_next_one(
    region: Region, host: Host, go_down: Callable[[Region], None]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        command = pool.submit(host.run, ["sleep", "infinity"], timeout=300)
        waiting.until(lambda: host.run(["pgrep", "-x", "sleep"]).returncode == 0, 10)
        begin = time.monotonic()
        go_down(region)
        with pytest.raises(MachineDown):
            command.result(60)
    assert time.monotonic() - begin < SECONDS

    assert host.wait_booted() in ("running", "degraded")
    assert host.run(["pgrep", "-x", "sleep"]).returncode == 1


def test_commands_at_any_moment_of_a_reboot_end_soon(region: Region, host: Host) -> None:
    boot = boot_of(host)
    slowest = 0.0

    def run_for_a_while(_: int) -> None:
        nonlocal slowest
        while not ended:
            begin = time.monotonic()
            try:
                host.run(["true"])
            except MachineDown:
                time.sleep(0.02)
            slowest = max(slowest, time.monotonic() - begin)

    ended: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        try:
            commands = [pool.submit(run_for_a_while, number) for number in range(4)]
            reboot(region)
            waiting.until(lambda: boot_of(host) != boot, 60)
        finally:
            ended.append("the test")
    for command in commands:
        command.result()
    assert slowest < SECONDS


def find_container(host: Host) -> Process:
    """Find the process that runs a host's container: the parent of its PID 1."""
    parent = Path(f"/proc/{host.leader}/stat").read_text().rsplit(")", 1)[1].split()[1]
    container = Process.of(int(parent))
    assert container
    return container


def test_a_machine_that_is_off_says_so_at_once_and_can_start_again_at_once(region: Region, host: Host) -> None:
    container = find_container(region.host("guest"))
    region.cut_power("guest")
    assert not container.runs, "it has the machine's files locked until it has ended"
    begin = time.monotonic()
    with pytest.raises(MachineDown, match="guest is down"):
        host.run(["true"])
    assert time.monotonic() - begin < 5
    region.power_on("guest")
    host.wait_booted()


def boot_of(host: Host) -> str:
    return host.run(["cat", "/proc/1/stat"]).stdout.split(")")[-1].split()[19]


#: What only an account has, as a stack file names it.
ACCOUNTS_OWN: dict[str, Any] = {
    "aws:region": "eu-west-1",
    "drawbridge:network": {
        "vpcId": "vpc-0123456789abcdef0",
        "subnetId": "subnet-0123456789abcdef0",
        "routeTableIds": ["rtb-0123456789abcdef0", "rtb-0fedcba9876543210"],
    },
    "drawbridge:tunnel": {"pool": "10.1.200.0/24"},
    "drawbridge:secrets": {"key": "arn:aws:kms:eu-west-1:210987654321:key/11111111-2222-3333-4444-555555555555"},
    "drawbridge:iam": {"permissionsBoundary": "arn:aws:iam::210987654321:policy/team/bound"},
    "drawbridge:gateway": {"image": "ami-0123456789abcdef0"},
    "drawbridge:clients": [{"name": "home", "lan": ["10.2.0.0/16"]}],
}


def test_what_a_stack_file_names_and_only_its_account_has_is_made_once_and_removed(region: Region) -> None:
    settings = parse(ACCOUNTS_OWN, stack="adopted", endpoint="http://127.0.0.1")
    before = _count_resources(region)
    first, again = (adopt(region, settings, ACCOUNTS_OWN, lambda _: None) for _ in range(2))
    assert first == again
    more = [*ACCOUNTS_OWN["drawbridge:network"]["routeTableIds"], "rtb-00000000000000001"]
    changed = {**ACCOUNTS_OWN, "drawbridge:network": {**ACCOUNTS_OWN["drawbridge:network"], "routeTableIds": more}}
    third = adopt(region, settings, changed, lambda _: None)["drawbridge:network"]["routeTableIds"]
    assert third[:2] == first["drawbridge:network"]["routeTableIds"] and len(set(third)) == 3
    network = first["drawbridge:network"]
    ec2, kms, iam = (client(region, service) for service in ("ec2", "kms", "iam"))
    (vpc,) = ec2.describe_vpcs(VpcIds=[network["vpcId"]])["Vpcs"]
    assert vpc["CidrBlock"] == "10.3.0.0/16", "it overlaps no range of the stack"
    (subnet,) = ec2.describe_subnets(SubnetIds=[network["subnetId"]])["Subnets"]
    assert subnet["VpcId"] == network["vpcId"]
    tables = ec2.describe_route_tables(RouteTableIds=network["routeTableIds"])["RouteTables"]
    by_id = {table["RouteTableId"]: table for table in tables}
    private = by_id[network["routeTableIds"][0]]["Associations"][0]["SubnetId"]
    assert private != network["subnetId"], "the first route table is that of the private hosts"
    assert kms.describe_key(KeyId=first["drawbridge:secrets"]["key"])["KeyMetadata"]["Enabled"]
    assert iam.get_policy(PolicyArn=first["drawbridge:iam"]["permissionsBoundary"])["Policy"]["Path"] == "/team/"
    assert "image" not in first.get("drawbridge:gateway", {})

    record = load_record(region, "adopted")
    assert record is not None
    remove_adopted(region, record, "eu-west-1")
    assert _count_resources(region) == before
    assert load_record(region, "adopted") is None


def _count_resources(region: Region) -> dict[str, int]:
    ec2, iam = client(region, "ec2"), client(region, "iam")
    calls = {
        "Vpcs": ec2.describe_vpcs,
        "Subnets": ec2.describe_subnets,
        "RouteTables": ec2.describe_route_tables,
        "InternetGateways": ec2.describe_internet_gateways,
        "Policies": lambda: iam.list_policies(Scope="Local"),
    }
    return {kind: len(call()[kind]) for kind, call in calls.items()}
