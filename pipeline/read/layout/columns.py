"""Reading order: one column after the other, with what spans several columns between them.

A gutter is a vertical line that few segments cross. The segments that cross it cut the page into
bands, and in each band the left side is read before the right. The same is done inside each side,
which finds three and more columns. Whether two sides are columns of prose or cells of a table is told
by their segments: lines of prose are long, have several words, and fill their side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.read.layout.segments import Segment

_MAX_CANDIDATES = 12
_MIN_LINES = 3
_MIN_WORDS = 2.6
_MIN_CHARS = 11.0
_MIN_FILL = 0.5
_MAX_DIGITS = 0.3
_EDGE_POINTS = 3.0
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
    bands: list[_Band] = []
    left: list[Segment] = []
    right: list[Segment] = []
    crossing: list[Segment] = []
    for segment in sorted(segments, key=lambda s: (s.baseline, s.x0)):
        if segment.x0 < x < segment.x1 - _SLACK_POINTS:
            crossing.append(segment)
            continue
        if crossing and segment.top >= crossing[-1].bottom - 0.3 * segment.size:
            bands.append(_Band(left, right, crossing))
            left, right, crossing = [], [], []
        elif crossing:  # beside a segment that crosses: part of the same full-width row
            crossing.append(segment)
            continue
        (left if segment.x1 - _SLACK_POINTS <= x else right).append(segment)
    bands.append(_Band(left, right, crossing))
    return bands


def _is_columns(band: _Band) -> bool:
    """Whether both sides of the gutter are prose, of enough lines to be sure."""
    few, many = sorted((len(band.left), len(band.right)))
    if few < 1 or many < _MIN_LINES or (few < _MIN_LINES and many < 2 * _MIN_LINES):
        return False
    return _is_prose(band.left) and _is_prose(band.right)


def _is_prose(side: list[Segment]) -> bool:
    width = max(s.x1 for s in side) - min(s.x0 for s in side)
    chars = sum(len(s.text) for s in side)
    digits = sum(c.isdigit() for s in side for c in s.text)
    return (
        (sum(s.words for s in side) / len(side) >= _MIN_WORDS or _is_unspaced(side))
        and chars / len(side) >= _MIN_CHARS
        and median(s.width for s in side) >= _MIN_FILL * width
        and digits <= _MAX_DIGITS * chars
    )


def _is_unspaced(side: list[Segment]) -> bool:
    """Scripts without spaces between words (Chinese, Japanese, Thai)."""
    text = "".join(s.text for s in side)
    return sum("\u0e00" <= c <= "\u0eff" or c >= "\u2e80" for c in text) * 2 > len(text)
