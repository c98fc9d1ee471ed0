"""What a trial of a stack found: one line a check."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing a stack promises, and what became of it."""

    ok: bool
    what: str
    """Such as `alice -> private host 10.1.1.10`."""
    figure: str
    """What was measured, such as `0.8 ms`, or why it failed."""


def all_hold(checks: Sequence[Check]) -> bool:
    """Whether there are checks and every one holds: nothing checked is nothing shown."""
    return bool(checks) and all(check.ok for check in checks)
