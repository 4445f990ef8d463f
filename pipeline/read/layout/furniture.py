"""Running heads, running feet and page numbers: what repeats at the edge of pages is not the text.

A running head is kept once, at the top of its page, if the text nowhere says the same, so that a book
whose title stands only in its running heads keeps it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.read.layout.segments import PageText, Segment

_ZONE_SHARE = 0.1  # of the page's height, from the first row and from the last
_DEPTH_ROWS = 4
_ROW_POINTS = 3.0
_SAME_PLACE_POINTS = 14.0
_MIN_PAGES = 3
_MAX_HEAD_CHARS = 120
_DEEP_SHARE = 0.25
_NUMBER = re.compile(
    r"\W*(?:page|seite|p\.)?\s*(?P<label>\d{1,5}|[ivxlcdm]{1,8}|[A-Z]{1,2}-\d{1,5})\W*(?:(?:of|/|von)\s*\d+)?\W*",
    re.I,
)
_END_NUMBERS = re.compile(r"^\d+\s+|\s+\d+$")
_ROMAN_OR_DIGITS = re.compile(r"\d+|\b[ivxlcdm]+\b", re.I)


@dataclass(frozen=True, slots=True)
class _Row:
    """Segments side by side at one end of a page. ``key`` is their text without numbers."""

    segments: tuple[Segment, ...]
    key: str
    place: float
    depth: int

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)

    @property
    def words(self) -> str:
        """Without the page number."""
        return _END_NUMBERS.sub("", self.text)


@dataclass(frozen=True, slots=True)
class _Habits:
    """What the edges of this document's pages have in common.

    ``places`` are the pages and heights at which each text stands; ``offsets`` are the differences
    between printed number and page on which several pages agree (a plate may be missing). ``inside``
    counts the same texts in the middle of pages.
    """

    places: dict[str, set[tuple[int, float]]]
    pages: int
    offsets: frozenset[int]
    inside: Counter[str]

    def outermost(self, end: list[_Row], page: int) -> list[_Row]:
        """The rows of one end that are furniture: from the edge inward, up to the first that is not."""
        return list(itertools.takewhile(lambda row: self.furnish(row, page), end))

    def furnish(self, row: _Row, page: int) -> bool:
        """Whether the row is a running head, a running foot or a page number."""
        label = _label(row)
        counted = label.isdigit() and int(label) - page in self.offsets
        if not row.key:
            return row.depth <= 1 and (counted or (label != "" and not label.isdigit()))
        if counted and row.depth == 0 and len(row.text) <= _MAX_HEAD_CHARS:
            return True
        near = {n for n, place in self.places[row.key] if abs(place - row.place) <= _SAME_PLACE_POINTS}
        needed = min(_MIN_PAGES, self.pages) if row.depth == 0 else max(_MIN_PAGES, _DEEP_SHARE * self.pages)
        return len(near) >= needed and len(near) > self.inside[row.key]


def strip(pages: Sequence[PageText]) -> tuple[list[PageText], dict[int, str]]:
    """The pages without furniture, and the number printed on each page where one was found.

    A document of one page is left as it is.
    """
    if len(pages) < 2:
        return list(pages), {}
    edges = {page.number: (_edge(page, top=True), _edge(page, top=False)) for page in pages}
    inside = Counter(_key(s.text) for page in pages for s in _middle(page, edges[page.number]))
    habits = _habits(edges, inside)
    marginal = Counter(_key(line) for page in pages for line in set(page.turned))
    elsewhere = _Elsewhere(pages, edges)
    labels: dict[int, str] = {}
    said: set[str] = {""}
    stripped = []
    for page in pages:
        heads, feet = (habits.outermost(end, page.number) for end in edges[page.number])
        for row in (*heads, *feet):
            found = _label(row)
            if found:
                labels.setdefault(page.number, found)
        kept = [row for row in heads if row.key not in said and not elsewhere.says(row.key)]
        said.update(row.key for row in heads)
        gone = {segment for row in (*heads, *feet) for segment in row.segments}
        stripped.append(
            replace(
                page,
                segments=tuple(s for s in page.segments if s not in gone),
                heads=tuple(row.words for row in kept),
                turned=tuple(t for t in page.turned if len(t) > 1 and marginal[_key(t)] == 1),
            )
        )
    return stripped, labels


def _middle(page: PageText, ends: tuple[list[_Row], list[_Row]]) -> list[Segment]:
    """What stands between the two ends of a page."""
    edge = {segment for end in ends for row in end for segment in row.segments}
    return [segment for segment in page.segments if segment not in edge]


def _habits(edges: dict[int, tuple[list[_Row], list[_Row]]], inside: Counter[str]) -> _Habits:
    places: defaultdict[str, set[tuple[int, float]]] = defaultdict(set)
    offsets: Counter[int] = Counter()
    for page, ends in edges.items():
        for end in ends:
            for row in end:
                places[row.key].add((page, row.place))
        labels = {_label(row) for end in ends for row in end[:2]}
        offsets.update({int(label) - page for label in labels if label.isdigit()})
    needed = max(2, len(edges) // 20)
    return _Habits(
        places, len(edges), frozenset(o for o, pages in offsets.items() if pages >= needed), inside
    )


class _Elsewhere:
    """Whether the letters of a running head also stand in the body of some page."""

    def __init__(self, pages: Sequence[PageText], edges: dict[int, tuple[list[_Row], list[_Row]]]) -> None:
        self._pages, self._edges = pages, edges
        self._bodies: list[str] | None = None

    def says(self, key: str) -> bool:
        if self._bodies is None:
            middles = (_middle(page, self._edges[page.number]) for page in self._pages)
            self._bodies = [" ".join(_key(s.text) for s in middle) for middle in middles]
        return any(key in body for body in self._bodies)


def _edge(page: PageText, *, top: bool) -> list[_Row]:
    """Up to four rows at one end of the page, the outermost first."""
    rows: list[list[Segment]] = []
    half = [s for s in page.segments if (s.baseline < page.height / 2) == top]
    for segment in sorted(half, key=lambda s: s.baseline if top else -s.baseline):
        if rows and abs(rows[0][0].baseline - segment.baseline) > page.height * _ZONE_SHARE:
            break
        if rows and abs(rows[-1][0].baseline - segment.baseline) <= _ROW_POINTS:
            rows[-1].append(segment)
        elif len(rows) == _DEPTH_ROWS:
            break
        else:
            rows.append([segment])
    return [_row(row, depth) for depth, row in enumerate(rows)]


def _row(segments: list[Segment], depth: int) -> _Row:
    ordered = tuple(sorted(segments, key=lambda s: s.x0))
    key = " ".join(filter(None, (_key(s.text) for s in ordered)))
    return _Row(ordered, key, ordered[0].baseline, depth)


def _key(text: str) -> str:
    """Letters only, so that "50 The Siege" and "The Siege. 51" are one running head."""
    return " ".join(re.findall(r"[^\W\d_]+", _ROMAN_OR_DIGITS.sub(" ", text).lower()))


def _label(row: _Row) -> str:
    """The page number in a row: alone, or at either end of a running head."""
    for segment in (row.segments[0], row.segments[-1]):
        match = _NUMBER.fullmatch(segment.text)
        if match:
            return match["label"]
    if row.key and len(row.segments) == 1:
        ends = re.match(r"(\d{1,5})\b", row.text) or re.search(r"\b(\d{1,5})\W*$", row.text)
        return ends[1] if ends else ""
    return ""
