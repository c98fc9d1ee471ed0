"""Check the tags that Pulumi's AWS provider gives to every resource (`aws:defaultTags`).

Sources: AWS General Reference, "Tagging your AWS resources"; Amazon S3 User Guide, "Categorizing your objects using
tags".
"""

import re
from collections.abc import Iterator, Mapping

from endpoint import decode
from settings.problems import Problem, show

KEY = "aws:defaultTags"

KEY_LIMIT, VALUE_LIMIT = 128, 256

#: An object of S3 has at most 10 tags; two are the stack's own.
COUNT_LIMIT = 8

#: Tags of the stack's own, which replace default tags.
OWN_TAGS = ("Project", "Stack")

#: Letters, digits and spaces of all languages, and these.
_TEXT = re.compile(r"[\w\s.:/=+@-]*")


def check_default_tags(value: object) -> Iterator[Problem]:
    """Check the value of `aws:defaultTags`, a mapping or its JSON; None if the stack file has none."""
    section = {} if value is None else decode(value)
    tags = section.get("tags", {}) if isinstance(section, Mapping) else None
    if not isinstance(tags, Mapping):
        yield Problem(KEY, show(value), "is not a mapping of tags", "write them like {tags: {Team: network}}")
        return
    for key, text in tags.items():
        yield from _check_tag(str(key), text if isinstance(text, str) else show(text) if text is not None else "")
    count = len({*tags} - {*OWN_TAGS})
    if count > COUNT_LIMIT:
        reason = "are too many: an object in S3 takes 10, and the stack adds 2 of its own"
        yield Problem(KEY, f"{count} tags", reason, f"use at most {COUNT_LIMIT}")


def _check_tag(key: str, value: str) -> Iterator[Problem]:
    if key.lower().startswith("aws:"):
        yield Problem(KEY, key, "has a prefix that AWS reserves", "use a key that does not start with aws:")
    for noun, text, shortest, limit in (("key", key, 1, KEY_LIMIT), ("value", value, 0, VALUE_LIMIT)):
        if not shortest <= len(text) <= limit:
            reason = f"has a {noun} of {len(text)} characters, but AWS takes {shortest} to {limit}"
            yield Problem(KEY, key, reason, f"use a {noun} of {shortest} to {limit} characters")
        if not _TEXT.fullmatch(text):
            remedy = "use letters, digits, spaces and _ . : / = + - @"
            yield Problem(KEY, key, f"has a {noun} with characters that AWS does not take", remedy)
