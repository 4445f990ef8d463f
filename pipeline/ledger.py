"""The record of truth: collections, documents, and the versions of their content.

A version is *staged* while its files and points are being written, *live* once readers may see it,
and *retired* when they no longer may and its files and points are yet to be removed. One that is to be
kept when another takes its place is *shelved* until its points are out of the index, then *kept*.
Publishing switches a document from one live version to the next in one transaction. Whatever is staged or
retired and nobody alive works on is a leftover of an interruption, and :meth:`Ledger.leftovers` names it.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline import job_rows, lifecycle, writers
from pipeline.arrivals import Arrivals
from pipeline.database import Database
from pipeline.errors import InvalidRequestError, StorageError
from pipeline.ledger_collections import LIVE, CollectionLedger
from pipeline.ledger_documents import document_of, live_documents, no_document, no_version, one_version
from pipeline.lifecycle import SHOWN, inside
from pipeline.originals import DocumentCache, Originals, disk_errors
from pipeline.records import (
    DocumentRecord,
    LiveVersion,
    Published,
    VersionKey,
    VersionRecord,
    check_document_id,
)
from pipeline.schema import documents, versions
from pipeline.types import Document
from pipeline.writers import Ownership

MAX_PAGE = 1000
RESTORING = "restoring"  # the folder of a backup that is being put in the place of the data
RESTORING_DRAFT = "restoring.draft"  # the same before anything is touched
CACHE_BYTES = 64 * 1024 * 1024

_SLICE = 500  # names in one IN (...)

Also = Callable[[Connection, Sequence[VersionKey], Sequence[Published]], None]


class Ledger(CollectionLedger):
    """One data directory's records. Thread-safe; several processes may read, and write as
    :mod:`pipeline.writers` says."""

    def __init__(
        self,
        root: Path,
        *,
        url: str | None = None,
        migrate: bool = True,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Open or make the ledger: a file under ``root``, or the PostgreSQL database at ``url``.

        Raises DataVersionError for newer data (and older, unless ``migrate``), DiskFullError or
        StorageError for an unusable disk, UnavailableError for a database that does not answer;
        StorageError too where a restore was interrupted.
        """
        if (root / RESTORING).exists():
            raise StorageError(
                f"A restore into {root} was interrupted.", remedy="Run the same `longleaf restore` again."
            )
        self.root = root
        self.path = root / "ledger.sqlite"
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.originals = Originals(root)
        self.arrivals = Arrivals(root)
        self.database = Database(self.path, url, migrate=migrate)
        self.ownership = Ownership(root, self.database)
        self._cache = DocumentCache(cache_bytes)

    def own_ingestion(self) -> None:
        """Make this process one that ingests and deletes, until :meth:`close` or its end.

        Raises UnavailableError while another process is, where only one may.
        """
        self.ownership.take()
        if not self.database.served:  # nobody else restores here now
            shutil.rmtree(self.root / RESTORING_DRAFT, ignore_errors=True)

    def spool(self) -> Path:
        """A folder for files on their way in, this process's own."""
        return self.originals.spool(f"{self.ownership.id}-{uuid.uuid4().hex}")

    def clear_spool(self) -> None:
        """Remove what ingestions of processes that are dead left there."""
        with self.database.read() as connection:
            alive = [str(identity) for identity in connection.execute(writers.alive()).scalars()]
        self.originals.clear_spool(alive)

    def bury_writers(self) -> None:
        """Find out which other processes are dead; what they worked on becomes leftovers."""
        if self.database.served:
            with self.database.write() as connection:
                self.ownership.bury(connection)

    def close(self) -> None:
        """Release the file and the ownership of ingestion."""
        self.ownership.release()
        self.database.close()

    # Documents, as readers see them

    def document(
        self, tenant: str, collection: str, document_id: str, version: int | None = None
    ) -> DocumentRecord:
        """The live version of a document, or another ``version`` that is kept. Raises NotFoundError, also
        for an unknown collection."""
        found = self.find(tenant, collection, document_id)
        if found is None:
            self.collection(tenant, collection)
            raise no_document(tenant, collection, document_id)
        return self._version(found, version, versions.c.state.in_(SHOWN))

    def _version(
        self, live: DocumentRecord, version: int | None, state: sa.ColumnElement[bool]
    ) -> DocumentRecord:
        """The live version itself, or another that is in such a ``state``. Raises NotFoundError."""
        if version is None or version == live.version:
            return live
        query = one_version(VersionKey(live.tenant, live.collection, live.id, version)).where(state)
        with self.database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise no_version(live, version, self.history(live.tenant, live.collection, live.id))
        return document_of(row)

    def find(self, tenant: str, collection: str, document_id: str) -> DocumentRecord | None:
        """The live version of a document, or None if there is none."""
        question = ("document", tenant, collection, document_id)
        return self.database.memo.of(question, lambda: self._find(tenant, collection, document_id))

    def _find(self, tenant: str, collection: str, document_id: str) -> DocumentRecord | None:
        query = live_documents(tenant, collection).where(documents.c.id == check_document_id(document_id))
        with self.database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else document_of(row)

    def documents(
        self, tenant: str, collection: str, *, after: str | None = None, limit: int = 100
    ) -> list[DocumentRecord]:
        """Live documents by id, at most ``limit`` of those after the id ``after``.

        The last one's id is the cursor of the next page. Raises NotFoundError for the collection.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequestError(f"limit is {limit}.", remedy=f"Ask for 1 to {MAX_PAGE} documents.")
        self.collection(tenant, collection)
        query = live_documents(tenant, collection)
        if after is not None:
            query = query.where(documents.c.id > after)
        with self.database.read() as connection:
            return [
                document_of(row) for row in connection.execute(query.order_by(documents.c.id).limit(limit))
            ]

    def every_document(self, tenant: str, collection: str) -> Iterator[DocumentRecord]:
        """All live documents by id, page by page. Raises NotFoundError for the collection."""
        after = None
        while page := self.documents(tenant, collection, after=after, limit=MAX_PAGE):
            yield from page
            after = page[-1].id

    def live_versions(self, tenant: str, collection: str, ids: Sequence[str]) -> dict[str, LiveVersion]:
        """Live version of each of these documents and its passages; those that have none are left out."""
        answers = self.database.memo.fresh()
        questions = {name: ("live", tenant, collection, name) for name in ids}
        unknown = [name for name, question in questions.items() if question not in answers]
        if unknown:
            found = self._live_versions(tenant, collection, sorted(unknown))
            answers.update((questions[name], found.get(name)) for name in unknown)
        live = {name: answers.get(question) for name, question in questions.items()}
        return {name: version for name, version in live.items() if version is not None}

    def _live_versions(self, tenant: str, collection: str, wanted: Sequence[str]) -> dict[str, LiveVersion]:
        live: dict[str, LiveVersion] = {}
        columns = sa.select(documents.c.id, versions.c.version, versions.c.passages).select_from(LIVE)
        with self.database.read() as connection:
            for i in range(0, len(wanted), _SLICE):
                query = columns.where(
                    *inside(documents, tenant, collection), documents.c.id.in_(wanted[i : i + _SLICE])
                )
                live |= {name: LiveVersion(*found) for name, *found in connection.execute(query)}
        return live

    def load(self, tenant: str, collection: str, document_id: str, version: int | None = None) -> Document:
        """A document with its text. Recently used ones are kept in memory.

        A replaced ``version`` can be loaded until its files are removed, a kept one always. Raises
        NotFoundError for a document or version that is not there, StorageError if its file is unreadable.
        """
        live = self.document(tenant, collection, document_id)
        found = self._version(live, version, versions.c.state != "staged")
        key = VersionKey(tenant, collection, found.id, found.version)
        try:
            return self._cache.get(key, self.originals.document)
        except StorageError:
            if version is not None or self.document(tenant, collection, document_id).version == live.version:
                raise
            return self.load(tenant, collection, document_id)  # it has been replaced meanwhile

    def original(self, tenant: str, collection: str, document_id: str, version: int | None = None) -> Path:
        """The original file of a document, as :meth:`document` finds it. Raises NotFoundError, also if it
        was given as text."""
        found = self.document(tenant, collection, document_id, version)
        return self.originals.original(VersionKey(tenant, collection, found.id, found.version))

    def history(self, tenant: str, collection: str, document_id: str) -> list[int]:
        """Numbers of the versions that can be loaded: the live one, and those kept, newest first."""
        live = self.document(tenant, collection, document_id)
        query = sa.select(versions.c.version).where(
            *inside(versions, tenant, collection),
            versions.c.document_id == live.id,
            versions.c.state.in_(SHOWN),
        )
        with self.database.read() as connection:
            return list(connection.execute(query.order_by(versions.c.version.desc())).scalars())

    # Versions, as ingestion writes them

    def stage(self, tenant: str, collection: str, staged: Sequence[VersionRecord]) -> list[VersionKey]:
        """Reserve the next version number of each document; readers do not see them yet.

        Raises NotFoundError if the collection is not there.
        """
        self.collection(tenant, collection)
        writer = self.ownership.id
        with self.database.write() as connection:
            return [lifecycle.stage(connection, tenant, collection, record, writer) for record in staged]

    def publish(
        self, keys: Sequence[VersionKey], *, keep: bool = False, also: Also | None = None
    ) -> list[Published]:
        """Make these staged versions live, all in one transaction, and retire the ones before, or shelve
        them to ``keep`` them. What ``also`` does happens in the same transaction.

        Raises ConflictError if one is no longer staged (its collection was dropped meanwhile).
        """
        with self.database.write() as connection:
            self.ownership.confirm(connection)
            published = [lifecycle.publish(connection, key, self.ownership.id, keep=keep) for key in keys]
            if also is not None:
                also(connection, keys, published)
            return published

    def delete(self, tenant: str, collection: str, document_id: str) -> list[VersionKey]:
        """Hide a document from readers at once, and have no job bring it back; returns the versions that
        are to be removed, the live one first; none if it was only on its way in.

        Raises NotFoundError if there is no such document.
        """
        name = check_document_id(document_id)
        with self.database.write() as connection:
            hidden = lifecycle.hide(connection, tenant, collection, name, self.ownership.id)
            forgotten = job_rows.forget(connection, tenant, collection, name)
            graves = lifecycle.graves(connection, tenant, collection, [name])
        if not hidden and not forgotten:
            self.collection(tenant, collection)
            raise no_document(tenant, collection, name)
        self.originals.deleted(graves)
        self._remove_arrivals(forgotten)
        return hidden

    def drop_collection(self, tenant: str, name: str) -> None:
        """Hide a collection from readers at once, and have no job bring anything of it back. Its name is
        free after :meth:`forget_collection`."""
        forgotten: list[tuple[str, int]] = []
        graves: dict[str, int] = {}

        def jobs_too(connection: Connection) -> None:
            ids = lifecycle.names(connection, tenant, name) | job_rows.names(connection, tenant, name)
            forgotten.extend(job_rows.forget(connection, tenant, name))
            graves.update(lifecycle.graves(connection, tenant, name, ids))

        self._drop(tenant, name, jobs_too)
        self.originals.deleted(graves)
        self._remove_arrivals(forgotten)

    def _remove_arrivals(self, files: Sequence[tuple[str, int]]) -> None:
        for job_id, position in files:
            self.arrivals.remove(job_id, [position])

    def retire(self, keys: Sequence[VersionKey]) -> list[VersionKey]:
        """Give up versions that are still staged; returns those that may be removed now.

        One that is live (its publication succeeded although its caller saw an error) is left alone.
        """
        with self.database.write() as connection:
            return [key for key in keys if lifecycle.give_up(connection, key, self.ownership.id)]

    def leftovers(self) -> list[VersionKey]:
        """Versions that are staged or retired by this process or by one that is dead: in the making, or
        yet to be removed."""
        with self.database.read() as connection:
            return lifecycle.leftovers(connection, ("staged", "retired"), self.ownership.id)

    def shelved(self) -> list[VersionKey]:
        """Versions to be kept whose points are yet to be taken out of the index, as in :meth:`leftovers`."""
        with self.database.read() as connection:
            return lifecycle.leftovers(connection, ("shelved",), self.ownership.id)

    def keep(self, keys: Sequence[VersionKey]) -> None:
        """Shelved versions are kept: their points are out of the index."""
        with self.database.write() as connection:
            for key in keys:
                lifecycle.keep(connection, key)

    def forget(self, keys: Sequence[VersionKey]) -> None:
        """Erase the rows of versions that are not live, once their files and points are gone."""
        self._cache.evict(keys)
        with self.database.write() as connection:
            for key in keys:
                lifecycle.erase(connection, key)

    def check(self) -> list[str]:
        """What SQLite finds wrong with the ledger's file; empty when nothing is."""
        return self.database.check()
