"""Choose which of AWS's refusals a lab makes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Switches of `lab.api.validation`; refusals without a switch are always made."""

    throttle_writes: bool = True
    throttle_reads: bool = False
    quotas: bool = True
    single_ipv6_source: bool = False
    """Whether an interface may be created with one kind of IPv6 addresses and prefixes alone, as in EC2."""
    profile_delay: float = 0.0
    """Seconds until EC2 sees a new instance profile."""
