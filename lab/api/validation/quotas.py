"""Refuse what is over an account's quotas in a region: AWS's defaults, or what Service Quotas has applied.

Sources: Amazon VPC User Guide, "Amazon VPC quotas"; Amazon EC2 API Reference, "Error codes for the Amazon EC2 API";
Service Quotas, for the quota codes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lab.api.errors import ApiError
from lab.api.moto_inventory import Inventory
from lab.api.request import ApiRequest


@dataclass(frozen=True, slots=True)
class Quota:
    """One of Service Quotas' quotas, the action that is counted, and the refusal of one more."""

    service: str
    code: str
    name: str
    default: int
    action: str
    count: Callable[[ApiRequest, Inventory], int]
    error: str
    message: str


def _count_acl_entries(request: ApiRequest, inventory: Inventory) -> int:
    acl, egress = request.parameters.get("NetworkAclId", ""), bool(request.parameters.get("Egress"))
    return inventory.count_acl_entries(acl, egress=egress, ipv6=bool(request.parameters.get("Ipv6CidrBlock")))


def _count_routes(request: ApiRequest, inventory: Inventory) -> int:
    ipv6 = bool(request.parameters.get("DestinationIpv6CidrBlock"))
    return inventory.count_routes(request.parameters.get("RouteTableId", ""), ipv6=ipv6)


#: Quota codes of VPCs and of internet gateways per Region.
VPCS, INTERNET_GATEWAYS = "L-F678F1CE", "L-A4707A72"

#: Add a quota here. moto counts the rules of security groups itself.
QUOTAS = (
    Quota(
        "vpc", VPCS, "VPCs per Region", 5, "CreateVpc",
        lambda _, inventory: inventory.count_vpcs(),
        "VpcLimitExceeded", "The maximum number of VPCs has been reached.",
    ),
    Quota(
        "vpc", INTERNET_GATEWAYS, "Internet gateways per Region", 5, "CreateInternetGateway",
        lambda _, inventory: inventory.count_internet_gateways(),
        "InternetGatewayLimitExceeded", "The maximum number of internet gateways has been reached.",
    ),
    Quota(
        "ec2", "L-0263D0A3", "EC2-VPC Elastic IPs", 5, "AllocateAddress",
        lambda _, inventory: inventory.count_addresses(),
        "AddressLimitExceeded", "The maximum number of addresses has been reached.",
    ),
    Quota(
        "vpc", "L-2AEEBF1A", "Rules per network ACL", 20, "CreateNetworkAclEntry", _count_acl_entries,
        "NetworkAclEntryLimitExceeded", "The maximum number of network acl entries has been reached.",
    ),
    Quota(
        "vpc", "L-93826ACB", "Routes per route table", 50, "CreateRoute", _count_routes,
        "RouteLimitExceeded", "The maximum number of routes has been reached.",
    ),
)  # fmt: skip


def check_quotas(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Return the refusal of a call that would go over a quota, or None."""
    for quota in QUOTAS:
        is_counted = request.service == "ec2" and request.action == quota.action
        if is_counted and quota.count(request, inventory) >= _find_limit(quota, inventory):
            return ApiError(quota.error, quota.message)
    return None


def _find_limit(quota: Quota, inventory: Inventory) -> float:
    """Return the quota in force; more VPCs allow as many more internet gateways."""
    applied = inventory.find_quota(quota.service, quota.code)
    if applied is None and quota.code == INTERNET_GATEWAYS:
        applied = inventory.find_quota("vpc", VPCS)
    return quota.default if applied is None else applied
