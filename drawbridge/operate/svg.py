"""Render boxes of text, and lines between them, as SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from xml.sax.saxutils import escape

#: Space between a box's border and its content, and between blocks, in pixels.
PADDING = 14
GAP = 16

#: Distance of a text's lines.
LEADING = 19

#: Distance of a box's content from its upper edge; the title is above.
CONTENT_TOP = PADDING + 21

#: A character's width by the text's size: that of digits in DejaVu Sans, the widest of the common fonts.
REGULAR, BOLD = 0.64, 0.70


@dataclass(frozen=True, slots=True)
class Style:
    """Colors of a box; `stroke` is also that of its title."""

    fill: str
    stroke: str


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a drawing that knows its size and is drawn wherever its upper left corner is."""

    width: float
    height: float
    draw: Callable[[float, float], str]


def text(lines: Sequence[str], *, size: int = 13, bold: bool = False, color: str = "#1f2933") -> Block:
    """Return lines of text, one below the other."""
    weight = ' font-weight="bold"' if bold else ""
    leading = max(LEADING, size + 6)

    def draw(x: float, y: float) -> str:
        return "\n".join(
            f'<text x="{x:g}" y="{y + leading * number + size:g}" font-size="{size}"{weight} fill="{color}">'
            f"{escape(line)}</text>"
            for number, line in enumerate(lines)
        )

    width = max((len(line) for line in lines), default=0) * size * (BOLD if bold else REGULAR)
    return Block(width, leading * len(lines), draw)


def column(blocks: Sequence[Block], gap: float = GAP) -> Block:
    """Return blocks below each other."""
    tops = offsets([block.height for block in blocks], gap)

    def draw(x: float, y: float) -> str:
        return "\n".join(block.draw(x, y + top) for block, top in zip(blocks, tops, strict=True))

    height = sum(block.height for block in blocks) + gap * max(len(blocks) - 1, 0)
    return Block(max((block.width for block in blocks), default=0), height, draw)


def row(blocks: Sequence[Block], gap: float = GAP) -> Block:
    """Return blocks beside each other."""
    lefts = offsets([block.width for block in blocks], gap)

    def draw(x: float, y: float) -> str:
        return "\n".join(block.draw(x + left, y) for block, left in zip(blocks, lefts, strict=True))

    width = sum(block.width for block in blocks) + gap * max(len(blocks) - 1, 0)
    return Block(width, max((block.height for block in blocks), default=0), draw)


def centers(blocks: Sequence[Block], gap: float = GAP) -> list[float]:
    """Return the height of each block's middle in a column of blocks."""
    tops = offsets([block.height for block in blocks], gap)
    return [top + block.height / 2 for top, block in zip(tops, blocks, strict=True)]


def offsets(sizes: Sequence[float], gap: float) -> list[float]:
    """Return where each of some blocks begins if they follow each other at a distance."""
    return list(accumulate((size + gap for size in sizes), initial=0.0))[: len(sizes)]


def box(title: str, content: Sequence[Block], style: Style, *, width: float = 0, height: float = 0) -> Block:
    """Return a bordered box with a title and blocks below it, at least as large as `width` and `height`."""
    head = text([title], bold=True, color=style.stroke)
    inner = column([head, *(block for block in content if block.height)], gap=6)
    size = (max(width, inner.width + 2 * PADDING), max(height, inner.height + 2 * PADDING - 4))

    def draw(x: float, y: float) -> str:
        border = (
            f'<rect x="{x:g}" y="{y:g}" width="{size[0]:g}" height="{size[1]:g}" rx="8" '
            f'fill="{style.fill}" stroke="{style.stroke}" stroke-width="1.5"/>'
        )
        return f"{border}\n{inner.draw(x + PADDING, y + PADDING - 4)}"

    return Block(*size, draw)


def table(rows: Sequence[Sequence[str]], gap: float = 2 * GAP) -> Block:
    """Return texts in columns that are aligned at the left."""
    return row([text(cells) for cells in zip(*rows, strict=True)], gap)


def line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    """Return a straight line."""
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{color}" stroke-width="2.5" fill="none"/>'


def document(drawing: Block, margin: float, *, title: str, description: str) -> str:
    """Return an SVG image. Screen readers read its title and description (W3C, SVG Accessibility API Mappings)."""
    width, height = drawing.width + 2 * margin, drawing.height + 2 * margin
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="title description" '
        "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n"
        f'<title id="title">{escape(title)}</title>\n<desc id="description">{escape(description)}</desc>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{drawing.draw(margin, margin)}\n</svg>\n'
    )
