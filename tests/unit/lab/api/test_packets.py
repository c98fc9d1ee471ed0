"""What EC2 refuses before moto sees it. Does not prove that moto refuses the rest: tests/lab tries that."""

from collections.abc import Mapping

import pytest

from lab.api.errors import ApiError
from lab.api.validation.packets import check_packet_parameters

KNOWN = {"sg-1", "pl-1"}
RULE = {"GroupId": "sg-1", "IpPermissions.1.IpProtocol": "tcp", "IpPermissions.1.FromPort": "22",
        "IpPermissions.1.ToPort": "22", "IpPermissions.1.IpRanges.1.CidrIp": "10.0.0.0/8"}  # fmt: skip
ENTRY = {"NetworkAclId": "acl-1", "RuleNumber": "100", "Protocol": "6", "PortRange.From": "1", "PortRange.To": "9",
         "CidrBlock": "0.0.0.0/0", "Egress": "false", "RuleAction": "allow"}  # fmt: skip


def judge(action: str, parameters: Mapping[str, str]) -> None:
    check_packet_parameters(action, parameters, KNOWN.__contains__)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"IpPermissions.1.FromPort": "0", "IpPermissions.1.ToPort": "65535"},
        {"IpPermissions.1.IpProtocol": "-1"},
        {"IpPermissions.1.IpProtocol": "icmp", "IpPermissions.1.FromPort": "8", "IpPermissions.1.ToPort": "-1"},
        {"IpPermissions.1.IpProtocol": "47"},
        {"IpPermissions.1.Ipv6Ranges.1.CidrIpv6": "::/0"},
        {"IpPermissions.1.UserIdGroupPairs.1.GroupId": "sg-1", "IpPermissions.1.PrefixListIds.1.PrefixListId": "pl-1"},
    ],
)
def test_rules_that_mean_something_pass(change: dict[str, str]) -> None:
    judge("AuthorizeSecurityGroupIngress", {**RULE, **change})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"IpPermissions.1.IpRanges.1.CidrIp": "10.0.0.0/33"}, "InvalidParameterValue"),
        ({"IpPermissions.1.IpRanges.1.CidrIp": "10.0.0.0"}, "InvalidParameterValue"),
        ({"IpPermissions.1.IpRanges.1.CidrIp": "::/0"}, "InvalidParameterValue"),
        ({"IpPermissions.1.Ipv6Ranges.1.CidrIpv6": "10.0.0.0/8"}, "InvalidParameterValue"),
        ({"IpPermissions.1.IpRanges.1.CidrIp": "10.0.0.0/8 } accept"}, "InvalidParameterValue"),
        ({"IpPermissions.1.FromPort": "23"}, "InvalidParameterValue"),
        ({"IpPermissions.1.ToPort": "65536"}, "InvalidParameterValue"),
        ({"IpPermissions.1.ToPort": "ssh"}, "InvalidParameterValue"),
        ({"IpPermissions.1.IpProtocol": "quic"}, "InvalidParameterValue"),
        ({"IpPermissions.1.IpProtocol": "256"}, "InvalidParameterValue"),
        ({"IpPermissions.1.IpProtocol": "icmp", "IpPermissions.1.FromPort": "300"}, "InvalidParameterValue"),
        ({"IpPermissions.1.UserIdGroupPairs.1.GroupId": "sg-2"}, "InvalidGroup.NotFound"),
        ({"IpPermissions.1.PrefixListIds.1.PrefixListId": "pl-2"}, "InvalidPrefixListID.NotFound"),
    ],
)
def test_rules_that_mean_nothing_are_refused(change: dict[str, str], code: str) -> None:
    with pytest.raises(ApiError) as refused:
        judge("AuthorizeSecurityGroupIngress", {**RULE, **change})
    assert refused.value.code == code


def test_tcp_needs_ports() -> None:
    with pytest.raises(ApiError, match="both from and to"):
        judge("AuthorizeSecurityGroupEgress", {k: v for k, v in RULE.items() if not k.endswith("Port")})


@pytest.mark.parametrize(
    "change",
    [{"RuleNumber": "0"}, {"RuleNumber": "32767"}, {"PortRange.To": "0"}, {"Protocol": "x"}, {"CidrBlock": "x"}],
)
def test_acl_entries_are_looked_at_too(change: dict[str, str]) -> None:
    judge("CreateNetworkAclEntry", ENTRY)
    with pytest.raises(ApiError):
        judge("CreateNetworkAclEntry", {**ENTRY, **change})


def test_questions_are_not_looked_at() -> None:
    judge("DescribeSecurityGroups", {"GroupId.1": "sg-2", "Filter.1.Value.1": "x"})
