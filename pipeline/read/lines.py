"""Lines of plain text to paragraphs, list items, rows and verses.

A line break is either where the page was full or meant by the author. A text wrapped at a width
breaks a line only when the next word would not have fitted, so lines are joined where each *had* to
end; lines of poetry, code, tables, addresses and transcripts end early and keep their breaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

SegmentKind = Literal["prose", "list_item", "line", "turn", "verse", "table_row"]

_MARKER = re.compile(r"\s*(?:[-*•·–]\s+|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)]\s+)\S")
_TURN = re.compile(r"\s*\[?[^\W\d_][\w .'’()-]{0,40}\]?:\s")
_COLUMNS = re.compile(r"\S(?:\t+| {3,})\S|\|.*\||^[^,]*,[^ ,]*,\S*")
_RECORD = re.compile(r"\s*\[?\d{2,4}[-/:.]\d{1,2}[-/:.]\d{1,4}")
_SENTENCE_END = tuple('.:;!?"”»’)。！？」')
_CLAUSE_END = (*_SENTENCE_END, ",", "and", "or")
_MIN_WIDTH = 50
_MAX_WIDTH = 120
_WIDTH_QUANTILE = 0.8
_MAX_MEANT_SHARE = 0.34
_SHORT_LINE_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Segment:
    """Lines ``[first, last)`` of a run that belong together."""

    kind: SegmentKind
    first: int
    last: int


def wrap_width(lines: Sequence[str]) -> int:
    """The width at which a text was wrapped, in characters: four fifths of its lines are no longer.

    0 when it was not wrapped at all, which shows in lines too long or too short for a page.
    """
    lengths = sorted(len(line) for line in lines if line.strip())
    if not lengths:
        return 0
    width = lengths[int(_WIDTH_QUANTILE * (len(lengths) - 1))]
    return width if _MIN_WIDTH <= width <= _MAX_WIDTH else 0


def segments(run: Sequence[str], width: int) -> Iterator[Segment]:
    """Split a run of lines without a blank one between them."""
    if len(run) == 1:
        yield Segment("list_item" if _MARKER.match(run[0]) else "prose", 0, 1)
    elif run and _is_wrapped(run, width):
        yield from _paragraphs(run, width)
    else:
        yield from _kept(run)


def _is_wrapped(run: Sequence[str], width: int) -> bool:
    if not width or sum(bool(_TURN.match(line)) for line in run) > 1:
        return False
    breaks = [(a, b) for a, b in pairwise(run) if not _MARKER.match(b)]
    meant = sum(not _had_to_end(a, b, width) for a, b in breaks)
    return meant <= _MAX_MEANT_SHARE * len(breaks)


def _paragraphs(run: Sequence[str], width: int) -> Iterator[Segment]:
    first = 0
    for i in range(1, len(run) + 1):
        if i == len(run) or _starts_anew(run[i - 1], run[i], width):
            yield Segment("list_item" if _MARKER.match(run[first]) else "prose", first, i)
            first = i


def _starts_anew(before: str, line: str, width: int) -> bool:
    """Whether a paragraph or item begins with ``line``: the line before ended early, and finished
    something. "He was born in / 1805. Then" has no item, "... the following: / 1. Apples" has."""
    early = not _had_to_end(before, line, width)
    if _MARKER.match(line):
        return early or before.rstrip().endswith(_CLAUSE_END) or bool(_MARKER.match(before))
    if not early or line.lstrip()[:1].islower():
        return False
    return before.rstrip().endswith(_SENTENCE_END) or len(before) < _SHORT_LINE_SHARE * width


def _kept(run: Sequence[str]) -> Iterator[Segment]:
    """Lines whose breaks mean something: each its own, or a stanza as a whole."""
    each = _each(run)
    first = 0
    for i, line in enumerate(run):
        kind = "list_item" if each != "table_row" and _MARKER.match(line) else each
        if kind:
            if first < i:
                yield Segment("verse", first, i)
            yield Segment(kind, i, i + 1)
            first = i + 1
    if first < len(run):
        yield Segment("verse", first, len(run))


def _each(run: Sequence[str]) -> SegmentKind | None:
    """What every line of the run is by itself, or None where only the lines together are something."""
    half = len(run) / 2
    if sum(bool(_TURN.match(line)) for line in run) > half:
        return "turn"
    if len(run) > 1 and sum(bool(_COLUMNS.search(line)) for line in run) > half:
        return "table_row"
    finished = sum(line.rstrip().endswith(_SENTENCE_END) for line in run)
    long = sum(map(len, run)) > _MAX_WIDTH * len(run)
    records = sum(bool(_RECORD.match(line)) for line in run)
    return "line" if long or finished > half or records > half else None


def _had_to_end(line: str, following: str, width: int) -> bool:
    word = following.split(None, 1)[0] if following.strip() else ""
    return len(line.rstrip()) + 1 + len(word) > width
