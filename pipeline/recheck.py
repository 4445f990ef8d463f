"""The last look at a citation: does the stored document say this, there, and on which page?

The index may be older than the ledger; a quote that the document no longer has is never shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from pipeline.errors import NotFoundError
from pipeline.types import Citation, Document, Query, Statement


class Documents(Protocol):
    """The record of truth; the ledger is one."""

    def load(self, tenant: str, collection: str, document_id: str, version: int | None = None) -> Document:
        """The document with its text. Raises NotFoundError."""
        ...


def recheck(
    statement: Statement, query: Query, documents: Documents | None, degraded: Callable[[str], None]
) -> Statement:
    """The statement with those citations that hold, each with its own pages; unsupported if none does.

    Without ``documents`` it is returned as it is. ``degraded`` is told what did not hold.
    """
    if documents is None:
        return statement
    held = []
    for citation in statement.citations:
        name = citation.title or citation.document_id
        try:
            document = documents.load(query.tenant, query.collection, citation.document_id, citation.version)
        except NotFoundError:
            degraded(f"{name} was removed while the answer was made")
            continue
        if document.text[citation.start : citation.end] == citation.quote:
            held.append(_on_its_pages(citation, document))
        else:
            degraded(f"the index of {name} does not fit the stored text: run longleaf repair")
    if statement.supported and not held:
        return replace(statement, supported=False, support=0.0, citations=())
    return replace(statement, citations=tuple(held))


def _on_its_pages(citation: Citation, document: Document) -> Citation:
    """A passage may run over two pages where the quote stands on one."""
    pages = [p.number for p in document.pages if p.start < citation.end and citation.start < p.end]
    return replace(citation, page_start=pages[0], page_end=pages[-1]) if pages else citation
