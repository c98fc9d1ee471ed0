"""The life of instances that really boot: user data, reboot, stop and start, another root volume, termination.

Does not prove how long AWS takes for each.
"""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.region import Host, Region
from tests.support import waiting
from tests.support.cloud import ALL, Cloud, Instance

#: A line each time that user data runs.
RAN = "/var/lib/ran"
USER_DATA = f"#!/bin/sh\necho run >> {RAN}\n"
BOOT = 60.0


@pytest.fixture(scope="module")
def cloud(region: Region) -> Iterator[Cloud]:
    made = Cloud(region)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def neighbour(cloud: Cloud) -> Instance:
    """An instance in a VPC whose subnets the others share; it pings them."""
    vpc = cloud.vpc("10.5.0.0/16", ipv6=True)
    return cloud.instance(vpc.subnet(), vpc.group([ALL]), InstanceType="t3.small", card={"Ipv6AddressCount": 1})


def launch(cloud: Cloud, neighbour: Instance, **options: Any) -> Instance:
    described = cloud.ec2.describe_instances(InstanceIds=[neighbour.id])["Reservations"][0]["Instances"][0]
    group = described["NetworkInterfaces"][0]["Groups"][0]["GroupId"]
    return cloud.instance(described["SubnetId"], group, UserData=USER_DATA, **options)


@pytest.fixture(scope="module")
def one(cloud: Cloud, neighbour: Instance) -> Instance:
    """An instance that has run its user data."""
    made = launch(cloud, neighbour)
    booted(cloud, made)
    return made


def booted(cloud: Cloud, instance: Instance, *, after: str = "") -> Host:
    """The instance's machine once it is up and user data had its turn, in another boot than `after`."""

    def up() -> Host | None:
        host = cloud.region.host(instance.id)
        if boot_of(host) in ("", after):
            return None
        state = host.run(["cloud-init", "status"]).stdout
        return host if "done" in state or "disabled" in state else None

    return waiting.until(up, BOOT)


def boot_of(host: Host) -> str:
    """What tells one boot of a machine from the next: when its PID 1 started."""
    return host.run(["stat", "-c", "%Y.%i", "/proc/1"]).stdout.strip() + str(host.leader)


def runs(host: Host) -> int:
    return host.run(["cat", RAN]).stdout.count("run")


def state(cloud: Cloud, instance: Instance) -> str:
    found = cloud.ec2.describe_instances(InstanceIds=[instance.id])["Reservations"][0]["Instances"][0]
    return str(found["State"]["Name"])


def test_user_data_runs_at_the_first_boot(cloud: Cloud, one: Instance) -> None:
    """Amazon EC2 User Guide, "Run commands when you launch an EC2 instance with user data input"."""
    assert runs(cloud.region.host(one.id)) == 1


def test_machines_share_no_control_group(cloud: Cloud, neighbour: Instance, one: Instance) -> None:
    """Where they do, a machine's systemd removes the groups of units that another one starts."""
    mine, others = (
        {
            line
            for line in Path(f"/proc/{booted(cloud, machine).leader}/cgroup").read_text().splitlines()
            if "init.scope" in line
        }
        for machine in (neighbour, one)
    )
    assert mine and others and not mine & others


def test_memory_is_that_of_the_type(cloud: Cloud, neighbour: Instance, one: Instance) -> None:
    """Amazon EC2 Instance Types: a t3.nano has 512 MiB, a t3.small 2 GiB."""
    take = ["python3", "-c", "print(len(b'x' * (600 << 20)))"]
    assert cloud.region.host(one.id).run(take).returncode == -signal.SIGKILL
    assert booted(cloud, neighbour).run(take).stdout.strip() == str(600 << 20)
    assert booted(cloud, one), "the others of its processes run on"


@pytest.mark.attack("10.8")
def test_a_machine_does_not_reach_the_hosts_loopback(cloud: Cloud, one: Instance) -> None:
    ask = ["curl", "-sS", "-m", "5", f"http://127.0.0.1:{cloud.region.port}/"]
    assert cloud.region.host(one.id).run(ask).returncode == 7  # curl's 7: connection refused
    with socket.create_connection(("127.0.0.1", cloud.region.port), timeout=5):
        pass  # the control: it listens there


@pytest.mark.parametrize("by", ["the API", "itself"])
def test_a_reboot_keeps_all_and_runs_user_data_no_more(
    cloud: Cloud, neighbour: Instance, one: Instance, by: str
) -> None:
    """Amazon EC2 User Guide, "Reboot your Amazon EC2 instance"."""
    host = cloud.region.host(one.id)
    before = boot_of(host)
    if by == "itself":
        waiting.take_down(host, "reboot")
    else:
        cloud.ec2.reboot_instances(InstanceIds=[one.id])
    again = booted(cloud, one, after=before)

    assert runs(again) == 1
    assert state(cloud, one) == "running"
    waiting.until(lambda: neighbour.pings(one.address), 10)


def test_stop_and_start_keep_the_disk_and_the_address(cloud: Cloud, neighbour: Instance, one: Instance) -> None:
    """Amazon EC2 User Guide, "Stop and start Amazon EC2 instances"."""
    host = cloud.region.host(one.id)
    host.run(["touch", "/var/lib/kept"])
    cloud.ec2.stop_instances(InstanceIds=[one.id])
    assert state(cloud, one) == "stopping", "its system says its goodbyes first"
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        cloud.ec2.start_instances(InstanceIds=[one.id])
    waiting.until(lambda: state(cloud, one) == "stopped", 30)
    assert not neighbour.pings(one.address)

    cloud.ec2.start_instances(InstanceIds=[one.id])
    again = booted(cloud, one)
    assert again.address == one.address
    assert again.run(["test", "-e", "/var/lib/kept"]).returncode == 0
    assert runs(again) == 1
    waiting.until(lambda: neighbour.pings(one.address), 10)


def test_a_replaced_root_volume_is_as_at_launch(cloud: Cloud, neighbour: Instance, one: Instance) -> None:
    """Amazon EC2 User Guide, "Replace the root volume for an Amazon EC2 instance without stopping it"."""
    host = cloud.region.host(one.id)
    host.run(["touch", "/var/lib/gone"])
    before = boot_of(host)
    task = cloud.ec2.create_replace_root_volume_task(InstanceId=one.id)["ReplaceRootVolumeTask"]
    assert task["TaskState"] == "pending"
    again = booted(cloud, one, after=before)

    described = cloud.ec2.describe_replace_root_volume_tasks(ReplaceRootVolumeTaskIds=[task["ReplaceRootVolumeTaskId"]])
    assert described["ReplaceRootVolumeTasks"][0]["TaskState"] == "succeeded"
    assert again.run(["test", "-e", "/var/lib/gone"]).returncode == 1
    assert runs(again) == 1, "the new disk has not seen user data run"
    waiting.until(lambda: neighbour.pings(one.address), 10)


def test_an_instance_that_powers_itself_off_is_stopped(cloud: Cloud, one: Instance) -> None:
    """Amazon EC2 User Guide, "Change the instance initiated shutdown behavior": stop."""
    waiting.take_down(cloud.region.host(one.id), "poweroff")
    waiting.until(lambda: state(cloud, one) == "stopped", 30)


def test_an_image_of_a_stopped_instance_has_its_disk(cloud: Cloud, neighbour: Instance, one: Instance) -> None:
    """Amazon EC2 User Guide, "Create an Amazon EBS-backed AMI", "Deregister an Amazon EC2 AMI"."""
    waiting.until(lambda: state(cloud, one) == "stopped", 30)
    image = cloud.ec2.create_image(InstanceId=one.id, Name="one")["ImageId"]
    with pytest.raises(ClientError, match=r"InvalidAMIName\.Duplicate.*already in use by AMI"):
        cloud.ec2.create_image(InstanceId=one.id, Name="one")
    with pytest.raises(ClientError, match=r"InvalidAMIName\.Malformed"):
        cloud.ec2.create_image(InstanceId=one.id, Name="!?*")

    def described() -> dict[str, Any]:
        [description] = cloud.ec2.describe_images(ImageIds=[image])["Images"]
        return dict(description)

    waiting.until(lambda: described()["State"] == "available", 60)
    assert described()["Architecture"] == "x86_64"
    snapshot = described()["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    made = launch(cloud, neighbour, ImageId=image)
    assert runs(booted(cloud, made)) == 2, "its cloud-init has not run for this instance"

    with pytest.raises(ClientError, match=r"InvalidSnapshot\.InUse"):
        cloud.ec2.delete_snapshot(SnapshotId=snapshot)
    cloud.ec2.deregister_image(ImageId=image)
    with pytest.raises(ClientError, match=r"InvalidAMIID\.NotFound"):
        launch(cloud, neighbour, ImageId=image)
    cloud.ec2.delete_snapshot(SnapshotId=snapshot)
    with pytest.raises(ClientError, match=r"InvalidSnapshot\.NotFound"):
        cloud.ec2.describe_snapshots(SnapshotIds=[snapshot])
    before = boot_of(cloud.region.host(made.id))
    cloud.ec2.reboot_instances(InstanceIds=[made.id])
    assert runs(booted(cloud, made, after=before)) == 2, "an instance outlives its image"
    cloud.ec2.terminate_instances(InstanceIds=[made.id])


def test_or_terminated_where_its_launch_says_so(cloud: Cloud, neighbour: Instance) -> None:
    """Amazon EC2 User Guide, "Change the instance initiated shutdown behavior": terminate."""
    made = launch(cloud, neighbour, InstanceInitiatedShutdownBehavior="terminate")
    waiting.take_down(booted(cloud, made), "poweroff")
    waiting.until(lambda: state(cloud, made) == "terminated", 30)


def test_a_terminated_instance_says_goodbye_and_leaves_nothing(cloud: Cloud, neighbour: Instance) -> None:
    """Amazon EC2 User Guide, "Terminate Amazon EC2 instances": its system shuts down first, on a network that works;
    then its root volume and its own interface go with it."""
    made = launch(cloud, neighbour)
    host = booted(cloud, made)
    directory = cloud.region.directory / "machines" / made.id
    goodbye = f"/bin/bash -c 'sleep 1; echo farewell > /dev/udp/{neighbour.address}/9'"
    properties = [f"--property={text}" for text in (f"ExecStop={goodbye}", "After=network.target")]
    host.run(["systemd-run", "--unit=polite", *properties, "sleep", "infinity"])
    waiting.until(lambda: host.run(["systemctl", "is-active", "polite"]).returncode == 0, 20)

    with neighbour.captures(0x0800) as frames:
        cloud.ec2.terminate_instances(InstanceIds=[made.id])
        assert state(cloud, made) == "shutting-down"
        with pytest.raises(ClientError, match="IncorrectInstanceState"):
            cloud.ec2.stop_instances(InstanceIds=[made.id])
        waiting.until(lambda: frames.has(b"farewell"), 30)
    waiting.until(lambda: state(cloud, made) == "terminated", 40)
    left_over = (directory, Path(f"/proc/{host.leader}"), Path("/run/netns", made.namespace))
    waiting.until(lambda: not any(path.exists() for path in left_over), 20)
    with pytest.raises(ClientError, match="InvalidNetworkInterfaceID"):
        cloud.ec2.describe_network_interfaces(NetworkInterfaceIds=[made.interface])


def test_a_machine_has_the_name_resolution_and_metadata_of_its_vpc(cloud: Cloud, neighbour: Instance) -> None:
    """Amazon VPC User Guide, "DNS attributes for your VPC"."""
    host = booted(cloud, neighbour)
    assert host.run(["getent", "hosts", "ssm.eu-west-1.amazonaws.com"]).stdout.split()[0] == "192.0.2.10"
    assert host.run(["cat", "/var/lib/cloud/data/instance-id"]).stdout.strip() == neighbour.id


def test_a_machine_asks_for_its_addresses_and_keeps_its_lease(cloud: Cloud, neighbour: Instance) -> None:
    """Amazon VPC User Guide, "DHCP option sets in Amazon VPC"; Amazon EC2 User Guide, "IP addressing"."""
    host = booted(cloud, neighbour)

    def lifetimes() -> dict[str, int]:
        """Seconds that each address that came by DHCP stays valid without a renewal."""
        [interface] = json.loads(host.run(["ip", "-j", "address", "show", "dev", "ens5"]).stdout)
        return {a["local"]: a["valid_life_time"] for a in interface["addr_info"] if a.get("dynamic")}

    waiting.until(lambda: lifetimes().keys() == {neighbour.address, neighbour.address6}, 20)
    for family, protocol in (("-4", "dhcp"), ("-6", "ra")):
        [route] = json.loads(host.run(["ip", family, "-j", "route", "show", "default"]).stdout)
        assert (route["dev"], route["protocol"]) == ("ens5", protocol)
    assert host.run(["resolvectl", "dns", "ens5"]).stdout.split()[-1] == "10.5.0.2"
    assert host.run(["resolvectl", "domain", "ens5"]).stdout.split()[-1] == "eu-west-1.compute.internal"
    assert host.run(["cat", "/sys/class/net/ens5/mtu"]).stdout.strip() == "9001"

    shorter = [f"{neighbour.address}/24", "dev", "ens5", "valid_lft", "60", "preferred_lft", "60"]
    host.run(["ip", "address", "change", *shorter])
    assert lifetimes()[neighbour.address] <= 60
    host.run(["networkctl", "renew", "ens5"])
    waiting.until(lambda: lifetimes()[neighbour.address] > 3000, 20)
