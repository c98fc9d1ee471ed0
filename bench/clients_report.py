"""Render the figures of bench.clients: the table of docs/benchmarks.md about clients that connect at once. Pure."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rush:
    """The outcome of clients that connected to a gateway at once."""

    processes: int
    """OpenVPN processes of the gateway."""
    clients: int
    each: int
    """Clients behind one public address."""
    load: float
    """Load of the machine before it."""
    times: Sequence[float]
    """Seconds from the first client's first packet to each PUSH_REPLY, of the clients that got it."""
    errors: Sequence[str]
    """Reasons of the server or of TLS, each once."""
    attempts: int
    """Sessions that clients asked for."""
    repeats: int
    """Times that a client sent again what was not acknowledged."""
    limited: int
    """First packets that the packet filter dropped, because their address had opened its share of sessions."""
    overflowed: int
    """Packets that the gateway's sockets had no room for."""
    sessions: Sequence[int]
    """Complete sessions of each process afterwards, by its own status file."""
    gateway_cpu: float
    """Seconds of processor time of the gateway's OpenVPN processes and their scripts while the clients connected."""
    followers_cpu: float
    """The same of the program that sets routes to clients."""
    generator_cpu: float
    """The same of the process that all clients are in."""
    memory_before: int
    """Bytes of memory of the OpenVPN processes."""
    memory_after: int


def render_rushes(rushes: Sequence[Rush]) -> Iterator[str]:
    """Yield the lines of Markdown that hold the figures."""
    yield "| processes | clients | behind one address | connected | median, s | 95 %, s | last, s | a second |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for rush in rushes:
        yield f"| {rush.processes} | {rush.clients:,} | {rush.each} | {' | '.join(_time_cells(rush))} |"
    yield ""
    yield (
        "| processes | behind one address | gateway's CPU-seconds, for a client in ms | route program's |"
        " clients' own | memory before, after, MiB | sessions asked for | repeated |"
        " dropped by the limit | by full sockets |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for rush in rushes:
        yield f"| {rush.processes} | {rush.each} | {' | '.join(_cost_cells(rush))} |"
    yield ""
    loads = [rush.load for rush in rushes]
    yield f"The load of the machine before was {min(loads):.1f} to {max(loads):.1f}."


def _time_cells(rush: Rush) -> Iterator[str]:
    times = sorted(rush.times)
    yield f"{len(times):,}" + (f" ({', '.join(rush.errors)})" if rush.errors else "")
    if len(times) < 2:
        yield from ("-",) * 4
        return
    yield f"{statistics.median(times):.1f}"
    yield f"{statistics.quantiles(times, n=20, method='inclusive')[-1]:.1f}"
    yield f"{times[-1]:.1f}"
    yield f"{len(times) / times[-1]:.0f}"


def _cost_cells(rush: Rush) -> Iterator[str]:
    each = rush.gateway_cpu / max(len(rush.times), 1) * 1000
    yield f"{rush.gateway_cpu:.1f}, {each:.1f}"
    yield f"{rush.followers_cpu:.1f}"
    yield f"{rush.generator_cpu:.1f}"
    yield f"{rush.memory_before / 2**20:.0f}, {rush.memory_after / 2**20:.0f}"
    yield f"{rush.attempts:,}"
    yield f"{rush.repeats:,}"
    yield f"{rush.limited:,}"
    yield f"{rush.overflowed:,}"
