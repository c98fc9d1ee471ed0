"""Count the VPCs and Elastic IPs of the region, so that AWS refuses none in the middle of a deployment.

A quota on VPCs is one on internet gateways too: raising it raises theirs (Amazon VPC User Guide, "Amazon VPC quotas").
"""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
import pulumi_aws as aws

import contract


@dataclass(frozen=True, slots=True)
class AccountQuota:
    """A quota of an account in a region, by Service Quotas' names."""

    noun: str
    service: str
    code: str
    remedy: str
    """With a place for the number of those that are too many."""
    default: int = 5
    """The quota of an account that has asked for no more."""


VPCS = AccountQuota("VPC", "vpc", "L-F678F1CE", "delete {}, use an existing one (drawbridge:network.vpcId)")
ADDRESSES = AccountQuota("Elastic IP", "ec2", "L-0263D0A3", "release {}")


def check_vpcs(region: str, vpcs: Collection[tuple[contract.Names, IPv4Network]]) -> None:
    """Raise `pulumi.RunError` if the region has no room for new VPCs, given by their gateways' names and ranges.

    A VPC that is deployed with its range is not new; with another range it is replaced, and both exist for a while.
    """
    existing = len(aws.ec2.get_vpcs().ids) if vpcs else 0
    if existing + len(vpcs) <= VPCS.default:
        return
    new = [cidr for names, cidr in vpcs if not _is_deployed(names, cidr)]
    _check(VPCS, region, existing, len(new))


def check_addresses(region: str, gateways: Collection[contract.Names]) -> None:
    """Raise `pulumi.RunError` if the region has no room for the Elastic IPs of gateways that have none yet."""
    existing = len(aws.ec2.get_eips().allocation_ids)
    if existing + len(gateways) <= ADDRESSES.default:
        return
    new = [names for names in gateways if not aws.ec2.get_eips(tags=names.tags("gateway")).allocation_ids]
    _check(ADDRESSES, region, existing, len(new))


def _is_deployed(names: contract.Names, cidr: IPv4Network) -> bool:
    return bool(aws.ec2.get_vpcs(tags=names.tags("vpc"), filters=[{"name": "cidr", "values": [str(cidr)]}]).ids)


def _check(quota: AccountQuota, region: str, existing: int, new: int) -> None:
    if existing + new <= quota.default or not new:
        return
    try:
        limit = int(aws.servicequotas.get_service_quota(service_code=quota.service, quota_code=quota.code).value)
    except Exception as error:  # the SDK has no class of its own for a failed look-up
        pulumi.log.warn(
            f"{region} has {existing} {quota.noun}s, and the stack adds {new}; whether the account's quota "
            f"allows that cannot be read: {error}"
        )
        return
    if existing + new > limit:
        remedy = quota.remedy.format(existing + new - limit)
        raise pulumi.RunError(
            f"drawbridge:network: needs {new} new {quota.noun}{'s' if new > 1 else ''}, but {region} has {existing} "
            f"and the account's quota is {limit}; {remedy}, or ask for more: aws service-quotas "
            f"request-service-quota-increase --service-code {quota.service} --quota-code {quota.code} "
            f"--desired-value {existing + new} --region {region}"
        )
