"""Lines of plain text to paragraphs, list items, rows and verses.

A line break is either where the page was full or meant by the author. A text wrapped at a width
breaks a line only when the next word would not have fitted, so lines of one paragraph are joined
when each of them *had* to end where it does; lines of poetry, code, tables, addresses and
transcripts end early and keep their breaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

SegmentKind = Literal["prose", "list_item", "line", "verse", "table_row"]

_MARKER = re.compile(r"\s*(?:[-*•·–]\s+|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)]\s+)\S")
_TURN = re.compile(r"\s*\[?[^\W\d_][\w .'’()-]{0,40}\]?:\s")
_COLUMNS = re.compile(r"\S(?:\t+| {3,})\S|\|.*\|")
_SENTENCE_END = (".", ":", ";", "!", "?", '"', "”", "|", ",")
_MIN_WIDTH = 50
_MAX_WIDTH = 120
_OWN_WIDTH_LINES = 4
_LONG_LINE = 120
_MAX_VERSE_LINES = 40
_MAX_EARLY_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Segment:
    """Lines ``[first, last)`` of a run that belong together."""

    kind: SegmentKind
    first: int
    last: int


def wrap_width(lines: Sequence[str]) -> int:
    """The width at which a text was wrapped, in characters: 95 % of its lines are no longer.

    0 when it was not wrapped at all, which shows in lines too long or too short for a page.
    """
    lengths = sorted(len(line) for line in lines if line.strip())
    if not lengths:
        return 0
    width = lengths[int(0.95 * (len(lengths) - 1))]
    return width if _MIN_WIDTH <= width <= _MAX_WIDTH else 0


def segments(run: Sequence[str], width: int) -> Iterator[Segment]:
    """Split a run of lines without a blank one between them."""
    if not run:
        return
    starts = [0, *(i for i in range(1, len(run)) if _starts_item(run, i, width)), len(run)]
    for first, last in pairwise(starts):
        lines = run[first:last]
        if _MARKER.match(lines[0]) and (len(starts) > 2 or len(lines) == 1):
            yield Segment("list_item", first, last)
        elif len(lines) == 1 or _is_wrapped(lines, width):
            yield Segment("prose", first, last)
        else:
            yield from _kept(lines, first, last)


def _kept(lines: Sequence[str], first: int, last: int) -> Iterator[Segment]:
    """Lines whose breaks mean something: rows and turns one by one, a stanza as a whole."""
    if sum(bool(_COLUMNS.search(line)) for line in lines) > len(lines) / 2:
        each: SegmentKind = "table_row"
    elif (
        sum(bool(_TURN.match(line)) for line in lines) > len(lines) / 2
        or len(lines) > _MAX_VERSE_LINES
        or any(len(line) > _LONG_LINE for line in lines)
    ):
        each = "line"
    else:
        yield Segment("verse", first, last)
        return
    for i in range(first, last):
        yield Segment(each, i, i + 1)


def _starts_item(run: Sequence[str], i: int, width: int) -> bool:
    """A list mark starts an item only where the line before had ended, lest "... in\\n1805. Then" be split."""
    if not _MARKER.match(run[i]):
        return False
    before = run[i - 1].rstrip()
    return (
        before.endswith(_SENTENCE_END)
        or bool(_MARKER.match(before))
        or not _had_to_end(before, run[i], width)
    )


def _is_wrapped(lines: Sequence[str], width: int) -> bool:
    if not width or sum(bool(_TURN.match(line)) for line in lines) > 1:
        return False
    longest = max(len(line) for line in lines)
    if len(lines) >= _OWN_WIDTH_LINES and longest >= _MIN_WIDTH:
        width = min(width, longest)
    early = sum(not _had_to_end(a, b, width) for a, b in pairwise(lines))
    return early <= _MAX_EARLY_SHARE * (len(lines) - 1)


def _had_to_end(line: str, following: str, width: int) -> bool:
    word = following.split(None, 1)[0] if following.strip() else ""
    return len(line.rstrip()) + 1 + len(word) > width
