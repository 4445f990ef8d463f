"""Parse XML and HTML safely: no entities, no DTD, no network, bounded depth and text nodes.

libxml2 without ``huge_tree`` refuses XML nested deeper than 256 or with a text node over 10 MB.
HTML is parsed with ``huge_tree``, because real pages nest deeper; libxml2 then stops at 2,048.
"""

from __future__ import annotations

import html
import html.entities
import re
from collections.abc import Callable
from typing import Any

from lxml import etree

from pipeline.errors import DamagedFileError
from pipeline.read.encoding import Decoded, decode

Element = Any
"""An lxml element: its compiled module has no types."""

_DECLARED = re.compile(
    rb"""<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)|<meta[^>]*?charset\s*=\s*["']?\s*([\w.:-]+)""",
    re.IGNORECASE,
)
_HEAD_BYTES = 4096
_NAMED = re.compile(r"&([A-Za-z][A-Za-z0-9]*);")
_XML_OWN = frozenset({"amp", "lt", "gt", "quot", "apos"})
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'
_TOO_DEEP = "The page nests its elements deeper than 2,048 levels; what lies deeper was not read."


def text_of(data: bytes, *, declared: str = "") -> Decoded:
    """Decode markup by its byte order mark, the given charset, or the one it declares itself."""
    found = _DECLARED.search(data[:_HEAD_BYTES])
    own = (found[1] or found[2]).decode("ascii", "replace") if found else ""
    return decode(data, declared=declared or own)


def parse_xml(text: str, what: str) -> Element:
    """The root element of well-formed XML. Raises DamagedFileError, naming ``what`` was parsed."""
    try:
        return _xml(text)
    except etree.XMLSyntaxError as error:
        raise DamagedFileError(
            f"{what} is not well-formed XML: {error.msg}.", remedy="Export or download the file again."
        ) from error


def parse_html(text: str, warn: Callable[[str], None]) -> Element:
    """The root element of a page, however untidy. XHTML is tried as XML first, for its empty elements.

    Raises DamagedFileError when there is no element at all.
    """
    if (
        text.lstrip("\ufeff \t\r\n").startswith("<?xml")
        or 'xmlns="http://www.w3.org/1999/xhtml"' in text[:2000]
    ):
        try:
            return _xml(text)
        except etree.XMLSyntaxError:
            pass  # most pages that claim to be XHTML are not: read on as HTML
    parser = etree.HTMLParser(
        encoding="utf-8", no_network=True, huge_tree=True, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError as error:
        raise DamagedFileError(
            f"The page cannot be parsed: {error.msg}.", remedy="Save the page again."
        ) from error
    if root is None:
        raise DamagedFileError("The page has no elements.", remedy="Save the page again.")
    if any("depth" in entry.message for entry in parser.error_log):
        warn(_TOO_DEEP)
    return root


def local(element: Element) -> str:
    """The element's name in lower case without its namespace; "" for comments and entities."""
    tag = element.tag
    if not isinstance(tag, str):
        return ""
    return tag.rpartition("}")[2].rpartition(":")[2].lower()


def flat(element: Element) -> str:
    """All text under ``element`` on one line."""
    return " ".join("".join(element.itertext()).split())


def _xml(text: str) -> Element:
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    root = etree.fromstring(_prepared(text), parser)
    # References to entities of the document's own stay unexpanded nodes: leave them out.
    etree.strip_elements(root, etree.Entity, with_tail=False)
    return root


def _prepared(text: str) -> bytes:
    """UTF-8 without what XML forbids, and HTML's named characters, which need a DTD, spelt out."""
    text = _NAMED.sub(_spell_out, _NOT_XML.sub("", text.lstrip("\ufeff \t\r\n")))
    return text.encode("utf-8", "replace")


def _spell_out(entity: re.Match[str]) -> str:
    if entity[1] in _XML_OWN:
        return entity[0]
    known = html.entities.html5.get(f"{entity[1]};")
    return entity[0] if known is None else html.escape(known, quote=False)
