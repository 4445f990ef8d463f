"""Schemas, points, searches and filters in the models of ``qdrant-client``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from indexers._projection import FACTS, PAYLOAD, condition, range_fields, record
from pipeline.filters import EVERYTHING, Filter
from pipeline.points import PointBatch
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Match, Point, SparseVector, Vectors

DENSE, SPARSE = "dense", "words"
MAX_RANGE_INDEXES = 32
RANGE_INDEX = models.PayloadSchemaType.FLOAT

_EXACT_LIMIT = 1000  # beyond this many matches a graph walk costs more than a scan


def collection(schema: IndexSchema, *, quantized: bool, exact_below_points: int) -> dict[str, Any]:
    """Arguments of ``create_collection`` that follow from the schema."""
    dense = None
    if schema.dim is not None:
        # Vectors have length 1, so the dot product is the cosine and nothing is normalised again.
        dense = {DENSE: models.VectorParams(size=schema.dim, distance=models.Distance.DOT)}
    sparse = {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)} if schema.lexical else None
    scalar = models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    )
    threshold = models.OptimizersConfigDiff(
        indexing_threshold=max(1, exact_below_points * (schema.dim or 1) * 4 // 1024)  # kB
    )
    return {
        "vectors_config": dense or {},
        "sparse_vectors_config": sparse,
        "hnsw_config": models.HnswConfigDiff(m=16, ef_construct=128),
        "optimizers_config": threshold,
        "quantization_config": scalar if quantized and dense else None,
    }


def payload_indexes() -> list[tuple[str, Any]]:
    """Fields that are indexed before the first point comes, with their kinds."""
    facts = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False)
    return [(FACTS, facts)]


def structs(batch: PointBatch) -> list[models.PointStruct]:
    """Points as the server stores them."""
    ends = np.cumsum(batch.lengths) if batch.lengths is not None else None
    made = []
    for row, (key, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
        vector: dict[str, Any] = {}
        if batch.dense is not None:
            vector[DENSE] = batch.dense[row].tolist()
        if ends is not None and batch.indices is not None and batch.weights is not None:
            span = slice(ends[row - 1] if row else 0, ends[row])
            vector[SPARSE] = models.SparseVector(
                indices=batch.indices[span].tolist(), values=batch.weights[span].tolist()
            )
        made.append(models.PointStruct(id=key, vector=vector, payload=record(payload)))
    return made


def range_keys(points: Iterable[models.PointStruct]) -> set[str]:
    """Keys of numbers and dates among these points that deserve an index."""
    return set().union(*(range_fields(point.payload or {}) for point in points))


def filter_model(where: Filter) -> models.Filter:
    """A filter as the server takes it."""
    return models.Filter.model_validate({"must": [condition(where)]})


def selector(where: Filter) -> models.FilterSelector:
    """What a deletion is given."""
    return models.FilterSelector(filter=filter_model(where))


def request(search: IndexSearch, ef: int) -> models.QueryRequest:
    """One search of a batch."""
    query: Any
    if search.sparse is None:
        query = np.asarray(search.dense, np.float32).tolist()
        exact = search.limit > _EXACT_LIMIT
        params = models.SearchParams(
            hnsw_ef=max(ef, 2 * search.limit),
            exact=exact,
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0),
        )
    else:
        query = models.SparseVector(
            indices=search.sparse.indices.tolist(), values=search.sparse.values.tolist()
        )
        params = models.SearchParams(idf=models.IdfCorpusParams(corpus=models.Filter(must=[])))
    return models.QueryRequest(
        query=models.NearestQuery(nearest=query),
        using=DENSE if search.sparse is None else SPARSE,
        filter=filter_model(search.filter or EVERYTHING),
        params=params,
        limit=search.limit,
        with_payload=[PAYLOAD],
    )


def matches(found: Sequence[models.ScoredPoint]) -> list[Match]:
    """Best first; equal scores by id."""
    made = [Match(str(p.id), float(p.score), payload(p)) for p in found]
    return sorted(made, key=lambda match: (-match.score, match.id))


def payload(found: models.ScoredPoint | models.Record) -> Mapping[str, Any]:
    """The payload as it was given."""
    stored: dict[str, Any] = json.loads((found.payload or {})[PAYLOAD])
    return stored


def point(found: models.Record) -> Point:
    """A stored point with its vectors."""
    return Point(str(found.id), payload(found), *_stored(found))


def vectors(found: Iterable[models.Record]) -> dict[str, Vectors]:
    """Vectors of points that have a dense one, by id."""
    named = ((str(record.id), *_stored(record)) for record in found)
    return {key: Vectors(dense, words) for key, dense, words in named if dense is not None}


def _stored(found: models.Record) -> tuple[NDArray[np.float32] | None, SparseVector | None]:
    vectors: Mapping[str, Any] = found.vector if isinstance(found.vector, dict) else {}
    dense, words = vectors.get(DENSE), vectors.get(SPARSE)
    return None if dense is None else np.asarray(dense, np.float32), None if words is None else _sparse(words)


def _sparse(words: models.SparseVector) -> SparseVector:
    order = np.argsort(np.asarray(words.indices, np.uint32), kind="stable")
    return SparseVector(
        np.asarray(words.indices, np.uint32)[order], np.asarray(words.values, np.float32)[order]
    )


def consistency(wanted: int | str | None) -> Any:  # noqa: ANN401 - the client's number or enumeration
    """How many replicas a read asks, in the client's types."""
    return models.ReadConsistencyType(wanted) if isinstance(wanted, str) else wanted
