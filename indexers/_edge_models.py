"""Points, filters and searches in the types of the embedded engine. Imported by the engine's process only."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import qdrant_edge as qdrant

from indexers._projection import PAYLOAD

DENSE, SPARSE = "dense", "words"
_EXACT_LIMIT = 1000  # beyond this many matches a graph walk costs more than a scan
_ALL = qdrant.IdfParams(corpus=qdrant.Filter(must=[]))
_RESCORED = qdrant.QuantizationSearchParams(rescore=True, oversampling=2.0)


def vectors_of(
    count: int,
    dim: int | None,
    lexical: bool,
    arrays: Sequence[memoryview],
) -> Iterator[dict[str, Any]]:
    dense = arrays[0].cast("f") if dim else None
    lengths, indices, weights = (
        (arrays[-3].cast("i"), arrays[-2].cast("I"), arrays[-1].cast("f")) if lexical else (None, None, None)
    )
    end = 0
    for i in range(count):
        vector: dict[str, Any] = {}
        if dense is not None and dim:
            vector[DENSE] = floats(dense[i * dim : (i + 1) * dim])
        if lengths is not None and indices is not None and weights is not None:
            start, end = end, end + lengths[i]
            vector[SPARSE] = qdrant.SparseVector(indices[start:end].tolist(), floats(weights[start:end]))
        yield vector


def arrays_of(vectors: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Dense floats, lengths, indices and weights of stored vectors: what :func:`vectors_of` takes."""
    dense, lengths, indices, weights = array("f"), array("i"), array("I"), array("f")
    for vector in vectors:
        dense.fromlist(vector.get(DENSE, []))
        words = vector.get(SPARSE)
        lengths.append(len(words.indices) if words is not None else 0)
        if words is not None:
            indices.fromlist(words.indices)
            weights.fromlist(words.values)
    return [each.tobytes() for each in (dense, lengths, indices, weights)]


def floats(view: memoryview[Any]) -> list[float]:
    floats: list[Any] = view.cast("B").cast("f").tolist()
    return floats


def request_of(search: Mapping[str, Any], buffers: Iterator[memoryview], ef: int) -> qdrant.QueryRequest:
    limit = search["limit"]
    if search["using"] == DENSE:
        query: Any = floats(next(buffers))
        exact = limit > _EXACT_LIMIT
        params = qdrant.SearchParams(hnsw_ef=max(ef, 2 * limit), exact=exact, quantization=_RESCORED)
    else:
        query = qdrant.SparseVector(next(buffers).cast("I").tolist(), floats(next(buffers)))
        params = qdrant.SearchParams(idf=_ALL)  # counts the points there are now, not those once indexed
    return qdrant.QueryRequest(
        limit=limit,
        query=qdrant.Query.Nearest(query, search["using"]),
        filter=filter_of(search["where"]),
        with_payload=False,
        params=params,
    )


def payload_of(found: qdrant.ScoredPoint | qdrant.Record) -> str:
    return (found.payload or {})[PAYLOAD]  # type: ignore[no-any-return]


def filter_of(where: Mapping[str, Any]) -> qdrant.Filter:
    return qdrant.Filter(must=[condition(where)])


def condition(where: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the engine's many condition types
    """One condition of Qdrant's REST JSON, of the kinds that the projection writes."""
    for clause in ("must", "should", "must_not"):
        if clause in where:
            clauses: dict[str, Any] = {clause: [condition(part) for part in where[clause]]}
            return qdrant.Filter(**clauses)
    if "has_id" in where:
        return qdrant.HasIdCondition(set(where["has_id"]))
    if "is_empty" in where:
        return qdrant.IsEmptyCondition(where["is_empty"]["key"])
    if "range" in where:
        return qdrant.FieldCondition(where["key"], range=qdrant.RangeFloat(**where["range"]))
    match = where["match"]
    chosen = qdrant.MatchAny(match["any"]) if "any" in match else qdrant.MatchValue(match["value"])
    return qdrant.FieldCondition(where["key"], match=chosen)
