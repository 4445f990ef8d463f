"""A tree of HTML elements to the pieces of text it shows, in order.

Shared by every format that is HTML inside (web pages, EPUB, Markdown, mail). The walk is iterative,
so no depth of nesting can exhaust the stack.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lxml import etree

from pipeline.read.builder import DocumentBuilder
from pipeline.read.formula import linear
from pipeline.read.markup import Element, flat, local
from pipeline.read.spacing import BREAK, PAGE, paragraphs, printable, split_pages
from pipeline.read.tables import is_data_table, rows
from pipeline.types import BlockKind

Skip = Callable[[Element], bool]

_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_KINDS: dict[str, BlockKind] = {
    "li": "list_item",
    "dt": "list_item",
    "dd": "list_item",
    "figcaption": "caption",
    "caption": "caption",
    "pre": "code",
    "listing": "code",
    "xmp": "code",
    "footnote": "footnote",
    **dict.fromkeys(_HEADINGS, "heading"),
}
_NOTE_ROLES = frozenset({"footnote", "endnote", "rearnote", "doc-footnote", "doc-endnote"})
_BLOCKS = frozenset(_KINDS) | frozenset(
    {
        "address", "article", "aside", "blockquote", "body", "center", "details", "dialog", "div", "dl",
        "fieldset", "figure", "footer", "form", "header", "hgroup", "hr", "html", "legend", "main", "menu",
        "nav", "ol", "optgroup", "p", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead",
        "tr", "ul",
    }
)  # fmt: skip
_NEVER = frozenset(
    {
        "head", "script", "style", "noscript", "template", "svg", "iframe", "object", "embed", "applet",
        "audio", "video", "canvas", "map", "select", "button", "input", "textarea", "datalist", "option",
        "rt", "rp",
    }
)  # fmt: skip
_BOLD = frozenset({"b", "strong"})
_BOLD_STYLE = re.compile(r"font-weight\s*:\s*(bold|[6-9]00)", re.IGNORECASE)
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_NOTE_MARK = re.compile(r"\[?(?:[\divxlc]{1,4}|[a-z*†‡§]|(?:note|nb|n|fn)\s*\d+)\]?", re.IGNORECASE)
_MATH_IMAGE = re.compile(r"math|tex\b|latex", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Piece:
    """One block of text as the page shows it.

    ``bold`` says that all of it is, ``link_share`` how much of it is link text, and ``breaks`` where
    in it a printed page begins, as ``(offset, label)``.
    """

    kind: BlockKind
    text: str
    level: int = 0
    bold: bool = False
    link_share: float = 0.0
    breaks: tuple[tuple[int, str], ...] = ()


def pieces(root: Element, skip: Skip | None = None) -> Iterator[Piece]:
    """Every piece of text under ``root``; subtrees for which ``skip`` is true are left out."""
    return _Walk(skip or (lambda element: False)).run(root)


def pour(builder: DocumentBuilder, found: Iterable[Piece], numbers: Iterator[int] | None = None) -> None:
    """Add the pieces to a document. Printed pages take the next of ``numbers``, by default 1, 2, 3."""
    numbers = numbers or itertools.count(1)
    for piece in found:
        breaks = [(at, next(numbers), label) for at, label in piece.breaks]
        builder.add(piece.kind, piece.text, level=piece.level, page_breaks=breaks)


class _Walk:
    """The state of one walk: what is being collected and inside what."""

    def __init__(self, skip: Skip) -> None:
        self._skip = skip
        self._parts: list[str] = []
        self._labels: list[str] = []
        self._open: list[str] = []
        self._counters: list[int | None] = []
        self._marker = ""
        self._depth = {"bold": 0, "link": 0, "pre": 0}
        self._seen = {"all": 0, "bold": 0, "link": 0}

    def run(self, root: Element) -> Iterator[Piece]:
        events = etree.iterwalk(root, events=("start", "end"))
        skipped = None
        for event, element in events:
            if event == "end":
                if element is skipped:
                    skipped = None
                else:
                    yield from self._leave(element)
                if element is not root:
                    self._text(element.tail)
                continue
            name = local(element)
            if self._left_out(element, name):
                events.skip_subtree()
                skipped = element
                continue
            if name in _BLOCKS:
                yield from self._flush()
            if name == "table" and is_data_table(element):
                yield from self._table(element)
                events.skip_subtree()
                skipped = element
                continue
            if self._replaced(element, name):
                events.skip_subtree()
                skipped = element
                continue
            self._enter(element, name)
        yield from self._flush()

    def _left_out(self, element: Element, name: str) -> bool:
        return not name or name in _NEVER or is_hidden(element) or self._skip(element)

    def _replaced(self, element: Element, name: str) -> bool:
        """Elements shown otherwise than by their text. True when the element is done with."""
        if name == "br":
            self._parts.append("\n" if self._depth["pre"] else BREAK)
        elif name == "math":
            self._text(f" {linear(element)} ")
        elif name == "img":
            if _MATH_IMAGE.search(element.get("class") or ""):
                self._text(f" {element.get('alt') or ''} ")
        elif _is_page_break(element):
            self._parts.append(PAGE)
            self._labels.append(_page_label(element))
        elif name == "sup":
            return self._superscript(element)
        elif name == "a" and (element.get("href") or "").startswith("#"):
            # A link within the page that shows but a sign leads back from a note or to the heading itself.
            return not any(map(str.isalnum, flat(element)))
        else:
            return False
        return True

    def _superscript(self, element: Element) -> bool:
        """Note marks are dropped, powers keep a ``^`` so that 10² does not read 102."""
        shown = flat(element)
        is_link = element.find(".//{*}a[@href]") is not None or local(element.getparent()) == "a"
        if is_link and _NOTE_MARK.fullmatch(shown):
            return True
        power = shown.lstrip("-−+").isdigit() and bool(self._parts) and self._parts[-1][-1:].isdigit()
        if power:
            self._text(f"^{shown}")
        return power

    def _enter(self, element: Element, name: str) -> None:
        self._open.append("footnote" if _is_note(element) else name)
        if name in ("ol", "ul", "menu"):
            self._counters.append(_first_number(element) if name == "ol" else None)
        elif name == "li" and self._counters and self._counters[-1] is not None:
            self._marker = f"{self._counters[-1]}. "
            self._counters[-1] += 1
        if _is_bold(element, name):
            self._depth["bold"] += 1
        if name == "a" and element.get("href"):
            self._depth["link"] += 1
        if _KINDS.get(name) == "code":
            self._depth["pre"] += 1
        self._text(element.text)

    def _leave(self, element: Element) -> Iterator[Piece]:
        name = local(element)
        if name in _BLOCKS:
            yield from self._flush()
        if name in ("ol", "ul", "menu"):
            self._counters.pop()
        if _is_bold(element, name):
            self._depth["bold"] -= 1
        if name == "a" and element.get("href"):
            self._depth["link"] -= 1
        if _KINDS.get(name) == "code":
            self._depth["pre"] -= 1
        self._open.pop()

    def _text(self, text: str | None) -> None:
        if not text:
            return
        self._parts.append(printable(text))
        shown = sum(map(len, text.split()))
        self._seen["all"] += shown
        self._seen["bold"] += shown if self._depth["bold"] else 0
        self._seen["link"] += shown if self._depth["link"] else 0

    def _flush(self) -> Iterator[Piece]:
        raw, self._parts = "".join(self._parts), []
        seen, self._seen = self._seen, {"all": 0, "bold": 0, "link": 0}
        if not raw.strip(BREAK + " \n\t\r\f\v\xa0"):
            return
        kind, level = self._kind()
        texts = [raw.strip("\n").replace(BREAK, "\n")] if kind == "code" else paragraphs(raw)
        total = max(seen["all"], 1)
        for text in texts:
            plain, offsets = split_pages(text)
            labels, self._labels = self._labels[: len(offsets)], self._labels[len(offsets) :]
            breaks = tuple(zip(offsets, labels, strict=False))
            if kind == "list_item" and plain.strip():
                breaks = tuple((at + len(self._marker), label) for at, label in breaks)
                plain, self._marker = self._marker + plain, ""
            yield Piece(kind, plain, level, seen["bold"] >= total, seen["link"] / total, breaks)

    def _kind(self) -> tuple[BlockKind, int]:
        """Innermost enclosing element decides, but for headings, which keep what is inside them."""
        for name in reversed(self._open):
            if name in _KINDS:
                return _KINDS[name], _HEADINGS.get(name, 0)
        return "paragraph", 0

    def _table(self, table: Element) -> Iterator[Piece]:
        for caption in table:
            if local(caption) == "caption":
                yield from (Piece("caption", piece.text) for piece in pieces(caption, self._skip))
        for kind, text in rows(table, lambda cell: " ".join(p.text for p in pieces(cell, self._skip))):
            yield Piece(kind, text)


def is_hidden(element: Element) -> bool:
    """Whether the page does not show this element (attribute, inline style or for assistive software)."""
    if element.get("hidden") is not None or element.get("aria-hidden") == "true":
        return True
    style = element.get("style")
    return bool(style) and bool(_HIDDEN_STYLE.search(style))


def _is_bold(element: Element, name: str) -> bool:
    return name in _BOLD or bool(_BOLD_STYLE.search(element.get("style") or ""))


def _roles(element: Element) -> set[str]:
    """What EPUB's structural semantics and ARIA call the element."""
    kind = element.get("{http://www.idpf.org/2007/ops}type") or element.get("epub:type") or ""
    return {*kind.split(), element.get("role") or ""}


def _is_page_break(element: Element) -> bool:
    return not _roles(element).isdisjoint(("pagebreak", "doc-pagebreak"))


def _is_note(element: Element) -> bool:
    return not _roles(element).isdisjoint(_NOTE_ROLES)


def _page_label(element: Element) -> str:
    return (element.get("title") or element.get("aria-label") or flat(element)).strip(" .")


def _first_number(ordered: Element) -> int | None:
    """Where a list counts from; None where it counts otherwise than 1, 2, 3."""
    start = (ordered.get("start") or "1").strip()
    other = (ordered.get("type") or "1") != "1" or "list-style" in (ordered.get("style") or "")
    if other or ordered.get("reversed") is not None:
        return None
    return int(start) if start.isascii() and start.isdecimal() and len(start) < 9 else 1
