"""Send packets that somebody hostile would craft, many at once, and count which arrive behind the wall.

Each packet carries a token of its own, so that one listener tells them all apart. A packet that is refused shows
nothing unless another one, its control, arrives at the same listener in the same minute.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from drawbridge.trial import segment
from drawbridge.trial.hosts import run_checked
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


def cut_ipv6(frame: Packet, cut: int = 16) -> list[Packet]:
    """Return a frame's IPv6 packet cut behind 16 bytes of destination options (RFC 7113), or whole for a cut of 0."""
    packet = frame[IPv6]
    addresses = {"src": packet.src, "dst": packet.dst, "hlim": packet.hlim}
    inner = bytes(IPv6(**addresses) / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]) / packet.payload)[40:]
    parts = [(0, inner[:cut]), (cut // 8, inner[cut:])] if cut else [(0, inner)]
    return [
        Ether(src=frame.src, dst=frame.dst)
        / IPv6(**addresses)
        / IPv6ExtHdrFragment(nh=60, id=7, offset=offset, m=int(part is not parts[-1][1]))
        / Raw(part)
        for offset, part in parts
    ]


#: Opens many TCP ports at once; shows those that are open.
_SCAN = """
import json, resource, selectors, socket, sys, time
address, seconds, *ports = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
waiting, opened = selectors.DefaultSelector(), []
for port in ports:
    family, kind, _, _, target = socket.getaddrinfo(address, int(port), type=socket.SOCK_STREAM)[0]
    connection = socket.socket(family, kind)
    connection.setblocking(False)
    connection.connect_ex(target)
    waiting.register(connection, selectors.EVENT_WRITE, int(port))
end = time.monotonic() + float(seconds)
while waiting.get_map() and (left := end - time.monotonic()) > 0:
    for key, _ in waiting.select(left):
        if not key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            opened.append(key.data)
        waiting.unregister(key.fileobj)
print(json.dumps(opened))
"""
_PORTS = [*range(1, 900), 1194, 2049, 3306, 5432, 5353, 7505, 8080, 9100]


def scan(host: Host, address: str, seconds: float = 3) -> list[int]:
    """Return the TCP ports of an address, IPv4 or IPv6, that a host can open."""
    opened: list[int] = json.loads(
        run_checked(host, "python3", "-", address, str(seconds), *map(str, _PORTS), stdin=_SCAN)
    )
    return opened
