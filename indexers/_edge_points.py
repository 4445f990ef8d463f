"""Points as they cross to the embedded engine's process and back: JSON texts and raw arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers._edge_process import Buffer
from pipeline.points import PointBatch
from pipeline.seams import IndexSchema
from pipeline.types import Point, SparseVector


def buffers(batch: PointBatch, part: slice) -> list[Buffer]:
    """A slice of the batch as the engine's process takes it."""
    ids, payloads = json.dumps(batch.ids[part]).encode(), json.dumps(batch.payloads[part]).encode()
    made: list[Buffer] = [ids, payloads]
    if batch.dense is not None:
        made.append(batch.dense[part].tobytes())
    if batch.lengths is not None and batch.indices is not None and batch.weights is not None:
        start = int(batch.lengths[: part.start].sum())
        entries = slice(start, start + int(batch.lengths[part].sum()))
        arrays = batch.lengths[part], batch.indices[entries], batch.weights[entries]
        made += [array.tobytes() for array in arrays]
    return made


def whole_points(
    texts: Sequence[tuple[str, Mapping[str, Any]]], schema: IndexSchema, arrays: Sequence[memoryview]
) -> Iterator[Point]:
    """A page of whole points from what the engine's process answered."""
    for (key, payload), (dense, sparse) in zip(texts, stored_vectors(schema, arrays), strict=True):
        yield Point(key, payload, dense, sparse)


def stored_vectors(
    schema: IndexSchema, arrays: Sequence[memoryview]
) -> Iterator[tuple[NDArray[np.float32] | None, SparseVector | None]]:
    """Vectors of points, in order, from dense floats, lengths, indices and weights."""
    lengths, indices = np.frombuffer(arrays[1], np.int32), np.frombuffer(arrays[2], np.uint32)
    weights = np.frombuffer(arrays[3], np.float32)
    dense = np.frombuffer(arrays[0], np.float32).reshape(len(lengths), schema.dim or 0)
    for row, (length, end) in enumerate(zip(lengths.tolist(), np.cumsum(lengths).tolist(), strict=True)):
        order = np.argsort(indices[end - length : end], kind="stable") + (end - length)
        sparse = SparseVector(indices[order], weights[order]) if schema.lexical else None
        yield dense[row] if schema.dim else None, sparse
