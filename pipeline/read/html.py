"""Web pages: the main text in order, with headings, lists, tables and preformatted blocks.

The page's own markup says what is not content: landmarks (``nav``, ``role=navigation``), class names
of menus, hidden elements. Anything named so that holds much of the page's text is kept all the same.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lxml import etree

from pipeline.read.builder import DocumentBuilder, Hints
from pipeline.read.flow import Piece, Skip, pieces, pour
from pipeline.read.headings import UNNAMED_LEVEL, rank
from pipeline.read.markup import Element, flat, local, parse_html, text_of
from pipeline.types import Document

MEDIA_TYPES = ("text/html", "application/xhtml+xml")
SUFFIXES = (".html", ".htm", ".xhtml")

_NO_TEXT = ("script", "style", "noscript", "template", "svg")
_CHROME_TAGS = frozenset({"nav"})
_CHROME_ROLES = frozenset({"navigation", "search", "banner", "contentinfo", "menu", "menubar", "toolbar"})
_CHROME = frozenset(
    {
        "breadcrumb", "breadcrumbs", "catlinks", "cookie", "cookies", "editsection", "gutter", "headerlink",
        "jumplink", "lineno", "linenos", "navbox", "newsletter", "noprint", "pagination", "permalink",
        "pilcrow", "printfooter", "skiplink", "sphinxsidebar", "toc",
    }
)  # fmt: skip
_LIKELY_CHROME = frozenset(
    {
        "ad", "ads", "advert", "footer", "header", "links", "masthead", "menu", "nav", "navbar", "navigation",
        "promo", "related", "share", "sharing", "sidebar", "social", "subscribe", "tags", "toolbar", "topbar",
        "widget",
    }
)  # fmt: skip
_SPLIT = re.compile(r"[\s_]+|-(?=\w)|(?<=[a-z])(?=[A-Z])")
_MAX_CHROME_SHARE = 0.3
_MIN_MAIN_SHARE = 0.4
_MAX_PASSES = 20
_LINKS = 0.5
_MENU_LINK_SHARE = 0.8
_MENU_ITEM_CHARS = 40
_CONTENT_CHARS = 80
_CHARS_PER_HEADING = 20_000
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)


def read(data: bytes, hints: Hints) -> Document:
    """Raises EmptyDocumentError for white space and DamagedFileError for bytes that are no text."""
    charset = _CHARSET.search(hints.media_type)
    decoded = text_of(data, declared=charset[1] if charset else "")
    builder = DocumentBuilder()
    for warning in decoded.warnings:
        builder.warn(warning)
    root = parse_html(decoded.text, builder.warn)
    about = metadata(root)
    title = about.pop("title", "")
    etree.strip_elements(root, *(f"{{*}}{tag}" for tag in _NO_TEXT), with_tail=False)
    main = _main(root)
    found = list(pieces(main, _chrome(main)))
    found = _without_menus(found) or list(pieces(root))
    pour(builder, _with_bold_headings(found))
    return builder.build(title=title, media_type="text/html", metadata=about)


def metadata(root: Element) -> dict[str, Any]:
    """Title, author, description and language, where the head states them."""
    found: dict[str, Any] = {}
    for element in root.iter("{*}title", "{*}meta", "{*}body"):
        name = local(element)
        if name == "body":
            break
        if name == "title":
            found.setdefault("title", flat(element))
        elif (key := (element.get("name") or "").lower()) in ("author", "description"):
            found.setdefault(key, " ".join((element.get("content") or "").split()))
    language = root.get("lang") or root.get("{http://www.w3.org/XML/1998/namespace}lang") or ""
    return {key: value for key, value in {**found, "language": language}.items() if value}


def _main(root: Element) -> Element:
    """The element that holds the content: ``main``, the only ``article``, or else the body."""
    body = next(root.iter("{*}body"), root)
    articles = list(body.iter("{*}article"))
    mains = [element for element in body.iter() if local(element) == "main" or element.get("role") == "main"]
    for candidate in [*mains[:1], *(articles if len(articles) == 1 else [])]:
        if _chars(candidate) >= _MIN_MAIN_SHARE * _chars(body):
            return candidate
    return body


def _chrome(main: Element) -> Skip:
    """Whether an element belongs to the site and not to the text, judged by what it calls itself."""
    total = max(_chars(main), 1)
    # Menus inside menus inside menus would be measured again at every depth: stop judging such a page.
    budget = _MAX_PASSES * total

    def skip(element: Element) -> bool:
        nonlocal budget
        names = _names(element)
        tag, role = local(element), element.get("role")
        surely = tag in _CHROME_TAGS or role in _CHROME_ROLES or not names.isdisjoint(_CHROME)
        if not surely and not (tag in ("aside", "footer", "header") or not names.isdisjoint(_LIKELY_CHROME)):
            return False
        if budget < 0 or element is main or tag in ("body", "main", "article", "h1"):
            return False
        chars = _chars(element)
        budget -= chars
        if chars > _MAX_CHROME_SHARE * total or next(element.iter("{*}h1"), None) is not None:
            return False
        return surely or _link_chars(element) > _LINKS * max(chars, 1) or _is_page_foot(element, main)

    return skip


def _is_page_foot(element: Element, main: Element) -> bool:
    return local(element) == "footer" and element.getparent() is main and local(main) == "body"


def _names(element: Element) -> set[str]:
    own = f"{element.get('class') or ''} {element.get('id') or ''}"
    words = [word.lower() for word in _SPLIT.split(own) if word]
    return {*words, *(a + b for a, b in itertools.pairwise(words))}


def _chars(element: Element) -> int:
    return sum(len(text.strip()) for text in element.itertext())


def _link_chars(element: Element) -> int:
    return sum(_chars(link) for link in element.iter("{*}a"))


def _without_menus(found: list[Piece]) -> list[Piece]:
    """Drop short link texts before the first and after the last real content: menus without a name."""
    content = [i for i, piece in enumerate(found) if _is_content(piece)]
    if not content:
        return found
    first, last = content[0], content[-1]
    return [p for i, p in enumerate(found) if first <= i <= last or not _is_menu_item(p)]


def _is_content(piece: Piece) -> bool:
    return piece.kind == "heading" or (len(piece.text) >= _CONTENT_CHARS and piece.link_share < _LINKS)


def _is_menu_item(piece: Piece) -> bool:
    return piece.link_share >= _MENU_LINK_SHARE and len(piece.text) <= _MENU_ITEM_CHARS


def _with_bold_headings(found: list[Piece]) -> Iterable[Piece]:
    """Where a long page has hardly any headings, short bold paragraphs are its headings (filings)."""
    chars = sum(len(piece.text) for piece in found)
    marked = sum(piece.kind == "heading" for piece in found)
    if marked > chars / _CHARS_PER_HEADING:
        return found
    return [_promoted(piece) for piece in found]


def _promoted(piece: Piece) -> Piece:
    text = piece.text
    if piece.kind != "paragraph" or len(text) > 150 or not any(c.isalpha() for c in text):
        return piece
    level = rank(text.replace("\n", " "))
    if level and (piece.bold or level < UNNAMED_LEVEL):
        return replace(piece, kind="heading", level=level)
    if piece.bold and not text.endswith((".", ",", ";", ":")):
        return replace(piece, kind="heading", level=UNNAMED_LEVEL + (not text.isupper()))
    return piece
