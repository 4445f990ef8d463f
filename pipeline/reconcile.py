"""Compare the ledger, which is the truth, with index and files; and make the index agree with it.

The ids of a version's points follow from the ledger alone, so comparing needs no text and no model.
Repairing embeds again what is missing, from the stored documents, and deletes what nobody owns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial

from pipeline.chunk import ChunkConfig, chunk
from pipeline.compatibility import require_same
from pipeline.errors import (
    DiskFullError,
    FingerprintMismatchError,
    IndexDamagedError,
    LongleafError,
    NotFoundError,
    StorageError,
)
from pipeline.layers import LAYERS, Layer, expected_ids, index_name, is_of_collection, of_versions, schemas
from pipeline.ledger import Ledger
from pipeline.lexical import Analyser
from pipeline.preparing import lexical
from pipeline.records import CollectionRecord, DocumentRecord, VersionKey, VersionRecord
from pipeline.seams import Embedder, Indexer
from pipeline.storing import Entry, Store
from pipeline.watch import Progress, Watch


@dataclass(frozen=True, slots=True)
class LayerState:
    """One index against the ledger. ``damaged`` says why it cannot be read at all, ``problems`` what is
    wrong with it although it answers."""

    index: str
    expected: int
    missing: int
    orphans: int
    damaged: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """One collection. ``incomplete`` live versions lack points or have wrong ones, ``orphaned``
    versions have points and are not live, ``unreadable`` ones have lost or changed files."""

    tenant: str
    collection: str
    layers: tuple[LayerState, ...]
    incomplete: tuple[VersionKey, ...] = ()
    orphaned: tuple[VersionKey, ...] = ()
    unreadable: tuple[VersionKey, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether ledger, index and files agree."""
        states = self.layers
        return not self.unreadable and not any(
            s.missing or s.orphans or s.damaged or s.problems for s in states
        )


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done to one collection. ``failed`` maps document ids to why they could not be repaired;
    ``refused`` says why the whole collection was left as it is."""

    tenant: str
    collection: str
    rebuilt_documents: int
    deleted_orphans: int
    failed: dict[str, str] = field(default_factory=dict)
    refused: str = ""


def verify(ledger: Ledger, indexer: Indexer, *, files: bool = True) -> list[Verification]:
    """Compare every collection; with ``files`` also read every stored document and hash every original."""
    return [_verify(ledger, indexer, record, files=files) for record in ledger.collections()]


def _verify(ledger: Ledger, indexer: Indexer, record: CollectionRecord, *, files: bool) -> Verification:
    live = {_key(document): document for document in ledger.every_document(record.tenant, record.name)}
    incomplete: set[VersionKey] = set()
    orphaned: set[VersionKey] = set()
    states = []
    for layer in LAYERS:
        name = index_name(record.tenant, record.name, layer)
        owners = {
            point: key
            for key, document in live.items()
            for point in expected_ids(key, layer, _count(document, layer))
        }
        damaged, orphans, missing = "", 0, set(owners)
        problems: tuple[str, ...] = ()
        try:
            for point, owner in _present(indexer, name, record):
                missing.discard(point)
                if point not in owners:
                    orphans += 1
                    (incomplete if owner in live else orphaned).add(owner)
            problems = tuple(indexer.problems(name)) if indexer.schema(name) is not None else ()
        except IndexDamagedError as error:
            damaged = error.message
        incomplete |= {owners[point] for point in missing}
        states.append(LayerState(name, len(owners), len(missing), orphans, damaged, problems))
    unreadable = [key for key, document in live.items() if files and not _readable(ledger, key, document)]
    return Verification(
        record.tenant,
        record.name,
        tuple(states),
        tuple(sorted(incomplete)),
        tuple(sorted(orphaned)),
        tuple(unreadable),
    )


def repair(
    ledger: Ledger,
    indexer: Indexer,
    embedder: Embedder,
    analyser: Analyser,
    chunking: ChunkConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    parts: Callable[[CollectionRecord], tuple[Embedder, Analyser, ChunkConfig]] | None = None,
) -> list[Repair]:
    """Make every index agree with the ledger; what is right already is left alone. Idempotent.

    ``parts`` gives what each collection is written with, in place of the three above. A collection of
    another embedder, chunker or analyser is left as it is, and told of. Raises UnavailableError while
    another process ingests.
    """
    ledger.own_ingestion()
    store = Store(ledger, indexer)
    store.recover()
    _drop_unknown(ledger, indexer)
    repairs = []
    for record in ledger.collections():
        if parts is not None:
            embedder, analyser, chunking = parts(record)
        try:
            require_same(record, embedder, analyser, chunking)
        except FingerprintMismatchError as error:
            repairs.append(Repair(record.tenant, record.name, 0, 0, refused=str(error)))
            continue
        _ensure_indexes(indexer, record, embedder.fingerprint.dim)
        found = _verify(ledger, indexer, record, files=False)
        watch = Watch(progress, cancelled, len(found.incomplete))
        rebuilt = partial(_entry, ledger, record, embedder=embedder, analyser=analyser, chunking=chunking)
        repairs.append(_mend(indexer, store, found, rebuilt, watch))
    return repairs


def _mend(
    indexer: Indexer,
    store: Store,
    found: Verification,
    rebuilt: Callable[[VersionKey], Entry],
    watch: Watch,
) -> Repair:
    """Delete what one collection has too much of and write what it lacks."""
    for layer in found.layers:
        for i in range(0, len(found.orphaned), 100):
            indexer.delete(layer.index, of_versions(found.orphaned[i : i + 100]))
    indexer.flush()
    failed = {}
    for key in found.incomplete:
        watch.enter("embedding", key.document_id)
        try:
            store.rewrite(key, rebuilt(key))
        except LongleafError as error:
            failed[key.document_id] = str(error)
        watch.moved("done", key.document_id, documents=1)
    changed = bool(found.incomplete or found.orphaned)
    for layer in (layer for layer in found.layers if changed or layer.problems):
        with suppress(DiskFullError):  # all is written; what only makes it faster waits for room
            indexer.optimize(layer.index)
    return Repair(
        found.tenant,
        found.collection,
        rebuilt_documents=len(found.incomplete) - len(failed),
        deleted_orphans=sum(layer.orphans for layer in found.layers),
        failed=failed,
    )


def _entry(
    ledger: Ledger,
    record: CollectionRecord,
    key: VersionKey,
    *,
    embedder: Embedder,
    analyser: Analyser,
    chunking: ChunkConfig,
) -> Entry:
    """The document again as it was written, from its stored text. Raises StorageError if its files are
    not what was written, and IndexDamagedError if the chunker now cuts it differently."""
    stored = ledger.document(key.tenant, key.collection, key.document_id)
    if not _readable(ledger, key, stored):
        raise StorageError(
            f"The stored files of {key.document_id!r} version {key.version} are missing or were changed.",
            remedy="Ingest the document again, or restore the data directory from a backup.",
        )
    document = ledger.originals.document(key)
    chunked = chunk(document, embedder.encode(document.text), chunking)
    if (len(chunked.passages), len(chunked.units)) != (stored.passages, stored.units):
        raise IndexDamagedError(
            f"{key.document_id!r} is now cut into {len(chunked.passages)} passages, not {stored.passages}.",
            remedy="Drop the collection and ingest its documents again, or use its old settings.",
        )
    values = {name: value for name, value in asdict(stored).items() if name in VersionRecord.__slots__}
    return Entry(
        VersionRecord(document_id=key.document_id, **values),
        chunked,
        embedder.embed_documents([chunked])[0],
        lexical(analyser, chunked, record.lexical["avg_len"]),
        None,
    )


def _key(document: DocumentRecord) -> VersionKey:
    return VersionKey(document.tenant, document.collection, document.id, document.version)


def _count(document: DocumentRecord, layer: Layer) -> int:
    return {"documents": 1, "passages": document.passages, "units": document.units}[layer]


def _present(indexer: Indexer, name: str, record: CollectionRecord) -> Iterator[tuple[str, VersionKey]]:
    if indexer.schema(name) is None:
        return
    for point, payload in indexer.points(name):
        yield point, VersionKey(record.tenant, record.name, payload["_document_id"], payload["_version"])


def _readable(ledger: Ledger, key: VersionKey, document: DocumentRecord) -> bool:
    try:
        text = ledger.originals.document(key).text
        with ledger.originals.original(key).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except NotFoundError:  # it was given as text, or its original is lost
        digest = hashlib.sha256(text.encode()).hexdigest()
    except (LongleafError, OSError):
        return False
    return len(text) == document.chars and digest == document.sha256


def _ensure_indexes(indexer: Indexer, record: CollectionRecord, dim: int) -> None:
    """Every layer exists and can be read; one that cannot is made anew."""
    for name, schema in schemas(record, dim).items():
        try:
            indexer.create(name, schema)
            indexer.count(name)
        except IndexDamagedError:
            indexer.drop(name)
            indexer.create(name, schema)


def _drop_unknown(ledger: Ledger, indexer: Indexer) -> None:
    """Indexes of collections that the ledger does not know."""
    known = {
        index_name(record.tenant, record.name, layer) for record in ledger.collections() for layer in LAYERS
    }
    for name in indexer.names():
        if name not in known and is_of_collection(name):  # generations that are not current are told apart
            indexer.drop(name)
