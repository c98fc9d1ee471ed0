"""Parse a stack's configuration and collect the problems in it."""

from typing import Any

from settings.parse import parse
from settings.problems import SettingsError

#: A tunnel whose hosts bond two links.
BONDED = {"device": "tap", "links": 2, "clientToClient": True}


def find_problems(
    stack: str = "dev",
    endpoint: str | None = None,
    region: str = "eu-west-1",
    default_tags: object = None,
    **sections: Any,
) -> list[str]:
    """Return the problems of a stack with these sections, one line each; a name may have a namespace of its own."""
    raw = {"aws:region": region, "aws:defaultTags": default_tags} | {
        name if ":" in name else f"drawbridge:{name}": section for name, section in sections.items()
    }
    try:
        parse(raw, stack=stack, endpoint=endpoint)
    except SettingsError as error:
        return str(error).splitlines()
    return []
