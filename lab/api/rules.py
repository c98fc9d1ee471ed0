"""Choose which of AWS's refusals a lab makes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Switches of `lab.api.validation`; refusals without a switch are always made."""

    throttle_writes: bool = True
    throttle_reads: bool = False
    quotas: bool = True
    profile_delay: float = 0.0
    """Seconds until EC2 sees a new instance profile."""
