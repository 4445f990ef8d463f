"""Indexing a collection anew, with another embedder, chunker or analyser, while readers use it as it is.

The new generation is built beside the current one from the stored documents. One transaction then makes the
collection what the new one is, and the old one is dropped. Interrupted work goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from pipeline.aliases import generation_name
from pipeline.cached_states import VersionCache
from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import DiskFullError, IndexDamagedError, IndexingError, StorageError
from pipeline.layers import LAYERS, Layer, index_name, of_versions, points, schemas
from pipeline.ledger import Ledger
from pipeline.ledger_collections import Cut
from pipeline.lexical import Analyser
from pipeline.preparing import lexical, typical_lengths
from pipeline.records import CollectionRecord, DocumentRecord, VersionKey
from pipeline.seams import Embedder, Indexer, IndexSchema
from pipeline.storing import Store
from pipeline.types import ChunkedDocument
from pipeline.watch import Progress, Watch

_FIRST_DOCUMENTS = 50  # these say how long documents are, as the first ones of an ingestion do
_UPSERT_POINTS = 2_000


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What was built, how many documents an interrupted run had built already, and how many are cut into
    other passages than before (counted only for caches)."""

    tenant: str
    collection: str
    generation: int
    documents: int
    resumed: int
    passages: int
    units: int
    recut: int = 0


def reindex(
    ledger: Ledger,
    indexer: Indexer,
    embedder: Embedder,
    analyser: Analyser,
    chunking: ChunkConfig,
    *,
    caches: Sequence[VersionCache] = (),
    tenant: str = "default",
    collection: str = "default",
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Reindexed:
    """Build the collection with these parts, switch to it, and drop what was before.

    ``indexer`` is an :class:`~pipeline.aliases.Aliased` one. ``caches`` lose the versions that get other
    passages before the switch, so that none is left behind, and again after it, because another process may
    have stored the old ones meanwhile; then they are told of the new ones. Raises NotFoundError;
    UnavailableError while another process ingests; StorageError if a stored document cannot be read or a
    cache refuses. Until it returns, readers see the collection as it was; after an error or a cancellation
    they still do.
    """
    ledger.own_ingestion()
    Store(ledger, indexer, caches).recover()
    before = ledger.collection(tenant, collection)
    generation = before.settings.get("building") or before.settings.get("generation", 0) + 1
    documents = list(ledger.every_document(tenant, collection))
    names: dict[Layer, str] = {
        layer: generation_name(index_name(tenant, collection, layer), generation) for layer in LAYERS
    }
    fingerprint, cutting = str(embedder.fingerprint), asdict(chunking)
    begun = before.settings.get("building_with")
    if begun and (begun["fingerprint"], begun["chunking"], begun["lexical"]["analyser"]) == (
        fingerprint,
        cutting,
        analyser.parameters,
    ):
        words = begun["lexical"]
    else:
        for name in names.values():
            indexer.drop(name)
        averages = _average_lengths(ledger, documents, embedder, analyser, chunking)
        words = {"analyser": analyser.parameters, "avg_len": averages or before.lexical["avg_len"]}
    target = replace(before, fingerprint=fingerprint, chunking=cutting, lexical=words)
    ledger.begin_generation(target, generation)
    _create(indexer, names, schemas(target, embedder.fingerprint.dim))
    watch = Watch(progress, cancelled, len(documents))
    cuts: dict[VersionKey, Cut] = {}
    recut: list[VersionKey] = []
    resumed = 0
    for document in documents:
        key = VersionKey(tenant, collection, document.id, document.version)
        watch.enter("chunking", document.id)
        stored = ledger.originals.document(key)
        chunked = chunk(stored, embedder.encode(stored.text), chunking)
        if caches and _is_recut(indexer, key, chunked):
            recut.append(key)
        watch.enter("embedding", document.id)
        windowing = _build(indexer, names, key, chunked, embedder, analyser, target, document.metadata)
        resumed += windowing is None
        cuts[key] = Cut(
            len(chunked.encoding),
            len(chunked.passages),
            len(chunked.units),
            windowing if windowing is not None else document.windowing,
        )
        watch.moved("done", document.id, documents=1)
    _settle(indexer, names, cuts)
    for cache in caches:
        cache.remove(recut)
    ledger.switch_generation(target, generation, cuts)
    previous = before.settings.get("generation", 0)
    for layer in LAYERS:
        indexer.drop(generation_name(index_name(tenant, collection, layer), previous))
    for cache in caches:
        with suppress(StorageError):  # the switch is made, and what is left takes only room
            cache.remove(recut)
        cache.added(recut)
    passages, units = (sum(getattr(cut, name) for cut in cuts.values()) for name in ("passages", "units"))
    return Reindexed(tenant, collection, generation, len(cuts), resumed, passages, units, len(recut))


def _average_lengths(
    ledger: Ledger,
    documents: Sequence[DocumentRecord],
    embedder: Embedder,
    analyser: Analyser,
    chunking: ChunkConfig,
) -> Mapping[str, float]:
    chunked = []
    for document in islice(documents, _FIRST_DOCUMENTS):
        key = VersionKey(document.tenant, document.collection, document.id, document.version)
        stored = ledger.originals.document(key)
        chunked.append(chunk(stored, embedder.encode(stored.text), chunking))
    return typical_lengths(analyser, chunked, chunking) if chunked else {}


def _create(indexer: Indexer, names: Mapping[Layer, str], wanted: Mapping[str, IndexSchema]) -> None:
    """The empty indexes; those of an interrupted run stay, if they can be read."""
    for name, schema in zip(names.values(), wanted.values(), strict=True):
        try:
            indexer.create(name, schema)
            indexer.count(name)
        except IndexDamagedError:
            indexer.drop(name)
            indexer.create(name, schema)


def _build(  # noqa: PLR0917 - one value of each stage
    indexer: Indexer,
    names: Mapping[Layer, str],
    key: VersionKey,
    chunked: ChunkedDocument,
    embedder: Embedder,
    analyser: Analyser,
    target: CollectionRecord,
    metadata: Mapping[str, Any],
) -> str | None:
    """Write one document; how its text was covered, or None if all of it was there."""
    where = of_versions([key])
    expected = {"documents": 1, "passages": len(chunked.passages), "units": len(chunked.units)}
    if all(indexer.count(name, where) == expected[layer] for layer, name in names.items()):
        return None
    vectors = embedder.embed_documents([chunked])[0]
    words = lexical(analyser, chunked, target.lexical["avg_len"])
    for layer, made in points(key, chunked, vectors, words, metadata).items():
        indexer.delete(names[layer], where)
        for start in range(0, len(made), _UPSERT_POINTS):
            indexer.upsert(names[layer], made[start : start + _UPSERT_POINTS])
    indexer.flush()
    return vectors.windowing


def _is_recut(indexer: Indexer, key: VersionKey, chunked: ChunkedDocument) -> bool:
    """Whether the current index has other passages of this version, or cannot tell."""
    name = index_name(key.tenant, key.collection, "passages")
    try:
        current = {(at["_start"], at["_end"]) for _, at in indexer.points(name, of_versions([key]))}
    except IndexingError:
        return True
    return current != {(passage.start, passage.end) for passage in chunked.passages}


def _settle(indexer: Indexer, names: Mapping[Layer, str], cuts: Mapping[VersionKey, Cut]) -> None:
    """Make searches fast. Raises IndexingError unless there is exactly what there should be."""
    indexer.flush()
    for layer, name in names.items():
        with suppress(DiskFullError):  # searches work without
            indexer.optimize(name)
        expected = len(cuts) if layer == "documents" else sum(getattr(cut, layer) for cut in cuts.values())
        found = indexer.count(name)
        if found != expected:
            raise IndexingError(
                f"Index {name!r} has {found} points after building, not {expected}.",
                remedy="Documents changed meanwhile: reindex again.",
            )
