"""What may be written to an index and asked of it, checked before anything happens.

Every index checks through here, so that a wrong dimension, a NaN or a vector that is not unit length
is refused with the same words by all of them, and none writes half of a batch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import FingerprintMismatchError, IndexingError
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Point, SparseVector

MAX_LIMIT = 10_000
MAX_NAME_CHARS = 1_000
UNIT_TOLERANCE = 1e-3  # bfloat16 models and float16 stores round norms by less

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Checked points as arrays, in the order given and without repeated ids.

    ``dense`` is float32 ``(n, dim)`` or None. The sparse vectors lie end to end in ``indices`` and
    ``weights``, ``lengths`` entries each; all three are None without a lexical part. ``payloads``
    are JSON texts.
    """

    ids: list[str]
    payloads: list[str]
    dense: NDArray[np.float32] | None
    lengths: NDArray[np.int32] | None
    indices: NDArray[np.uint32] | None
    weights: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.ids)


def check_name(name: str) -> None:
    """Raise IndexingError unless ``name`` can name an index."""
    if not 0 < len(name) <= MAX_NAME_CHARS or "\0" in name or not name.isprintable():
        raise IndexingError(
            f"An index cannot be named {name[:80]!a} ({len(name)} characters).",
            remedy=f"Names are 1 to {MAX_NAME_CHARS} printable characters.",
        )


def check_schema(name: str, wanted: IndexSchema, existing: IndexSchema | None) -> None:
    """Raise IndexingError for a schema that holds nothing, FingerprintMismatchError if the existing
    index holds something else."""
    check_name(name)
    if wanted.dim is None and not wanted.lexical:
        raise IndexingError(f"Index {name!r} would hold neither vectors nor words.")
    if wanted.dim is not None and wanted.dim < 1:
        raise IndexingError(f"Index {name!r} cannot have vectors of {wanted.dim} dimensions.")
    if existing is None:
        return
    held = (existing.fingerprint, existing.dim, existing.lexical)
    if held != (wanted.fingerprint, wanted.dim, wanted.lexical):
        raise FingerprintMismatchError(
            f"Index {name!r} was built with [{existing.fingerprint}] (dim {existing.dim}, lexical "
            f"{existing.lexical}) and cannot hold [{wanted.fingerprint}] (dim {wanted.dim}, lexical "
            f"{wanted.lexical}).",
            remedy="Restore the settings it was built with, or build it anew with `longleaf reindex`.",
        )


def pack(name: str, schema: IndexSchema, points: Sequence[Point]) -> PointBatch:
    """Check every point against the schema and lay them out as arrays.

    Of points with equal ids the last is kept. Raises IndexingError naming the first bad point.
    """
    kept = list({point.id: point for point in points}.values())
    for point in kept:
        if not _UUID.fullmatch(point.id):
            raise IndexingError(f"Point id {point.id!r} is not a lower-case UUID.")
        if (point.dense is None) != (schema.dim is None) or (point.sparse is None) == schema.lexical:
            raise IndexingError(
                f"Point {point.id} has {_parts(point)}, but index {name!r} has dim {schema.dim} and "
                f"lexical {schema.lexical}."
            )
    return PointBatch(
        [point.id for point in kept],
        [_json(point) for point in kept],
        _stack(schema.dim, kept) if schema.dim is not None else None,
        *(_concatenate(kept) if schema.lexical else (None, None, None)),
    )


def check_search(name: str, schema: IndexSchema, search: IndexSearch) -> None:
    """Raise IndexingError for a search that this index cannot answer."""
    if not 1 <= search.limit <= MAX_LIMIT:
        raise IndexingError(f"A search asks for {search.limit} matches; the limit is 1 to {MAX_LIMIT}.")
    if (search.dense is None) == (search.sparse is None):
        raise IndexingError("A search has exactly one of a dense and a sparse query.")
    if search.dense is not None:
        if schema.dim is None:
            raise IndexingError(f"Index {name!r} has no vectors to search.")
        check_vectors(np.asarray(search.dense, np.float32)[None], schema.dim, ["the query"])
    elif search.sparse is not None:
        if not schema.lexical:
            raise IndexingError(f"Index {name!r} has no words to search.")
        _check_sparse(search.sparse, "the query")


def check_dense(name: str, schema: IndexSchema) -> int:
    """The width of this index's vectors. Raise IndexingError if it has none."""
    if schema.dim is None:
        raise IndexingError(f"Index {name!r} has no vectors.")
    return schema.dim


def check_vectors(vectors: NDArray[np.float32], dim: int, labels: Sequence[str]) -> None:
    """Raise IndexingError naming the first row of float32 ``(n, dim)`` that is no unit vector."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise IndexingError(
            f"The vector of {labels[0]} has shape {vectors.shape[1:]}; the index has ({dim},)."
        )
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))
    if bad.size:
        what = f"length {norms[bad[0]]:.4g}" if np.isfinite(norms[bad[0]]) else "a value that is not finite"
        raise IndexingError(f"The vector of {labels[bad[0]]} has {what}; vectors have length 1.")


def _parts(point: Point) -> str:
    parts = [n for n, v in (("a dense vector", point.dense), ("words", point.sparse)) if v is not None]
    return " and ".join(parts) or "no vector"


def _json(point: Point) -> str:
    try:
        text = json.dumps(point.payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise IndexingError(f"The payload of point {point.id} is not JSON: {error}.") from error
    return text


def _stack(dim: int, points: Sequence[Point]) -> NDArray[np.float32]:
    if not points:
        return np.empty((0, dim), np.float32)
    rows = [np.asarray(point.dense, np.float32) for point in points]
    for row, point in zip(rows, points, strict=True):
        if row.shape != (dim,):
            check_vectors(row[None], dim, [f"point {point.id}"])
    vectors = np.stack(rows)
    check_vectors(vectors, dim, [f"point {point.id}" for point in points])
    return vectors


def _concatenate(
    points: Sequence[Point],
) -> tuple[NDArray[np.int32], NDArray[np.uint32], NDArray[np.float32]]:
    sparse = [point.sparse for point in points if point.sparse is not None]
    for vector, point in zip(sparse, points, strict=True):
        _check_sparse(vector, f"point {point.id}")
    return (
        np.array([len(vector.indices) for vector in sparse], np.int32),
        np.concatenate([np.empty(0, np.uint32), *(vector.indices for vector in sparse)]),
        np.concatenate([np.empty(0, np.float32), *(vector.values for vector in sparse)]),
    )


def _check_sparse(vector: SparseVector, label: str) -> None:
    indices, values = vector.indices, vector.values
    if indices.dtype != np.uint32 or values.dtype != np.float32 or indices.shape != values.shape:
        raise IndexingError(f"The words of {label} are not uint32 indices with a float32 weight each.")
    if (indices[1:] <= indices[:-1]).any():
        raise IndexingError(f"The words of {label} are not in ascending order without repeats.")
    if not (np.isfinite(values) & (values > 0)).all():
        raise IndexingError(f"The words of {label} have weights that are not positive numbers.")
