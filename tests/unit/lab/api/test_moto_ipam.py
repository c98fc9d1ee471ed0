"""Pools of IPAM, as the lab's API has them."""

import doctest

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from lab.api import moto_ipam
from lab.api.moto_patches import add_ipam_pools, patched
from tests.support.ipam import create_pool, list_allocations


def test_the_documented_example_holds() -> None:
    assert doctest.testmod(moto_ipam).failed == 0


def test_a_range_is_given_once_and_again_after_its_release() -> None:
    with mock_aws(), patched(add_ipam_pools):
        ec2 = boto3.client("ec2", region_name="eu-west-1")
        pool = create_pool(ec2, "172.20.0.0/24")
        first = ec2.allocate_ipam_pool_cidr(IpamPoolId=pool, NetmaskLength=24, Description="x")["IpamPoolAllocation"]
        assert (first["Cidr"], first["ResourceType"]) == ("172.20.0.0/24", "custom")
        assert list_allocations(ec2, pool) == {"172.20.0.0/24": "x"}
        with pytest.raises(ClientError, match=r"InvalidParameterValue.*The allocation size is too big for the pool"):
            ec2.allocate_ipam_pool_cidr(IpamPoolId=pool, NetmaskLength=28)
        names = {"IpamPoolId": pool, "IpamPoolAllocationId": first["IpamPoolAllocationId"], "Cidr": first["Cidr"]}
        assert ec2.release_ipam_pool_allocation(**names)["Success"]
        with pytest.raises(ClientError, match=r"InvalidIpamPoolAllocationId\.NotFound"):
            ec2.release_ipam_pool_allocation(**names)
        answer = ec2.allocate_ipam_pool_cidr(IpamPoolId=pool, NetmaskLength=25, DisallowedCidrs=["172.20.0.0/28"])
        assert answer["IpamPoolAllocation"]["Cidr"] == "172.20.0.128/25"
        with pytest.raises(ClientError, match=r"InvalidIpamPoolId\.NotFound"):
            ec2.describe_ipam_pools(IpamPoolIds=["ipam-pool-0123456789abcdef0"])
