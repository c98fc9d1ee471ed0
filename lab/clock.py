"""The time of a region's CloudWatch, which tests set forward instead of waiting."""

from datetime import UTC, datetime, timedelta


class Clock:
    """Real time and what it was set forward by."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the time, UTC, without a time zone, as moto's objects have it."""
        return datetime.now(UTC).replace(tzinfo=None) + self._ahead

    def set_forward(self, duration: timedelta) -> None:
        """Set the clock forward for good."""
        self._ahead += duration
