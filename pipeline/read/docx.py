"""Word documents (DOCX), read as a stream so that memory does not grow with the document.

Only what the page shows in its body: headers, footers, comments, deleted and hidden text are left
out; footnotes and text boxes follow the paragraph they hang on. Numbers that Word generates are
generated here too, because contracts cite them. Pages are those of Word's last layout, where saved.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from lxml import etree

from pipeline.errors import DamagedFileError
from pipeline.read.archive import Archive
from pipeline.read.builder import ROW_SEPARATOR, DocumentBuilder, Hints
from pipeline.read.dates import created
from pipeline.read.markup import Element, flat, local, parse_xml, text_of
from pipeline.read.spacing import BREAK, PAGE, paragraphs, split_pages
from pipeline.read.word_inline import SKIPPED, Inline, collect, flat_text
from pipeline.read.word_package import OLE, decrypted, relations
from pipeline.read.word_styles import Numbering, Style, attribute, child, is_on, number, styles
from pipeline.types import BlockKind, Document

MEDIA_TYPES = ("application/vnd.openxmlformats-officedocument.wordprocessingml.document",)
SUFFIXES = (".docx", ".docm", ".dotx", ".dotm")

_RENDERED = b"lastRenderedPageBreak"
_CHUNK_BYTES = 2**16
_MAX_CELL_CHARS = 1500
_MAX_PAGE_ERROR = 0.1
_MAX_TITLE_OFFSET = 1000
_CODE = ("code", "preformatted", "listing", "macro", "plain text")


def read(data: bytes, hints: Hints) -> Document:
    """Raises PasswordRequiredError for an encrypted file without its password, DamagedFileError for
    what is no Word document, and ReaderLimitError for one that unpacks beyond the limits."""
    if data.startswith(OLE):
        data = decrypted(data, hints)
    with Archive(data, "Word document") as archive:
        return _Reader(archive).read(hints)


class _Reader:
    """One document on its way into a builder."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._builder = DocumentBuilder()
        self._main = next(
            (t for kind, t in relations(archive, "") if kind == "officeDocument"), "word/document.xml"
        )
        self._parts = dict(relations(archive, self._main))
        self._styles = styles(self._part("styles"))
        self._numbering = Numbering(self._part("numbering"))
        self._notes = {kind: dict(self._read_notes(kind)) for kind in ("footnotes", "endnotes")}
        self._endnotes: list[str] = []
        self._title = ""
        self._first_heading: int | None = None
        self._page = 0

    def read(self, hints: Hints) -> Document:
        about = self._properties()
        self._start_pages()
        for element in self._body():
            self._block(element)
        for note in self._endnotes:
            self._builder.add("footnote", note)
        title = about.pop("title", "") or self._title or self._fallback_title(hints)
        return self._builder.build(title=title, media_type=MEDIA_TYPES[0], metadata=about)

    def _fallback_title(self, hints: Hints) -> str:
        """The file's name, where the first heading is too far in to be the document's title."""
        early = self._first_heading is not None and self._first_heading <= _MAX_TITLE_OFFSET
        return "" if early else PurePath(hints.name).stem

    def _body(self) -> Iterator[Element]:
        """The children of the body one by one; each is forgotten once it has been read."""
        parser = etree.XMLPullParser(
            events=("start", "end"), resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False
        )
        depth = 0
        try:
            with self._archive.open(self._main) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    parser.feed(chunk)
                    for event, element in parser.read_events():
                        depth += 1 if event == "start" else -1
                        if event == "end" and depth == 2:
                            yield element
                            element.clear()
                            while element.getprevious() is not None:
                                del element.getparent()[0]
                parser.close()
        except (etree.XMLSyntaxError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DamagedFileError(
                f"The Word document's text cannot be read to its end: {error}.",
                remedy="Open it in Word, let it repair the file, and save it again.",
            ) from error

    def _block(self, element: Element) -> None:
        name = local(element)
        if name == "p":
            self._paragraph(element)
        elif name == "tbl":
            self._table(element)
        elif name == "altchunk":
            self._builder.warn("A part embedded in another format was not read.")
        elif name not in SKIPPED:
            for inner in element:
                self._block(inner)

    def _paragraph(self, element: Element) -> None:
        properties = child(element, "ppr")
        style_id = attribute(child(properties, "pstyle")) or ""
        style = self._styles.get(style_id, Style())
        inline = Inline()
        collect(element, inline)
        kind, level = self._kind(properties, style)
        label = None
        if inline.text.strip() or not is_on(child(child(properties, "rpr"), "del")):
            label = self._label(properties, style, style_id)
        if label is not None and kind == "paragraph":
            kind = "list_item"
        text = f"{label} {inline.text}" if label and inline.text.strip() else inline.text
        if style.name == "title" and not self._title:
            self._title = flat_text(text)
        self._add(kind, text, level)
        self._add_hanging(inline)

    def _kind(self, properties: Element | None, style: Style) -> tuple[BlockKind, int]:
        outline = number(attribute(child(properties, "outlinelvl")))
        level = style.level if outline is None else Style(outline=outline).level
        if style.name.startswith("toc ") and style.name != "toc heading":
            return "list_item", 0
        if level:
            return "heading", level
        if style.name == "caption":
            return "caption", 0
        if any(word in style.name for word in _CODE):
            return "code", 0
        listed = style.name.startswith(("list bullet", "list number"))
        return ("list_item" if listed else "paragraph"), 0

    def _label(self, properties: Element | None, style: Style, style_id: str) -> str | None:
        own = child(properties, "numpr")
        number_id = attribute(child(own, "numid")) or style.number_id
        if not number_id or number_id == "0":
            return None
        indent = number(attribute(child(own, "ilvl")))
        if indent is None and attribute(child(own, "numid")) is None:
            indent = style.indent
        return self._numbering.label(number_id, indent, style_id)

    def _add(self, kind: BlockKind, raw: str, level: int = 0) -> None:
        if kind == "code":
            texts = [raw.replace(BREAK, "\n")]
        elif kind == "paragraph":
            texts = paragraphs(raw) or [raw]
        else:
            texts = ["\n".join(paragraphs(raw))]
        if kind == "heading" and raw.strip() and self._first_heading is None:
            self._first_heading = len(self._builder)
        for text in texts:
            plain, offsets = split_pages(text)
            breaks = []
            for at in offsets if self._page else ():
                self._page += 1
                breaks.append((at, self._page, ""))
            self._builder.add(kind, plain, level=level, page_breaks=breaks)

    def _add_hanging(self, inline: Inline) -> None:
        for kind, key in inline.notes:
            note = self._notes[kind].get(key, "")
            if kind == "endnotes":
                self._endnotes.append(note)
            else:
                self._builder.add("footnote", note)
        for box in inline.boxes:
            for element in box:
                self._block(element)

    def _table(self, table: Element) -> None:
        """Rows with their cells, or, where the table only frames text, the text in it."""
        grid = [
            list(_within(row, "tc"))
            for row in _within(table, "tr")
            if child(child(row, "trpr"), "del") is None
        ]
        shown = [[self._cell(cell) for cell in row] for row in grid]
        if all(len([t for t in row if t.text.strip()]) <= 1 for row in shown) or self._frames(table, shown):
            for cell in (cell for row in grid for cell in row):
                for element in cell:
                    self._block(element)
            return
        for row in _aligned(shown):
            self._add("table_row", ROW_SEPARATOR.join(row))
        for cell in (cell for row in shown for cell in row):
            self._add_hanging(cell)

    def _cell(self, cell: Element) -> Inline:
        inline = Inline()
        collect(cell, inline)
        return inline

    def _frames(self, table: Element, shown: list[list[Inline]]) -> bool:
        if any(len(cell.text) > _MAX_CELL_CHARS for row in shown for cell in row):
            return True
        names = (attribute(style) or "" for style in table.iter("{*}pStyle"))
        return any(self._styles.get(name, Style()).level for name in names)

    def _read_notes(self, kind: str) -> Iterator[tuple[str, str]]:
        root = self._part(kind)
        shown = 0
        for note in root if root is not None else ():
            if local(note) not in ("footnote", "endnote") or attribute(note, "type") not in (None, "normal"):
                continue
            inline = Inline()
            collect(note, inline)
            shown += 1
            yield attribute(note, "id") or "", f"[{shown}] {flat_text(inline.text)}"

    def _part(self, kind: str) -> Element | None:
        path = self._parts.get(kind)
        if path is None or path not in self._archive:
            return None
        return parse_xml(text_of(self._archive.read(path)).text, path)

    def _properties(self) -> dict[str, Any]:
        path = dict(relations(self._archive, "")).get("core-properties", "")
        if path not in self._archive:
            return {}
        root = parse_xml(text_of(self._archive.read(path)).text, path)
        names = {"title": "title", "creator": "author", "created": "created", "language": "language"}
        found = {names[local(e)]: flat(e) for e in root if local(e) in names and flat(e)}
        made = found.pop("created", "")
        return {**found, **created(made)}

    def _start_pages(self) -> None:
        """Count pages only where Word saved its page breaks and their number fits its page count."""
        path = dict(relations(self._archive, "")).get("extended-properties", "")
        if path not in self._archive:
            return
        root = parse_xml(text_of(self._archive.read(path)).text, path)
        stated = number(next((flat(e) for e in root if local(e) == "pages"), None)) or 0
        counted = self._count(_RENDERED) + 1
        if counted > 1 and abs(counted - stated) <= max(1, _MAX_PAGE_ERROR * stated):
            self._page = 1
            self._builder.page(1)

    def _count(self, word: bytes) -> int:
        found, tail = 0, b""
        try:
            with self._archive.open(self._main) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    found += (tail + chunk).count(word)
                    tail = (tail + chunk)[1 - len(word) :]
        except (zipfile.BadZipFile, zlib.error, EOFError):
            return 0  # the body's own reading reports the damage
        return found


def _aligned(shown: list[list[Inline]]) -> Iterator[list[str]]:
    """The rows as text, without columns that are empty throughout. A row whose cells all hold the same
    number of lines, set side by side, is that many rows."""
    grid = [[[flat_text(line) for line in cell.text.split(BREAK)] for cell in row] for row in shown]
    if len({len(row) for row in grid}) == 1:
        used = [i for i in range(len(grid[0])) if any(any(row[i]) for row in grid)]
        grid = [[row[i] for i in used] for row in grid]
    for row in grid:
        filled = [[line for line in lines if line.strip(PAGE)] for lines in row]
        height = {len(lines) for lines in filled if lines}
        if len(height) == 1 and sum(map(bool, filled)) > 1:
            yield from map(list, zip(*(lines or [""] * max(height) for lines in filled), strict=True))
        else:
            yield [" ".join(lines).strip() for lines in filled]


def _within(element: Element, name: str) -> Iterator[Element]:
    """Children of that name, looking through content controls and insertions around them."""
    for inner in element:
        if local(inner) == name:
            yield inner
        elif local(inner) in ("sdt", "sdtcontent", "ins", "customxml", "smarttag"):
            yield from _within(inner, name)
