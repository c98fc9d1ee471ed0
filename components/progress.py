"""Report the progress of a long run."""

import time

import pulumi

#: Seconds between two lines.
INTERVAL = 10.0


class Progress:
    """Counts steps, and logs how many are done every `INTERVAL` seconds; a short run logs nothing.

    Args:
        subject: what the steps complete, for the log.
        total: number of steps.
        done: number of steps that an earlier run has done.
    """

    def __init__(self, subject: str, total: int, done: int = 0) -> None:
        self._subject, self._total, self._done = subject, total, done
        self._logged = time.monotonic()

    def advance(self) -> None:
        """Count a step."""
        self._done += 1
        if time.monotonic() - self._logged >= INTERVAL:
            self._logged = time.monotonic()
            # Under Pulumi a dynamic provider has no connection to the engine, which then shows its standard error.
            pulumi.log.info(f"{self._subject}: {self._done} of {self._total}")
