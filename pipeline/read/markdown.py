"""Markdown: rendered by markdown-it, then read like any page, so that HTML inside it is read too.

Front matter (``---`` with ``key: value`` lines) becomes the title and metadata.
"""

from __future__ import annotations

import re
from typing import Any

from markdown_it import MarkdownIt

from pipeline.errors import EmptyDocumentError
from pipeline.read.builder import DocumentBuilder, Hints, clean
from pipeline.read.encoding import decode
from pipeline.read.flow import pieces, pour
from pipeline.read.markup import parse_html
from pipeline.types import Document

MEDIA_TYPES = ("text/markdown", "text/x-markdown")
SUFFIXES = (".md", ".markdown")

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"([A-Za-z][\w-]{0,40}):[ \t]+(\S.*)")
_LIST = re.compile(r"\[(.*)\]")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_MAX_FIELDS = 30
_MAX_NESTING = 100


def read(data: bytes, hints: Hints) -> Document:
    """Raises EmptyDocumentError for white space and DamagedFileError for bytes that are no text."""
    charset = _CHARSET.search(hints.media_type)
    decoded = decode(data, declared=charset[1] if charset else "")
    about, text = front_matter(clean(decoded.text).lstrip("\ufeff"))
    builder = DocumentBuilder()
    for warning in decoded.warnings:
        builder.warn(warning)
    page = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).enable("table").render(text)
    if not page.strip():
        raise EmptyDocumentError("The Markdown file has no text.", remedy="Send a file with text in it.")
    pour(builder, pieces(parse_html(f"<html><body>{page}</body></html>", builder.warn)))
    title = str(about.pop("title", ""))
    return builder.build(title=title, media_type=MEDIA_TYPES[0], metadata=about)


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The fields at the head of a file and the text after them.

    Only flat fields are taken, as text or list of texts: nothing in the file is ever evaluated.
    """
    found = _FRONT_MATTER.match(text)
    if not found:
        return {}, text
    about: dict[str, Any] = {}
    for line in found[1].splitlines():
        field = _FIELD.fullmatch(line.rstrip())
        if field and len(about) < _MAX_FIELDS:
            listed = _LIST.fullmatch(field[2])
            about[field[1].lower()] = (
                [_bare(item) for item in listed[1].split(",") if item.strip()] if listed else _bare(field[2])
            )
    return about, text[found.end() :]


def _bare(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
