"""The internet gateway, by packets: one-to-one translation, Elastic IPs that move, and sizes of packets.

Does not prove AWS's bandwidth limits, nor jumbo frames between VPCs.
"""

import re
from ipaddress import IPv4Address, IPv4Network

import pytest

from tests.support.cloud import ALL, ANYWHERE, Cloud, Place, allow


def test_an_elastic_ip_is_translated_one_to_one(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Enable internet access for a VPC using an internet gateway"."""
    vpc = cloud.vpc(online=True)
    inside = cloud.instance(vpc.subnet(), vpc.group([ALL]))
    server = cloud.server()
    with inside.serves(80), server.serves(80):
        assert inside.calls(server.address, 80) is None, "control: no public address, no Internet"

        allocation, address = cloud.elastic_address()
        cloud.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=inside.interface)
        assert inside.calls(server.address, 80) == address
        assert inside.calls(server.address, 80, "udp") is None, "control: nobody answers UDP there"
        assert server.calls(address, 80) == server.address

        cloud.ec2.disassociate_address(PublicIp=address)
        assert inside.calls(server.address, 80) is None
        assert server.calls(address, 80) is None


def test_nothing_leaves_from_an_address_without_a_public_one(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Internet gateways": a public address is what communicates with the Internet."""
    vpc = cloud.vpc(online=True)
    inside, server = cloud.instance(vpc.subnet(), vpc.group([ALL])), cloud.server()
    allocation, address = cloud.elastic_address()
    with server.captures() as seen:
        inside.pings(server.address)
        assert not seen.has(IPv4Address(inside.address).packed), "neither translated nor as it is"
        cloud.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=inside.interface)
        assert inside.pings(server.address)
        assert seen.has(IPv4Address(address).packed)


def test_an_auto_assigned_address_lasts_until_the_instance_stops(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Amazon EC2 instance IP addressing": released when stopped, a new one at the start."""
    vpc = cloud.vpc(online=True)
    inside = cloud.instance(vpc.subnet(), vpc.group([ALL]), public=True)
    server = cloud.server()
    with server.serves(80):
        assert inside.calls(server.address, 80) == inside.public

        cloud.ec2.stop_instances(InstanceIds=[inside.id])
        assert not server.pings(inside.public)
        cloud.ec2.start_instances(InstanceIds=[inside.id])
        again = cloud.found(inside.id)
        assert again.public != inside.public
        assert again.calls(server.address, 80) == again.public


def test_an_elastic_ip_stays_over_stop_and_start(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Elastic IP addresses"."""
    vpc = cloud.vpc(online=True)
    inside = cloud.instance(vpc.subnet(), vpc.group([ALL]), public=True)
    allocation, address = cloud.elastic_address()
    cloud.ec2.associate_address(AllocationId=allocation, InstanceId=inside.id)
    cloud.ec2.stop_instances(InstanceIds=[inside.id])
    cloud.ec2.start_instances(InstanceIds=[inside.id])

    again = cloud.found(inside.id)
    assert again.public == address
    assert cloud.server().pings(address)


def test_without_the_gateway_nothing_leaves_or_enters(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Internet gateways": the gateway is attached, and a route leads to it."""
    vpc = cloud.vpc()
    inside = cloud.instance(vpc.subnet(), vpc.group([ALL]), public=True)
    server = cloud.server()
    assert not server.pings(inside.public)

    gateway = vpc.go_online()
    assert server.pings(inside.public)
    assert inside.pings(server.address)

    cloud.ec2.delete_route(RouteTableId=vpc.main_table, DestinationCidrBlock=ANYWHERE)
    assert not inside.pings(server.address), "attached, but no route leads there"

    vpc.route(vpc.main_table, ANYWHERE, GatewayId=gateway)
    cloud.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc.id)
    assert not inside.pings(server.address), "a route, but nothing is attached"


def test_a_moved_elastic_ip_moves_its_traffic_at_once(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Associate an Elastic IP address": reassociation."""
    vpc = cloud.vpc(online=True)
    subnet, group = vpc.subnet(), vpc.group([ALL])
    first, second, bystander = (
        cloud.instance(subnet, group),
        cloud.instance(subnet, group),
        cloud.instance(subnet, vpc.group([]), public=True),
    )
    server = cloud.server()
    allocation, address = cloud.elastic_address()
    cloud.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=first.interface)

    with first.serves(80), server.serves(81), server.serves(82):
        assert server.calls(address, 80)
        with bystander.connected(server.address, 81) as other, first.connected(server.address, 82) as moved:
            cloud.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=second.interface)
            assert server.calls(address, 80) is None, "nobody serves there now"
            assert not moved.goes_on()
            assert other.goes_on(), "what has nothing to do with it is not disturbed"
    with second.serves(80):
        assert server.calls(address, 80)
        assert second.calls(server.address, 80) is None


def test_flows_of_an_elastic_ip_end_where_another_takes_its_place(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Associate an Elastic IP address": the interface has the new one from then on."""
    vpc = cloud.vpc(online=True)
    subnet, group = vpc.subnet(), vpc.group([ALL])
    first, second, server = cloud.instance(subnet, group), cloud.instance(subnet, group), cloud.server()
    (old, old_address), (new, new_address) = cloud.elastic_address(), cloud.elastic_address()
    cloud.ec2.associate_address(AllocationId=old, NetworkInterfaceId=first.interface)
    with first.serves(80), server.serves(81):
        with first.connected(server.address, 81) as out, server.connected(old_address, 80) as into:
            assert out.goes_on() and into.goes_on()
            cloud.ec2.associate_address(AllocationId=new, NetworkInterfaceId=first.interface)
            cloud.ec2.associate_address(AllocationId=old, NetworkInterfaceId=second.interface)
            assert not out.goes_on()
            assert not into.goes_on()
        assert first.calls(server.address, 81) == new_address
        assert server.calls(new_address, 80)


def test_an_elastic_ip_can_be_a_secondary_addresss_own(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Secondary IP addresses": each can have an Elastic IP."""
    vpc = cloud.vpc(online=True)
    inside = cloud.instance(vpc.subnet(), vpc.group([ALL]), public=True)
    second = "10.1.0.200"
    inside.run("ip", "address", "add", f"{second}/32", "dev", "ens5", check=True)
    cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=inside.interface, PrivateIpAddresses=[second])
    allocation, address = cloud.elastic_address()
    cloud.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=inside.interface, PrivateIpAddress=second)
    server = cloud.server()
    with server.serves(80):
        assert inside.calls(server.address, 80, source=second) == address
        assert inside.calls(server.address, 80) == inside.public


def test_an_instance_does_not_know_its_public_address(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Amazon EC2 instance IP addressing": mapped to the private address through NAT."""
    vpc = cloud.vpc(online=True)
    inside = cloud.instance(vpc.subnet(), vpc.group([ALL]), public=True)
    assert str(inside.public) not in inside.run("ip", "address").stdout


def test_public_addresses_reach_each_other_by_the_gateway(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Internet gateways": also inside one VPC, each seen by its public address."""
    vpc = cloud.vpc(online=True)
    subnet, group = vpc.subnet(), vpc.group([ALL])
    one, other, private = (
        cloud.instance(subnet, group, public=True),
        cloud.instance(subnet, group, public=True),
        (cloud.instance(subnet, group)),
    )
    with other.serves(80):
        assert one.calls(other.public, 80) == one.public
        assert private.calls(other.public, 80) is None


def test_private_addresses_are_not_reached_from_the_internet(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Internet gateways"."""
    vpc = cloud.vpc(online=True)
    inside = cloud.instance(vpc.subnet(), vpc.group([ALL]), public=True)
    server = cloud.server()
    assert server.pings(inside.public)
    internet = Place(cloud.region, cloud.region.status()["internet"], "")
    way = ("10.1.0.0/16", "via", str(inside.public), "dev", f"v{vpc.id[-12:]}", "onlink")
    internet.run("ip", "route", "add", *way, check=True)
    try:
        assert not server.pings(inside.address), "even where the Internet has a route there"
    finally:
        internet.run("ip", "route", "delete", *way, check=True)


def test_packets_of_9001_bytes_pass_inside_and_of_1500_outside(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Network maximum transmission unit (MTU) for your EC2 instance"."""
    vpc = cloud.vpc(online=True)
    subnet, group = vpc.subnet(), vpc.group([ALL])
    one, other = cloud.instance(subnet, group, public=True), cloud.instance(vpc.subnet(), group)
    server = cloud.server()

    assert one.pings(other.address, size=9001)
    assert not one.pings(other.address, size=9002)
    assert one.pings(server.address, size=1500)
    assert not one.pings(server.address, size=1501)


def test_path_mtu_discovery_works_out_of_the_vpc(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Path MTU Discovery": the ICMP message names the next hop's MTU."""
    vpc = cloud.vpc(online=True)
    inside = cloud.instance(vpc.subnet(), vpc.group([]), public=True)
    server = cloud.server()
    said = inside.ping(server.address, size=4000, count=2).stdout

    assert re.search(r"Frag(mentation)? needed.*mtu = 1500", said)
    cached = inside.run("ip", "route", "get", server.address).stdout
    assert "mtu 1500" in cached


def test_tcp_finds_its_way_from_9001_bytes_to_1500(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Path MTU Discovery": no rule lets its messages in, and a transfer does not hang."""
    vpc = cloud.vpc(online=True)
    inside, server = cloud.instance(vpc.subnet(), vpc.group([]), public=True), cloud.server()
    # A far end that takes jumbo frames: nothing but the message tells how much passes between them.
    server.run("ip", "link", "set", "eth0", "mtu", "9001", check=True)
    assert inside.sends(server, 1 << 20) == 1 << 20
    assert "mtu 1500" in inside.run("ip", "route", "get", server.address).stdout, "control: it had to be told"


def test_path_mtu_discovery_works_where_the_far_line_is_narrower(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Path MTU Discovery", through the gateway's translation, with no ingress rule at all."""
    vpc = cloud.vpc(online=True)
    inside = cloud.instance(vpc.subnet(), vpc.group([]), public=True)
    cloud.region.add_site("narrow", public=IPv4Address("203.0.113.90"), lan=IPv4Network("192.168.9.0/24"), mtu=1400)
    assert inside.pings("203.0.113.90", size=1400)
    said = inside.ping("203.0.113.90", size=1500, count=2).stdout
    assert re.search(r"mtu = 1400", said)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_answers_of_the_internet_come_back_and_calls_need_a_rule(cloud: Cloud, protocol: str) -> None:
    """Amazon VPC User Guide, "Security group connection tracking"."""
    vpc = cloud.vpc(online=True)
    group = vpc.group([])
    inside, server = cloud.instance(vpc.subnet(), group, public=True), cloud.server()
    with inside.serves(500, protocol), server.serves(500, protocol):
        assert inside.calls(server.address, 500, protocol) == inside.public
        assert server.calls(inside.public, 500, protocol) is None

        permission = allow(protocol, f"{server.address}/32", ports=500)
        cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
        assert server.calls(inside.public, 500, protocol) == server.address
