"""Project Gutenberg's wrapping around a book: where the book begins and ends, and what it is called."""

from __future__ import annotations

import re

_START = re.compile(r"\*{3}\s*START OF (?:THE|THIS) PROJECT GUTENBERG", re.IGNORECASE)
_END = re.compile(
    r"\*{3}\s*END OF (?:THE|THIS) PROJECT GUTENBERG|^\s*End of (?:the )?Project Gutenberg", re.I
)
_FIELD = re.compile(r"^(Title|Author|Language):[ \t]*(\S[^\n]*(?:\n[ \t]{2,}\S[^\n]*)*)", re.MULTILINE)
_HEADER_CHARS = 6_000


def begins(line: str) -> bool:
    """Whether this line is the last of the header: the book starts after it."""
    return bool(_START.match(line.strip()))


def ends(line: str) -> bool:
    """Whether this line is the first after the book: the licence follows."""
    return bool(_END.match(line.strip()))


def fields(text: str) -> dict[str, str]:
    """Title, author and language from the header, in lower-case keys; empty for other texts."""
    head = text[:_HEADER_CHARS]
    if "Project Gutenberg" not in head:
        return {}
    return {found[1].lower(): " ".join(found[2].split()) for found in _FIELD.finditer(head)}
