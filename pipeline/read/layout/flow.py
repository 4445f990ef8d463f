"""Blocks of all pages as one document: paragraphs mended, lines joined, pages marked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.read.builder import ROW_SEPARATOR, DocumentBuilder
from pipeline.read.layout.blocks import Body, PageBlock, page_blocks
from pipeline.read.layout.glyphs import SOFT_HYPHEN
from pipeline.read.layout.headings import OutlineEntry, ranked
from pipeline.read.layout.segments import PageText
from pipeline.read.layout.words import Joiner

_LOOK_BACK = 80
_FLOATS = frozenset({"caption", "footnote", "table_row"})
_HYPHENS = ("-", "\N{HYPHEN}", SOFT_HYPHEN)
_ENDED = re.compile(r"[.!?:;。！？؟…][\"'”’»)\]⁰¹²³⁴⁵⁶⁷⁸⁹]*$")
_BOLD_SHARE = 0.4
_SAME_SIZE = 0.08


@dataclass(frozen=True, slots=True)
class _Mended:
    """A block and the pages that begin within it, as ``(index of its first line there, page)``."""

    block: PageBlock
    begins: tuple[tuple[int, int], ...] = ()
    last_column: int = 0

    @property
    def last_page(self) -> int:
        return self.begins[-1][1] if self.begins else self.block.page


def body_of(pages: Sequence[PageText]) -> Body:
    """The ordinary font of a document."""
    sizes: Counter[float] = Counter()
    bold = hidden = 0
    for page in pages:
        for segment in page.segments:
            sizes[round(segment.size * 2) / 2] += len(segment.text)
            bold += len(segment.text) * segment.bold
            hidden += len(segment.text) * page.hidden
    total = sum(sizes.values()) or 1
    size = sizes.most_common(1)[0][0] if sizes else 10.0
    return Body(size, bold_matters=bold < _BOLD_SHARE * total, sizes_matter=hidden * 2 < total)


def pour(
    pages: Sequence[PageText],
    builder: DocumentBuilder,
    outline: Sequence[OutlineEntry],
    labels: Mapping[int, str],
) -> None:
    """Add every page, in order, to the builder."""
    body = body_of(pages)
    blocks = ranked([block for page in pages for block in page_blocks(page, body)], outline)
    joiner = Joiner(line for block in blocks for line in block.lines)
    waiting = [page.number for page in reversed(pages)]
    for mended in _mended(blocks):
        block = mended.block
        while waiting and waiting[-1] <= block.page:
            number = waiting.pop()
            builder.page(number, labels.get(number, ""))
        text, starts = joiner.join(block.lines)
        breaks = []
        while waiting and waiting[-1] <= mended.last_page:
            number = waiting.pop()
            line = next(line for line, page in mended.begins if page >= number)
            breaks.append((starts[line], number, labels.get(number, "")))
        if block.kind == "heading":
            text = text.replace(ROW_SEPARATOR, " ")
        builder.add(block.kind, text, level=block.level, page_breaks=breaks)
    for number in reversed(waiting):
        builder.page(number, labels.get(number, ""))


def _mended(blocks: Iterable[PageBlock]) -> list[_Mended]:
    """Join paragraphs that a column, a page, a figure or a footnote cut apart.

    What stands between two halves on the first half's page goes before the paragraph, what stands on
    the second half's page after it, so that the page map stays exact.
    """
    out: list[_Mended] = []
    for block in blocks:
        at = _open_paragraph(out)
        if at is None or not _goes_on(out[at], block, out[at + 1 :]):
            out.append(_Mended(block, last_column=block.column))
            continue
        first, between = out[at], out[at + 1 :]
        begins = first.begins
        if block.page != first.last_page:
            begins = (*begins, (len(first.block.lines), block.page))
        joined = replace(first.block, lines=first.block.lines + block.lines, room=block.room)
        moved = [m for m in between if m.block.page != block.page]
        kept = [m for m in between if m.block.page == block.page]
        out[at:] = [*moved, _Mended(joined, begins, block.column), *kept]
    return out


def _open_paragraph(out: Sequence[_Mended]) -> int | None:
    """Index of the last paragraph, if only floats stand after it."""
    for i in range(len(out) - 1, max(-1, len(out) - _LOOK_BACK), -1):
        kind = out[i].block.kind
        if kind in ("paragraph", "list_item"):
            return i
        if kind not in _FLOATS:
            return None
    return None


def _goes_on(first: _Mended, block: PageBlock, between: Sequence[_Mended]) -> bool:
    """Whether ``block`` is the rest of the paragraph ``first``."""
    before = first.block
    same_type = (
        block.kind == "paragraph"
        and before.bold == block.bold
        and abs(before.size - block.size) <= _SAME_SIZE * max(before.size, block.size)
    )
    new_place = between or (block.page, block.column) != (first.last_page, first.last_column)
    if not same_type or not new_place or block.page > first.last_page + 1:
        return False
    if any(m.block.page not in (before.page, block.page) for m in between):
        return False  # a note of a page in the middle has no other place than here
    end, start = before.lines[-1], block.lines[0]
    if _ENDED.search(end):
        return False
    if start[:1].islower() or (end.endswith(_HYPHENS) and start[:1].isalpha()):
        return True
    tables = any(m.block.kind == "table_row" for m in between)
    full = before.room <= block.first_width + before.size
    return full and not block.indented and not tables
