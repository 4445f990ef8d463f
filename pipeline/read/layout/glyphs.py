"""Glyphs of a PDF page as words: text in logical order, place, size and weight of the font.

PDFium's own order of glyphs is kept within a word; between words it says little, because files draw
tables and columns in any order.
"""

from __future__ import annotations

import ctypes
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pypdfium2.raw as pdfium

from pipeline.read.layout.writing import ACCENTS, Glyph, accented, is_mark, is_rtl, logical

SOFT_HYPHEN = "\N{SOFT HYPHEN}"

_BOLD_WEIGHT = 600
_BOLD_NAMES = re.compile(r"bold|black|heavy|demi|^[a-z+]*(?:cm|sf|ec|tc|lm)\w?bx")
_INVISIBLE = 3
_GAP_EM = 0.3
_SHIFT_EM = 0.1
_SAMPLE = 500
_SPACES = frozenset(
    {*range(1, 33), 0x7F, 0xA0, 0x1680, *range(0x2000, 0x200C), 0x202F, 0x205F, 0x3000, 0xFEFF}
) - {2}
_REPLACED = {
    **{
        code: unicodedata.normalize("NFKC", chr(code))
        for code in (*range(0xFB00, 0xFB07), *range(0xFB13, 0xFB18))
    },
    0x02: SOFT_HYPHEN,  # PDFium's mark for a hyphen that ends a line
    0xFFFE: SOFT_HYPHEN,
}


@dataclass(frozen=True, slots=True)
class Word:
    """Glyphs without a space between them, of one font size, on one baseline.

    ``turns`` counts quarter turns anticlockwise; coordinates are upright in the word's own direction.
    ``spaced`` says that the file has a space before it; where PDFium only guessed one, the gap decides.
    """

    text: str
    x0: float
    x1: float
    baseline: float
    size: float
    bold: bool
    hidden: bool
    turns: int
    spaced: bool
    rtl: bool


@dataclass(frozen=True, slots=True)
class _Style:
    """What the glyphs of a word share; ``edge`` is the lower edge of their boxes."""

    baseline: float
    size: float
    bold: bool
    hidden: bool
    turns: int
    spaced: bool
    edge: float


class Glyphs:
    """Reads the words of one page through PDFium's C interface, which has no call for many glyphs."""

    def __init__(self, page: Any, text_page: Any) -> None:  # noqa: ANN401 - pypdfium2 objects
        self._handle = text_page.raw
        self._box = pdfium.FS_RECTF()
        self._matrix = pdfium.FS_MATRIX()
        self._origin = (ctypes.c_double(), ctypes.c_double())
        left, bottom, right, top = page.get_bbox()
        corners = [_turned(x, y, turns) for turns in range(4) for x, y in ((left, bottom), (right, top))]
        self._frames = [
            (min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(corners[::2], corners[1::2], strict=True)
        ]
        self._fonts: dict[int, bool] = {}

    def words(self) -> Iterator[Word]:
        """Every word of the page, in PDFium's order."""
        handle, box = self._handle, self._box
        pointer = ctypes.byref(box)
        unicode_at, box_at = pdfium.FPDFText_GetUnicode, pdfium.FPDFText_GetLooseCharBox
        is_generated = pdfium.FPDFText_IsGenerated
        glyphs: list[Glyph] = []
        style: _Style | None = None
        left, top = self._frames[0]
        broken = spaced = False
        for index in range(pdfium.FPDFText_CountChars(handle)):
            code = unicode_at(handle, index)
            if code in _SPACES or not code:
                broken = True
                spaced = spaced or not is_generated(handle, index)
                continue
            box_at(handle, index, pointer)
            if glyphs and code > 0x0300 and is_mark(chr(code)):
                broken = spaced = False  # PDFium takes the overlap of a mark for a gap
            if style is None or style.turns:
                x0, x1, edge = self._upright(box, style.turns if style else 0)
            else:  # nearly every glyph: the same without the call
                x0, x1, edge = box.left - left, box.right - left, top - box.bottom
            if style is None or broken or not _follows(glyphs, style, x0, x1, edge):
                if style and glyphs:
                    yield _word(glyphs, style)
                style = self._style(index, box, spaced)
                x0, x1, _ = self._upright(box, style.turns)
                glyphs = []
            glyphs.append((_REPLACED.get(code) or chr(code), x0, x1))
            broken = spaced = False
        if style and glyphs:
            yield _word(glyphs, style)

    def unmapped_share(self) -> float:
        """Share of glyphs whose font does not say which character they are, from a sample."""
        count = int(pdfium.FPDFText_CountChars(self._handle))
        sample = range(0, count, count // _SAMPLE + 1)
        errors = (pdfium.FPDFText_HasUnicodeMapError(self._handle, index) == 1 for index in sample)
        return float(sum(errors)) / max(len(sample), 1)

    def _upright(self, box: Any, turns: int) -> tuple[float, float, float]:  # noqa: ANN401 - an FS_RECTF
        """Left, right and lower edge of a box, in the direction of its word; y grows downward."""
        left, top = self._frames[turns]
        if turns == 0:
            return box.left - left, box.right - left, top - box.bottom
        a, b = _turned(box.left, box.bottom, turns), _turned(box.right, box.top, turns)
        return min(a[0], b[0]) - left, max(a[0], b[0]) - left, top - min(a[1], b[1])

    def _style(self, index: int, box: Any, spaced: bool) -> _Style:  # noqa: ANN401 - an FS_RECTF
        handle, matrix = self._handle, self._matrix
        x, y = self._origin
        pdfium.FPDFText_GetMatrix(handle, index, ctypes.byref(matrix))
        pdfium.FPDFText_GetCharOrigin(handle, index, ctypes.byref(x), ctypes.byref(y))
        turns = round(math.atan2(matrix.b, matrix.a) / (math.pi / 2)) % 4
        size = pdfium.FPDFText_GetFontSize(handle, index) * math.hypot(matrix.c, matrix.d)
        if not 0 < size < 10_000:
            size = abs(box.top - box.bottom) or 1.0
        baseline = self._frames[turns][1] - _turned(x.value, y.value, turns)[1]
        drawn = pdfium.FPDFText_GetTextObject(handle, index)
        return _Style(
            baseline=baseline,
            size=size,
            bold=self._is_bold(drawn),
            hidden=bool(drawn) and pdfium.FPDFTextObj_GetTextRenderMode(drawn) == _INVISIBLE,
            turns=turns,
            spaced=spaced,
            edge=self._upright(box, turns)[2],
        )

    def _is_bold(self, drawn: Any) -> bool:  # noqa: ANN401 - an FPDF_PAGEOBJECT
        font = pdfium.FPDFTextObj_GetFont(drawn) if drawn else None
        if not font:
            return False
        key = ctypes.cast(font, ctypes.c_void_p).value or 0
        if key not in self._fonts:
            name = ctypes.create_string_buffer(128)
            pdfium.FPDFFont_GetBaseFontName(font, name, len(name))
            named = name.value.decode("latin-1").lower()
            heavy = pdfium.FPDFFont_GetWeight(font) >= _BOLD_WEIGHT
            self._fonts[key] = heavy or bool(_BOLD_NAMES.search(named))
        return self._fonts[key]


def _turned(x: float, y: float, turns: int) -> tuple[float, float]:
    """A point of the page in the axes of text that was turned ``turns`` quarters anticlockwise."""
    return ((x, y), (y, -x), (-x, -y), (-y, x))[turns]


def _follows(glyphs: list[Glyph], style: _Style, x0: float, x1: float, edge: float) -> bool:
    """Whether a glyph goes on with the word: on its line, and next to the glyph before, on either side."""
    if abs(edge - style.edge) > _SHIFT_EM * style.size:
        return False
    _, before0, before1 = glyphs[-1]
    gap = max(x0 - before1, before0 - x1)
    return gap <= _GAP_EM * style.size


def _word(glyphs: list[Glyph], style: _Style) -> Word:
    text = "".join([glyph[0] for glyph in glyphs])
    rtl = False
    if not text.isascii() or "`" in text or "^" in text:
        if any(glyph[0] in ACCENTS for glyph in glyphs):
            glyphs = accented(glyphs)
            text = "".join([glyph[0] for glyph in glyphs])
        rtl = any(map(is_rtl, text))
    first, last = glyphs[0], glyphs[-1]
    return Word(
        text=logical(glyphs) if rtl else text,
        x0=min(first[1], last[1]),
        x1=max(first[2], last[2]),
        baseline=style.baseline,
        size=style.size,
        bold=style.bold,
        hidden=style.hidden,
        turns=style.turns,
        spaced=style.spaced,
        rtl=rtl,
    )
