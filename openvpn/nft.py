"""Write the parts that all nftables files of this package have. Source: nft(8)."""

from collections.abc import Iterable
from textwrap import indent


def render_table(title: str, table: str, body: str) -> str:
    """Return a file for `nft -f` that replaces `table`, family and name, in one transaction.

    A table can be deleted only if it exists, so the file declares it first.
    """
    content = indent(body, "    ")
    return f"# {title}\ntable {table}\ndelete table {table}\n\ntable {table} {{\n{content}}}\n"


def render_set(name: str, kind: str, elements: Iterable[object], flags: str = "") -> str:
    """Return the definition of a set; nft refuses an empty list of elements, so an empty set has none."""
    listed = ", ".join(dict.fromkeys(map(str, elements)))
    lines = [
        f"type {kind}",
        *([f"flags {flags}"] if flags else []),
        *([f"elements = {{ {listed} }}"] if listed else []),
    ]
    return f"set {name} {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"
