"""Documents as readers see them: the rows, and the error where there is none."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pipeline.errors import NotFoundError
from pipeline.ledger_collections import LIVE, utc
from pipeline.lifecycle import VERSION_FIELDS, inside
from pipeline.records import DocumentRecord
from pipeline.schema import documents, versions


def no_document(collection: str, document_id: str) -> NotFoundError:
    """The error that says so."""
    return NotFoundError(
        f"There is no document {document_id!r} in collection {collection!r}.",
        remedy=f"List those there are with: longleaf documents list --collection {collection}",
    )


def live_documents(tenant: str, collection: str) -> sa.Select[Any]:
    """Rows of the live versions of a collection."""
    columns = sa.select(versions, documents.c.created.label("first_created"))
    return columns.select_from(LIVE).where(*inside(documents, tenant, collection))


def document_of(row: Any) -> DocumentRecord:  # noqa: ANN401 - a row of the above
    """Such a row as a record."""
    return DocumentRecord(
        tenant=row.tenant,
        collection=row.collection,
        id=row.document_id,
        version=row.version,
        **{**{name: getattr(row, name) for name in VERSION_FIELDS}, "warnings": tuple(row.warnings)},
        created=utc(row.first_created),
        updated=utc(row.created),
    )
