"""EPUB books: the spine in order, without the navigation document.

Chapters whose file has no heading take their label from the table of contents. What Project
Gutenberg wraps around a book is kept in sections of its own. Page breaks of the print edition, where
the book marks them, become the pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from pipeline.errors import DamagedFileError, UnsupportedFormatError
from pipeline.read import gutenberg
from pipeline.read.archive import Archive, resolve
from pipeline.read.builder import DocumentBuilder, Hints
from pipeline.read.dates import created
from pipeline.read.flow import Piece, pieces, pour
from pipeline.read.headings import is_bare
from pipeline.read.markup import Element, flat, local, parse_html, parse_xml, text_of
from pipeline.types import Document

MEDIA_TYPES = ("application/epub+zip",)
SUFFIXES = (".epub",)

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")
_OPS = "{http://www.idpf.org/2007/ops}type"
_NAVIGATION = frozenset({"toc", "landmarks", "page-list", "lot", "loi"})
_METADATA = ("creator", "language", "publisher", "date")
_MAX_LABEL_CHARS = 200
_TITLE_FILES = 3
_TITLE_PIECES = 40


@dataclass(frozen=True, slots=True)
class _Package:
    """The package document: what is in the book and in which order."""

    path: str
    title: str
    metadata: dict[str, Any]
    spine: tuple[str, ...]
    contents: str


def read(data: bytes, hints: Hints) -> Document:
    """Raises DamagedFileError for what is no EPUB, UnsupportedFormatError for a book under DRM."""
    builder = DocumentBuilder()
    with Archive(data, "EPUB") as archive:
        _refuse_protected(archive)
        package = _package(archive)
        labels = _labels(archive, package.contents, builder)
        chapters = list(_with_wrapping(_chapters(archive, package, labels, builder)))
    if not _shows(package.title, chapters):
        builder.add("heading", package.title, level=1)
    numbers = _page_numbers([label for chapter in chapters for piece in chapter for _, label in piece.breaks])
    counted = iter(numbers)
    for chapter in chapters:
        pour(builder, chapter, counted)
    document = builder.build(title=package.title, media_type=MEDIA_TYPES[0], metadata=package.metadata)
    # What precedes the first page that the book marks counts to that page.
    pages = tuple(replace(page, start=0) if i == 0 else page for i, page in enumerate(document.pages))
    return replace(document, pages=pages)


def _refuse_protected(archive: Archive) -> None:
    if _ENCRYPTION not in archive:
        return
    for entry in _xml(archive, _ENCRYPTION).iter("{*}EncryptedData"):
        method = next((m.get("Algorithm") for m in entry.iter("{*}EncryptionMethod")), "")
        if method not in _FONT_OBFUSCATION:
            raise UnsupportedFormatError(
                "The EPUB is protected by DRM: its chapters are encrypted.",
                remedy="Use a copy without protection; no password opens this one here.",
            )


def _package(archive: Archive) -> _Package:
    roots = [r.get("full-path") for r in _xml(archive, _CONTAINER).iter("{*}rootfile") if r.get("full-path")]
    if not roots:
        raise DamagedFileError("The EPUB names no package document.", remedy="Export the book again.")
    path = resolve("", roots[0])
    root = _xml(archive, path)
    items = {item.get("id"): item for item in root.iter("{*}item") if item.get("href")}
    href = {key: resolve(path, unquote(item.get("href"))) for key, item in items.items()}
    nav = {key for key, item in items.items() if "nav" in (item.get("properties") or "").split()}
    ncx = next((s.get("toc") for s in root.iter("{*}spine")), None)
    refs = list(root.iter("{*}itemref"))
    # What the spine calls not linear is read on demand (notes): it comes after the book.
    refs.sort(key=lambda ref: ref.get("linear") == "no")
    spine = [ref.get("idref") for ref in refs]
    shown = [k for k in spine if k in items and k not in nav and items[k].get("media-type") in _PAGES]
    if not shown:
        raise DamagedFileError("The EPUB's spine names no chapter.", remedy="Export the book again.")
    contents = next(iter(nav), ncx)
    titles = [flat(title) for title in root.iter("{*}title") if flat(title)]
    found = {key: [flat(e) for e in root.iter(f"{{*}}{key}") if flat(e)] for key in _METADATA}
    about = {
        "author" if key == "creator" else key: ", ".join(v[:10] if key == "creator" else v[:1])
        for key, v in found.items()
        if v
    }
    about |= created(about.get("date", ""))
    return _Package(
        path, titles[0] if titles else "", about, tuple(href[k] for k in shown), href.get(contents, "")
    )


def _labels(archive: Archive, contents: str, builder: DocumentBuilder) -> dict[str, str]:
    """The first label that the table of contents gives to each file."""
    if contents not in archive:
        return {}
    try:
        root = _xml(archive, contents)
    except DamagedFileError:
        builder.warn(
            "The book's table of contents cannot be parsed; chapters without a heading have no title."
        )
        return {}
    labels: dict[str, str] = {}
    for link in root.iter("{*}a", "{*}navPoint"):
        target = link.get("href") or next((c.get("src") for c in link.iter("{*}content")), None)
        label = flat(link if local(link) == "a" else next(link.iter("{*}text"), link))
        if target and label:
            labels.setdefault(resolve(contents, unquote(target.partition("#")[0])), label[:_MAX_LABEL_CHARS])
    return labels


def _chapters(
    archive: Archive, package: _Package, labels: dict[str, str], builder: DocumentBuilder
) -> Iterator[list[Piece]]:
    for path in package.spine:
        if path not in archive:
            builder.warn(f"{path} is listed in the book but missing from the file.")
            continue
        decoded = text_of(archive.read(path), declared="utf-8")
        found = list(pieces(parse_html(decoded.text, builder.warn), _is_navigation))
        yield _titled(_labelled(found, labels.get(path, "")))


def _labelled(found: list[Piece], label: str) -> list[Piece]:
    """A chapter without a heading gets its label: on the paragraph that shows it, else as a new one."""
    if not label or not any(p.text.strip() for p in found) or any(p.kind == "heading" for p in found):
        return found
    first = next(i for i, p in enumerate(found) if p.text.strip())
    if " ".join(found[first].text.split()).casefold() == label.casefold():
        return [replace(p, kind="heading", level=1) if i == first else p for i, p in enumerate(found)]
    return [Piece("heading", label, 1), *found]


def _titled(found: list[Piece]) -> list[Piece]:
    """A chapter's number ("CHAPTER I") and the heading of the same rank right below it are one."""
    joined: list[Piece] = []
    for piece in found:
        before = joined[-1] if joined else piece
        same = before.kind == piece.kind == "heading" and before.level == piece.level
        if joined and same and is_bare(before.text) and not is_bare(piece.text):
            joined[-1] = replace(before, text=f"{before.text}\n{piece.text}")
            continue
        joined.append(piece)
    return joined


def _with_wrapping(chapters: Iterator[list[Piece]]) -> Iterator[list[Piece]]:
    """Headings of Gutenberg's header become paragraphs; its licence, with all its headings, one section."""
    after = False
    for found in chapters:
        starts = next((i for i, p in enumerate(found) if gutenberg.begins(p.text)), -1)
        shown = []
        for i, piece in enumerate(found):
            current = piece
            if i <= starts and piece.kind == "heading":
                current = replace(piece, kind="paragraph", level=0)
            elif gutenberg.ends(piece.text) and not after:
                after, current = True, replace(piece, kind="heading", level=1)
            elif after and piece.kind == "heading":
                current = replace(piece, level=min(piece.level + 1, 6))
            shown.append(current)
        yield shown


def _page_numbers(labels: list[str]) -> list[int]:
    """The printed numbers where they ascend throughout; else pages count from 1 ("xii", then "1")."""
    printed = [
        int(label) if label.isascii() and label.isdecimal() and len(label) < 7 else 0 for label in labels
    ]
    ascending = all(a < b for a, b in pairwise([0, *printed]))
    return printed if ascending else list(range(1, len(labels) + 1))


def _shows(title: str, chapters: list[list[Piece]]) -> bool:
    """Whether the book begins with its title in words. Else the title page is a picture, and the title
    of the metadata stands in for it."""
    begin = " ".join(piece.text for chapter in chapters[:_TITLE_FILES] for piece in chapter[:_TITLE_PIECES])
    return " ".join(title.split()).casefold() in " ".join(begin.split()).casefold()


def _is_navigation(element: Element) -> bool:
    kinds = (element.get(_OPS) or element.get("epub:type") or "").split()
    return local(element) == "nav" and not _NAVIGATION.isdisjoint(kinds)


def _xml(archive: Archive, path: str) -> Element:
    return parse_xml(text_of(archive.read(path), declared="").text, path)
