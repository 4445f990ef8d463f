"""Words of a page as segments: runs of words on one baseline without a wide gap between them.

A segment is a whole line of a column, or one cell of a table. Its text is in logical order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.read.layout.glyphs import Glyphs, Word
from pipeline.read.layout.writing import restore

_SCAN_GAP_EM = 1.0  # recognised words are placed less exactly
_GAP_EM = 0.65  # columns and cells are further apart than this
_OVERLAP_EM = 0.6
_SPACE_EM = 0.13
_RTL_SPACE_EM = 0.12
_ASCENT, _DESCENT = 0.8, 0.2
_MIN_OVERLAP = 0.55
_MAX_UNMAPPED = 0.15
_BUCKET_POINTS = 4.0
_SUPERSCRIPT_SIZE = 0.82
_SUPERSCRIPT_RAISE_EM = 0.15
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOSTLY = 0.97


@dataclass(frozen=True, slots=True)
class Segment:
    """Words on one baseline. ``size`` is the font size in points, ``first_width`` that of the first
    word; ``raised`` says that it begins with a superscript (a footnote's mark)."""

    text: str
    x0: float
    x1: float
    baseline: float
    size: float
    bold: bool
    words: int
    first_width: float
    raised: bool = False

    @property
    def top(self) -> float:
        """Upper edge, from the font size: letters without ascenders do not lower it."""
        return self.baseline - _ASCENT * self.size

    @property
    def bottom(self) -> float:
        """Lower edge, from the font size."""
        return self.baseline + _DESCENT * self.size

    @property
    def width(self) -> float:
        """Points from the first glyph to the last."""
        return self.x1 - self.x0


@dataclass(frozen=True, slots=True)
class PageText:
    """The segments of one page.

    ``heads`` are running heads to keep, ``turned`` are lines that run up or down the margin. ``hidden``
    says that the text is an invisible layer over a scan, whose font sizes mean little; ``rtl`` that the
    page was mirrored; ``garbled`` that its fonts do not say which characters they show, so that its text
    was left out. ``inked`` is False for a page on which nothing at all is drawn.
    """

    number: int
    width: float
    height: float
    segments: tuple[Segment, ...]
    heads: tuple[str, ...] = ()
    turned: tuple[str, ...] = ()
    hidden: bool = False
    rtl: bool = False
    inked: bool = True
    garbled: bool = False


def read_page(page: Any, number: int) -> PageText:  # noqa: ANN401 - a pypdfium2 PdfPage
    """The segments of one page, upright and in no particular order."""
    text_page = page.get_textpage()
    try:
        glyphs = Glyphs(page, text_page)
        if glyphs.unmapped_share() > _MAX_UNMAPPED:
            width, height = page.get_size()
            return PageText(number, width, height, (), garbled=True)
        words = list(glyphs.words())
    finally:
        text_page.close()
    upright = Counter(word.turns for word in words).most_common(1)[0][0] if words else 0
    left, bottom, right, top = page.get_bbox()
    width, height = (right - left, top - bottom)[:: -1 if upright % 2 else 1]
    rtl = sum(len(w.text) for w in words if w.rtl) * 2 > sum(len(w.text) for w in words)
    hidden = sum(word.hidden for word in words) * 2 > len(words)
    gap_em = _SCAN_GAP_EM if hidden else _GAP_EM
    segments = [_segment(run, rtl=rtl) for run in _runs([w for w in words if w.turns == upright], gap_em)]
    turned = [_segment(run, rtl=rtl) for run in _runs([w for w in words if w.turns != upright], gap_em)]
    return PageText(
        number,
        width,
        height,
        tuple(_mirrored(s, width) if rtl else s for s in segments),
        turned=tuple(s.text for s in sorted(turned, key=lambda s: (s.baseline, s.x0))),
        hidden=hidden,
        rtl=rtl,
        inked=bool(words) or next(iter(page.get_objects(max_depth=1)), None) is not None,
    )


@dataclass(slots=True)
class _Run:
    words: list[Word]
    x1: float


def _runs(words: Iterable[Word], gap_em: float) -> list[list[Word]]:
    """Chain words from left to right: each joins the run on its line that ends nearest before it."""
    runs: list[_Run] = []
    lines: defaultdict[tuple[int, int], list[_Run]] = defaultdict(list)
    for word in sorted(words, key=lambda w: w.x0):
        row = int(word.baseline // _BUCKET_POINTS)
        reach = 1 + int(word.size // _BUCKET_POINTS)
        near = (run for y in range(row - reach, row + reach + 1) for run in lines[word.turns, y])
        best = max((run for run in near if _joins(run, word, gap_em)), key=lambda run: run.x1, default=None)
        if best is None:
            best = _Run([], word.x1)
            runs.append(best)
        if not best.words or int(best.words[-1].baseline // _BUCKET_POINTS) != row:
            lines[word.turns, row].append(best)
        best.words.append(word)
        best.x1 = max(best.x1, word.x1)
    return [run.words for run in runs]


def _joins(run: _Run, word: Word, gap_em: float) -> bool:
    last = run.words[-1]
    size = max(last.size, word.size)
    if not -_OVERLAP_EM * size <= word.x0 - run.x1 <= gap_em * size:
        return False
    top = max(last.baseline - _ASCENT * last.size, word.baseline - _ASCENT * word.size)
    bottom = min(last.baseline + _DESCENT * last.size, word.baseline + _DESCENT * word.size)
    return bottom - top >= _MIN_OVERLAP * min(last.size, word.size)


def _segment(words: list[Word], *, rtl: bool) -> Segment:
    """Join the words of a run (from left to right) into text in logical order."""
    letters: Counter[float] = Counter()
    for word in words:
        letters[round(word.size, 1)] += len(word.text)
    size = letters.most_common(1)[0][0] or words[0].size
    baseline = max((w for w in words if round(w.size, 1) == size), key=lambda w: len(w.text)).baseline
    pieces = [_piece(word, size, baseline) for word in words]
    if any(word.rtl for word in words):
        text = _both_ways(words, pieces, rtl=rtl)
    else:
        text = "".join(_space(words, i, pieces, size) + piece for i, piece in enumerate(pieces)).strip()
    chars = sum(len(word.text) for word in words)
    first = words[-1] if rtl else words[0]
    return Segment(
        text=text,
        x0=words[0].x0,
        x1=max(word.x1 for word in words),
        baseline=baseline,
        size=size,
        bold=sum(len(word.text) for word in words if word.bold) >= _MOSTLY * chars,
        words=text.count(" ") + 1,
        first_width=first.x1 - first.x0,
        raised=_is_raised(first, size, baseline),
    )


def _piece(word: Word, size: float, baseline: float) -> str:
    """The word's text; digits set as superscript become superscript digits, so that 2019¹ stays a year."""
    return word.text.translate(SUPERSCRIPTS) if _is_raised(word, size, baseline) else word.text


def _is_raised(word: Word, size: float, baseline: float) -> bool:
    return (
        word.size <= _SUPERSCRIPT_SIZE * size
        and word.baseline < baseline - _SUPERSCRIPT_RAISE_EM * size
        and any(char.isdigit() for char in word.text)
    )


def _space(words: list[Word], i: int, pieces: list[str], size: float) -> str:
    if i == 0:
        return ""
    gap = words[i].x0 - max(word.x1 for word in words[max(0, i - 2) : i])
    raised = pieces[i] != words[i].text  # a footnote's number belongs to the word before it
    return " " if gap > _SPACE_EM * size or (words[i].spaced and not raised) else ""


def _both_ways(words: list[Word], pieces: list[str], *, rtl: bool) -> str:
    """Text of a line with words of both directions, by place rather than by PDFium's order."""
    glued: list[tuple[str, bool]] = []
    for i, (word, piece) in enumerate(zip(words, pieces, strict=True)):
        gap = word.x0 - words[i - 1].x1 if i else word.size
        if i and gap < _RTL_SPACE_EM * word.size and word.rtl == glued[-1][1]:
            before = glued.pop()[0]
            glued.append((piece + before if word.rtl else before + piece, word.rtl))
        else:
            glued.append((piece, word.rtl))
    if rtl:
        glued.reverse()
    return " ".join(restore([text for text, _ in glued], [flag for _, flag in glued], rtl=rtl))


def _mirrored(segment: Segment, width: float) -> Segment:
    return replace(segment, x0=width - segment.x1, x1=width - segment.x0)
