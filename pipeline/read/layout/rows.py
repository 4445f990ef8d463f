"""The rows of one column: lines of prose, and rows of tables with their cells in order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.read.builder import ROW_SEPARATOR
from pipeline.read.layout.segments import SUPERSCRIPTS, Segment

BULLET = re.compile(r"[•‣◦▪▫■□●○➢➤►✓✔·∙⁃–—*o-]|[\uf000-\uf0ff]")
ENUMERATOR = re.compile(
    r"\(?(?:\d{1,3}(?:\.\d{1,3}){0,5}|[a-z]{1,2}|[A-Z]|[ivxlc]{1,6}|[IVXLC]{1,6})[.):]"
    r"|\d{1,2}(?:\.\d{1,3}){1,5}|§+ ?\d[\w.]*"
)
_NAMED = re.compile(
    r"(?:item|part|section|chapter|article|note|schedule|annex|appendix|exhibit|figure|fig\.|table)\s+[\w.()-]{1,8}[.:]?",
    re.I,
)
_LAST_SIGN = re.compile(r"(?:^|\s+)((?:US|C|A)?[$€£¥]\s?\(?|\()$")
_CURRENCY = re.compile(r"^([$€£¥]) +(?=[\d(—–-])")
_CLOSERS = re.compile(r"\)?\s?%?\)?|\)?\s?(?:bps|pts)|[*†‡]|\([a-z]\)")
_LEADERS = re.compile(r"(?:[ ]?[.·…_]){5,}[ ]?")
_NOTE_MARK = re.compile(r"[\d⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3}|[*†‡§¶]{1,3}")
_NOTE_MARK_SIZE = 0.85
_RAISE_EM = 0.15
_SAME_LINE = 0.5
_NEAR_LINES = 2
_MIN_GUTTER_POINTS = 3.0
_PROSE_GAP_EM = 1.2
_TABLE_GAP_EM = 3.0
_MIN_PROSE_WORDS = 5
_LABEL_SHARE = 0.7
_MAX_LABELS = 5
_FIGURE_CELLS = 4  # one cell in so many is a number, in a row of a table
_NEAR_EM = 3.0
_TIGHT_EM = 1.6


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a column. ``cells`` has more than one text where it is a row of a table; ``table``
    is also set for the label of a group of rows. ``mark`` says that it begins with a bullet or number."""

    segment: Segment
    cells: tuple[str, ...]
    table: bool = False
    mark: bool = False

    @property
    def text(self) -> str:
        """The row as it stands in the document."""
        return ROW_SEPARATOR.join(self.cells)


def rows(segments: Sequence[Segment], *, scan: bool = False) -> list[Row]:
    """The rows of a column from top to bottom.

    On a ``scan`` gaps within a line are no sign of a table unless there are numbers.
    """
    lines: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda s: (s.baseline, s.x0)):
        if lines and _level(lines[-1][0], segment):
            lines[-1].append(segment)
        else:
            lines.append([segment])
    ordered = [sorted(line, key=lambda s: s.x0) for line in lines]
    found = [_row(line, aligned=not scan and _aligned(ordered, i)) for i, line in enumerate(ordered)]
    return _joined_labels(_labelled(found))


def _aligned(lines: list[list[Segment]], at: int) -> bool:
    """Whether a gap of this line stands above or below a gap of a line nearby, as in a table."""
    if all(len(line) == 1 for line in lines[max(0, at - 1) : at] + lines[at + 1 : at + 2]):
        return False
    near = [line for line in lines[max(0, at - _NEAR_LINES) : at + _NEAR_LINES + 1] if line is not lines[at]]
    theirs = [gap for line in near for gap in _gaps(line)]
    return any(
        min(gap[1], other[1]) - max(gap[0], other[0]) >= _MIN_GUTTER_POINTS
        for gap in _gaps(lines[at])
        for other in theirs
    )


def _gaps(line: list[Segment]) -> list[tuple[float, float]]:
    return [(a.x1, b.x0) for a, b in itertools.pairwise(line)]


def _level(a: Segment, b: Segment) -> bool:
    overlap = min(a.bottom, b.bottom) - max(a.top, b.top)
    return overlap >= _SAME_LINE * min(a.size, b.size)


def _row(line: list[Segment], *, aligned: bool) -> Row:
    first = line[0]
    if len(line) == 1:
        cells = tuple(cell.strip() for cell in _LEADERS.split(first.text) if cell.strip())
        marked = _begins_with_mark(first.text)
        return Row(first, cells or (first.text,), table=len(cells) > 1, mark=marked)
    whole = _whole(line)
    if _is_note_mark(line):
        text = f"{first.text.translate(SUPERSCRIPTS)} {whole.text.removeprefix(first.text).strip()}"
        return Row(replace(whole, text=text, size=line[1].size, raised=True), (text,))
    if len(line) == 2 and (_is_mark(first.text) or _NAMED.fullmatch(first.text)):
        return Row(whole, (whole.text,), mark=_is_mark(first.text))
    if any(_LEADERS.search(s.text) for s in line):
        return Row(whole, _cells(line), table=True)
    widest = max(right - left for left, right in _gaps(line)) / first.size
    prose = widest <= _PROSE_GAP_EM and whole.words >= _MIN_PROSE_WORDS
    if (prose or (not aligned and widest <= _TABLE_GAP_EM)) and not _has_figures(line):
        return Row(whole, (whole.text,), mark=_begins_with_mark(whole.text))
    return Row(whole, _cells(line), table=True)


def _whole(line: list[Segment]) -> Segment:
    text = " ".join(s.text for s in line)
    return replace(
        line[0],
        text=text,
        x1=max(s.x1 for s in line),
        bold=all(s.bold for s in line),
        words=sum(s.words for s in line),
    )


def _is_note_mark(line: list[Segment]) -> bool:
    """A footnote's number, set smaller or higher than the note that follows it after a tab."""
    mark, note = line[:2]
    small = mark.size < _NOTE_MARK_SIZE * note.size or mark.baseline < note.baseline - _RAISE_EM * note.size
    return small and bool(_NOTE_MARK.fullmatch(mark.text)) and (mark.raised or len(line) == 2)


def _has_figures(line: list[Segment]) -> bool:
    figures = sum(sum(c.isdigit() for c in s.text) * 2 > len(s.text) for s in line[1:])
    return figures > 0 and figures * _FIGURE_CELLS >= len(line) - 1


def _is_mark(text: str) -> bool:
    return bool(BULLET.fullmatch(text) or ENUMERATOR.fullmatch(text))


def _begins_with_mark(text: str) -> bool:
    head, _, rest = text.partition(" ")
    return bool(rest) and _is_mark(head)


def _cells(line: list[Segment]) -> tuple[str, ...]:
    """Texts of the cells; a currency sign or a closing bracket in a column of its own joins its number."""
    cells: list[str] = []
    opened = ""
    for segment in line:
        for piece in filter(str.strip, _LEADERS.split(segment.text)):
            text = opened + piece.strip()
            sign = _LAST_SIGN.search(text)
            opened = sign[1] if sign else ""
            text = _CURRENCY.sub(r"\1", text[: sign.start()] if sign else text)
            if cells and _CLOSERS.fullmatch(text):
                cells[-1] += text
            elif text:
                cells.append(text)
    return (*cells, opened) if opened else tuple(cells)


def _labelled(found: list[Row]) -> list[Row]:
    """Short lines between rows of a table are labels of groups of rows, and belong to the table."""
    out = list(found)
    at = 0
    for table, group in itertools.groupby(found, key=lambda row: row.table):
        between = list(group)
        end = at + len(between)
        if not table and at and end < len(found) and _are_labels(found[at - 1 : end + 1]):
            out[at:end] = [replace(row, table=True, mark=False) for row in between]
        at = end
    return out


def _are_labels(run: list[Row]) -> bool:
    """Whether all rows of ``run`` but the first and last, which are rows of a table, are labels."""
    above, *between, below = run
    width = max(above.segment.x1, below.segment.x1) - min(above.segment.x0, below.segment.x0)
    close = all(
        b.segment.top - a.segment.bottom < _NEAR_EM * b.segment.size for a, b in itertools.pairwise(run)
    )
    short = all(r.segment.width < _LABEL_SHARE * width and not r.text.endswith(".") for r in between)
    return close and short and len(between) <= _MAX_LABELS


def _joined_labels(found: list[Row]) -> list[Row]:
    """A label that wraps onto the row with the numbers is one label."""
    out: list[Row] = []
    for row in found:
        before = out[-1] if out else None
        if (
            before is not None
            and before.table
            and len(before.cells) == 1
            and len(row.cells) > 1
            and row.cells[0][:1].islower()
            and row.segment.baseline - before.segment.baseline <= _TIGHT_EM * row.segment.size
        ):
            out[-1] = replace(row, cells=(f"{before.text} {row.cells[0]}", *row.cells[1:]))
        else:
            out.append(row)
    return out
