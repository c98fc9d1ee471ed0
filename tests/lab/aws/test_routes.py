"""Route tables, by packets.

Does not prove targets that the lab has not: NAT gateways, peering, transit gateways.
"""

import socket

import pytest

from tests.support.cloud import ALL, ANYWHERE, Cloud, Instance, Place, Vpc


@pytest.fixture
def vpc(cloud: Cloud) -> Vpc:
    return cloud.vpc()


def forwarder(cloud: Cloud, vpc: Vpc, subnet: str) -> Instance:
    """An instance whose interface takes packets for others."""
    made = cloud.instance(subnet, vpc.group([ALL]))
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=made.interface, SourceDestCheck={"Value": False})
    return made


def takes(caller: Place, destination: str, by: Place) -> bool:
    """Whether a packet of the caller's to an address comes by some place."""
    with by.captures() as seen:
        caller.pings(destination)
        return seen.has(socket.inet_aton(destination))


def test_subnets_of_a_vpc_reach_each_other_by_the_local_route(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Route table concepts": local route."""
    group = vpc.group([ALL])
    caller, far = cloud.instance(vpc.subnet(), group), cloud.instance(vpc.subnet(), group)
    assert caller.pings(far.address)
    other = cloud.vpc("10.2.0.0/16")
    stranger = cloud.instance(other.subnet(), other.group([ALL]))
    assert not caller.pings(stranger.address), "control: another VPC is no route away"


def test_an_unassociated_subnet_uses_the_main_table_and_an_associated_one_its_own(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Subnet route tables"."""
    first, second = vpc.subnet(), vpc.subnet()
    router, caller, other = forwarder(cloud, vpc, first), cloud.instance(first), cloud.instance(second)
    vpc.route(vpc.main_table, "172.16.0.0/12", NetworkInterfaceId=router.interface)
    assert takes(caller, "172.16.1.1", router)
    assert takes(other, "172.16.1.1", router)

    vpc.table(second)
    assert not takes(other, "172.16.1.1", router)
    assert takes(caller, "172.16.1.1", router)


def test_the_longest_prefix_decides(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Route priority"."""
    subnet = vpc.subnet()
    wide, narrow, caller = forwarder(cloud, vpc, subnet), forwarder(cloud, vpc, subnet), cloud.instance(subnet)
    vpc.route(vpc.main_table, "172.16.0.0/12", NetworkInterfaceId=wide.interface)
    vpc.route(vpc.main_table, "172.16.1.0/24", InstanceId=narrow.id)

    assert takes(caller, "172.16.1.1", narrow)
    assert takes(caller, "172.16.2.1", wide)

    cloud.ec2.delete_route(RouteTableId=vpc.main_table, DestinationCidrBlock="172.16.1.0/24")
    assert takes(caller, "172.16.1.1", wide)


def test_local_is_the_way_for_the_vpcs_own_range_whatever_wider_route_there_is(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Route priority": the local route is the more specific one."""
    subnet = vpc.subnet()
    router, caller, far = forwarder(cloud, vpc, subnet), cloud.instance(subnet), cloud.instance(vpc.subnet())
    vpc.route(vpc.main_table, "10.0.0.0/8", NetworkInterfaceId=router.interface)

    assert takes(caller, "10.9.9.9", router), "control: the wider route is in use"
    assert not takes(caller, far.address, router)
    assert not takes(caller, "10.1.77.7", router), "nor for an address that nobody has"


@pytest.mark.parametrize("end", ["stop", "terminate", "detach"])
def test_a_route_to_what_is_gone_is_a_blackhole(cloud: Cloud, vpc: Vpc, end: str) -> None:
    """Amazon VPC User Guide, "Route table concepts": the state blackhole."""
    subnet = vpc.subnet()
    wide, router, caller = forwarder(cloud, vpc, subnet), forwarder(cloud, vpc, subnet), cloud.instance(subnet)
    if end == "detach":
        card = cloud.ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
        cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=card, SourceDestCheck={"Value": False})
        attached = cloud.ec2.attach_network_interface(NetworkInterfaceId=card, InstanceId=router.id, DeviceIndex=1)
        vpc.route(vpc.main_table, "172.16.1.0/24", NetworkInterfaceId=card)
    else:
        vpc.route(vpc.main_table, "172.16.1.0/24", NetworkInterfaceId=router.interface)
    vpc.route(vpc.main_table, "172.16.0.0/12", NetworkInterfaceId=wide.interface)
    assert takes(caller, "172.16.1.1", router)

    match end:
        case "stop":
            cloud.ec2.stop_instances(InstanceIds=[router.id])
        case "terminate":
            cloud.ec2.terminate_instances(InstanceIds=[router.id])
        case "detach":
            cloud.ec2.detach_network_interface(AttachmentId=attached["AttachmentId"])
    assert not takes(caller, "172.16.1.1", wide), "a blackhole hides the wider route"
    assert takes(caller, "172.16.2.1", wide)


def test_a_stopped_router_routes_again_when_it_is_started(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon EC2 User Guide, "Stop and start Amazon EC2 instances": its interfaces and addresses stay its own."""
    subnet = vpc.subnet()
    router, caller = forwarder(cloud, vpc, subnet), cloud.instance(subnet)
    vpc.route(vpc.main_table, "172.16.0.0/12", NetworkInterfaceId=router.interface)
    cloud.ec2.stop_instances(InstanceIds=[router.id])
    cloud.ec2.start_instances(InstanceIds=[router.id])
    back = cloud.found(router.id)

    assert back.address == router.address
    assert takes(caller, "172.16.1.1", back)


def test_what_no_route_leads_to_is_dropped_without_a_word(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Configure route tables"."""
    caller = cloud.instance(vpc.subnet())
    for nobody in ("172.16.1.1", "10.1.77.7"):  # elsewhere; in the VPC, yet no interface's
        said = caller.ping(nobody).stdout
        assert "100% packet loss" in said
        assert "Unreachable" not in said


def test_an_instance_is_a_next_hop_to_another_subnet_and_back(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Example routing options": routing for a middlebox appliance."""
    here, there = vpc.subnet(), vpc.subnet()
    router = forwarder(cloud, vpc, here)
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", check=True)
    router.run("ip", "address", "add", "172.16.0.1/32", "dev", "lo", check=True)
    group = vpc.group([ALL])
    caller = cloud.instance(there, group)
    assert not caller.pings("172.16.0.1")

    vpc.route(vpc.main_table, "172.16.0.0/16", NetworkInterfaceId=router.interface)
    assert caller.pings("172.16.0.1")


def test_s3_is_reached_by_a_gateway_endpoint_without_an_internet_gateway(cloud: Cloud, vpc: Vpc) -> None:
    """AWS PrivateLink Guide, "Gateway endpoints for Amazon S3"."""
    subnet = vpc.subnet()
    caller = cloud.instance(subnet)
    assert not opens(caller), "control: no endpoint, no way"

    made = cloud.ec2.create_vpc_endpoint(
        VpcId=vpc.id,
        ServiceName="com.amazonaws.eu-west-1.s3",
        VpcEndpointType="Gateway",
        RouteTableIds=[vpc.main_table],
    )["VpcEndpoint"]["VpcEndpointId"]
    assert opens(caller)
    assert not opens(caller, "192.0.2.10"), "the endpoint is for S3 alone"

    cloud.ec2.modify_vpc_endpoint(VpcEndpointId=made, RemoveRouteTableIds=[vpc.main_table])
    assert not opens(caller)

    table = vpc.table(subnet)
    cloud.ec2.modify_vpc_endpoint(VpcEndpointId=made, AddRouteTableIds=[table])
    assert opens(caller)

    cloud.ec2.delete_vpc_endpoints(VpcEndpointIds=[made])
    assert not opens(caller)


def test_an_endpoint_needs_egress_to_its_prefix_list(cloud: Cloud, vpc: Vpc) -> None:
    """AWS PrivateLink Guide, "Gateway endpoints": security groups name the service by its prefix list."""
    cloud.ec2.create_vpc_endpoint(
        VpcId=vpc.id,
        ServiceName="com.amazonaws.eu-west-1.s3",
        VpcEndpointType="Gateway",
        RouteTableIds=[vpc.main_table],
    )
    lists = cloud.ec2.describe_managed_prefix_lists()["PrefixLists"]
    s3 = next(entry["PrefixListId"] for entry in lists if entry["PrefixListName"].endswith(".s3"))
    https = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}
    subnet = vpc.subnet()
    allowed = cloud.instance(subnet, vpc.group(egress=[https | {"PrefixListIds": [{"PrefixListId": s3}]}]))
    other = cloud.instance(subnet, vpc.group(egress=[https | {"IpRanges": [{"CidrIp": "10.1.0.0/16"}]}]))

    assert opens(allowed)
    assert not opens(other)


def opens(caller: Place, address: str = "52.216.0.10") -> bool:
    """Whether a TCP connection to HTTPS at an address is taken."""
    try:
        with caller.connected(address, 443, greeted=False):
            return True
    except OSError:
        return False


def test_malformed_routes_are_refused_and_change_no_packet(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon EC2 API Reference, "CreateRoute"."""
    subnet = vpc.subnet()
    router, caller = forwarder(cloud, vpc, subnet), cloud.instance(subnet)
    vpc.route(vpc.main_table, "172.16.0.0/12", NetworkInterfaceId=router.interface)
    for destination in ("172.16.0.0/40", "172.16.0.0", "everywhere", "fe80::/200", f"{ANYWHERE}; reboot"):
        with pytest.raises(cloud.ec2.exceptions.ClientError):
            vpc.route(vpc.main_table, destination, NetworkInterfaceId=router.interface)
    for target in ({"NetworkInterfaceId": "eni-0123456789abcdef0"}, {"GatewayId": "igw-0123456789abcdef0"}):
        with pytest.raises(cloud.ec2.exceptions.ClientError):
            vpc.route(vpc.main_table, "172.32.0.0/16", **target)
    assert takes(caller, "172.16.1.1", router)
