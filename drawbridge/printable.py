"""Make text from elsewhere safe to print: a terminal obeys control characters, and a reader trusts what they hide."""

import unicodedata

#: General categories of characters that a terminal obeys or a reader does not see: controls (C0, DEL, C1), formats
#: (bidirectional overrides, zero-width characters), surrogates, and separators of lines and paragraphs.
#: Source: Unicode Standard Annex #44, "General Category Values"; Unicode Technical Report #36, section 2.10.
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escape_controls(text: str, *, keep: str = "") -> str:
    r"""Return a text with each control or invisible character as its escape sequence, except those in `keep`.

    >>> print(escape_controls("ready\x1b[2J\x9b1m\u202e"))
    ready\x1b[2J\x9b1m\u202e
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or unicodedata.category(character) not in _CATEGORIES
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def shorten(text: str, most: int = 200) -> str:
    """Return the beginning of a text that is longer than a message should repeat, or the whole text."""
    return text if len(text) <= most else f"{text[:most]}…"
