"""Divide a VPC's range into the subnets of its availability zones."""

from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import islice


@dataclass(frozen=True, slots=True)
class Zone:
    """The two subnets of one availability zone."""

    public: IPv4Network
    private: IPv4Network


#: The first /22 of the VPC is reserved for public /24 subnets (three zones at most), unless private ones are /24 too.
PUBLIC_RESERVE = 22


def plan_subnets(cidr: IPv4Network, zones: int, private: int = 24) -> tuple[Zone, ...]:
    """Return a public /24 and a private subnet of `cidr` for each zone.

    The same zone always gets the same subnets, however many zones follow it. `private` is the prefix length of the
    private subnets, 24 or less. Raises ValueError if `cidr` is too small.
    """
    if private == 24:
        subnets = list(islice(cidr.subnets(new_prefix=24), 2 * zones))
        if len(subnets) < 2 * zones:
            raise ValueError(f"{cidr} has no room for {2 * zones} subnets of /24")
        return tuple(Zone(*pair) for pair in zip(subnets[::2], subnets[1::2], strict=True))
    reserved = max(1, 2 ** (private - PUBLIC_RESERVE))
    privates = list(islice(cidr.subnets(new_prefix=max(private, cidr.prefixlen)), reserved, reserved + zones))
    if len(privates) < zones:
        raise ValueError(f"{cidr} has no room for {zones} subnets of /{private} behind the public ones")
    return tuple(map(Zone, islice(cidr.subnets(new_prefix=24), zones), privates))
