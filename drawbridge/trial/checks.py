"""Results of a trial: one line a check."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of a stack, and whether it holds."""

    ok: bool
    promise: str
    """Such as `alice -> private host 10.1.1.10`."""
    figure: str
    """What was measured, such as `0.8 ms`, or why it failed."""
    look: str = ""
    """Of a check that failed: the command that shows more."""


def all_hold(checks: Sequence[Check]) -> bool:
    """Return whether every check holds; without any check, nothing is shown and the result is False."""
    return bool(checks) and all(check.ok for check in checks)
