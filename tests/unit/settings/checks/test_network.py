"""Refusals of new and existing VPCs, in their exact words. Does not prove that AWS and OpenVPN agree."""

from typing import Any

import pytest

from tests.support.refusals import find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"network": {"cidr": "10.1.0.0/24"}},
            "network.cidr: 10.1.0.0/24 is too small for a VPC with 1 zone; use a prefix between /16 and /23",
        ),
        (
            {"network": {"cidr": "10.1.0.0/22", "zones": 3}},
            "network.cidr: 10.1.0.0/22 is too small for a VPC with 3 zones; use a prefix between /16 and /21",
        ),
        (
            {"network": {"cidr": "10.1.0.0/16", "zones": 2, "privatePrefix": 17}},
            "network.privatePrefix: 17 is too short for 2 private subnets in drawbridge:network.cidr 10.1.0.0/16; "
            "use 18 to 24",
        ),
        (
            {"network": {"cidr": "10.1.0.0/22", "privatePrefix": 23}},
            "network.privatePrefix: 23 is too short for 1 private subnet in drawbridge:network.cidr 10.1.0.0/22; "
            "use 24",
        ),
        (
            {"network": {"vpcId": "vpc-1", "subnetId": "subnet-1", "privatePrefix": 20}},
            "network.privatePrefix: 20 is only for a new VPC; leave it out, or leave vpcId and subnetId out",
        ),
        (
            {"network": {"vpcId": "vpc-1"}},
            "network.subnetId: (missing) is required for an existing VPC; use the ID of a public subnet of that "
            "VPC (subnet-…)",
        ),
        (
            {"network": {"vpcId": "vpc-1", "subnetId": "subnet-1", "cidr": "10.1.0.0/16"}},
            "network.cidr: 10.1.0.0/16 is only for a new VPC; leave it out, or leave vpcId and subnetId out",
        ),
        (
            {"network": {"routeTableIds": ["rtb-1"]}},
            "network.routeTableIds: [rtb-1] is only for an existing VPC; leave it out, or add vpcId and subnetId",
        ),
        (
            {"network": {"vpcId": "vpc-1", "subnetId": "subnet-1"}, "tunnel": {"nat": False}},
            "network.routeTableIds: (missing) is required when the existing VPC opens connections to clients; "
            "write the IDs of the route tables that need routes to the clients (rtb-…)",
        ),
        (
            {"pair": {"cidr": "10.2.0.0/25"}},
            "pair.cidr: 10.2.0.0/25 is too small for a VPC with 1 zone; use a prefix between /16 and /23",
        ),
    ],
)
def test_refused_vpcs(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]
