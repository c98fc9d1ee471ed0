"""Send packets that somebody hostile would craft, many at once, and count which arrive behind the wall.

Each packet carries a token of its own, so that one listener tells them all apart. A packet that is refused shows
nothing unless another one, its control, arrives at the same listener in the same minute.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from drawbridge.trial import segment
from lab.region import Host

#: Times that each packet is sent.
TIMES = 3


def token(name: str) -> bytes:
    """Return eight bytes that no other packet carries."""
    return sha256(name.encode()).digest()[:8]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One crafted packet: the frames that it is sent as, and what tells it from others at the listener."""

    name: str
    frames: tuple[bytes, ...]
    pattern: bytes
    """Bytes that the last of its frames has wherever it arrives."""

    @classmethod
    def of(cls, name: str, *frames: bytes) -> "Attempt":
        """Return an attempt whose last frame carries the token of its name."""
        pattern = token(name)
        assert pattern in frames[-1], f"{name}: the token is not in its last frame"
        return cls(name, frames, pattern)


def count_arrivals(
    attempts: Iterable[Attempt],
    *,
    sender: Host,
    device: str,
    listener: Host,
    listener_device: str,
    seconds: float = 3,
    forwarded: bool = False,
) -> Mapping[str, int]:
    """Send every attempt from a machine's device, and return how many frames of each came to the listener's.

    With `forwarded`, count those that the listener itself sends from its device.
    """
    every = list(attempts)
    patterns = [attempt.pattern.hex() for attempt in every]
    action = "count-sent" if forwarded else "count"
    ear = segment.FrameListener(listener, action, listener_device, str(seconds), *patterns)
    with ear:
        segment.send_frames(sender, device, *_interleave(every), times=TIMES)
    return dict(zip((attempt.name for attempt in every), ear.counts, strict=True))


def _interleave(attempts: Sequence[Attempt]) -> Iterable[bytes]:
    return (frame for attempt in attempts for frame in attempt.frames)
