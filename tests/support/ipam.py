"""IPAM pools in the lab's API."""

from typing import Any


def create_pool(
    ec2: Any,
    *cidrs: str,
    tags: dict[str, str] | None = None,
    scope: str = "Private",
    locale: str = "",
    family: str = "",
) -> str:
    """Return the ID of a new pool with these ranges, private, of IPv4, and with the client's region as its locale."""
    ipam = ec2.create_ipam()["Ipam"]
    specification = {
        "ResourceType": "ipam-pool",
        "Tags": [{"Key": key, "Value": value} for key, value in (tags or {}).items()],
    }
    pool = ec2.create_ipam_pool(
        IpamScopeId=ipam[f"{scope}DefaultScopeId"],
        Locale=locale or ec2.meta.region_name,
        AddressFamily=family or "ipv4",
        **({"TagSpecifications": [specification]} if tags else {}),
    )
    identity = str(pool["IpamPool"]["IpamPoolId"])
    for cidr in cidrs:
        ec2.provision_ipam_pool_cidr(IpamPoolId=identity, Cidr=cidr)
    return identity


def list_allocations(ec2: Any, pool: str) -> dict[str, str]:
    """Return the descriptions of a pool's allocations by their ranges."""
    answer = ec2.get_ipam_pool_allocations(IpamPoolId=pool)
    return {entry["Cidr"]: entry["Description"] for entry in answer["IpamPoolAllocations"]}
