"""Render keys, values and defaults in the tables of docs/settings.md from the settings' model.

What a key means is written by hand, in the last column. Run it with .venv/bin/python after a key, its values or its
default have changed. A new key gets a row at the end of its table; write what it means there. A default that the model
does not state, such as one that depends on another key, is written by hand as well, and words after a default stay.
A key that a section shares with another needs no row if the text above the table names it.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from settings.model import Bridge, Settings
from settings.problems import FORMATS, NAMESPACE

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

COLUMNS = ("key", "value", "default", "meaning")

#: What one may write where texts have forms that the errors' nouns do not tell, by section and key.
FORMS = {
    "Gateway.image": "`debian-13`, `ours`, `ours-backports` or AMI ID",
    "Secrets.key": "`stack`, `aws/ssm` or ARN of a KMS key",
}

NOUNS: Mapping[object, str] = {
    bool: "`true` or `false`",
    IPv4Address: "IPv4 address",
    IPv4Network: "IPv4 range",
    IPv6Address: "IPv6 address",
    IPv6Network: "IPv6 range",
}


def models() -> dict[str, type[BaseModel]]:
    """Return the model of each table, by the heading above it; of a list, the model of its items."""
    models_by_heading = {
        f"{NAMESPACE}:{name}": kind
        for name, field in Settings.model_fields.items()
        for kind in (field.annotation, *get_args(field.annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    }
    return {**models_by_heading, f"Of {NAMESPACE}:clients, bridge": Bridge}


def describe_value(kind: Any, noun: str, metadata: Sequence[Any] = ()) -> str:
    """Return what a type lets one write; `noun` is what its texts are, such as "client name"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner = [item for data in arguments[1:] for item in (data.metadata if isinstance(data, FieldInfo) else [data])]
        return describe_value(arguments[0], noun, [*inner, *metadata])
    if origin is Literal:
        words = [f"`{word}`" for word in arguments]
        return f"{', '.join(words[:-1])} or {words[-1]}" if words[1:] else words[0]
    if origin in (Union, UnionType):
        words = [describe_value(part, noun, metadata) for part in arguments if part is not NoneType]
        return ", ".join(words[:-1]).replace(" or ", ", ") + f" or {words[-1]}" if words[1:] else words[0]
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"list of {len(arguments)}: {', '.join(describe_value(part, noun) for part in arguments)}"
    if origin is tuple:
        return f"list: {describe_value(arguments[0], noun)}"
    if origin is not None and issubclass(origin, Mapping):
        return f"a {describe_value(arguments[1], noun)} by name"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        keys = [field.alias or name for name, field in kind.model_fields.items()]
        return f"keys {', '.join(f'`{key}`' for key in keys)}"
    if kind is int:
        return _describe_limits(metadata)
    return NOUNS.get(kind, noun)


def _describe_limits(metadata: Sequence[Any]) -> str:
    """Return the limits of a whole number, as one writes it: without separators."""
    lower = next((data.ge for data in metadata if hasattr(data, "ge")), None)
    upper = next((data.le for data in metadata if hasattr(data, "le")), None)
    if upper is None:
        return f"{lower} or more"
    return f"{lower} to {upper}"


def show_default(field: FieldInfo) -> str:
    """Return a default as the page shows it; empty if there is none, or if it is described in words."""
    value = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    if value in (None, ""):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def rows(model: type[BaseModel], former: Mapping[str, Sequence[str]], above: str) -> Iterator[str]:
    """Yield the rows of a table, in the order of the page.

    `former` has its cells after the key, by key; inherited keys that the text `above` the table names have no new row.
    """
    fields = {
        key: field
        for name, field in model.model_fields.items()
        if (key := field.alias or name) in former or name in model.__annotations__ or f"`{key}`" not in above
    }
    for key in [*(key for key in former if key in fields), *(key for key in fields if key not in former)]:
        field = fields[key]
        by_key = FORMATS.get(f"{model.__name__}.{key}") or FORMATS.get(model.__name__) or FORMATS.get(key)
        noun = FORMS.get(f"{model.__name__}.{key}", by_key.noun if by_key else "text")
        value = describe_value(field.annotation, noun, field.metadata)
        default = show_default(field)
        *_, written, meaning = former.get(key, ("", ""))
        if not default or written.startswith(default):
            default = written
        yield "|".join(("", f" `{key}` ", *(f" {cell} " if cell else " " for cell in (value, default, meaning)), ""))


def render(page: str) -> str:
    """Return the page with its tables as the model has them; raises ValueError if a heading or a meaning is missing."""
    tables = models()
    parts = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)
    headings = parts[1::2]
    if missing := [heading for heading in tables if heading not in headings]:
        raise ValueError(f"no heading for {', '.join(missing)}")
    if unknown := [heading for heading in headings if heading.startswith(NAMESPACE) and heading not in tables]:
        raise ValueError(f"no section {', '.join(unknown)}")
    for number, heading in enumerate(headings):
        if heading not in tables:
            continue
        text = parts[2 * number + 2]
        table = re.search(r"^\| key \|.*\n\| --- .*\n((?:\|.*\n)*)", text, re.MULTILINE)
        if table is None:
            raise ValueError(f"no table below {heading}")
        cells = [[cell.strip() for cell in row[1:-1].split("|")] for row in table[1].splitlines()]
        lines = list(rows(tables[heading], {key.strip("`"): rest for key, *rest in cells}, text[: table.start()]))
        if bare := [line for line in lines if line.endswith("| |")]:
            raise ValueError(f"{heading}: say what {bare[0].split('|')[1].strip()} means")
        head = [f"| {' | '.join(COLUMNS)} |", f"| {' | '.join('---' for _ in COLUMNS)} |"]
        rendered = "\n".join([*head, *lines]) + "\n"
        parts[2 * number + 2] = text[: table.start()] + rendered + text[table.end() :]
    parts[1::2] = [f"## {heading}\n" for heading in headings]
    return "".join(parts)


def main() -> int:
    """Write the page; with --check, write nothing and exit 1 if it would change."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if the page would change")
    check = parser.parse_args().check
    page = PAGE.read_text()
    try:
        rendered = render(page)
    except ValueError as error:
        print(f"docs/settings.md: {error}", file=sys.stderr)
        return 1
    if check and rendered != page:
        print("docs/settings.md: out of date; run .venv/bin/python tools/settings_tables.py", file=sys.stderr)
        return 1
    if not check:
        PAGE.write_text(rendered)
    return 0


if __name__ == "__main__":
    sys.exit(main())
