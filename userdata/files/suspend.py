#!/usr/bin/env python3
"""Suspends clients of a segment that send frames from hardware addresses of others.

For each such frame OpenVPN waits for `learn-address`, and so does everybody else's traffic. The script counts the
frames in `refused/NAME`; this program ends the sessions of a client whose count reaches `LIMIT` within `WINDOW`, and
keeps `suspended/NAME` for `SUSPENSION`, while `verify-member` refuses the client's certificate. systemd starts it when
there is a count; it ends when there is neither a count nor a suspended client. Only Python's standard library.
"""

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

#: Refused frames until a client is suspended.
LIMIT = 10
#: Seconds.
WINDOW = 60.0
SUSPENSION = 300.0
INTERVAL = 0.2
#: OpenVPN serves one management client at a time.
MANAGEMENT_TIMEOUT = 5.0


class Suspender:
    """Suspends the clients of one OpenVPN process, whose runtime directory has the counts and the suspended clients."""

    def __init__(self, runtime: Path, end_sessions: Callable[[Iterable[str]], None]) -> None:
        """`end_sessions` ends all sessions of the clients with these names, or raises OSError."""
        self.refused, self.suspended = runtime / "refused", runtime / "suspended"
        self.end_sessions = end_sessions
        self.first_seen: dict[str, float] = {}
        self.until: dict[str, float] = {}

    def run_once(self, now: float) -> bool:
        """Suspend, and end what has run out, at `now`, seconds of a steady clock; return whether anything is left."""
        # A file without a time was left by a run that was killed.
        for path in list(self.suspended.iterdir()):
            if self.until.setdefault(path.name, now + SUSPENSION) <= now:
                path.unlink(missing_ok=True)
                del self.until[path.name]
        counts = {path.name: read_count(path) for path in self.refused.iterdir()}
        self.first_seen = {name: self.first_seen.get(name, now) for name in counts}
        offenders = [name for name, count in counts.items() if count >= LIMIT or name in self.until]
        if offenders:
            self._suspend(offenders, now)
        for name, seen in self.first_seen.items():
            if seen + WINDOW <= now:
                (self.refused / name).unlink(missing_ok=True)
        return bool(counts or self.until)

    def _suspend(self, names: Iterable[str], now: float) -> None:
        for name in names:
            if name not in self.until:
                seconds = f"{SUSPENSION:.0f} s"
                print(f"{name} sends from the hardware addresses of others: suspended for {seconds}", flush=True)
                self.until[name] = now + SUSPENSION
            (self.suspended / name).touch()
        try:
            self.end_sessions(names)
        except OSError as error:
            print(f"OpenVPN does not end the sessions of {', '.join(names)}: {error}", file=sys.stderr, flush=True)
            return
        for name in names:
            (self.refused / name).unlink(missing_ok=True)


def read_count(path: Path) -> int:
    """Return the number in a file; 0 while the script writes it."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def end_sessions(management: Path, names: Iterable[str]) -> None:
    """End all sessions of the clients with these names; raises OSError if OpenVPN does not answer."""
    end = time.monotonic() + MANAGEMENT_TIMEOUT
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(MANAGEMENT_TIMEOUT)
        connection.connect(str(management))
        with connection.makefile("rw", encoding="utf-8", errors="replace", newline="\n") as stream:
            for name in names:
                stream.write(f"kill {name}\n")
                stream.flush()
                # ERROR: it has no session.
                while not (line := stream.readline()).startswith(("SUCCESS:", "ERROR:")):
                    if not line or time.monotonic() > end:
                        raise TimeoutError(f"no answer to kill {name}")


def main(arguments: list[str]) -> None:
    """Run until there is nothing left to do; the argument is the process's runtime directory."""
    (runtime,) = map(Path, arguments)
    suspender = Suspender(runtime, lambda names: end_sessions(runtime / "mgmt.sock", names))
    while suspender.run_once(time.monotonic()):
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main(sys.argv[1:])
