"""Compute with maintenance windows, which a stack file writes as Amazon RDS does."""

import re
from dataclasses import dataclass

DAY, WEEK = 24 * 60, 7 * 24 * 60
"""Minutes."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

#: Shortest window: a machine that reboots takes some minutes (Amazon RDS has the same limit).
MINIMUM = 30

_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
_MOMENT = rf"({'|'.join(DAYS)}):{_CLOCK}"

#: Regular expression of a weekly window, RDS's `PreferredMaintenanceWindow`, and of a daily one, its
#: `PreferredBackupWindow` (Amazon RDS API Reference, CreateDBInstance).
PATTERN = rf"^({_MOMENT}-{_MOMENT}|{_CLOCK}-{_CLOCK})$"


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A time in UTC that repeats every week or every day."""

    start: int
    """Minutes since Monday 00:00, or since midnight."""
    minutes: int
    """Its length."""
    is_daily: bool

    def half(self, number: int) -> "MaintenanceWindow":
        """Return the first half (0) or the second (1): two gateways that have one each are never restarted at once.

        >>> str(parse_window("sun:23:30-mon:00:30").half(1))
        'mon:00:00-mon:00:30'
        """
        length = self.minutes // 2
        return MaintenanceWindow(self.start + number * length, length, self.is_daily)

    def __str__(self) -> str:
        return f"{self._render(self.start)}-{self._render(self.start + self.minutes)}"

    def _render(self, minute: int) -> str:
        day, minute = divmod(minute, DAY)
        clock = f"{minute // 60:02}:{minute % 60:02}"
        return clock if self.is_daily else f"{DAYS[day % 7]}:{clock}"


def parse_window(text: str) -> MaintenanceWindow:
    """Return a window that `PATTERN` matches.

    >>> parse_window("sun:23:30-mon:00:30")
    MaintenanceWindow(start=10050, minutes=60, is_daily=False)
    """
    is_daily = not re.match(r"[a-z]", text)
    start, end = (_parse_minute(moment) for moment in text.split("-"))
    return MaintenanceWindow(start, (end - start) % (DAY if is_daily else WEEK), is_daily)


def _parse_minute(moment: str) -> int:
    *day, hours, minutes = moment.split(":")
    return (DAYS.index(day[0]) * DAY if day else 0) + int(hours) * 60 + int(minutes)
