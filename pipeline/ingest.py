"""The write flow: sources in, durable and searchable documents out, one result each.

Reading, chunking and counting words run ahead (:mod:`pipeline.preparing`) while this thread embeds and
stores (:mod:`pipeline.storing`). A result is given out once its document is durable, so whoever saw it
may rely on it, whatever happens next.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Sequence, Sized
from copy import copy
from dataclasses import asdict
from threading import Lock

from pipeline import layers
from pipeline.cached_states import VersionCache
from pipeline.chunk import ChunkConfig
from pipeline.compatibility import require_same
from pipeline.errors import ConflictError, DiskFullError, LongleafError, NotFoundError
from pipeline.ingest_call import Call, confirm, entry_of
from pipeline.jobs import OnConflict
from pipeline.ledger import Ledger
from pipeline.lexical import Analyser
from pipeline.preparing import Group, Preparation, Prepared, is_fatal, met, typical_lengths
from pipeline.read import Limits
from pipeline.records import (
    CollectionRecord,
    check_document_id,
    check_name,
)
from pipeline.results import IngestResult, Status
from pipeline.seams import Embedder, Indexer
from pipeline.sources import Source
from pipeline.stages import Journal, Stages
from pipeline.storing import Store
from pipeline.types import ChunkedDocument
from pipeline.watch import Progress, Watch

_log = logging.getLogger("longleaf.ingest")

__all__ = ["IngestResult", "Ingestor", "Progress", "Source"]


class Ingestor:
    """Ingests into and deletes from the collections of one ledger and one index.

    Thread-safe: calls overlap in reading and take turns in embedding. The first call makes this
    process the owner of ingestion and removes what an interrupted one left.
    """

    def __init__(  # noqa: PLR0917 - in the order in which the flow meets them
        self,
        ledger: Ledger,
        indexer: Indexer,
        embedder: Embedder,
        analyser: Analyser,
        chunking: ChunkConfig | None = None,
        limits: Limits | None = None,
        *,
        caches: Sequence[VersionCache] = (),
    ) -> None:
        """``caches`` are told of versions that come, and lose those that go."""
        self._ledger = ledger
        self._indexer = indexer
        self._embedder = embedder
        self._analyser = analyser
        self._chunking = chunking or ChunkConfig()
        self._limits = limits or Limits()
        self._store = Store(ledger, indexer, caches)
        self._caches = caches
        self._working = Lock()
        self._opening = Lock()
        self._opened = False

    def with_parts(self, *, embedder: Embedder, analyser: Analyser, chunking: ChunkConfig) -> Ingestor:
        """The same flow for collections made with other parts; it takes turns with this one."""
        self.recover()
        other = copy(self)
        other._embedder, other._analyser, other._chunking = embedder, analyser, chunking
        return other

    def ingest(
        self,
        sources: Iterable[Source],
        *,
        tenant: str = "default",
        collection: str = "default",
        on_conflict: OnConflict = "replace",
        journal: Journal | None = None,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> Generator[IngestResult, None, None]:
        """Ingest sources in order; the collection is made with the first document that succeeds.

        A source that cannot be ingested gives a failed result and the others go on. A document that is
        there with another content is replaced; or the source is skipped, or fails; or the version before
        is kept, outside the index (``new_version``). ``journal`` keeps what stages make. ``progress`` is
        told from several threads, one at a time; ``note`` what could not be done although all is stored.
        Raises FingerprintMismatchError for a collection of
        another embedder, chunker or analyser; WorkCancelledError once ``cancelled`` says so; and what
        would stop every document (StorageError, UnavailableError, ModelError). Documents whose results
        were given out before are kept.
        """
        check_name("tenant", tenant)
        check_name("collection", collection)
        watch = Watch(progress, cancelled, len(sources) if isinstance(sources, Sized) else None)
        self.recover()
        existing = self._existing(tenant, collection)
        spool = self._ledger.spool()
        stages = Stages(self._embedder, self._chunking, self._limits, spool, journal, cancelled)
        preparation = Preparation(
            self._ledger,
            stages,
            self._analyser,
            tenant,
            collection,
            lambda first: existing or self._made(tenant, collection, first),
            on_conflict,
            watch,
        )
        call = Call(tenant, collection, on_conflict, stages, watch)
        wrote = False
        try:
            for group in preparation.groups(sources):
                with self._working:
                    results = self._finish(call, group)
                wrote = wrote or any(result.status in ("created", "replaced") for result in results)
                yield from results  # before anything can cancel: they are durable
                for result in results:
                    watch.moved("done", result.name, documents=1)
            if wrote:
                watch.enter("optimizing", collection)
                self._optimize(tenant, collection, note)
        finally:
            shutil.rmtree(spool, ignore_errors=True)

    def delete(
        self, tenant: str, collection: str, document_id: str, note: Callable[[str], None] | None = None
    ) -> None:
        """Remove a document: from readers at once, then from index and disk, for good. ``note`` is told
        where its bytes could not be cleared from the index's files yet.

        Raises NotFoundError, and IndexOwnedError or IndexDamagedError before anything is changed. After
        any other error the document is hidden, and what is left of it is removed by the next ingestion or
        deletion, or by a worker with nothing else to do.
        """
        check_document_id(document_id)
        self._indexer.names()
        self.recover()
        hidden = self._ledger.delete(tenant, collection, document_id)
        if hidden:  # else it was on its way in, and had no points yet
            self._store.remove(hidden)
            self._optimize(tenant, collection, note)

    def drop(self, tenant: str, collection: str) -> None:
        """Remove a collection with all its documents. Raises NotFoundError."""
        self._indexer.names()
        self.recover()
        self._ledger.drop_collection(tenant, collection)
        self._store.drop(tenant, collection)

    def recover(self) -> None:
        """Remove what interrupted calls of this or an earlier process left. Nothing happens otherwise.

        Raises UnavailableError while another process ingests.
        """
        with self._opening:
            self._ledger.own_ingestion()
            if not self._opened:
                self._ledger.clear_spool()
            removed = self._store.recover()
            self._opened = True
        for tenant, collection in sorted({(key.tenant, key.collection) for key in removed}):
            self._optimize(tenant, collection, None)

    def _existing(self, tenant: str, collection: str) -> CollectionRecord | None:
        try:
            record = self._ledger.collection(tenant, collection)
        except NotFoundError:
            return None
        require_same(record, self._embedder, self._analyser, self._chunking)
        self._create_indexes(record)
        return record

    def _made(self, tenant: str, collection: str, first: Sequence[ChunkedDocument]) -> CollectionRecord:
        """The collection, made from its first documents unless an earlier group or call did."""
        with self._opening:
            record = self._existing(tenant, collection)
            if record is None:
                record = self._ledger.create_collection(
                    tenant,
                    collection,
                    fingerprint=str(self._embedder.fingerprint),
                    chunking=asdict(self._chunking),
                    lexical={
                        "analyser": self._analyser.parameters,
                        "avg_len": typical_lengths(self._analyser, first, self._chunking),
                    },
                )
                self._create_indexes(record)
            return record

    def _create_indexes(self, record: CollectionRecord) -> None:
        for name, schema in layers.schemas(record, self._embedder.fingerprint.dim).items():
            self._indexer.create(name, schema)

    def _finish(self, call: Call, group: Group) -> list[IngestResult]:
        """Embed and store a group. When that fails for all together, each is tried alone."""
        results: dict[int, IngestResult] = {}
        ready: dict[int, Prepared] = {}
        for place, item in enumerate(group):
            if isinstance(item, IngestResult):
                results[place] = item
                continue
            claim = item.cut.claim
            known = self._ledger.find(call.tenant, call.collection, claim.document_id)
            try:  # the batch may have said the same thing twice, or another call may have been faster
                settled = met(claim, known, call.on_conflict, item.seconds)
            except ConflictError as error:
                settled = IngestResult.failed(claim.source.name, claim.document_id, error)
            if settled:
                results[place] = settled
            else:
                ready[place] = item
        try:
            done = self._embed_and_store(call, list(ready.values()))
            results |= zip(ready, done, strict=True)
        except LongleafError as error:
            if is_fatal(error):
                raise
            for place, item in ready.items():
                results[place] = self._alone(call, item)
        return [results[place] for place in range(len(group))]

    def _alone(self, call: Call, item: Prepared) -> IngestResult:
        try:
            return self._embed_and_store(call, [item])[0]
        except LongleafError as error:
            if is_fatal(error):
                raise
            claim = item.cut.claim
            return IngestResult.failed(claim.source.name, claim.document_id, error)

    def _embed_and_store(self, call: Call, items: Sequence[Prepared]) -> list[IngestResult]:
        if not items:
            return []
        claims = [item.cut.claim for item in items]
        name = claims[0].source.name
        began = time.perf_counter()
        call.watch.enter("embedding", name)
        vectors = call.stages.embed(
            claims,
            [item.cut.chunked for item in items],
            lambda tokens: call.watch.moved("embedding", name, tokens=tokens),
        )
        embedded = time.perf_counter()
        call.watch.enter("indexing", name)
        entries = [entry_of(item, made) for item, made in zip(items, vectors, strict=True)]
        written = self._store.write(
            call.tenant,
            call.collection,
            entries,
            keep=call.on_conflict == "new_version",
            also=lambda *published: confirm(call, claims, *published),
        )
        if call.stages.journal is None:  # what keeps a journal has a stage of its own for this
            for cache in self._caches:
                cache.added([key for key, published in written if not published.superseded])
        shared = {"embedding": embedded - began, "indexing": time.perf_counter() - embedded}
        all_tokens = sum(entry.record.tokens for entry in entries)
        results = []
        for item, entry, (key, published) in zip(items, entries, written, strict=True):
            share = entry.record.tokens / all_tokens
            seconds = {**item.seconds, **{stage: value * share for stage, value in shared.items()}}
            status: Status = "replaced" if published.replaced else "created"
            results.append(IngestResult.stored(entry.record, status, key.version, seconds))
        return results

    def _optimize(self, tenant: str, collection: str, note: Callable[[str], None] | None) -> None:
        """Make searches fast and clear what was deleted from the files. Both can wait for room on the
        disk: the next ingestion or deletion does it."""
        for layer in layers.LAYERS:
            name = layers.index_name(tenant, collection, layer)
            try:
                if self._indexer.schema(name) is not None:
                    self._indexer.optimize(name)
            except DiskFullError as error:
                (note or _log.warning)(
                    f"All is stored, but the index of {layer} was not optimised: {error.message} Searches "
                    "are slower and deleted text stays in its files until the next ingestion or deletion "
                    "with enough room."
                )
