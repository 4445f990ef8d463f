"""Running heads, running feet and page numbers: what repeats at the edge of pages is not the text.

A running head is kept once, at the top of its page, if the text nowhere says the same, so that a book
whose title stands only in its running heads keeps it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.read.layout.segments import PageText, Segment

_ZONE_SHARE = 0.1  # of the page's height, from the first row and from the last
_DEPTH_ROWS = 4
_ROW_POINTS = 3.0
_SAME_PLACE_POINTS = 14.0
_MIN_PAGES = 3
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


def strip(pages: Sequence[PageText]) -> tuple[list[PageText], dict[int, str]]:
    """The pages without furniture, and the number printed on each page where one was found.

    Pages of a document of one page are left as they are.
    """
    if len(pages) < 2:
        return list(pages), {}
    edges = {page.number: (_edge(page, top=True), _edge(page, top=False)) for page in pages}
    places = _places(row for ends in edges.values() for end in ends for row in end)
    numbered = sum(any(_is_number(end[:1]) for end in ends) for ends in edges.values())
    marginal = Counter(_key(line) for page in pages for line in set(page.turned))
    elsewhere = _Elsewhere(pages, edges)
    labels: dict[int, str] = {}
    said: set[str] = {""}
    stripped = []
    for page in pages:
        top, bottom = edges[page.number]
        heads = _outermost(top, places, len(pages), numbered)
        feet = _outermost(bottom, places, len(pages), numbered)
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


def _outermost(end: list[_Row], places: dict[str, list[float]], pages: int, numbered: int) -> list[_Row]:
    """The rows of one end that are furniture: from the edge inward, up to the first that is not."""
    return list(itertools.takewhile(lambda row: _is_furniture(row, places, pages, numbered), end))


class _Elsewhere:
    """Whether the letters of a running head also stand in the body of some page."""

    def __init__(self, pages: Sequence[PageText], edges: dict[int, tuple[list[_Row], list[_Row]]]) -> None:
        self._pages, self._edges = pages, edges
        self._bodies: list[str] | None = None

    def says(self, key: str) -> bool:
        if self._bodies is None:
            self._bodies = [self._body(page) for page in self._pages]
        return any(key in body for body in self._bodies)

    def _body(self, page: PageText) -> str:
        edge = {segment for end in self._edges[page.number] for row in end for segment in row.segments}
        return " ".join(_key(s.text) for s in page.segments if s not in edge)


def _edge(page: PageText, *, top: bool) -> list[_Row]:
    """Up to four rows at one end of the page, the outermost first."""
    rows: list[list[Segment]] = []
    for segment in sorted(page.segments, key=lambda s: s.baseline if top else -s.baseline):
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


def _places(rows: Iterable[_Row]) -> dict[str, list[float]]:
    places: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        places[row.key].append(row.place)
    return places


def _is_furniture(row: _Row, places: dict[str, list[float]], pages: int, numbered: int) -> bool:
    if not row.key:
        return row.depth <= 1 and _label(row) != "" and numbered >= max(2, pages // 4)
    repeats = sum(abs(place - row.place) <= _SAME_PLACE_POINTS for place in places[row.key])
    needed = min(_MIN_PAGES, pages) if row.depth == 0 else max(_MIN_PAGES, _DEEP_SHARE * pages)
    return repeats >= needed


def _is_number(rows: list[_Row]) -> bool:
    return any(_label(row) for row in rows)


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
