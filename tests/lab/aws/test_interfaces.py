"""Network interfaces, by packets: source/destination check, own addresses, and what Ethernet does not do in a VPC.

Does not prove AWS's limits on addresses per interface.
"""

import socket
import struct
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support import waiting
from tests.support.cloud import ALL, Cloud, Instance

FOREIGN = "192.0.2.77"


def checked(cloud: Cloud, instance: Instance, on: bool) -> None:
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=instance.interface, SourceDestCheck={"Value": on})


def two(cloud: Cloud) -> tuple[Instance, Instance]:
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    group = vpc.group([ALL])
    return cloud.instance(subnet, group), cloud.instance(subnet, group)


def test_the_check_drops_what_an_interface_sends_from_a_foreign_address(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Source/destination checking"."""
    sender, receiver = two(cloud)
    sender.run("ip", "address", "add", f"{FOREIGN}/32", "dev", "lo", check=True)

    for check in (True, False):
        checked(cloud, sender, check)
        with receiver.captures() as seen:
            sender.pings(receiver.address, source=FOREIGN)
            assert seen.has(socket.inet_aton(FOREIGN)) is not check


def test_the_check_drops_what_comes_for_a_foreign_address(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Source/destination checking"."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    group = vpc.group([ALL])
    sender, router = cloud.instance(subnet, group), cloud.instance(subnet, group)
    vpc.route(vpc.main_table, "192.0.2.0/24", NetworkInterfaceId=router.interface)

    for check in (True, False):
        checked(cloud, router, check)
        with router.captures() as seen:
            sender.pings(FOREIGN)
            assert seen.has(socket.inet_aton(FOREIGN)) is not check


def test_secondary_private_addresses_are_own(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Secondary IP addresses for your EC2 instances"."""
    caller, holder = two(cloud)
    second = "10.1.0.200"
    holder.run("ip", "address", "add", f"{second}/32", "dev", "ens5", check=True)
    assert not caller.pings(second), "control: not assigned yet"

    cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=holder.interface, PrivateIpAddresses=[second])
    _ask_anew(caller)
    assert caller.pings(second)
    assert holder.pings(caller.address, source=second)

    cloud.ec2.unassign_private_ip_addresses(NetworkInterfaceId=holder.interface, PrivateIpAddresses=[second])
    assert not caller.pings(second)


def test_delegated_prefixes_are_own(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Assign prefixes to Amazon EC2 network interfaces": /28, of the subnet's range."""
    vpc = cloud.vpc()
    holder, caller = cloud.instance(vpc.subnet()), cloud.instance(vpc.subnet())
    made = cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=holder.interface, Ipv4PrefixCount=1)
    [prefix] = [IPv4Network(entry["Ipv4Prefix"]) for entry in made["AssignedIpv4Prefixes"]]
    assert prefix.prefixlen == 28 and prefix.subnet_of(IPv4Network("10.1.0.0/24"))
    address = str(prefix[3])
    holder.run("ip", "address", "add", f"{address}/32", "dev", "lo", check=True)
    assert caller.pings(address)
    with caller.serves(80):
        assert holder.calls(caller.address, 80, source=address) == address

    cloud.ec2.unassign_private_ip_addresses(NetworkInterfaceId=holder.interface, Ipv4Prefixes=[str(prefix)])
    assert not caller.pings(address)
    with caller.serves(80):
        assert holder.calls(caller.address, 80, source=address) is None


def test_prefixes_that_are_taken_or_none_are_refused(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Assign prefixes to Amazon EC2 network interfaces"."""
    subnet = cloud.vpc().subnet()

    def card(**wanted: Any) -> dict[str, Any]:
        made = cloud.ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress="10.1.0.40", **wanted)
        return dict(made["NetworkInterface"])

    made = card(Ipv4Prefixes=[{"Ipv4Prefix": "10.1.0.64/28"}])
    assert [entry["Ipv4Prefix"] for entry in made["Ipv4Prefixes"]] == ["10.1.0.64/28"]
    launched = cloud.instance(subnet, card={"Ipv4PrefixCount": 2})
    assert IPv4Address(launched.address) not in IPv4Network("10.1.0.64/28")
    # In use, an address in it in use, AWS's own first and last addresses, another subnet's, of another size, none.
    for wrong in ("64/28", "32/28", "0/28", "240/28", "256/28", "96/27", "72/28"):
        with pytest.raises(ClientError):
            cloud.ec2.assign_private_ip_addresses(
                NetworkInterfaceId=launched.interface, Ipv4Prefixes=[f"10.1.0.{wrong}"]
            )
    with pytest.raises(ClientError, match="InsufficientCidrBlocks"):
        cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=launched.interface, Ipv4PrefixCount=12)


def _ask_anew(caller: Instance) -> None:
    """Forget that an address was just asked for in vain: it would not be asked for again before a second is over."""
    caller.run("ip", "neighbour", "flush", "dev", "ens5", check=True)


def test_a_moved_interface_takes_its_addresses_along(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Elastic network interfaces": attach it to another instance."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    group = vpc.group([ALL])
    caller = cloud.instance(subnet, group)
    card = cloud.ec2.create_network_interface(SubnetId=subnet, Groups=[group], PrivateIpAddress="10.1.0.50")
    first = cloud.instance(subnet, interface=card["NetworkInterface"]["NetworkInterfaceId"])
    with first.serves(80):
        assert caller.calls("10.1.0.50", 80)

    cloud.ec2.terminate_instances(InstanceIds=[first.id])
    second = cloud.instance(subnet, interface=card["NetworkInterface"]["NetworkInterfaceId"])
    assert second.namespace != first.namespace
    with second.serves(80):
        assert caller.calls("10.1.0.50", 80)


def test_a_second_interface_is_a_second_card(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Elastic network interfaces": hot attach and detach."""
    vpc = cloud.vpc()
    subnet, other = vpc.subnet(), vpc.subnet()
    group = vpc.group([ALL])
    caller, holder = cloud.instance(other, group), cloud.instance(subnet, group)
    card = cloud.ec2.create_network_interface(SubnetId=other, Groups=[group], PrivateIpAddress="10.1.1.60")
    identity = card["NetworkInterface"]["NetworkInterfaceId"]
    assert not caller.pings("10.1.1.60")

    attached = cloud.ec2.attach_network_interface(NetworkInterfaceId=identity, InstanceId=holder.id, DeviceIndex=1)
    _ask_anew(caller)
    assert caller.pings("10.1.1.60")

    cloud.ec2.detach_network_interface(AttachmentId=attached["AttachmentId"])
    assert not caller.pings("10.1.1.60")


def test_broadcast_and_multicast_reach_nobody(cloud: Cloud) -> None:
    """Amazon VPC FAQs: Amazon VPC supports neither multicast nor broadcast."""
    sender, receiver = two(cloud)
    content = b"is anybody there"
    with receiver.captures() as seen:
        for destination, mac in (
            ("10.1.0.255", "ff:ff:ff:ff:ff:ff"),
            ("255.255.255.255", "ff:ff:ff:ff:ff:ff"),
            ("239.255.0.1", "01:00:5e:7f:00:01"),
            ("224.0.0.1", "01:00:5e:00:00:01"),
        ):
            sender.sends_frame("ens5", mac, 0x0800, udp(sender.address, destination, content), sender.mac)
        assert not seen.has(content)

        sender.pings(receiver.address)
        router = sender.run("ip", "neighbour", "show", "dev", "ens5").stdout.split("lladdr ")[1].split()[0]
        sender.sends_frame("ens5", router, 0x0800, udp(sender.address, receiver.address, content), sender.mac)
        assert seen.has(content), "control: the same packet to its address arrives"


def test_foreign_macs_do_not_pass(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Elastic network interfaces": an interface sends from its own MAC address."""
    sender, receiver = two(cloud)
    content = b"from somebody else"
    assert sender.pings(receiver.address)
    router = sender.run("ip", "neighbour", "show", "dev", "ens5").stdout.split("lladdr ")[1].split()[0]
    with receiver.captures() as seen:
        sender.sends_frame("ens5", router, 0x0800, udp(sender.address, receiver.address, content), "02:aa:aa:aa:aa:aa")
        assert not seen.has(content)
        sender.sends_frame("ens5", router, 0x0800, udp(sender.address, receiver.address, content), sender.mac)
        assert seen.has(content)


def test_foreign_ether_types_do_not_pass(cloud: Cloud) -> None:
    """Amazon VPC FAQs: a VPC is an IP network; frames of other protocols go nowhere."""
    sender, receiver = two(cloud)
    content = b"an ethernet frame of our own"
    with receiver.captures() as seen:
        for mac in ("ff:ff:ff:ff:ff:ff", receiver.mac):
            sender.sends_frame("ens5", mac, 0x88B5, content, sender.mac)
        assert not seen.has(content)


def test_control_frames_of_other_ether_types_are_seen_where_there_is_ethernet(cloud: Cloud) -> None:
    """Control of the two before: over one cable the same frame is received and captured."""
    one, other = two(cloud)
    content = b"an ethernet frame of our own"
    one.run(
        "ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", other.namespace, check=True
    )
    one.run("ip", "link", "set", "cable0", "up", check=True)
    other.run("ip", "link", "set", "cable1", "up", check=True)
    with other.captures() as seen:

        def seen_there() -> bool:
            one.sends_frame("cable0", "ff:ff:ff:ff:ff:ff", 0x88B5, content, one.mac)
            return seen.has(content)

        waiting.until(seen_there, 10)  # the cable is up a moment after both its ends


def test_nobody_takes_an_address_by_answering_arp(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Subnets": addresses belong to interfaces, whatever instances claim."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    group = vpc.group([ALL])
    caller, holder, thief = (cloud.instance(subnet, group) for _ in range(3))
    thief.run("ip", "address", "add", f"{holder.address}/32", "dev", "ens5", check=True)
    thief.run("arping", "-c1", "-U", "-I", "ens5", holder.address)

    with holder.serves(80):
        assert caller.calls(holder.address, 80)
    with thief.serves(80):
        assert caller.calls(holder.address, 80) is None


def udp(source: str, destination: str, content: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram to port 7400."""
    datagram = struct.pack("!HHHH", 7400, 7400, 8 + len(content), 0) + content
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0,
                         socket.inet_aton(source), socket.inet_aton(destination))  # fmt: skip
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:] + datagram
