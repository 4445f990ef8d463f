"""Scientific articles in JATS (NLM) XML.

The article's elements are renamed to the HTML ones that mean the same, and the shared walk reads
those. Order: title, authors, abstracts, body, back matter, sub-articles, and at last the references.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from pipeline.errors import UnsupportedFormatError
from pipeline.read import html
from pipeline.read.builder import DocumentBuilder, Hints
from pipeline.read.flow import pieces, pour
from pipeline.read.markup import Element, flat, local, parse_xml, text_of
from pipeline.types import Document

MEDIA_TYPES = ("application/jats+xml", "application/xml", "text/xml")
SUFFIXES = (".nxml", ".jats", ".xml")

_SAME = {
    "sec": "section", "ack": "section", "app": "section", "app-group": "section", "fn-group": "section",
    "glossary": "section", "notes": "section", "bio": "section", "boxed-text": "section",
    "statement": "section", "abstract": "section", "trans-abstract": "section", "list-item": "li",
    "def-list": "dl", "term": "dt", "def": "dd", "bold": "b", "italic": "i", "break": "br",
    "preformat": "pre", "fig": "figure", "table-wrap": "figure", "supplementary-material": "figure",
    "caption": "figcaption", "verse-line": "p", "disp-formula": "p", "disp-quote": "blockquote",
    "attrib": "p", "table-wrap-foot": "footer", "fn": "footnote",
}  # fmt: skip
_SILENT = (
    "object-id", "alt-text", "long-desc", "graphic", "inline-graphic", "media", "sec-meta", "ref-list",
    "permissions", "private-char", "processing-meta",
)  # fmt: skip
_UNTITLED = {
    "abstract": "Abstract", "ack": "Acknowledgements", "glossary": "Glossary", "notes": "Notes",
    "fn-group": "Notes",
}  # fmt: skip
_DEEPER = frozenset({"sec", "app", "boxed-text", "ack", "glossary", "notes", "bio", "fn-group"})
_LABELLED = frozenset(
    {
        "sec",
        "app",
        "fig",
        "table-wrap",
        "fn",
        "list-item",
        "boxed-text",
        "supplementary-material",
        "statement",
    }
)
_TEX_BODY = re.compile(r"\\begin\{document\}(.*)\\end\{document\}", re.DOTALL)
_NUMERALS = re.compile(r"[\d,;\s–-]+")
_DEEPEST = 6


def read(data: bytes, hints: Hints) -> Document:
    """Raises DamagedFileError for XML that is not well-formed, UnsupportedFormatError for other XML."""
    decoded = text_of(data)
    root = parse_xml(decoded.text, hints.name or "The file")
    if local(root) == "html":
        return html.read(data, hints)
    article = root if local(root) == "article" else next(root.iter("{*}article"), None)
    if article is None:
        raise UnsupportedFormatError(
            f"{hints.name or 'The file'} is XML with the root <{local(root)}>, which has no reader.",
            remedy="Of XML, scientific articles (JATS) are read; convert others to HTML or text.",
        )
    title, about = _metadata(article)
    builder = DocumentBuilder()
    for warning in decoded.warnings:
        builder.warn(warning)
    pour(builder, pieces(_page(article, title, about)))
    return builder.build(title=title, media_type=MEDIA_TYPES[0], metadata=about)


def _page(article: Element, title: str, about: dict[str, Any]) -> Element:
    """The article as one HTML element."""
    page = etree.Element("div")
    references = [_reference(ref) for ref in article.iter("{*}ref")]
    _add(page, "h1", title)
    _add(page, "p", about.get("author", ""))
    meta = article.find("{*}front/{*}article-meta")
    for abstract in _children(meta, "abstract", "trans-abstract"):
        page.append(_converted(abstract, 2))
    _add(page, "p", ("Keywords: " + ", ".join(about["keywords"])) if "keywords" in about else "")
    for part in _children(article, "body", "back"):
        page.append(_converted(part, 1))
    for part in _children(article, "sub-article", "response"):
        _add(page, "h1", flat(next(part.iter("{*}article-title"), etree.Element("none"))))
        for body in _children(part, "body"):
            page.append(_converted(body, 1))
    if references:
        _add(page, "h1", "References")
        listed = etree.SubElement(page, "ul")
        for reference in references:
            _add(listed, "li", reference)
    return page


def _converted(part: Element, level: int) -> Element:
    for element in list(part.iter("{*}fn")):
        _after_paragraph(element)
    etree.strip_elements(part, *(f"{{*}}{name}" for name in _SILENT), with_tail=False)
    _rename(part, level)
    return part


def _rename(element: Element, level: int) -> None:
    """Give ``element`` and what it holds HTML names; ``level`` is that of the headings directly in it."""
    name = local(element)
    if name in _UNTITLED and not list(_children(element, "title")) and _UNTITLED[name]:
        heading = etree.Element("title")
        heading.text = _UNTITLED[name]
        element.insert(0, heading)
    _join_label(element)
    for inner in list(element):
        inner_name = local(inner)
        if inner_name == "title":
            in_section = name not in ("caption", "list", "def-list", "fn", "statement")
            inner.tag = f"h{min(level, _DEEPEST)}" if in_section else "p"
        elif inner_name == "list":
            inner.tag = "ol" if inner.get("list-type") == "order" else "ul"
        elif inner_name in ("xref", "sup"):
            _citation(inner)
        elif inner_name == "alternatives":
            _one_of(inner)
        elif inner_name == "tex-math":
            _plain_tex(inner)
        _rename(inner, level + 1 if inner_name in _DEEPER else level)
    element.tag = _SAME.get(name, element.tag)


def _join_label(element: Element) -> None:
    """Put "2.1" or "Figure 3." before the title or text it labels."""
    label = next(_children(element, "label"), None)
    if label is None or local(element) not in _LABELLED:
        return
    shown = flat(label)
    target = next(
        (
            e
            for e in element.iterdescendants()
            if local(e) in ("title", "p") and local(e.getparent()) != "table"
        ),
        None,
    )
    if target is not None and shown:
        target.text = f"{shown} {target.text or ''}"
        _remove(label)


def _after_paragraph(note: Element) -> None:
    """A note in the middle of a sentence moves behind its paragraph."""
    holder = next((e for e in note.iterancestors() if local(e) == "p"), None)
    if holder is not None:
        tail, note.tail = note.tail, None
        marker = etree.Element("x")
        marker.tail = tail
        note.getparent().replace(note, marker)
        following, holder.tail = holder.tail, None
        holder.addnext(note)
        note.tail = following


def _citation(holder: Element) -> None:
    """Raised numbers of references read as "[1,2]", lest they become part of the word; note marks go.

    ``holder`` is a superscript around cross references, or one cross reference.
    """
    links = list(holder.iter("{*}xref"))
    kinds, shown = {link.get("ref-type") for link in links}, flat(holder)
    raised = local(holder) == "sup" or holder.find("{*}sup") is not None
    if kinds & {"fn", "table-fn"} and len(shown) <= 3:
        _put(holder, "")
    elif kinds == {"bibr"} and raised and _NUMERALS.fullmatch(shown):
        _put(holder, f"[{shown}]")


def _put(element: Element, text: str) -> None:
    """Plain text instead of what the element holds."""
    for inner in list(element):
        element.remove(inner)
    element.tag, element.text = "span", text


def _one_of(alternatives: Element) -> None:
    """Of several forms of one formula, keep the one that reads best."""
    known = {local(inner): inner for inner in alternatives}
    best = next((known[name] for name in ("math", "tex-math", "textual-form") if name in known), None)
    for inner in list(alternatives):
        if best is not None and inner is not best:
            alternatives.remove(inner)


def _plain_tex(tex: Element) -> None:
    source = "".join(tex.itertext())
    body = _TEX_BODY.search(source)
    for inner in list(tex):
        tex.remove(inner)
    tex.text = " ".join((body[1] if body else source).replace("$$", " ").split())


def _reference(ref: Element) -> str:
    """One entry of the bibliography on a line: as set, or put together from its fields."""
    label = flat(next(ref.iter("{*}label"), etree.Element("none")))
    mixed = next(ref.iter("{*}mixed-citation", "{*}citation", "{*}nlm-citation"), None)
    if mixed is not None and (mixed.text or "").strip():
        return f"{label} {flat(mixed)}".strip()
    names = ", ".join(_names(ref))

    def first(*fields: str) -> str:
        return next((flat(e) for field in fields for e in ref.iter(f"{{*}}{field}") if flat(e)), "")

    pages = "–".join(p for p in (first("fpage", "elocation-id"), first("lpage")) if p)
    volume = ":".join(p for p in (first("volume"), pages) if p)
    year, place = first("year"), " ".join(p for p in (first("source"), volume) if p)
    head = f"{names} ({year})" if names and year else names or year
    parts = [head, first("article-title", "chapter-title", "data-title"), place, first("pub-id")]
    return f"{label} {'. '.join(part for part in parts if part)}".strip() if any(parts) else flat(ref)


def _metadata(article: Element) -> tuple[str, dict[str, Any]]:
    meta = article.find("{*}front/{*}article-meta")
    if meta is None:
        return "", {}
    title = flat(next(meta.iter("{*}article-title"), etree.Element("none")))
    authors = [
        n for c in meta.iter("{*}contrib") if c.get("contrib-type") in (None, "author") for n in _names(c)
    ]
    doi = next((flat(e) for e in meta.iter("{*}article-id") if e.get("pub-id-type") == "doi"), "")
    year = next((flat(e) for date in meta.iter("{*}pub-date") for e in date.iter("{*}year")), "")
    found: dict[str, Any] = {
        "author": ", ".join(authors),
        "journal": flat(next(article.iter("{*}journal-title"), etree.Element("none"))),
        "year": year,
        "doi": doi,
        "keywords": [flat(kwd) for kwd in meta.iter("{*}kwd") if flat(kwd)],
        "language": article.get("{http://www.w3.org/XML/1998/namespace}lang") or "",
    }
    return title, {key: value for key, value in found.items() if value}


def _names(holder: Element) -> Iterator[str]:
    for name in holder.iter("{*}name", "{*}string-name", "{*}collab"):
        given, family = name.find("{*}given-names"), name.find("{*}surname")
        shown = [flat(part) for part in (given, family) if part is not None]
        if local(name) != "name" or local(name.getparent()) != "string-name":
            yield " ".join(shown) or flat(name)


def _children(element: Element | None, *names: str) -> Iterator[Element]:
    return (inner for inner in (() if element is None else element) if local(inner) in names)


def _add(parent: Element, tag: str, text: str) -> None:
    if text:
        etree.SubElement(parent, tag).text = text


def _remove(element: Element) -> None:
    """Take an element out and leave the text after it."""
    parent, before = element.getparent(), element.getprevious()
    if element.tail:
        if before is not None:
            before.tail = (before.tail or "") + element.tail
        else:
            parent.text = (parent.text or "") + element.tail
    parent.remove(element)
