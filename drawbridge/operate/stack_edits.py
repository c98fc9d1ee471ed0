"""Change values in a stack file's text, and leave its comments and layout as they are."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from settings.stack_yaml import load_yaml

#: A value in a stack file.
Value = str | list[str] | dict[str, str]


def set_value(text: str, path: Sequence[str | int], value: Value) -> str:
    """Return a YAML document with a value at a path of keys and positions in lists; comments and layout stay.

    Keys that are not there are added; a position must exist. Raises ValueError and `yaml.YAMLError` if the document has
    something else on the path, or a layout in which the value cannot be placed.
    """
    document = load_yaml(text)
    expected = _with_value(document, path, value)
    edited = _edit(text, path, value)
    if load_yaml(edited) != expected:
        raise ValueError(f"the layout of {path[1]} is not understood")
    return edited


def _with_value(document: Any, path: Sequence[str | int], value: Value) -> Any:
    """Return a document with a value at a path; raises ValueError for keys of what is not a mapping."""
    key, *rest = path
    if isinstance(key, int):
        if not isinstance(document, list) or key >= len(document):
            raise ValueError(f"there is no entry {key}")
        entry = _with_value(document[key], rest, value) if rest else value
        return [*document[:key], entry, *document[key + 1 :]]
    if not isinstance(document, dict):
        raise ValueError(f"{key} cannot be a key there")
    return {**document, key: _with_value(document.get(key, {}), rest, value) if rest else value}


def _edit(text: str, path: Sequence[str | int], value: Value) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    node = yaml.compose(text, yaml.SafeLoader)
    if node is None:
        raise ValueError("it is empty")
    start = 0
    for position, key in enumerate(path):
        if isinstance(key, int) and isinstance(node, yaml.SequenceNode):
            node = node.value[key]
            start = text.find("\n", node.start_mark.index) + 1
            continue
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{key} cannot be a key there")
        entry = next(((name, child) for name, child in node.value if name.value == key), None)
        if entry is None:
            if node.flow_style:
                return _insert_in_braces(text, node, path[position:], value)
            lines = _render_lines(path[position:], value, node.start_mark.column)
            return f"{text[:start]}{newline.join(lines)}{newline}{text[start:]}"
        name, node = entry
        # The line behind the key: the first one of its block.
        start = text.find("\n", name.end_mark.index) + 1
    # A block ends where the next one begins; the line break before that stays.
    end = node.start_mark.index + len(text[node.start_mark.index : node.end_mark.index].rstrip())
    return f"{text[: node.start_mark.index]}{json.dumps(value)}{text[end:]}"


def _insert_in_braces(text: str, mapping: yaml.MappingNode, keys: Sequence[str | int], value: Value) -> str:
    """Return the text with a value in a mapping that is in braces."""
    entry = json.dumps(value)
    for key in reversed(keys[1:]):
        entry = f"{{{_spell(key)}: {entry}}}"
    start = mapping.start_mark.index + 1
    separator = ", " if mapping.value else ""
    return f"{text[:start]}{_spell(keys[0])}: {entry}{separator}{text[start:]}"


def _render_lines(keys: Sequence[str | int], value: Value, indent: int) -> list[str]:
    """Return lines that hold a value below keys, each two columns further right."""
    *parents, last = keys
    lines = [f"{' ' * (indent + 2 * level)}{_spell(key)}:" for level, key in enumerate(parents)]
    return [*lines, f"{' ' * (indent + 2 * len(parents))}{_spell(last)}: {json.dumps(value)}"]


def _spell(key: str | int) -> str:
    """Return a key as it is spelled in YAML: in quotes if it would be read as another value."""
    text = str(key)
    return text if load_yaml(text) == text else json.dumps(text)


def replace_file(path: Path, text: str) -> None:
    """Replace a file's text at once; its mode stays."""
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
        temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
