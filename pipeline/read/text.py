"""Plain text: paragraphs, list items and headings found by layout and wording.

:func:`read` takes a file and undoes hard wrapping first; :func:`from_text` keeps the text exactly as
it is given, so that offsets refer to what the caller has, and only finds the structure in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath

from pipeline.errors import DamagedFileError, EmptyDocumentError
from pipeline.read import aozora, gutenberg
from pipeline.read.builder import Hints, clean
from pipeline.read.encoding import decode
from pipeline.read.headings import UNNAMED_LEVEL, is_bare, rank
from pipeline.read.lines import SegmentKind, segments, wrap_width
from pipeline.read.reflow import reflow
from pipeline.types import Block, BlockKind, Document, Page, Section

MEDIA_TYPES = ("text/plain",)
SUFFIXES = (".txt", ".text")

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_LINE = re.compile(r"[^\n]*\n?")
_UNDERLINE = re.compile(r"\s*(={3,}|-{3,}|~{3,}|\*{3,})\s*")
_HASHES = re.compile(r"(#{1,6})\s+\S")
_KINDS: dict[SegmentKind, BlockKind] = {"list_item": "list_item", "table_row": "table_row"}
_MAX_TITLE_CHARS = 70
_MAX_TITLE_LINES = 3
_MIN_LISTING = 4
_MAX_UNNAMED_SHARE = 0.35


def read(data: bytes, hints: Hints) -> Document:
    """Raises EmptyDocumentError for white space and DamagedFileError for bytes that are no text."""
    charset = _CHARSET.search(hints.media_type)
    decoded = decode(data, declared=charset[1] if charset else "")
    warnings = list(decoded.warnings)
    text = clean(decoded.text).strip("\ufeff\x1a")
    marked: Mapping[str, int] = {}
    about = gutenberg.fields(text)
    if aozora.is_aozora(text):
        text, marked = aozora.plain(text)
        warnings.append("Readings printed beside characters (ruby, 《》) were left out.")
        about.setdefault("title", text.strip().split("\n", 1)[0].strip())
    document = _structured(reflow(text), marked)
    title = about.pop("title", "") or PurePath(hints.name).stem
    return replace(document, title=title, metadata=about, warnings=tuple(warnings))


def from_text(text: str, title: str = "") -> Document:
    """A document whose ``text`` is exactly the one given.

    Raises EmptyDocumentError for white space, and DamagedFileError for a lone surrogate, which is
    half a character and cannot be stored.
    """
    if not text.strip():
        raise EmptyDocumentError(
            f"The text is empty ({len(text)} characters of white space).", remedy="Send some text."
        )
    if lone := re.search("[\ud800-\udfff]", text):
        raise DamagedFileError(
            f"The text holds half a character (surrogate U+{ord(lone[0]):04X}) at offset {lone.start()}.",
            remedy="Send well-formed Unicode.",
        )
    return replace(_structured(text, {}), title=" ".join(title.split()))


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive lines that are not blank, and where each begins."""

    lines: tuple[str, ...]
    starts: tuple[int, ...]

    def block(self, kind: BlockKind, first: int, last: int, level: int = 0) -> Block:
        """Lines ``[first, last)`` as a block, without white space at its edges."""
        head = self.lines[first]
        start = self.starts[first] + len(head) - len(head.lstrip())
        return Block(kind, start, self.starts[last - 1] + len(self.lines[last - 1].rstrip()), level)


def _structured(text: str, marked: Mapping[str, int]) -> Document:
    width = wrap_width(text.split("\n"))
    blocks = [block for run in _runs(text) for block in _run_blocks(run, width, marked)]
    blocks = _without_listings(_with_titles(blocks, text))
    if sum(b.level == UNNAMED_LEVEL for b in blocks) > _MAX_UNNAMED_SHARE * len(blocks) + 1:
        blocks = [_demoted(b) if b.level == UNNAMED_LEVEL else b for b in blocks]
    return Document(
        title="", text=text, pages=_pages(text), sections=_sections(blocks, text), blocks=tuple(blocks)
    )


def _runs(text: str) -> Iterator[_Run]:
    lines: list[str] = []
    starts: list[int] = []
    for found in _LINE.finditer(text):
        line = found[0].rstrip("\n")
        if lines and (not line.strip() or "\f" in line):
            yield _Run(tuple(lines), tuple(starts))
            lines, starts = [], []
        if line.strip():
            lines.append(line)
            starts.append(found.start())
    if lines:
        yield _Run(tuple(lines), tuple(starts))


def _run_blocks(run: _Run, width: int, marked: Mapping[str, int]) -> Iterator[Block]:
    level, length = _heading(run, marked)
    if level:
        yield run.block("heading", 0, length, level)
    underlined = 0 < length < len(run.lines) and _UNDERLINE.fullmatch(run.lines[length])
    first = length + 1 if underlined else length
    for segment in segments(run.lines[first:], width):
        i, j = first + segment.first, first + segment.last
        level = 0
        if j == i + 1 and segment.kind in ("line", "list_item", "prose"):
            line = run.lines[i].strip()
            # Where every line is a paragraph, a short one before a long one stands alone.
            alone = segment.kind != "prose" and j < len(run.lines) and len(run.lines[j]) > _MAX_TITLE_CHARS
            level = marked.get(line, 0) or rank(line, alone=alone)
        yield run.block("heading" if level else _KINDS.get(segment.kind, "paragraph"), i, j, level)


def _heading(run: _Run, marked: Mapping[str, int]) -> tuple[int, int]:
    """Level and number of lines of the heading with which a run begins, or zeros."""
    line, alone = run.lines[0].strip(), len(run.lines) == 1
    if gutenberg.ends(line):
        return 1, 1
    if hashes := _HASHES.match(line):
        return len(hashes[1]), 1
    if len(run.lines) > 1 and len(line) <= _MAX_TITLE_CHARS and (under := _UNDERLINE.fullmatch(run.lines[1])):
        return (1 if under[1][0] in "=*" else 2), 1
    level = (marked.get(line, 0) if alone else 0) or rank(line, alone=alone)
    if level and not alone:
        is_title = len(run.lines) <= _MAX_TITLE_LINES and all(len(x) <= _MAX_TITLE_CHARS for x in run.lines)
        return level, len(run.lines) if is_title else 1
    return level, int(bool(level))


def _with_titles(blocks: list[Block], text: str) -> list[Block]:
    """A division's number ("CHAPTER I") and the title that stands alone below it are one heading."""
    joined: list[Block] = []
    for block in blocks:
        before = joined[-1] if joined else None
        if before and before.kind == "heading" and is_bare(text[before.start : before.end]):
            line = text[block.start : block.end]
            if (not block.level or block.level == UNNAMED_LEVEL) and _is_title(line):
                joined[-1] = replace(before, end=block.end)
                continue
        joined.append(block)
    return joined


def _is_title(line: str) -> bool:
    if len(line) > _MAX_TITLE_CHARS or "\n" in line or line[-1] in ",;:?!\"'”’" or not line[0].isalpha():
        return False
    if line.isupper():
        return True
    return line[-1] != "." and all(word[0].isupper() for word in line.split() if len(word) > 3)


def _without_listings(blocks: list[Block]) -> list[Block]:
    """Headings one after the other with nothing between are a table of contents, up to the last ones,
    which rise in level to the text they head. A nameless one before a higher one is a signature."""
    result = list(blocks)
    first = 0
    while first < len(blocks):
        last = first
        while last < len(blocks) and blocks[last].kind == "heading":
            last += 1
        kept = max(last - 1, first)
        while kept > first and blocks[kept - 1].level < blocks[kept].level:
            kept -= 1
        if kept - first >= _MIN_LISTING:
            result[first + 1 : kept] = map(_demoted, blocks[first + 1 : kept])
        for i in range(first, kept):
            if blocks[i].level == UNNAMED_LEVEL > blocks[i + 1].level:
                result[i] = _demoted(blocks[i])
        first = last + 1
    return result


def _demoted(block: Block) -> Block:
    return replace(block, kind="paragraph", level=0)


def _sections(blocks: list[Block], text: str) -> tuple[Section, ...]:
    sections: list[Section] = []
    following: list[tuple[int, int]] = []
    for block in reversed([b for b in blocks if b.kind == "heading"]):
        while following and following[-1][0] > block.level:
            following.pop()
        end = following[-1][1] if following else len(text)
        title = " ".join(text[block.start : block.end].strip("# \t").split())
        sections.append(Section(title, block.level, block.start, end))
        following.append((block.level, block.start))
    return tuple(reversed(sections))


def _pages(text: str) -> tuple[Page, ...]:
    """Form feeds end pages; a text without them has none."""
    if "\f" not in text.strip():
        return ()
    starts = [0, *(found.end() for found in re.finditer("\f", text))]
    ends = [*starts[1:], len(text)]
    return tuple(Page(n, a, b) for n, (a, b) in enumerate(zip(starts, ends, strict=True), 1) if a < b)
