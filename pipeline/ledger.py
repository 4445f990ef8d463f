"""The record of truth: collections, documents, and the versions of their content.

A version is *staged* while its files and points are being written, *live* once readers may see it,
and *retired* when they no longer may and its files and points are yet to be removed. Publishing
switches a document from one live version to the next in one transaction. Whatever is staged or
retired when no ingestion runs is a leftover of an interruption, and :meth:`Ledger.leftovers` names it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from pipeline import database, lifecycle
from pipeline.database import collections, documents, metadata_fields, versions
from pipeline.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from pipeline.lifecycle import VERSION_FIELDS, inside
from pipeline.metadata import merge_types
from pipeline.originals import DocumentCache, Originals, disk_errors
from pipeline.records import (
    CollectionRecord,
    DocumentRecord,
    Published,
    Totals,
    VersionKey,
    VersionRecord,
    check_document_id,
    check_name,
)
from pipeline.types import Document

MAX_PAGE = 1000
CACHE_BYTES = 64 * 1024 * 1024

_LIVE = versions.join(
    documents,
    sa.and_(
        versions.c.tenant == documents.c.tenant,
        versions.c.collection == documents.c.collection,
        versions.c.document_id == documents.c.id,
        versions.c.version == documents.c.live,
    ),
)
_SLICE = 500  # names in one IN (...)


class Ledger:
    """One data directory's records. Thread-safe; several processes may read, one writes at a time."""

    def __init__(self, root: Path, *, cache_bytes: int = CACHE_BYTES) -> None:
        """Open or make the ledger under ``root``.

        Raises DataVersionError for newer data, DiskFullError or StorageError for an unusable disk.
        """
        self.root = root
        self.path = root / "ledger.sqlite"
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.originals = Originals(root)
        self._engine = database.open_engine(self.path)
        self._writing = Lock()
        self._cache = DocumentCache(cache_bytes)
        self._ownership = FileLock(root / "ingest.lock", timeout=0, thread_local=False)

    def own_ingestion(self) -> None:
        """Make this process the one that ingests and deletes, until :meth:`close` or its end.

        Raises UnavailableError while another process is.
        """
        with self._writing:
            if self._ownership.is_locked:
                return
            try:
                self._ownership.acquire()
            except Timeout as error:
                raise UnavailableError(
                    f"Another process is ingesting into {self.root}.", remedy="Wait until it has finished."
                ) from error

    def close(self) -> None:
        """Release the file and the ownership of ingestion."""
        self._ownership.release(force=True)
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with database.translated(self.path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        writes = self._engine.execution_options(writes=True)
        with self._writing, database.translated(self.path), writes.begin() as connection:
            yield connection

    # Collections

    def create_collection(
        self,
        tenant: str,
        name: str,
        *,
        fingerprint: str,
        chunking: Mapping[str, Any],
        lexical: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
    ) -> CollectionRecord:
        """Make a collection. Raises ConflictError if there is one of that name already."""
        row = {
            "tenant": check_name("tenant", tenant),
            "name": check_name("collection", name),
            "fingerprint": fingerprint,
            "chunking": dict(chunking),
            "lexical": dict(lexical),
            "settings": dict(settings or {}),
            "created": time.time(),
            "dropped": False,
        }
        with self._write() as connection:
            made = connection.execute(insert(collections).values(row).on_conflict_do_nothing())
            if made.rowcount == 0:
                raise ConflictError(
                    f"There is already a collection {name!r}.",
                    remedy="Choose another name, or delete it first.",
                )
        return self.collection(tenant, name)

    def collection(self, tenant: str, name: str) -> CollectionRecord:
        """One collection. Raises NotFoundError."""
        check_name("tenant", tenant)
        check_name("collection", name)
        query = sa.select(collections).where(
            collections.c.tenant == tenant, collections.c.name == name, ~collections.c.dropped
        )
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(
                f"There is no collection {name!r}.", remedy="Ingest a document into it to make it."
            )
        return _collection(row)

    def collections(self, tenant: str | None = None) -> list[CollectionRecord]:
        """Every collection, of one tenant or of all, by tenant and name."""
        query = sa.select(collections).where(~collections.c.dropped)
        if tenant is not None:
            query = query.where(collections.c.tenant == tenant)
        with self._read() as connection:
            rows = connection.execute(query.order_by(collections.c.tenant, collections.c.name)).all()
        return [_collection(row) for row in rows]

    def drop_collection(self, tenant: str, name: str) -> None:
        """Hide a collection from readers at once. Its name is free after :meth:`forget_collection`."""
        self.collection(tenant, name)
        with self._write() as connection:
            connection.execute(
                sa.update(collections).where(*inside(collections, tenant, name)).values(dropped=True)
            )
            connection.execute(sa.update(documents).where(*inside(documents, tenant, name)).values(live=None))
            connection.execute(
                sa.update(versions).where(*inside(versions, tenant, name)).values(state="retired")
            )

    def dropped_collections(self) -> list[tuple[str, str]]:
        """Tenant and name of collections that are hidden and not yet forgotten."""
        query = sa.select(collections.c.tenant, collections.c.name).where(collections.c.dropped)
        with self._read() as connection:
            return [(row.tenant, row.name) for row in connection.execute(query)]

    def forget_collection(self, tenant: str, name: str) -> None:
        """Erase the rows of a dropped collection, once nothing else of it is left."""
        with self._write() as connection:
            for table in (versions, documents, metadata_fields):
                connection.execute(sa.delete(table).where(*inside(table, tenant, name)))
            connection.execute(
                sa.delete(collections).where(*inside(collections, tenant, name), collections.c.dropped)
            )

    def totals(self, tenant: str, name: str) -> Totals:
        """Sums over the live documents of a collection. Raises NotFoundError."""
        self.collection(tenant, name)
        sums = (sa.func.coalesce(sa.func.sum(versions.c[field.name]), 0) for field in fields(Totals)[1:])
        query = sa.select(sa.func.count(), *sums).select_from(_LIVE).where(*inside(versions, tenant, name))
        with self._read() as connection:
            return Totals(*connection.execute(query).one())

    def metadata_fields(self, tenant: str, collection: str) -> dict[str, str]:
        """Type of every metadata field that a live document has, by dotted path."""
        query = (
            sa.select(metadata_fields.c.name, metadata_fields.c.type)
            .where(*inside(metadata_fields, tenant, collection))
            .order_by(metadata_fields.c.name)
        )
        types: dict[str, str] = {}
        with self._read() as connection:
            for name, kind in connection.execute(query):
                types[name] = merge_types(kind, types[name]) if name in types else kind
        return types

    # Documents, as readers see them

    def document(self, tenant: str, collection: str, document_id: str) -> DocumentRecord:
        """The live version of a document. Raises NotFoundError, also for an unknown collection."""
        found = self.find(tenant, collection, document_id)
        if found is None:
            self.collection(tenant, collection)
            raise _no_document(collection, document_id)
        return found

    def find(self, tenant: str, collection: str, document_id: str) -> DocumentRecord | None:
        """The live version of a document, or None if there is none."""
        query = _live_documents(tenant, collection).where(documents.c.id == check_document_id(document_id))
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _document(row)

    def documents(
        self, tenant: str, collection: str, *, after: str | None = None, limit: int = 100
    ) -> list[DocumentRecord]:
        """Live documents by id, at most ``limit`` of those after the id ``after``.

        The last one's id is the cursor of the next page. Raises NotFoundError for the collection.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequestError(f"limit is {limit}.", remedy=f"Ask for 1 to {MAX_PAGE} documents.")
        self.collection(tenant, collection)
        query = _live_documents(tenant, collection)
        if after is not None:
            query = query.where(documents.c.id > after)
        with self._read() as connection:
            return [_document(row) for row in connection.execute(query.order_by(documents.c.id).limit(limit))]

    def live_versions(self, tenant: str, collection: str, ids: Sequence[str]) -> dict[str, int]:
        """Live version of each of these documents; those that have none are left out."""
        wanted = sorted(set(ids))
        live: dict[str, int] = {}
        with self._read() as connection:
            for i in range(0, len(wanted), _SLICE):
                query = sa.select(documents.c.id, documents.c.live).where(
                    *inside(documents, tenant, collection),
                    documents.c.id.in_(wanted[i : i + _SLICE]),
                    documents.c.live.is_not(None),
                )
                live.update((row.id, row.live) for row in connection.execute(query))
        return live

    def load(self, tenant: str, collection: str, document_id: str, version: int | None = None) -> Document:
        """A document with its text. Recently used ones are kept in memory.

        A replaced ``version`` can be loaded until its files are removed. Raises NotFoundError for a
        document or version that is not there, StorageError if its file is unreadable.
        """
        live = self.document(tenant, collection, document_id)
        key = VersionKey(tenant, collection, live.id, live.version if version is None else version)
        if key.version != live.version:
            query = sa.select(versions.c.state).where(
                *lifecycle.is_version(key), versions.c.state != "staged"
            )
            with self._read() as connection:
                if connection.execute(query).one_or_none() is None:
                    raise NotFoundError(
                        f"Document {document_id!r} has no version {version}; the live one is {live.version}."
                    )
        return self._cache.get(key, self.originals.document)

    def original(self, tenant: str, collection: str, document_id: str) -> Path:
        """The original file of a document. Raises NotFoundError, also if it was given as text."""
        live = self.document(tenant, collection, document_id)
        return self.originals.original(VersionKey(tenant, collection, live.id, live.version))

    # Versions, as ingestion writes them

    def stage(self, tenant: str, collection: str, staged: Sequence[VersionRecord]) -> list[VersionKey]:
        """Reserve the next version number of each document; readers do not see them yet.

        Raises NotFoundError if the collection is not there.
        """
        self.collection(tenant, collection)
        with self._write() as connection:
            return [lifecycle.stage(connection, tenant, collection, record) for record in staged]

    def publish(self, keys: Sequence[VersionKey]) -> list[Published]:
        """Make these staged versions live, all in one transaction, and retire the ones before.

        Raises ConflictError if one is no longer staged (its collection was dropped meanwhile).
        """
        with self._write() as connection:
            return [lifecycle.publish(connection, key) for key in keys]

    def delete(self, tenant: str, collection: str, document_id: str) -> VersionKey:
        """Hide a document from readers at once; returns the version that is to be removed.

        Raises NotFoundError if there is no such document.
        """
        name = self.document(tenant, collection, document_id).id
        with self._write() as connection:
            hidden = lifecycle.hide(connection, tenant, collection, name)
        if hidden is None:  # by another thread, since the look-up above
            raise _no_document(collection, name)
        return hidden

    def retire(self, keys: Sequence[VersionKey]) -> list[VersionKey]:
        """Give up versions that are still staged; returns those that are retired now and may be removed.

        One that is live (its publication succeeded although its caller saw an error) is left alone.
        """
        with self._write() as connection:
            return [key for key in keys if lifecycle.give_up(connection, key)]

    def leftovers(self) -> list[VersionKey]:
        """Versions that are staged or retired: in the making, or yet to be removed."""
        with self._read() as connection:
            return lifecycle.leftovers(connection)

    def forget(self, keys: Sequence[VersionKey]) -> None:
        """Erase the rows of versions that are not live, once their files and points are gone."""
        self._cache.evict(keys)
        with self._write() as connection:
            for key in keys:
                lifecycle.erase(connection, key)

    def check(self) -> list[str]:
        """What SQLite finds wrong with the ledger's file; empty when nothing is."""
        return database.quick_check(self._engine, self.path)


def _no_document(collection: str, document_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no document {document_id!r} in collection {collection!r}.",
        remedy=f"List those there are with: longleaf documents list --collection {collection}",
    )


def _live_documents(tenant: str, collection: str) -> sa.Select[Any]:
    columns = sa.select(versions, documents.c.created.label("first_created"))
    return columns.select_from(_LIVE).where(*inside(documents, tenant, collection))


def _collection(row: Any) -> CollectionRecord:  # noqa: ANN401 - a row of `collections`
    values = {field.name: getattr(row, field.name) for field in fields(CollectionRecord)}
    return CollectionRecord(**{**values, "created": _utc(row.created)})


def _document(row: Any) -> DocumentRecord:  # noqa: ANN401 - a row of `_live_documents`
    return DocumentRecord(
        tenant=row.tenant,
        collection=row.collection,
        id=row.document_id,
        version=row.version,
        **{**{name: getattr(row, name) for name in VERSION_FIELDS}, "warnings": tuple(row.warnings)},
        created=_utc(row.first_created),
        updated=_utc(row.created),
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
