"""Security groups, by packets. Each rule passes one and, taken away, drops it.

Does not prove how long AWS tracks an idle connection.
"""

import socket
from ipaddress import IPv4Address, IPv4Network

import pytest

from lab.linux import run
from tests.support.cloud import ALL, ANYWHERE, PATIENCE, Cloud, Instance, allow


def test_nothing_comes_in_that_no_rule_allows(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Control traffic to your AWS resources using security groups"."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    closed = vpc.group()
    server, caller = cloud.instance(subnet, closed), cloud.instance(subnet, closed)

    with server.serves(80), server.serves(80, "udp"):
        assert caller.calls(server.address, 80) is None
        assert caller.calls(server.address, 80, "udp") is None
        assert not caller.pings(server.address)

        cloud.ec2.authorize_security_group_ingress(GroupId=closed, IpPermissions=[ALL])

        assert caller.calls(server.address, 80) == caller.address
        assert caller.calls(server.address, 80, "udp") == caller.address
        assert caller.pings(server.address)


def test_a_rule_allows_its_protocol_and_ports_alone(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Security group rules"."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    some = vpc.group([allow("tcp", ANYWHERE, ports=(8000, 8010)), allow("udp", ANYWHERE, ports=1194)])
    server, caller = cloud.instance(subnet, some), cloud.instance(subnet, some)

    for port, protocol, passes in (
        (8000, "tcp", True),
        (8010, "tcp", True),
        (7999, "tcp", False),
        (8011, "tcp", False),
        (8000, "udp", False),
        (1194, "udp", True),
        (1194, "tcp", False),
    ):
        with server.serves(port, protocol):
            assert (caller.calls(server.address, port, protocol) is not None) == passes, (port, protocol)
    assert not caller.pings(server.address)


def test_icmp_is_allowed_by_type(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Security group rules": for ICMP the type and code take the ports' place."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    echo, other = (
        vpc.group([allow("icmp", ANYWHERE, ports=(8, -1))]),
        vpc.group([allow("icmp", ANYWHERE, ports=(3, -1))]),
    )
    answers, silent, caller = cloud.instance(subnet, echo), cloud.instance(subnet, other), cloud.instance(subnet, echo)

    assert caller.pings(answers.address)
    assert not caller.pings(silent.address)


def test_a_rule_allows_its_range_alone(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Security group rules": a source is a CIDR block."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    inside, outside = cloud.instance(subnet), cloud.instance(subnet)
    server = cloud.instance(subnet, vpc.group([allow("tcp", f"{inside.address}/32", ports=80)]))

    with server.serves(80):
        assert inside.calls(server.address, 80)
        assert outside.calls(server.address, 80) is None


def test_ranges_of_several_rules_may_overlap(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Security group rules": the rules of all groups are added up to one set."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    caller = cloud.instance(subnet)
    wide = vpc.group([allow("tcp", "10.0.0.0/8", "10.1.0.0/16", f"{caller.address}/32", ports=80)])
    server = cloud.instance(subnet, wide, vpc.group([allow("tcp", "10.1.0.0/24", ports=(80, 90))]))

    with server.serves(80), server.serves(90):
        assert caller.calls(server.address, 80)
        assert caller.calls(server.address, 90)


def test_a_rule_that_names_a_group_allows_its_members(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Security group referencing"."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    members = vpc.group()
    server = cloud.instance(subnet, vpc.group([allow("tcp", members, ports=80)]))
    caller = cloud.instance(subnet, vpc.group())

    with server.serves(80):
        assert caller.calls(server.address, 80) is None

        cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=caller.interface, Groups=[members])
        assert caller.calls(server.address, 80) == caller.address


def test_the_default_group_allows_its_own_members(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Default security groups for your VPCs"."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    one, two, stranger = cloud.instance(subnet), cloud.instance(subnet), cloud.instance(subnet, vpc.group())

    with one.serves(80):
        assert two.calls(one.address, 80)
        assert stranger.calls(one.address, 80) is None


def test_a_rule_that_names_a_prefix_list_allows_its_entries(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Reference your customer-managed prefix lists in your AWS resources"."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    listed, other = cloud.instance(subnet), cloud.instance(subnet)
    entries = [{"Cidr": f"{listed.address}/32", "Description": "one"}]
    made = cloud.ec2.create_managed_prefix_list(
        PrefixListName="some", Entries=entries, MaxEntries=5, AddressFamily="IPv4"
    )
    server = cloud.instance(subnet, vpc.group([allow("tcp", made["PrefixList"]["PrefixListId"], ports=80)]))

    with server.serves(80):
        assert listed.calls(server.address, 80)
        assert other.calls(server.address, 80) is None


def test_nothing_leaves_that_no_egress_rule_allows(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Security group rules": outbound rules."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    server = cloud.instance(subnet, vpc.group([ALL]))
    quiet = vpc.group(egress=[allow("tcp", f"{server.address}/32", ports=443)])
    caller = cloud.instance(subnet, quiet)

    with server.serves(80), server.serves(443):
        assert caller.calls(server.address, 443)
        assert caller.calls(server.address, 80) is None
        assert not caller.pings(server.address)

        cloud.ec2.authorize_security_group_egress(GroupId=quiet, IpPermissions=[allow("-1", ANYWHERE)])
        assert caller.calls(server.address, 80)


def test_answers_pass_whatever_the_rules_say(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Security group connection tracking": security groups are stateful."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    server = cloud.instance(subnet, vpc.group([allow("tcp", ANYWHERE, ports=80)], egress=[]))
    caller = cloud.instance(subnet, vpc.group([], egress=[allow("tcp", ANYWHERE, ports=80)]))

    with server.serves(80), caller.serves(80):
        assert caller.calls(server.address, 80)
        assert server.calls(caller.address, 80) is None, "the way back is for answers alone"


def test_a_connection_outlives_the_rule_it_was_made_under(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Amazon EC2 security group connection tracking"."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    rule = [allow("tcp", "10.1.0.0/16", ports=80)]
    group = vpc.group(rule)
    server, caller = cloud.instance(subnet, group), cloud.instance(subnet)

    with server.serves(80), caller.connected(server.address, 80) as conversation:
        cloud.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rule)

        assert conversation.goes_on()
        assert caller.calls(server.address, 80) is None, "a new one is not let in"


def test_an_untracked_connection_ends_with_the_rule_that_lets_it_in(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Untracked connections": interrupted at once if the rule is removed or changed."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    rule = [allow("tcp", ANYWHERE, ports=80)]
    group = vpc.group(rule)
    server, caller = cloud.instance(subnet, group), cloud.instance(subnet)

    with server.serves(80), caller.connected(server.address, 80) as conversation:
        assert conversation.goes_on(), "control"
        cloud.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rule)
        assert not conversation.goes_on()


@pytest.mark.parametrize(
    "egress",
    [
        pytest.param([allow("-1", "10.0.0.0/8")], id="not to every address"),
        pytest.param([allow("tcp", ANYWHERE, ports=(1024, 65535))], id="not to every port"),
        pytest.param([allow("udp", ANYWHERE, ports=(0, 65535))], id="another protocol"),
    ],
)
def test_a_connection_is_tracked_unless_every_answer_may_leave(cloud: Cloud, egress: list[dict[str, object]]) -> None:
    """Amazon EC2 User Guide, "Untracked connections": a rule for all traffic in both directions, all ports back."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    rule = [allow("tcp", ANYWHERE, ports=80)]
    group = vpc.group(rule, egress=egress)
    server, caller = cloud.instance(subnet, group), cloud.instance(subnet)

    with server.serves(80), caller.connected(server.address, 80) as conversation:
        cloud.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rule)
        assert conversation.goes_on()


def test_an_answer_by_another_interface_is_none(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Amazon EC2 security group connection tracking": each interface tracks by itself."""
    vpc = cloud.vpc()
    subnet, beside = vpc.subnet(), vpc.subnet()
    caller = cloud.instance(subnet, vpc.group([ALL]))
    server = cloud.instance(subnet, vpc.group([allow("tcp", ANYWHERE, ports=80)], egress=[]))
    silent = vpc.group([], egress=[])
    second = cloud.ec2.create_network_interface(SubnetId=beside, Groups=[silent])["NetworkInterface"]
    identity = second["NetworkInterfaceId"]
    cloud.ec2.attach_network_interface(NetworkInterfaceId=identity, InstanceId=server.id, DeviceIndex=1)
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=identity, SourceDestCheck={"Value": False})

    with server.serves(80):
        assert caller.calls(server.address, 80), "control: by the interface that let the call in"
        server.run("ip", "route", "add", caller.address, "via", "10.1.1.1", "dev", "ens6", check=True)
        assert caller.calls(server.address, 80) is None

        cloud.ec2.authorize_security_group_egress(GroupId=silent, IpPermissions=[allow("-1", ANYWHERE)])
        assert caller.calls(server.address, 80), "control: the answer was dropped for want of a rule"


def test_an_icmp_error_about_an_untracked_flow_needs_a_rule(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Untracked connections": what is not tracked has no responses that pass by themselves."""
    vpc = cloud.vpc(online=True)
    group = vpc.group([allow("udp", ANYWHERE, ports=1194)])
    server = cloud.instance(vpc.subnet(), group, public=True)

    assert not _gets_error(cloud, server, "203.0.113.91")
    cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[allow("icmp", ANYWHERE, ports=(3, 4))])
    assert not _gets_error(cloud, server, "203.0.113.92"), "control: the rule is for another code"
    cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[allow("icmp", ANYWHERE, ports=(3, 3))])
    assert _gets_error(cloud, server, "203.0.113.93")


def test_an_icmp_error_about_a_tracked_flow_needs_none(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Amazon EC2 security group connection tracking": responses pass."""
    vpc = cloud.vpc(online=True)
    server = cloud.instance(vpc.subnet(), vpc.group([allow("udp", "203.0.113.0/24", ports=1194)]), public=True)

    assert _gets_error(cloud, server, "203.0.113.94")


def _gets_error(cloud: Cloud, server: Instance, address: str) -> bool:
    """Return whether the answer to a UDP call whose port has closed meanwhile gets its ICMP error (type 3, code 3)."""
    peer = cloud.server(address)
    with server._opened(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((server.address, 1194))
        bound.settimeout(PATIENCE)
        with peer._opened(socket.AF_INET, socket.SOCK_DGRAM) as caller:
            caller.sendto(b"?", (str(server.public), 1194))
            _, source = bound.recvfrom(100)
        bound.connect(source)
        bound.send(b"!")
        try:
            bound.recv(100)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        raise AssertionError("nobody sends anything")


def test_a_change_of_rules_disturbs_no_other_connection(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Security groups": changes are applied to the resources automatically."""
    vpc = cloud.vpc(online=True)
    subnet = vpc.subnet()
    group = vpc.group([ALL])
    server, caller, late = cloud.instance(subnet, group), cloud.instance(subnet, group, public=True), vpc.group([ALL])

    with server.serves(80), caller.connected(server.address, 80) as conversation:
        cloud.instance(subnet, late, public=True)
        cloud.ec2.authorize_security_group_ingress(GroupId=late, IpPermissions=[allow("tcp", ANYWHERE, ports=1)])
        assert conversation.goes_on()


def test_rules_see_private_addresses_inside_and_public_ones_from_outside(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Security group rules": a group as source means its members' private addresses."""
    vpc = cloud.vpc(online=True)
    subnet = vpc.subnet()
    members = vpc.group([ALL])
    caller = cloud.instance(subnet, members, public=True)
    group = vpc.group([allow("tcp", members, ports=80)])
    server = cloud.instance(subnet, group, public=True)

    with server.serves(80):
        assert caller.calls(server.address, 80) == caller.address
        assert caller.calls(server.public, 80) is None, "by way of the Internet it is nobody's member"

        cloud.ec2.authorize_security_group_ingress(
            GroupId=group, IpPermissions=[allow("tcp", f"{caller.public}/32", ports=80)]
        )
        assert caller.calls(server.public, 80) == caller.public


def test_malformed_rules_are_refused_and_change_no_packet(cloud: Cloud) -> None:
    """Amazon EC2 API Reference, "AuthorizeSecurityGroupIngress"."""
    vpc = cloud.vpc()
    subnet = vpc.subnet()
    group = vpc.group([allow("tcp", ANYWHERE, ports=80)])
    server, caller = cloud.instance(subnet, group), cloud.instance(subnet, group)
    cloud.follow()
    router = cloud.region.status()["routers"][vpc.id]

    def rules() -> str:
        return run("ip", "netns", "exec", router, "nft", "--stateless", "list", "ruleset")

    before = rules()
    for permission in (
        allow("tcp", "10.1.0.0/33", ports=22),
        allow("tcp", "300.1.0.0/16", ports=22),
        allow("tcp", "nonsense", ports=22),
        allow("tcp", "::/0/0", ports=22),
        allow("tcp", ANYWHERE, ports=(23, 22)),
        allow("tcp", ANYWHERE, ports=(22, 70000)),
        allow("tcp", ANYWHERE, ports=(-5, 70)),
        allow("quic", ANYWHERE, ports=22),
        allow("999", ANYWHERE, ports=22),
        allow("tcp", "sg-0123456789abcdef0", ports=22),
        allow("tcp", "pl-0123456789abcdef0", ports=22),
        allow("tcp", '10.0.0.0/8 accept; counter "', ports=22),
    ):
        for call in (cloud.ec2.authorize_security_group_ingress, cloud.ec2.authorize_security_group_egress):
            try:
                call(GroupId=group, IpPermissions=[permission])
            except cloud.ec2.exceptions.ClientError:
                continue
            raise AssertionError(f"taken: {permission}")
    cloud.follow()

    assert rules() == before
    with server.serves(80):
        assert caller.calls(server.address, 80)
    assert IPv4Address(server.address) in IPv4Network("10.1.0.0/24")
