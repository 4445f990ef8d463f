"""A Document as JSON, for the way from the reader process to its parent. Never pickle.

The sender has parsed a hostile file, so :func:`decode` trusts nothing: offsets, kinds and types are
checked, and anything odd is a DamagedFileError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pipeline.errors import DamagedFileError
from pipeline.types import Block, BlockKind, Document, Page, Section

_KINDS = frozenset(get_args(BlockKind))


def encode(document: Document) -> bytes:
    """The document as UTF-8 JSON. Metadata values that JSON lacks (dates) become strings."""
    fields = {
        "title": document.title,
        "text": document.text,
        "pages": [(p.number, p.start, p.end, p.label) for p in document.pages],
        "sections": [(s.title, s.level, s.start, s.end) for s in document.sections],
        "blocks": [(b.kind, b.start, b.end, b.level) for b in document.blocks],
        "media_type": document.media_type,
        "metadata": dict(document.metadata),
        "warnings": list(document.warnings),
    }
    return json.dumps(fields, ensure_ascii=False, default=str).encode("utf-8", "replace")


def decode(message: bytes) -> Document:
    """The document that :func:`encode` wrote. Raises DamagedFileError if it is not one."""
    try:
        fields = json.loads(message)
        document = Document(
            title=_text(fields["title"]),
            text=_text(fields["text"]),
            pages=tuple(Page(_whole(n), _whole(s), _whole(e), _text(x)) for n, s, e, x in fields["pages"]),
            sections=tuple(
                Section(_text(t), _whole(n), _whole(s), _whole(e)) for t, n, s, e in fields["sections"]
            ),
            blocks=tuple(Block(_kind(k), _whole(s), _whole(e), _whole(n)) for k, s, e, n in fields["blocks"]),
            media_type=_text(fields["media_type"]),
            metadata={_text(key): value for key, value in fields["metadata"].items()},
            warnings=tuple(_text(w) for w in fields["warnings"]),
        )
        _check_spans(document)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedFileError(
            f"The reader process gave an answer that is not a document ({error}).",
            remedy="The file is probably damaged or hostile; open and save it again with its own program.",
        ) from error
    return document


def _check_spans(document: Document) -> None:
    length = len(document.text)
    _ordered(document.pages, length)
    _ordered(document.blocks, length)
    for section in document.sections:
        if not 0 <= section.start <= section.end <= length:
            raise ValueError(f"section [{section.start}, {section.end}) of {length}")


def _ordered(spans: Sequence[Page] | Sequence[Block], length: int) -> None:
    edges: Iterable[int] = (edge for span in spans for edge in (span.start, span.end))
    before = 0
    for edge in edges:
        if not before <= edge <= length:
            raise ValueError(f"offset {edge} after {before} of {length}")
        before = edge


def _text(value: Any) -> str:  # noqa: ANN401 - whatever JSON held
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not text")
    return value


def _whole(value: Any) -> int:  # noqa: ANN401 - whatever JSON held
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r:.80} is not a count")
    return value


def _kind(value: Any) -> BlockKind:  # noqa: ANN401 - whatever JSON held
    if value not in _KINDS:
        raise ValueError(f"{value!r:.80} is not a kind of block")
    return value  # type: ignore[no-any-return]
