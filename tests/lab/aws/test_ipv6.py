"""IPv6, by packets: addresses, delegated prefixes, gateways.

Does not prove DHCPv6 and router advertisements themselves: the lab writes down what they would bring.
"""

import contextlib
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from botocore.exceptions import ClientError

from tests.support.cloud import ALL, ANYWHERE, ANYWHERE6, Cloud, Instance, Place, Vpc, allow

SERVER6 = "2001:db8:80::80"
FOREIGN6 = "2001:db8:77::77"


@pytest.fixture
def vpc(cloud: Cloud) -> Vpc:
    return cloud.vpc(ipv6=True)


@pytest.fixture
def server(cloud: Cloud) -> Place:
    return cloud.server(address6=SERVER6)


def launch(cloud: Cloud, vpc: Vpc, subnet: str, *groups: str) -> Instance:
    return cloud.instance(subnet, *(groups or (vpc.group([ALL]),)), card={"Ipv6AddressCount": 1})


def open_egress6(vpc: Vpc) -> str:
    return vpc.group([ALL], egress=[ALL])


def test_a_vpc_has_a_56_and_its_interfaces_addresses_of_their_subnets_64(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "IP addressing for your VPCs and subnets"."""
    assert vpc.cidr6 and vpc.cidr6.prefixlen == 56
    group = open_egress6(vpc)
    one, other = launch(cloud, vpc, vpc.subnet(), group), launch(cloud, vpc, vpc.subnet(), group)

    assert IPv6Address(one.address6) in next(vpc.cidr6.subnets(new_prefix=64))
    assert IPv6Address(other.address6) not in next(vpc.cidr6.subnets(new_prefix=64))
    with other.serves(80):
        assert one.calls(other.address6, 80) == one.address6


def test_a_subnet_can_assign_ipv6_addresses_at_launch(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Modify the IP addressing attributes of your subnet"."""
    plain, giving = vpc.subnet(), vpc.subnet()
    cloud.ec2.modify_subnet_attribute(SubnetId=giving, AssignIpv6AddressOnCreation={"Value": True})
    assert cloud.instance(plain).address6 is None
    assert cloud.instance(giving).address6 is not None


def test_an_address_assigned_later_works_at_once(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon EC2 User Guide, "Manage the IPv6 addresses for your network interfaces"."""
    subnet = vpc.subnet()
    group = open_egress6(vpc)
    caller, holder = launch(cloud, vpc, subnet, group), cloud.instance(subnet, group)
    made = cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=holder.interface, Ipv6AddressCount=1)
    address = made["AssignedIpv6Addresses"][0]
    assert caller.pings(address)

    cloud.ec2.unassign_ipv6_addresses(NetworkInterfaceId=holder.interface, Ipv6Addresses=[address])
    assert not caller.pings(address)


def test_security_group_rules_are_per_family(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Security group rules": IPv4 and IPv6 ranges."""
    subnet = vpc.subnet()
    caller = launch(cloud, vpc, subnet, open_egress6(vpc))
    only4, only6 = vpc.group([allow("tcp", ANYWHERE, ports=80)]), vpc.group([allow("tcp", ANYWHERE6, ports=80)])
    group = vpc.group([allow("icmpv6", ANYWHERE6, ports=(128, -1))])
    four, six, echo = (launch(cloud, vpc, subnet, g) for g in (only4, only6, group))

    with four.serves(80), six.serves(80):
        assert (caller.calls(four.address, 80) is None, caller.calls(four.address6, 80) is None) == (False, True)
        assert (caller.calls(six.address, 80) is None, caller.calls(six.address6, 80) is None) == (True, False)
    assert caller.pings(echo.address6)
    assert not caller.pings(six.address6)


def test_a_group_as_source_means_ipv6_addresses_too(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Security group referencing"."""
    subnet = vpc.subnet()
    members = vpc.group(egress=[ALL])
    server = launch(cloud, vpc, subnet, vpc.group([allow("tcp", members, ports=80)]))
    with server.serves(80):
        assert launch(cloud, vpc, subnet, members).calls(server.address6, 80)
        assert launch(cloud, vpc, subnet, open_egress6(vpc)).calls(server.address6, 80) is None


def test_acls_judge_ipv6_by_entries_of_its_own(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon VPC User Guide, "Network ACL rules": a VPC with an IPv6 range has rules 101."""
    group = open_egress6(vpc)
    caller, far = launch(cloud, vpc, vpc.subnet(), group), launch(cloud, vpc, vpc.subnet(), group)
    assert caller.pings(far.address6)
    cloud.ec2.create_network_acl_entry(
        NetworkAclId=vpc.default_acl, RuleNumber=50, Egress=False, Protocol="-1", RuleAction="deny",
        Ipv6CidrBlock=f"{far.address6}/128",
    )  # fmt: skip
    assert not caller.pings(far.address6), "its answers are not let in"
    assert caller.pings(far.address), "IPv4 is not meant"


def test_the_check_takes_prefixes_for_own_addresses(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon EC2 User Guide, "Assign prefixes to Amazon EC2 network interfaces"."""
    subnet = vpc.subnet()
    group = open_egress6(vpc)
    caller = launch(cloud, vpc, subnet, group)
    holder = launch(cloud, vpc, subnet, group)
    made = cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=holder.interface, Ipv6PrefixCount=1)
    prefix = IPv6Network(made["AssignedIpv6Prefixes"][0])
    assert prefix.prefixlen == 80
    address = str(prefix[0x1234])
    holder.run("ip", "address", "add", f"{address}/128", "dev", "lo", check=True)
    assert caller.pings(address)
    with caller.serves(80):
        assert holder.calls(caller.address6, 80, source=address) == address

    cloud.ec2.unassign_ipv6_addresses(NetworkInterfaceId=holder.interface, Ipv6Prefixes=[str(prefix)])
    assert not caller.pings(address)
    with caller.serves(80):
        assert holder.calls(caller.address6, 80, source=address) is None


def test_the_check_drops_foreign_addresses_both_ways(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon EC2 User Guide, "Source/destination checking"."""
    subnet = vpc.subnet()
    group = open_egress6(vpc)
    caller, router = launch(cloud, vpc, subnet, group), launch(cloud, vpc, subnet, group)
    router.run("ip", "address", "add", f"{FOREIGN6}/128", "dev", "lo", check=True)
    vpc.route(vpc.main_table, f"{FOREIGN6}/128", NetworkInterfaceId=router.interface)

    for check in (True, False):
        cloud.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=router.interface, SourceDestCheck={"Value": check}
        )
        with router.captures() as seen:
            caller.pings(FOREIGN6)
            assert seen.has(IPv6Address(FOREIGN6).packed) is not check, "what comes for it"
        with caller.captures() as seen:
            router.pings(caller.address6, source=FOREIGN6)
            assert seen.has(IPv6Address(FOREIGN6).packed) is not check, "what comes from it"


def test_prefixes_are_given_with_a_new_interface_and_are_nobody_elses(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon EC2 User Guide, "Assign prefixes to Amazon EC2 network interfaces"."""
    subnet = vpc.subnet()
    made = cloud.ec2.create_network_interface(SubnetId=subnet, Ipv6PrefixCount=2)["NetworkInterface"]
    prefixes = [entry["Ipv6Prefix"] for entry in made["Ipv6Prefixes"]]
    assert len(set(prefixes)) == 2
    other = cloud.ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    for wrong in (prefixes[0], "2001:db8::/80", prefixes[0].replace("/80", "/64"), "nonsense"):
        with pytest.raises(cloud.ec2.exceptions.ClientError):
            cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=other, Ipv6Prefixes=[wrong])
    launched = cloud.instance(subnet, vpc.group([]), card={"Ipv6PrefixCount": 1})
    found = cloud.ec2.describe_network_interfaces(NetworkInterfaceIds=[launched.interface])["NetworkInterfaces"][0]
    assert found["Ipv6Prefixes"][0]["Ipv6Prefix"] not in prefixes


def test_the_internet_is_reached_and_reaches_with_the_same_address(cloud: Cloud, vpc: Vpc, server: Place) -> None:
    """Amazon VPC User Guide, "Internet gateways": IPv6 addresses are global, no NAT is performed."""
    inside = launch(cloud, vpc, vpc.subnet(), open_egress6(vpc))
    with inside.serves(80), server.serves(80):
        assert inside.calls(SERVER6, 80) is None, "control: no gateway yet"
        vpc.go_online()
        assert inside.calls(SERVER6, 80) == inside.address6
        assert server.calls(inside.address6, 80) == SERVER6


def test_a_prefix_behind_an_instance_is_on_the_internet(cloud: Cloud, vpc: Vpc, server: Place) -> None:
    """Amazon EC2 User Guide, "Assign prefixes to Amazon EC2 network interfaces": what an instance may hand on."""
    vpc.go_online()
    inside = launch(cloud, vpc, vpc.subnet(), open_egress6(vpc))
    given = cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=inside.interface, Ipv6PrefixCount=1)
    address = str(IPv6Network(given["AssignedIpv6Prefixes"][0])[0xBEEF])
    inside.run("ip", "address", "add", f"{address}/128", "dev", "lo", check=True)
    with server.serves(80), inside.serves(81):
        assert inside.calls(SERVER6, 80, source=address) == address
        assert server.calls(address, 81) == SERVER6


def test_a_whole_subnet_is_routed_to_an_interface_and_nothing_less(cloud: Cloud, vpc: Vpc, server: Place) -> None:
    """Amazon VPC User Guide, "Subnet route tables" (rules and considerations) and "Gateway route tables"."""
    assert vpc.cidr6
    vpc.go_online()
    empty = str(list(vpc.cidr6.subnets(new_prefix=64))[-1])
    made = cloud.ec2.create_subnet(VpcId=vpc.id, Ipv6CidrBlock=empty, Ipv6Native=True)["Subnet"]
    assert not made.get("CidrBlock")
    group, subnet = open_egress6(vpc), vpc.subnet()
    holder = launch(cloud, vpc, subnet, group)
    neighbour = launch(cloud, vpc, vpc.subnet(), group)
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=holder.interface, SourceDestCheck={"Value": False})
    address = str(IPv6Network(empty)[0xBEEF])
    holder.run("ip", "address", "add", f"{address}/128", "dev", "lo", check=True)

    assert not server.pings(address) and not neighbour.pings(address), "the control"
    edge = cloud.ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    gateways = cloud.ec2.describe_internet_gateways(Filters=[{"Name": "attachment.vpc-id", "Values": [vpc.id]}])
    internet = gateways["InternetGateways"][0]["InternetGatewayId"]
    cloud.ec2.associate_route_table(RouteTableId=edge, GatewayId=internet)
    for table in (edge, vpc.main_table):
        vpc.route(table, empty, NetworkInterfaceId=holder.interface)
    assert server.pings(address) and neighbour.pings(address)
    with server.serves(80):
        assert holder.calls(SERVER6, 80, source=address) == address

    half = str(next(IPv6Network(empty).subnets(new_prefix=65)))
    for wrong, target in (
        (half, {"NetworkInterfaceId": holder.interface}),
        (str(next(vpc.cidr6.subnets(new_prefix=60))), {"NetworkInterfaceId": holder.interface}),
        ("10.1.0.128/25", {"NetworkInterfaceId": holder.interface}),
        (empty, {"GatewayId": internet}),
    ):
        with pytest.raises(cloud.ec2.exceptions.ClientError, match="InvalidParameterValue"):
            vpc.route(vpc.table(subnet), wrong, **target)


def test_an_egress_only_gateway_lets_out_and_nothing_in(cloud: Cloud, vpc: Vpc, server: Place) -> None:
    """Amazon VPC User Guide, "Enable outbound IPv6 traffic using an egress-only internet gateway"."""
    inside = launch(cloud, vpc, vpc.subnet(), open_egress6(vpc))
    made = cloud.ec2.create_egress_only_internet_gateway(VpcId=vpc.id)["EgressOnlyInternetGateway"]
    gateway = made["EgressOnlyInternetGatewayId"]
    vpc.route(vpc.main_table, ANYWHERE6, EgressOnlyInternetGatewayId=gateway)
    with inside.serves(80), server.serves(80):
        assert inside.calls(SERVER6, 80) == inside.address6
        assert server.calls(inside.address6, 80) is None
        with server.captures(0x0800) as seen, contextlib.suppress(ClientError):
            vpc.route(vpc.main_table, ANYWHERE, EgressOnlyInternetGatewayId=gateway)
            assert inside.calls(server.address, 80) is None, "it is for IPv6 alone"
            assert not seen.has(IPv4Address(inside.address).packed)

        cloud.ec2.delete_egress_only_internet_gateway(EgressOnlyInternetGatewayId=gateway)
        assert inside.calls(SERVER6, 80) is None


def test_an_egress_only_subnet_stays_shut_beside_an_internet_gateway(cloud: Cloud, vpc: Vpc, server: Place) -> None:
    """Amazon VPC User Guide, "Enable outbound IPv6 traffic using an egress-only internet gateway"."""
    vpc.go_online()
    group = open_egress6(vpc)
    shut, public = vpc.subnet(), vpc.subnet()
    made = cloud.ec2.create_egress_only_internet_gateway(VpcId=vpc.id)["EgressOnlyInternetGateway"]
    vpc.route(vpc.table(shut), ANYWHERE6, EgressOnlyInternetGatewayId=made["EgressOnlyInternetGatewayId"])
    one, other = launch(cloud, vpc, shut, group), launch(cloud, vpc, public, group)

    assert server.pings(other.address6)
    assert one.pings(SERVER6)
    assert not server.pings(one.address6)


def test_path_mtu_discovery_works_in_ipv6(cloud: Cloud, vpc: Vpc) -> None:
    """Amazon EC2 User Guide, "Path MTU Discovery": Packet Too Big."""
    vpc.go_online()
    cloud.server("203.0.113.81", SERVER6)
    group = open_egress6(vpc)
    one, other = launch(cloud, vpc, vpc.subnet(), group), launch(cloud, vpc, vpc.subnet(), group)
    assert one.pings(other.address6, size=9001)
    said = one.ping(SERVER6, size=4000, count=2).stdout
    assert "mtu=1500" in said or "mtu = 1500" in said
    assert one.pings(SERVER6, size=1500)
