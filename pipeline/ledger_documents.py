"""Documents as readers see them: the rows, and the error where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pipeline.errors import NotFoundError
from pipeline.ledger_collections import LIVE, utc
from pipeline.lifecycle import VERSION_FIELDS, inside, is_version
from pipeline.records import DocumentRecord, VersionKey, tenant_option
from pipeline.schema import documents, versions


def no_document(tenant: str, collection: str, document_id: str) -> NotFoundError:
    """The error that says so."""
    return NotFoundError(
        f"There is no document {document_id!r} in collection {collection!r}.",
        remedy=f"Those there are: GET /v1/collections/{collection}/documents, or "
        f"longleaf documents list --collection {collection}{tenant_option(tenant)}",
    )


def no_version(live: DocumentRecord, version: int, known: Sequence[int]) -> NotFoundError:
    """The error that says so, and which there are of those that readers may ask for."""
    return NotFoundError(
        f"Document {live.id!r} has no version {version}.",
        remedy=f"There are, newest first: {', '.join(map(str, known))}; the live one is {live.version}.",
    )


def live_documents(tenant: str, collection: str) -> sa.Select[Any]:
    """Rows of the live versions of a collection."""
    columns = sa.select(versions, documents.c.created.label("first_created"))
    return columns.select_from(LIVE).where(*inside(documents, tenant, collection))


def one_version(key: VersionKey) -> sa.Select[Any]:
    """The row of a version of a document that has a live one, whatever the state of this one."""
    columns = sa.select(versions, documents.c.created.label("first_created"))
    mine = sa.and_(*inside(documents, key.tenant, key.collection), documents.c.id == key.document_id)
    return columns.select_from(versions.join(documents, mine)).where(*is_version(key))


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
