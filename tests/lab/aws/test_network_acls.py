"""Network ACLs, by packets: stateless, in order, between subnets.

Does not prove AWS's quotas on rules.
"""

from typing import Any

import pytest

from tests.support.cloud import ALL, ANYWHERE, Cloud, Instance, Vpc

Pair = tuple[Vpc, Instance, Instance, str]


@pytest.fixture
def pair(cloud: Cloud) -> Pair:
    """A caller, a server in a subnet of its own whose ACL has no entry yet, and that ACL; security groups allow all."""
    vpc = cloud.vpc()
    near, far = vpc.subnet(), vpc.subnet()
    group = vpc.group([ALL])
    caller, server = cloud.instance(near, group), cloud.instance(far, group)
    acl = cloud.ec2.create_network_acl(VpcId=vpc.id)["NetworkAcl"]["NetworkAclId"]
    associate(cloud, vpc, far, acl)
    return vpc, caller, server, acl


def associate(cloud: Cloud, vpc: Vpc, subnet: str, acl: str) -> None:
    acls = cloud.ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [vpc.id]}])["NetworkAcls"]
    held = next(a["NetworkAclAssociationId"] for n in acls for a in n["Associations"] if a["SubnetId"] == subnet)
    cloud.ec2.replace_network_acl_association(AssociationId=held, NetworkAclId=acl)


def entry(cloud: Cloud, acl: str, number: int, *, egress: bool = False, **what: Any) -> None:
    """One entry: everything, from everywhere, allowed, unless said otherwise."""
    ports = what.pop("ports", None)
    if ports:
        what |= {"Protocol": "6", "PortRange": {"From": ports[0], "To": ports[1]}}
    chosen: dict[str, Any] = {"Protocol": "-1", "CidrBlock": ANYWHERE, "RuleAction": "allow", **what}
    cloud.ec2.create_network_acl_entry(NetworkAclId=acl, RuleNumber=number, Egress=egress, **chosen)


def test_the_default_acl_allows_all(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Default network ACL for a VPC"."""
    vpc = cloud.vpc()
    group = vpc.group([ALL])
    caller, server = cloud.instance(vpc.subnet(), group), cloud.instance(vpc.subnet(), group)
    assert caller.pings(server.address)

    cloud.ec2.delete_network_acl_entry(NetworkAclId=vpc.default_acl, RuleNumber=100, Egress=False)
    assert not caller.pings(server.address), "control: without its rule 100 nothing is let in"


def test_an_acl_without_entries_denies_all(cloud: Cloud, pair: Pair) -> None:
    """Amazon VPC User Guide, "Custom network ACLs for your VPC"."""
    _, caller, server, acl = pair
    assert not caller.pings(server.address)

    entry(cloud, acl, 100)
    entry(cloud, acl, 100, egress=True)
    assert caller.pings(server.address)


def test_answers_need_a_rule_for_ephemeral_ports(cloud: Cloud, pair: Pair) -> None:
    """Amazon VPC User Guide, "Ephemeral ports": network ACLs are stateless."""
    _, caller, server, acl = pair
    entry(cloud, acl, 100, ports=(80, 80))

    with server.serves(80):
        entry(cloud, acl, 100, egress=True, ports=(80, 80))
        assert caller.calls(server.address, 80) is None

        entry(cloud, acl, 110, egress=True, ports=(32768, 60999))
        assert caller.calls(server.address, 80)


def test_the_first_entry_that_matches_decides(cloud: Cloud, pair: Pair) -> None:
    """Amazon VPC User Guide, "Network ACL rules": evaluated starting with the lowest numbered rule."""
    _, caller, server, acl = pair
    entry(cloud, acl, 100, egress=True)
    entry(cloud, acl, 200)
    entry(cloud, acl, 150, ports=(80, 80), RuleAction="deny")

    with server.serves(80), server.serves(81):
        assert caller.calls(server.address, 81)
        assert caller.calls(server.address, 80) is None

        entry(cloud, acl, 140, ports=(80, 80))
        assert caller.calls(server.address, 80)


def test_an_entry_is_for_its_range_alone(cloud: Cloud, pair: Pair) -> None:
    """Amazon VPC User Guide, "Network ACL rules": source, destination."""
    _, caller, server, acl = pair
    entry(cloud, acl, 100, CidrBlock="10.99.0.0/16")
    entry(cloud, acl, 100, egress=True)
    assert not caller.pings(server.address)

    entry(cloud, acl, 110, CidrBlock=f"{caller.address}/32")
    assert caller.pings(server.address)


def test_icmp_entries_name_type_and_code(cloud: Cloud, pair: Pair) -> None:
    """Amazon VPC User Guide, "Network ACL rules": protocol, with the ICMP type and code."""
    _, caller, server, acl = pair
    entry(cloud, acl, 100, egress=True)
    entry(cloud, acl, 100, Protocol="1", IcmpTypeCode={"Type": 3, "Code": -1})
    assert not caller.pings(server.address)

    entry(cloud, acl, 110, Protocol="1", IcmpTypeCode={"Type": 8, "Code": -1})
    assert caller.pings(server.address)


def test_traffic_inside_a_subnet_meets_no_acl(cloud: Cloud, pair: Pair) -> None:
    """Amazon VPC User Guide, "Control subnet traffic with network access control lists": at the subnet level."""
    vpc, caller, server, _ = pair
    found = cloud.ec2.describe_instances(InstanceIds=[server.id])["Reservations"][0]["Instances"][0]
    neighbour = cloud.instance(found["SubnetId"], vpc.group([ALL]))

    assert not caller.pings(server.address)
    assert neighbour.pings(server.address)


def test_an_open_connection_is_cut_by_an_acl(cloud: Cloud, pair: Pair) -> None:
    """Amazon VPC User Guide, "Compare security groups and network ACLs": no state outlives an entry."""
    _, caller, server, acl = pair
    entry(cloud, acl, 100)
    entry(cloud, acl, 100, egress=True)

    with server.serves(80), caller.connected(server.address, 80) as conversation:
        assert conversation.goes_on()
        entry(cloud, acl, 50, ports=(80, 80), RuleAction="deny")
        assert not conversation.goes_on()


def test_malformed_entries_are_refused_and_change_no_packet(cloud: Cloud, pair: Pair) -> None:
    """Amazon EC2 API Reference, "CreateNetworkAclEntry"."""
    _, caller, server, acl = pair
    entry(cloud, acl, 100)
    entry(cloud, acl, 100, egress=True)

    for number, wrong in (
        (0, {}),
        (40000, {}),
        (90, {"CidrBlock": "10.0.0.0/40", "RuleAction": "deny"}),
        (90, {"CidrBlock": "10.0.0.0", "RuleAction": "deny"}),
        (90, {"ports": (90, 80), "RuleAction": "deny"}),
        (90, {"Protocol": "tcpp", "RuleAction": "deny"}),
    ):
        with pytest.raises(cloud.ec2.exceptions.ClientError):
            entry(cloud, acl, number, **wrong)
    assert caller.pings(server.address)
