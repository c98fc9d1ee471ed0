"""Render the figures of bench.throughput: the tables and sentences of docs/benchmarks.md, and its plots. Pure."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from drawbridge.operate.svg import Block, document, text

STREAMS = (1, 8)
WAYS = ("up", "down")
#: The row that the others are compared with.
REFERENCE = "ours, tun"

#: Sizes of a plot in pixels.
_LABELS, _BARS, _FIGURES, _ROW = 130, 460, 170, 34
_OURS, _OTHERS, _SPREAD = "#2f6fab", "#a9b7c4", "#1f2933"


class FiguresError(Exception):
    """A file of figures that this version cannot read."""


@dataclass(frozen=True, slots=True)
class Round:
    """The rates, the cost and the latency of a tunnel in a round."""

    candidate: str
    load: float
    """Load of the machine before it."""
    rates: dict[str, float]
    """Mbit/s by way and streams, such as `up 1`."""
    cpu_per_gb: float
    """Seconds of processor time of both ends' processes for 10^9 bytes, over all ways and streams."""
    ping_median: float
    """Median of the round-trip times in ms of pings beside one stream up and one down."""
    ping_p95: float
    """Their 95th percentile, in ms."""
    pings_lost: float
    """Percentage of these pings that were not answered."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A run: its rounds, and where and when it was made."""

    begin: datetime
    machine: Mapping[str, Any]
    seconds: float
    candidates: Mapping[str, str]
    """The source of each candidate's configuration, by its name."""
    peers: Sequence[str]
    """The candidates of other projects."""
    rounds: Sequence[Round]

    def of(self, candidate: str) -> list[Round]:
        """Return the rounds of a candidate."""
        return [each for each in self.rounds if each.candidate == candidate]

    def ratios(self, candidate: str) -> tuple[list[float], list[float]]:
        """Return a candidate's rates and its processor time as ratios to the reference's in the same round."""
        pairs = list(zip(self.of(candidate), self.of(REFERENCE), strict=True))
        return (
            [sum(each.rates.values()) / sum(ours.rates.values()) for each, ours in pairs],
            [each.cpu_per_gb / ours.cpu_per_gb for each, ours in pairs],
        )


def read_figures(content: str, name: str) -> Figures:
    """Return the figures in the text of a JSON file; raise FiguresError, with the file's name, if some are missing."""
    figures = json.loads(content)
    absent = {field.name for field in fields(Figures)} - figures.keys()
    for row in figures.get("rounds", ()):
        absent |= {field.name for field in fields(Round)} - row.keys()
    if absent:
        missing = ", ".join(sorted(absent))
        raise FiguresError(f"{name}: no {missing}; measure again: python -m bench.throughput --json {name}")
    return Figures(
        begin=datetime.fromisoformat(figures["begin"]),
        rounds=[Round(**row) for row in figures["rounds"]],
        **{key: figures[key] for key in ("machine", "seconds", "candidates", "peers")},
    )


def render_report(figures: Figures) -> Iterator[str]:
    """Yield the lines of Markdown that hold figures: tables of throughput and latency, the machine, and the ratios."""
    yield from _render_throughput(figures)
    yield ""
    yield from _render_latency(figures)
    yield ""
    yield from _render_machine(figures)
    yield ""
    yield from _render_ratios(figures)


def _render_throughput(figures: Figures) -> Iterator[str]:
    """Yield the table of rates and cost. A peer that is faster than ours by the median has the word `faster`."""
    columns = [f"{way} {streams}" for streams in STREAMS for way in WAYS]
    titles = [f"{column.replace(' ', ', ')} stream{'s' * (not column.endswith(' 1'))}" for column in columns]
    yield f"| Mbit/s | {' | '.join(titles)} | CPU-seconds per GB | to ours, tun |"
    yield "| --- |" + " --- |" * (len(columns) + 2)
    for candidate in figures.candidates:
        rounds, ratios = figures.of(candidate), figures.ratios(candidate)[0]
        cells = [_spread([each.rates[column] for each in rounds], 0) for column in columns]
        cells += [_spread([each.cpu_per_gb for each in rounds], 1), _spread(ratios, 2)]
        if candidate in figures.peers and statistics.median(ratios) > 1:
            cells[-1] += ", faster"
        yield f"| {candidate} | {' | '.join(cells)} |"


def _render_latency(figures: Figures) -> Iterator[str]:
    yield "| ping beside one stream up and one down | median, ms | 95th percentile, ms | lost, % |"
    yield "| --- | --- | --- | --- |"
    for candidate in figures.candidates:
        rounds = figures.of(candidate)
        cells = [
            _spread([each.ping_median for each in rounds], 1),
            _spread([each.ping_p95 for each in rounds], 1),
            _spread([each.pings_lost for each in rounds], 1),
        ]
        yield f"| {candidate} | {' | '.join(cells)} |"


def _render_machine(figures: Figures) -> Iterator[str]:
    loads, machine = [each.load for each in figures.rounds], figures.machine
    begin = f"{figures.begin.day} {figures.begin:%B %Y}"
    yield f"Measured on {begin} with {machine['openvpn']} and Linux {machine['kernel']} on {machine['processors']}"
    yield f"processors with a load of {min(loads):.1f} to {max(loads):.1f} and {machine['priority']}:"
    yield f"{len(figures.of(REFERENCE))} rounds, {figures.seconds:g} seconds for each figure."


def _render_ratios(figures: Figures) -> Iterator[str]:
    faster = [name for name in figures.peers if statistics.median(figures.ratios(name)[0]) > 1]
    yield (
        f"**Faster than ours, by the medians: {', '.join(faster)}.**"
        if faster
        else "**No peer is faster than ours, by the medians.**"
    )
    yield ""
    for name in figures.peers:
        rates, costs = figures.ratios(name)
        yield f"- {name}: {_spread(rates, 2)} times our throughput, {_spread(costs, 2)} times our processor time per GB"


def render_plots(figures: Figures) -> dict[str, str]:
    """Return SVG images by file name: bars of the medians, with a line from the least to the most of the rounds.

    The bare wire is left out: its rates would leave nothing of the others.
    """
    shown = [name for name in figures.candidates if name.startswith("ours") or name in figures.peers]
    rates = {name: [statistics.mean(each.rates.values()) for each in figures.of(name)] for name in shown}
    costs = {name: [each.cpu_per_gb for each in figures.of(name)] for name in shown}
    throughput = "Throughput in Mbit/s: the mean of both ways with 1 and 8 streams"
    cost = "CPU-seconds per GB, of both ends together"
    return {
        "benchmarks-throughput.svg": _render_plot(throughput, rates, 0),
        "benchmarks-cpu.svg": _render_plot(cost, costs, 1),
    }


def _render_plot(title: str, rows: Mapping[str, Sequence[float]], digits: int) -> str:
    scale = _BARS / max(max(row) for row in rows.values())

    def draw(x: float, y: float) -> str:
        return "\n".join(
            [text([title], bold=True).draw(x, y)]
            + [
                _draw_row(x, y + _ROW * number, name, row, scale, digits)
                for number, (name, row) in enumerate(rows.items(), 1)
            ]
        )

    block = Block(_LABELS + _BARS + _FIGURES, _ROW * (len(rows) + 1), draw)
    described = "; ".join(f"{name} {_spread(row, digits)}" for name, row in rows.items())
    return document(block, 16, title=title, description=f"Medians, with the least and the most: {described}.")


def _draw_row(x: float, y: float, name: str, row: Sequence[float], scale: float, digits: int) -> str:
    left, middle = x + _LABELS, y + _ROW / 2
    low, high = left + min(row) * scale, left + max(row) * scale
    color = _OURS if name.startswith("ours") else _OTHERS
    width = statistics.median(row) * scale
    return "\n".join(
        (
            text([name]).draw(x, y + 8),
            f'<rect x="{left:.1f}" y="{y + 6:.1f}" width="{width:.1f}" height="22" fill="{color}"/>',
            f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}'
            f'M{low:.1f} {middle - 5:.1f}v10M{high:.1f} {middle - 5:.1f}v10" '
            f'stroke="{_SPREAD}" stroke-width="1.5" fill="none"/>',
            text([_spread(row, digits)]).draw(left + _BARS + 8, y + 8),
        )
    )


def _spread(values: Sequence[float], digits: int) -> str:
    middle, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"
