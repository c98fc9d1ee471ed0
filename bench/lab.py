"""Figures of the lab: how soon packets follow the API, how much it carries, how many machines it bears."""

import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from typing import Any

import boto3

from lab.linux import run, within
from lab.namespaces import add_namespace, delete_namespace
from lab.region import Region, disposable_region

IMAGE = "ami-0debian13amd64"
INSTANCES = 50
RULES = 2000
RULES_OF_A_GROUP = 50
SECONDS = 3.0

_RECEIVE = """
import socket, sys, time
s = socket.create_server(("", 5001)); print("ready", flush=True)
c, _ = s.accept(); view = bytearray(1 << 20); total = 0; start = time.monotonic()
while n := c.recv_into(view): total += n
print(total * 8 / (time.monotonic() - start) / 1e9)
"""
_SEND = """
import socket, sys, time
c = socket.create_connection((sys.argv[1], 5001)); data = bytes(1 << 20); end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end: c.sendall(data)
"""


def measure_lab() -> Iterator[str]:
    """Yield a line for each figure."""
    with disposable_region(boots=False) as wires:
        yield from _measure_reaction(wires)
        yield from _measure_rules(wires)
        yield from _measure_throughput(wires)
    with disposable_region(boots=True) as booting:
        yield from _measure_boot(booting)
        yield from _measure_many_boots(booting)


def _ec2_client(running: Region) -> Any:
    keys = running.environment
    return boto3.client(
        "ec2",
        region_name="eu-west-1",
        endpoint_url=running.endpoint,
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )


def _create_subnet(ec2: Any) -> tuple[str, str]:
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    return vpc, ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.0.0/24")["Subnet"]["SubnetId"]


def _create_group(ec2: Any, vpc: str, *ranges: IPv4Network) -> str:
    name = secrets.token_hex(4)
    group = str(ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"])
    if ranges:
        listed = [{"CidrIp": str(network)} for network in ranges]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": listed}])
    return group


def _launch_instances(ec2: Any, subnet: str, *groups: str, count: int = 1) -> list[tuple[str, str]]:
    """Launch instances; return their ids and addresses."""
    instances = ec2.run_instances(
        ImageId=IMAGE, InstanceType="t3.nano", MinCount=count, MaxCount=count,
        NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet, "Groups": list(groups)}],
    )["Instances"]  # fmt: skip
    return [(instance["InstanceId"], instance["PrivateIpAddress"]) for instance in instances]


def _measure_reaction(running: Region) -> Iterator[str]:
    ec2 = _ec2_client(running)
    vpc, subnet = _create_subnet(ec2)
    group = _create_group(ec2, vpc)
    [(_, address)], [(caller, _)] = _launch_instances(ec2, subnet, group), _launch_instances(ec2, subnet, group)
    running.wait_reconciled()
    namespace = running.host(caller).namespace
    rule = [{"IpProtocol": "tcp", "FromPort": 9, "ToPort": 9, "IpRanges": [{"CidrIp": "10.7.0.0/16"}]}]
    durations = []
    for _ in range(10):
        start = time.monotonic()
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
        while not _is_refused(namespace, address):
            pass
        durations.append(time.monotonic() - start)
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rule)
        running.wait_reconciled()
    most = max(durations)
    yield f"{statistics.median(durations):8.2f} s  from an API call to its packets, median of 10 ({most:.2f} s at most)"


def _is_refused(namespace: str, address: str) -> bool:
    """Return whether the instance refuses a connection, which shows that packets pass."""
    with within(namespace, lambda: socket.socket()) as attempt:
        attempt.settimeout(0.02)
        try:
            attempt.connect((address, 9))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True


def _measure_rules(running: Region) -> Iterator[str]:
    ec2 = _ec2_client(running)
    vpc, subnet = _create_subnet(ec2)
    networks = list(IPv4Network("172.16.0.0/12").subnets(new_prefix=24))[:RULES]
    groups = []
    for start in range(0, RULES, RULES_OF_A_GROUP):
        groups.append(_create_group(ec2, vpc))
        permissions = [
            {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": str(network)}]}
            for port, network in enumerate(networks[start : start + RULES_OF_A_GROUP], start=1 + start)
        ]
        ec2.authorize_security_group_ingress(GroupId=groups[-1], IpPermissions=permissions)
    running.wait_reconciled()
    start_time = time.monotonic()
    _launch_instances(ec2, subnet, *groups)
    running.wait_reconciled()
    yield f"{time.monotonic() - start_time:8.2f} s  from RunInstances to {RULES} rules of its groups in force"


def _measure_throughput(running: Region) -> Iterator[str]:
    ec2 = _ec2_client(running)
    vpc, subnet = _create_subnet(ec2)
    group = _create_group(ec2, vpc, IPv4Network("10.7.0.0/16"))
    [(near, _)], [(far, address)] = _launch_instances(ec2, subnet, group), _launch_instances(ec2, subnet, group)
    running.wait_reconciled()
    near_end, far_end = f"{running.name}-bare1", f"{running.name}-bare2"
    try:
        for name in (near_end, far_end):
            add_namespace(name)
        run("ip", "-n", near_end, "link", "add", "v0", "mtu", "9001", "type", "veth",
            "peer", "name", "v0", "mtu", "9001", "netns", far_end)  # fmt: skip
        for name, address_there in ((near_end, "192.0.2.1/30"), (far_end, "192.0.2.2/30")):
            run("ip", "-n", name, "address", "add", address_there, "dev", "v0")
            run("ip", "-n", name, "link", "set", "v0", "up")
        routed, bare = [], []
        for _ in range(3):  # in turns, since others use this machine too
            bare.append(_measure_gigabits(near_end, far_end, "192.0.2.2"))
            routed.append(_measure_gigabits(running.host(near).namespace, running.host(far).namespace, address))
    finally:
        for name in (near_end, far_end):
            delete_namespace(name)
    ours, best = max(routed), max(bare)
    yield f"{ours / best:8.0%}    of a bare veth pair's throughput through the router ({ours:.1f} of {best:.1f} Gbit/s)"


def _measure_gigabits(sender: str, receiver: str, address: str) -> float:
    with subprocess.Popen(_python_argv(receiver, _RECEIVE), stdout=subprocess.PIPE, text=True) as receiving:
        assert receiving.stdout
        receiving.stdout.readline()
        subprocess.run([*_python_argv(sender, _SEND), address, str(SECONDS)], check=True)
        return float(receiving.stdout.read())


def _python_argv(namespace: str, text: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, sys.executable, "-c", text]


def _measure_boot(running: Region) -> Iterator[str]:
    ec2 = _ec2_client(running)
    vpc, subnet = _create_subnet(ec2)
    start = time.monotonic()
    [(instance, _)] = _launch_instances(ec2, subnet, _create_group(ec2, vpc))
    running.host(instance).wait_booted(120)
    yield f"{time.monotonic() - start:8.2f} s  from RunInstances to a machine that is up"
    ec2.terminate_instances(InstanceIds=[instance])
    running.wait_reconciled()


def _measure_many_boots(running: Region) -> Iterator[str]:
    ec2 = _ec2_client(running)
    vpc, subnet = _create_subnet(ec2)
    before, start = running.memory(), time.monotonic()
    instances = _launch_instances(ec2, subnet, _create_group(ec2, vpc), count=INSTANCES)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda launched: running.host(launched[0], timeout=300).wait_booted(300), instances))
    seconds = time.monotonic() - start
    used = running.memory() - before
    yield f"{seconds:8.1f} s  from RunInstances to {INSTANCES} machines up, in {used / 2**30:.1f} GiB of memory"
