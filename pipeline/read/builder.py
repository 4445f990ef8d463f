"""The one way readers make a Document: blocks of text in reading order, joined so that offsets hold.

A reader calls :meth:`DocumentBuilder.add` for each block and :meth:`DocumentBuilder.page` where a
page begins; the builder joins blocks (a blank line between paragraphs, one line break between table
rows, list items of one list and lines of code), and derives sections from headings.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.types import Block, BlockKind, Document, Page, Section

ROW_SEPARATOR = " | "
"""Between the cells of a table row, in every format."""

_TIGHT: frozenset[BlockKind] = frozenset({"table_row", "list_item", "code"})


@dataclass(frozen=True, slots=True)
class Hints:
    """What is known of a file beside its bytes: its name, declared media type, and password."""

    name: str = ""
    media_type: str = ""
    password: str | None = None


class DocumentBuilder:
    """Collects blocks; :meth:`build` gives the frozen document."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._blocks: list[Block] = []
        self._headings: list[tuple[str, int, int]] = []
        self._pages: list[tuple[int, str, int]] = []
        self._warnings: list[str] = []

    def __len__(self) -> int:
        """Code points so far."""
        return self._length

    def page(self, number: int, label: str = "") -> None:
        """A page begins here; ``number`` counts from 1."""
        self._pages.append((number, label, self._length))

    def warn(self, warning: str) -> None:
        """Say what could not be read. Repeats are kept once."""
        if warning not in self._warnings:
            self._warnings.append(warning)

    def add(
        self,
        kind: BlockKind,
        text: str,
        *,
        level: int = 0,
        page_breaks: Sequence[tuple[int, int, str]] = (),
    ) -> None:
        """Append one block. Text is normalised (NFC, no NUL); blank text is ignored.

        ``level`` is the heading's level from 1, ignored for other kinds. ``page_breaks`` are pages
        that begin inside the block, as ascending ``(offset into text, number, label)``.
        """
        breaks = [
            (len(_trim(kind, text[:at], end=False)), number, label) for at, number, label in page_breaks
        ]
        text = _trim(kind, text)
        if not text:
            self._pages.extend((number, label, self._length) for _, number, label in breaks)
            return
        if self._blocks:
            tight = kind in _TIGHT and self._blocks[-1].kind == kind
            self._append("\n" if tight else "\n\n")
        start = self._length
        self._append(text)
        self._pages.extend((number, label, start + min(at, len(text))) for at, number, label in breaks)
        depth = max(level, 1) if kind == "heading" else 0
        self._blocks.append(Block(kind, start, self._length, depth))
        if depth:
            self._headings.append((" ".join(text.split()), depth, start))

    def build(
        self,
        *,
        title: str = "",
        media_type: str = "text/plain",
        metadata: Mapping[str, Any] | None = None,
    ) -> Document:
        """The document; without a title it takes its first heading's."""
        text = "".join(self._parts)
        if not title and self._headings:
            title = self._headings[0][0]
        return Document(
            title=" ".join(clean(title).split())[:500],
            text=text,
            pages=self._page_map(),
            sections=self._section_map(),
            blocks=tuple(self._blocks),
            media_type=media_type,
            metadata=dict(metadata or {}),
            warnings=tuple(self._warnings),
        )

    def _append(self, piece: str) -> None:
        self._parts.append(piece)
        self._length += len(piece)

    def _page_map(self) -> tuple[Page, ...]:
        ends = [*(start for _, _, start in self._pages[1:]), self._length]
        # Without pages there is still one end, hence not strict.
        return tuple(
            Page(number, start, end, label)
            for (number, label, start), end in zip(self._pages, ends, strict=False)
        )

    def _section_map(self) -> tuple[Section, ...]:
        sections = []
        for i, (title, level, start) in enumerate(self._headings):
            after = (s for _, lower, s in self._headings[i + 1 :] if lower <= level)
            sections.append(Section(title, level, start, next(after, self._length)))
        return tuple(sections)


def _trim(kind: BlockKind, text: str, *, end: bool = True) -> str:
    """Cleaned text without blank edges; code keeps the indentation of its first line."""
    text = clean(text)
    text = text.lstrip("\n") if kind == "code" and text.strip() else text.lstrip()
    return text.rstrip() if end else text


def clean(text: str) -> str:
    """NFC, line breaks as ``\\n``, no NUL and no lone surrogates (they cannot be stored as UTF-8)."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    if any("\ud800" <= c <= "\udfff" for c in text):
        text = text.encode("utf-8", "replace").decode("utf-8")
    return unicodedata.normalize("NFC", text)
