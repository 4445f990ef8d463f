"""The three indexes of a collection, and the points a document has in them.

========= ====== ======= ==========================================================
layer     dense  lexical one point for
========= ====== ======= ==========================================================
documents no     yes     the whole text: finds topics that no single passage carries
passages  yes    yes     a passage: what is read
units     yes    no      a small unit: what is found
========= ====== ======= ==========================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.filters import And, Equals, Filter, Or
from pipeline.records import CollectionRecord, VersionKey, derived_id
from pipeline.seams import IndexSchema
from pipeline.types import Chunk, ChunkedDocument, DocumentEmbeddings, Point, SparseVector

Layer = Literal["documents", "passages", "units"]
LAYERS: tuple[Layer, ...] = ("documents", "passages", "units")


@dataclass(frozen=True, slots=True)
class Lexical:
    """Lexical weights of one document: of its whole text, and of each passage in order."""

    document: SparseVector
    passages: tuple[SparseVector, ...]


def index_name(tenant: str, collection: str, layer: Layer) -> str:
    """Name of one layer's index."""
    return f"{tenant}/{collection}/{layer}"


def is_of_collection(name: str) -> bool:
    """Whether an index of this name, in whatever generation, is a collection's and thus the ledger's."""
    base = name.partition("@")[0]
    return base.count("/") == 2 and base.rpartition("/")[2] in LAYERS


def schemas(record: CollectionRecord, dim: int) -> dict[str, IndexSchema]:
    """Schema of every layer of a collection, by index name. ``dim`` is the width of its vectors."""
    terms = record.lexical["analyser"]
    averages = record.lexical["avg_len"]
    made = {
        "documents": IndexSchema(record.fingerprint, None, True, {**terms, "avg_len": averages["documents"]}),
        "passages": IndexSchema(record.fingerprint, dim, True, {**terms, "avg_len": averages["passages"]}),
        "units": IndexSchema(record.fingerprint, dim, False, {}),
    }
    return {index_name(record.tenant, record.name, layer): made[layer] for layer in LAYERS}


def point_id(key: VersionKey, layer: Layer, ordinal: int) -> str:
    """The id that this point has, always: writing it twice has one effect."""
    return derived_id(key.tenant, key.collection, key.document_id, key.version, layer, ordinal)


def expected_ids(key: VersionKey, layer: Layer, count: int) -> Iterator[str]:
    """Ids of the ``count`` points that a version has in a layer."""
    return (point_id(key, layer, ordinal) for ordinal in range(count))


def points(
    key: VersionKey,
    chunked: ChunkedDocument,
    embeddings: DocumentEmbeddings,
    lexical: Lexical,
    metadata: Mapping[str, Any],
) -> dict[Layer, list[Point]]:
    """Every point of one version, by layer."""
    shared = {
        **metadata,
        "_document_id": key.document_id,
        "_version": key.version,
        "_title": chunked.document.title,
    }
    return {
        "documents": [
            Point(point_id(key, "documents", 0), {**shared, "_ordinal": 0}, sparse=lexical.document)
        ],
        "passages": [
            Point(point_id(key, "passages", chunk.ordinal), {**shared, **_place(chunk)}, vector, sparse)
            for chunk, vector, sparse in zip(
                chunked.passages, embeddings.passages, lexical.passages, strict=True
            )
        ],
        "units": [
            Point(point_id(key, "units", chunk.ordinal), {**shared, **_place(chunk)}, vector)
            for chunk, vector in zip(chunked.units, embeddings.units, strict=True)
        ],
    }


def _place(chunk: Chunk) -> dict[str, Any]:
    place: dict[str, Any] = {
        "_ordinal": chunk.ordinal,
        "_parent": chunk.parent,
        "_start": chunk.start,
        "_end": chunk.end,
        "_tokens": chunk.token_end - chunk.token_start,
        "_section": chunk.section,
    }
    if chunk.page_start is not None:
        place |= {"_page_start": chunk.page_start, "_page_end": chunk.page_end}
    return place


def of_versions(keys: Sequence[VersionKey]) -> Filter:
    """Points that belong to any of these versions, whatever their collection."""
    return Or(
        tuple(And((Equals("_document_id", key.document_id), Equals("_version", key.version))) for key in keys)
    )
