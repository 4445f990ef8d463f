"""Rows of a column as blocks: paragraphs, headings, list items, table rows, captions, footnotes.

Where a paragraph ends is told by the space below it, an indent, a change of font, a list mark, or a
line that stops although the next word would have fitted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from pipeline.read.layout.columns import columns
from pipeline.read.layout.rows import BULLET, Row, rows
from pipeline.read.layout.segments import PageText
from pipeline.types import BlockKind

_SMALL = 0.93
_LARGE = 1.1
_SAME_SIZE = 0.08
_MORE_THAN_PITCH = 1.3
_DEFAULT_PITCH_EM = 1.3
_INDENT_EM = 0.8
_SLACK_EM = 0.5
_MAX_HEADING_CHARS = 200
_MAX_HEADING_LINES = 4
_MAX_CAPS_CHARS = 90
_NEIGHBOURS = 3
_NOTE = re.compile(r"(?:[⁰¹²³⁴⁵⁶⁷⁸⁹]+|\d{1,3}\s+(?=[^\W\d_a-z]|[\"“‘(])|[*†‡§¶]{1,3})\s*\S")
_CAPTION = re.compile(
    r"(?i:figure|fig\.|table|chart|exhibit|plate|map|abbildung|abb\.|tabelle|tab\.|figura|tableau|cuadro|tabla|図|表|图)"
    r"\s*(?:\d[\w.-]{0,7}|[IVXLC]{1,5}|[A-Z][.-]?\d{0,3})(?:[.:–—|]|\s+[A-ZÄÖÜ(]|$)"
)
_ENDS = (".", "!", "?", ":", ";", "。", "！", "？", "؟", "”", '"', "»", ")", "¹", "²", "³")


@dataclass(frozen=True, slots=True)
class PageBlock:
    """A block as it stands on one page, its lines not yet joined.

    ``room`` is how many points its last line leaves free, ``first_width`` the width of its first word,
    ``indented`` says that its first line is set in: together they tell whether it goes on elsewhere.
    ``column`` counts the columns of the page in reading order; ``level`` is a heading's, 0 if unknown.
    """

    kind: BlockKind
    lines: tuple[str, ...]
    page: int
    size: float
    bold: bool = False
    room: float = 0.0
    first_width: float = 0.0
    indented: bool = False
    column: int = 0
    level: int = 0


@dataclass(frozen=True, slots=True)
class Body:
    """What is ordinary in the document: its most frequent font size, and whether bold means anything."""

    size: float
    bold_matters: bool
    sizes_matter: bool


def page_blocks(page: PageText, body: Body) -> list[PageBlock]:
    """Blocks of one page in reading order, footnotes last."""
    found = [PageBlock("caption", (head,), page.number, body.size) for head in page.heads]
    notes: list[PageBlock] = []
    groups = [rows(group, scan=page.hidden) for group in columns(page.segments)]
    ordinary = any(row.segment.size > _SMALL * body.size for group in groups for row in group)
    for column, group in enumerate(groups):
        at = _notes_begin(group, body) if ordinary and body.sizes_matter else len(group)
        found += (replace(block, column=column) for block in _blocks(group[:at], page.number, body))
        more = _footnotes(group[at:], page.number)
        if notes and more and not _is_note(group[at]):  # a note that goes on in the next column
            more[0] = replace(more[0], lines=notes.pop().lines + more[0].lines)
        notes += more
    if page.turned:
        found.append(PageBlock("paragraph", page.turned, page.number, body.size))
    return found + notes


def _notes_begin(group: Sequence[Row], body: Body) -> int:
    """Index of the first row of the footnotes: small print down to the end, with a mark in it."""
    at = len(group)
    while at and not group[at - 1].table and group[at - 1].segment.size <= _SMALL * body.size:
        at -= 1
    return at if any(_is_note(row) for row in group[at:]) else len(group)


def _is_note(row: Row) -> bool:
    return row.segment.raised or bool(_NOTE.match(row.text))


def _footnotes(group: Sequence[Row], page: int) -> list[PageBlock]:
    notes: list[list[Row]] = []
    for row in group:
        if not notes or row.segment.raised or (_is_note(row) and _ended(notes[-1][-1])):
            notes.append([row])
        else:
            notes[-1].append(row)
    return [_block("footnote", note, page, group) for note in notes]


def _blocks(group: Sequence[Row], page: int, body: Body) -> list[PageBlock]:
    found: list[PageBlock] = []
    pitch = _pitch(group)
    paragraph: list[Row] = []
    for i, row in enumerate(group):
        if paragraph and (row.table or _breaks(paragraph, row, group[i + 1 : i + 2], pitch, group)):
            found.append(_classified(paragraph, page, body, group))
            paragraph = []
        if row.table:
            found.append(_block("table_row", [row], page, group))
        else:
            paragraph.append(row)
    if paragraph:
        found.append(_classified(paragraph, page, body, group))
    return found


def _pitch(group: Sequence[Row]) -> dict[float, float]:
    """Usual distance of baselines in a column, by font size."""
    steps: dict[float, list[float]] = {}
    for a, b in itertools.pairwise(group):
        if _same_size(a, b) and not (a.table or b.table):
            steps.setdefault(round(a.segment.size), []).append(b.segment.baseline - a.segment.baseline)
    return {size: median(found) for size, found in steps.items() if len(found) >= _NEIGHBOURS}


def _breaks(
    paragraph: list[Row], row: Row, after: Sequence[Row], pitch: dict[float, float], group: Sequence[Row]
) -> bool:
    """Whether ``row`` begins a new paragraph."""
    last, size = paragraph[-1], row.segment.size
    usual = pitch.get(round(size), _DEFAULT_PITCH_EM * size)
    usual = min(usual, 2.6 * size)
    if row.segment.baseline - last.segment.baseline > _MORE_THAN_PITCH * usual:
        return True
    if not _same_size(last, row) or last.segment.bold != row.segment.bold:
        return not (_same_size(last, row) and _is_run_in(paragraph, row))
    if row.mark and (_ended(last) or last.mark or _stops_short(last, row, group)):
        return True
    return _shifts(paragraph, row, after) or (
        _stops_short(last, row, group) and (_ended(last) or not row.text[:1].islower())
    )


def _same_size(a: Row, b: Row) -> bool:
    return abs(a.segment.size - b.segment.size) <= _SAME_SIZE * max(a.segment.size, b.segment.size)


def _is_run_in(paragraph: list[Row], row: Row) -> bool:
    """A bold beginning that goes on in ordinary type within the same sentence."""
    return not _ended(paragraph[-1]) and row.text[:1].islower()


def _shifts(paragraph: list[Row], row: Row, after: Sequence[Row]) -> bool:
    """An indent that the next line gives up, or the end of one that began earlier."""
    indent = _INDENT_EM * row.segment.size
    step = row.segment.x0 - paragraph[-1].segment.x0
    if paragraph[0].mark:
        return step < -indent and row.segment.x0 <= paragraph[0].segment.x0 + 1 and _ended(paragraph[-1])
    if step > indent:
        returns = not after or after[0].segment.x0 < row.segment.x0 - indent
        return returns or _ended(paragraph[-1])
    return step < -indent and len(paragraph) > 1 and _ended(paragraph[-1])


def _stops_short(last: Row, row: Row, group: Sequence[Row]) -> bool:
    """Whether the first word of ``row`` would have fitted on the line before."""
    room = _right_edge(last, group) - last.segment.x1
    return room > row.segment.first_width + _SLACK_EM * row.segment.size * 2


def _right_edge(row: Row, group: Sequence[Row]) -> float:
    """Where lines around ``row`` end."""
    near = 4 * _NEIGHBOURS * row.segment.size
    around = (r for r in group if abs(r.segment.baseline - row.segment.baseline) <= near and not r.table)
    return max((r.segment.x1 for r in around), default=row.segment.x1)


def _ended(row: Row) -> bool:
    return row.text.endswith(_ENDS)


def _classified(paragraph: list[Row], page: int, body: Body, group: Sequence[Row]) -> PageBlock:
    kind: BlockKind = "paragraph"
    text = " ".join(row.text for row in paragraph)
    if (
        _CAPTION.match(text)
        and len(text) <= 2 * _MAX_HEADING_CHARS
        and paragraph[0].segment.size < _LARGE * body.size
    ):
        kind = "caption"
    elif _is_heading(paragraph, text, body):
        kind = "heading"
    elif paragraph[0].mark:
        kind = "list_item"
    return _block(kind, paragraph, page, group)


def _is_heading(paragraph: list[Row], text: str, body: Body) -> bool:
    letters = sum(c.isalpha() for c in text)
    if len(text) > _MAX_HEADING_CHARS or len(paragraph) > _MAX_HEADING_LINES or letters < 2:
        return False
    if BULLET.match(text) and paragraph[0].mark:
        return False
    if text.endswith((",", ";")) or (text.endswith(".") and len(text) > _MAX_CAPS_CHARS):
        return False
    if body.sizes_matter and min(row.segment.size for row in paragraph) >= _LARGE * body.size:
        return True
    if body.bold_matters and all(row.segment.bold for row in paragraph):
        return True
    return text.isupper() and letters >= 4 and len(text) <= _MAX_CAPS_CHARS and len(paragraph) <= 2


def _block(kind: BlockKind, found: Sequence[Row], page: int, group: Sequence[Row]) -> PageBlock:
    first, last = found[0], found[-1]
    left = min(row.segment.x0 for row in group)
    follow = found[1].segment.x0 if len(found) > 1 else left
    return PageBlock(
        kind,
        tuple(row.text for row in found),
        page,
        size=first.segment.size,
        bold=all(row.segment.bold for row in found),
        room=_right_edge(last, group) - last.segment.x1,
        first_width=first.segment.first_width,
        indented=first.segment.x0 > follow + _INDENT_EM * first.segment.size,
    )
