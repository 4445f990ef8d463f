"""What finished stages of a batch of a job's documents made, kept in files, and noted in the ledger.

Notes are gathered for a moment, so that a thousand small documents are not a thousand transactions; a
stage counts as finished once it is noted. Files without a note, or unlike their note, are not taken.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy.engine import Connection

from pipeline import checkpoints, job_rows
from pipeline.chunk import ChunkConfig
from pipeline.errors import DamagedFileError, WorkCancelledError
from pipeline.job_rows import OpenDocument
from pipeline.jobs import JobStage
from pipeline.ledger import Ledger
from pipeline.read import wire
from pipeline.records import Published, VersionKey
from pipeline.sources import Claim, Source
from pipeline.types import ChunkedDocument, Document, DocumentEmbeddings, Fingerprint

_GATHER_SECONDS = 0.2


class JobJournal:
    """The journal of one batch, in which no document id is twice. Thread-safe."""

    def __init__(self, ledger: Ledger, writer: str, items: Sequence[OpenDocument], *, caches: bool) -> None:
        self._ledger = ledger
        self._writer = writer
        self._items = {item.document_id: item for item in items}
        self._checkpoints = {item.document_id: dict(item.checkpoints) for item in items}
        self._waiting: dict[str, dict[str, Any]] = {}
        self._flushed = time.monotonic()
        self._lock = Lock()
        self._after_indexing: JobStage = "caching" if caches else "done"
        self.published_keys: dict[str, VersionKey] = {}

    def source(self, item: OpenDocument) -> Source:
        """The source that this document was accepted as."""
        path = self._ledger.arrivals.file(item.job_id, item.position)
        text = path.read_bytes().decode("utf-8", "surrogatepass") if item.is_text else None
        return Source(
            name=item.name,
            data=None if item.is_text else path,
            text=text,
            media_type=item.media_type,
            metadata=item.metadata,
            document_id=item.document_id,
            title=item.title,
        )

    def original(self, claimed: Claim) -> Path | None:
        """The file as it was accepted."""
        item = self._items[claimed.document_id]
        return None if item.is_text else self._ledger.arrivals.file(item.job_id, item.position)

    def document(self, claimed: Claim) -> Document | None:
        """What was read."""
        self._note(claimed.document_id, stage="reading")
        content = self._kept(claimed, "reading")
        if content is None:
            return None
        try:
            return wire.decode(content)
        except DamagedFileError:
            return None

    def keep_document(self, claimed: Claim, document: Document) -> None:
        """Reading is done."""
        self._keep(claimed, "reading", wire.encode(document), pages=len(document.pages))

    def chunks(
        self, claimed: Claim, document: Document, fingerprint: Fingerprint, config: ChunkConfig
    ) -> ChunkedDocument | None:
        """How it was cut, with these settings."""
        self._note(claimed.document_id, stage="chunking")
        content = self._kept(claimed, "chunking")
        return checkpoints.decode_chunks(content, document, fingerprint, config) if content else None

    def keep_chunks(
        self, claimed: Claim, chunked: ChunkedDocument, fingerprint: Fingerprint, config: ChunkConfig
    ) -> None:
        """Chunking is done."""
        content = checkpoints.encode_chunks(chunked, fingerprint, config)
        self._keep(claimed, "chunking", content, tokens=len(chunked.encoding))

    def vectors(
        self, claimed: Claim, chunked: ChunkedDocument, fingerprint: Fingerprint
    ) -> DocumentEmbeddings | None:
        """Its vectors, of this embedder."""
        content = self._kept(claimed, "embedding")
        known = checkpoints.decode_vectors(content, chunked, fingerprint) if content else None
        self._note(claimed.document_id, stage="embedding" if known is None else "indexing")
        return known

    def keep_vectors(self, claims: Sequence[Claim], made: Sequence[DocumentEmbeddings]) -> None:
        """Embedding is done, of these documents together."""
        for claimed, vectors in zip(claims, made, strict=True):
            self._keep(claimed, "embedding", checkpoints.encode_vectors(vectors))
            self._note(claimed.document_id, stage="indexing")
        self.flush()

    def published(
        self,
        connection: Connection,
        claims: Sequence[Claim],
        keys: Sequence[VersionKey],
        published: Sequence[Published],
    ) -> None:
        """Indexing is done: the documents end here, in the transaction that makes them live, or are left to
        whoever caches their states.

        Raises WorkCancelledError when one was cancelled, deleted or taken over meanwhile.
        """
        self._write(connection)
        for claimed, key, each in zip(claims, keys, published, strict=True):
            item = self._items[claimed.document_id]
            done: dict[str, Any] = {
                "version": key.version,
                "status": "replaced" if each.replaced else "created",
            }
            if self._after_indexing == "done":
                mine = job_rows.end(connection, item, self._writer, "done", **done)
            else:
                done |= {"writer": "", "attempts": 0, "waits": 0}
                mine = job_rows.change(connection, item, self._writer, stage="caching", **done)
                job_rows.note_stages(connection, [(item.job_id, item.position, "caching")])
            if not mine:
                raise WorkCancelledError(f"Document {claimed.document_id!r} is no longer wanted.")
            self.published_keys[claimed.document_id] = key

    def flush(self) -> None:
        """Note in the ledger what is finished."""
        with self._lock:
            pending = bool(self._waiting)
        if pending:
            with self._ledger.database.write() as connection:
                self._write(connection)

    def _kept(self, claimed: Claim, stage: str) -> bytes | None:
        item = self._items[claimed.document_id]
        digest = self._checkpoints[claimed.document_id].get(stage)
        if digest is None:
            return None
        return self._ledger.arrivals.kept(item.job_id, item.position, stage, digest)

    def _keep(self, claimed: Claim, stage: str, content: bytes, **values: int) -> None:
        item = self._items[claimed.document_id]
        digest = self._ledger.arrivals.keep(item.job_id, item.position, stage, content)
        made = self._checkpoints[claimed.document_id]
        made[stage] = digest
        self._note(claimed.document_id, checkpoints=dict(made), **values)

    def _note(self, document_id: str, **values: Any) -> None:  # noqa: ANN401 - columns
        with self._lock:
            self._waiting.setdefault(document_id, {}).update(values)
            due = time.monotonic() - self._flushed > _GATHER_SECONDS
        if due:
            self.flush()

    def _write(self, connection: Connection) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            self._flushed = time.monotonic()
        moved = []
        for document_id, values in waiting.items():
            item = self._items[document_id]
            if job_rows.change(connection, item, self._writer, **values) and "stage" in values:
                moved.append((item.job_id, item.position, values["stage"]))
        job_rows.note_stages(connection, moved)
