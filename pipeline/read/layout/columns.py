"""Reading order: one column after the other, with what spans several columns between them.

A gutter is a vertical line that few segments cross. The segments that cross it cut the page into
bands, and in each band the left side is read before the right. The same is done inside each side,
which finds three and more columns. Whether two sides are columns of prose or cells of a table is told
by their segments: lines of prose are long, have several words, and fill their side.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.read.layout.segments import Segment

_MAX_CANDIDATES = 12
_MIN_LINES = 3
_MIN_WORDS = 2.6
_MIN_CHARS = 11.0
_MIN_FILL = 0.7
_MAX_DIGITS = 0.3
_EDGE_POINTS = 3.0
_NARROW_EM = 1.0
_STRIP_EM = 0.6
_FIGURE_EM = 4.0  # white space as high as this holds a figure
_CELL_CHARS = 22
_FULL_CHARS = 24
_MAX_DEPTH = 8
_SLACK_POINTS = 1.0


@dataclass(frozen=True, slots=True)
class _Band:
    """Segments between two that cross the gutter, by side."""

    left: list[Segment]
    right: list[Segment]
    crossing: list[Segment]


def columns(segments: Sequence[Segment], depth: int = 0) -> list[list[Segment]]:
    """Groups of segments in reading order; each is one column, or what spans the columns."""
    if depth == _MAX_DEPTH or len(segments) < 2 * _MIN_LINES:
        return [list(segments)] if segments else []
    if depth == 0:
        parts = _strips(segments, _FIGURE_EM)
        if len(parts) > 1:
            return [group for part in parts for group in columns(part, 1)]
    best: tuple[int, list[_Band]] | None = None
    for x in _candidates(segments):
        bands = _bands(segments, x)
        lines = sum(len(b.left) + len(b.right) for b in bands if _is_columns(b))
        if lines and (best is None or lines > best[0]):
            best = lines, bands
    if best is None:
        return [list(segments)]
    groups: list[list[Segment]] = []
    pending: list[Segment] = []
    for band in best[1]:
        if _is_columns(band):
            groups += columns(pending, depth + 1)
            groups += columns(band.left, depth + 1) + columns(band.right, depth + 1)
            pending = list(band.crossing)
        else:
            pending += band.left + band.right + band.crossing
    return groups + columns(pending, depth + 1)


def _candidates(segments: Sequence[Segment]) -> list[float]:
    """Places just left of where segments begin that have another one to their left, most common first."""
    starts: Counter[int] = Counter()
    ordered = sorted(segments, key=lambda s: s.top)
    for i, right in enumerate(ordered):
        if any(_beside(left, right) for left in ordered[max(0, i - 12) : i + 12]):
            starts[int(right.x0 // _EDGE_POINTS)] += 1
    return [place * _EDGE_POINTS - _SLACK_POINTS for place, _ in starts.most_common(_MAX_CANDIDATES)]


def _beside(left: Segment, right: Segment) -> bool:
    return left.x1 <= right.x0 and left.top < right.bottom and right.top < left.bottom


def _bands(segments: Sequence[Segment], x: float) -> list[_Band]:
    """The page cut into bands at the segments that cross ``x``, from top to bottom."""
    across = [s for s in segments if s.x0 < x < s.x1 - _SLACK_POINTS]
    rows = {round(s.baseline) for s in across}
    bands: list[_Band] = []
    left: list[Segment] = []
    right: list[Segment] = []
    crossing: list[Segment] = []
    for segment in sorted(segments, key=lambda s: (s.baseline, s.x0)):
        if round(segment.baseline) in rows:  # beside a segment that crosses: part of a full-width row
            crossing.append(segment)
            continue
        if crossing:
            bands.append(_Band(left, right, crossing))
            left, right, crossing = [], [], []
        (left if segment.x1 - _SLACK_POINTS <= x else right).append(segment)
    bands.append(_Band(left, right, crossing))
    return [part for band in bands for part in _without_tables(band)]


def _without_tables(band: _Band) -> list[_Band]:
    """A table that happens to have a gap at the gutter, split off at the white space around it."""
    strips = _strips((*band.left, *band.right), _STRIP_EM)
    parts: list[_Band] = []
    left = set(band.left)
    for tabular, group in itertools.groupby(strips, _is_tabular):
        both = [segment for strip in group for segment in strip]
        sides = [s for s in both if s in left], [s for s in both if s not in left]
        parts.append(_Band([], [], both) if tabular else _Band(*sides, []))
    if band.crossing:
        parts.append(_Band([], [], band.crossing))
    return parts


def _strips(segments: Sequence[Segment], gap_em: float) -> list[list[Segment]]:
    """Segments parted where white space of more than ``gap_em`` font sizes runs across all of them."""
    strips: list[list[Segment]] = []
    bottom = 0.0
    for segment in sorted(segments, key=lambda s: s.top):
        if not strips or segment.top > bottom + gap_em * segment.size:
            strips.append([])
        strips[-1].append(segment)
        bottom = max(bottom, segment.bottom)
    return strips


def _is_tabular(strip: list[Segment]) -> bool:
    """Rows of numbers, rows led by dots to a number, or the short cells that head them."""
    levels = {round(s.baseline) for s in strip}
    chars = sum(len(s.text) for s in strip)
    figures = sum(sum(c.isdigit() for c in s.text) * 2 > len(s.text) or "...." in s.text for s in strip)
    if chars < _CELL_CHARS * len(strip) and len(strip) >= _MIN_LINES * len(levels):
        return True
    return len(strip) >= 2 * len(levels) and figures * 4 >= len(strip)


def _is_columns(band: _Band) -> bool:
    """Whether both sides of the gutter are prose, of enough lines to be sure."""
    few, many = sorted((len(band.left), len(band.right)))
    if few == many == 2 and min(len(s.text) for s in (*band.left, *band.right)) >= _FULL_CHARS:
        return True
    if few < 1 or many < _MIN_LINES or (few < _MIN_LINES and many < 2 * _MIN_LINES):
        return False
    gutter = min(s.x0 for s in band.right) - max(s.x1 for s in band.left)
    if gutter < _NARROW_EM * median(s.size for s in band.left) and few < 2 * _MIN_LINES:
        return False  # the spaces of justified lines, above each other by chance
    return _is_prose(band.left) and _is_prose(band.right)


def _is_prose(side: list[Segment]) -> bool:
    widths = sorted(s.width for s in side)
    chars = sum(len(s.text) for s in side)
    digits = sum(c.isdigit() for s in side for c in s.text)
    return (
        (sum(s.words for s in side) / len(side) >= _MIN_WORDS or _is_unspaced(side))
        and chars / len(side) >= _MIN_CHARS
        and median(widths) >= _MIN_FILL * widths[int(0.9 * (len(widths) - 1))]
        and digits <= _MAX_DIGITS * chars
    )


def _is_unspaced(side: list[Segment]) -> bool:
    """Scripts without spaces between words (Chinese, Japanese, Thai)."""
    text = "".join(s.text for s in side)
    return sum("\u0e00" <= c <= "\u0eff" or c >= "\u2e80" for c in text) * 2 > len(text)
