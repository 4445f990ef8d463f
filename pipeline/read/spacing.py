"""White space inside a block, and the marks that must survive collapsing it.

Readers put :data:`BREAK` where the author ended a line and :data:`PAGE` where a page begins; both are
code points that no text means (a line separator and a noncharacter).
"""

from __future__ import annotations

import re

BREAK = "\u2028"
PAGE = "\ufdd0"
_INVISIBLE = (PAGE, "\u00ad", "\u200b", "\ufeff")
_RESERVED = str.maketrans({BREAK: "\n", "\u2029": "\n", **dict.fromkeys(_INVISIBLE)})
_AROUND_PAGE = re.compile(rf"\s*{PAGE}\s*")


def printable(text: str) -> str:
    """Text without soft hyphens, zero-width spaces, and the marks reserved here."""
    return text.translate(_RESERVED)


def paragraphs(raw: str) -> list[str]:
    """White space collapsed; one meant line break stays a line break, two part paragraphs."""
    lines = [" ".join(line.split()) for line in raw.split(BREAK)]
    return [text.strip("\n") for text in re.split(r"\n{2,}", "\n".join(lines)) if text.strip("\n")]


def split_pages(text: str) -> tuple[str, list[int]]:
    """The text without page marks, and the offsets where they were, ascending."""
    text = _AROUND_PAGE.sub(lambda mark: PAGE if mark[0] == PAGE else f" {PAGE}", text)
    before, *after = text.split(PAGE)
    offsets = []
    for part in after:
        offsets.append(len(before))
        before += part
    return before, offsets
