"""Exact search in numpy: the oracle of every other index, and enough for small collections.

All points are in memory. With a ``path``, ``flush`` writes each changed index as one ``.npz`` file,
written aside and renamed, so that a crash leaves the old state or the new one.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from indexers import _folders
from pipeline.errors import IndexDamagedError, IndexingError
from pipeline.filters import Filter, matches
from pipeline.originals import disk_errors
from pipeline.points import PointBatch, check_dense, check_schema, check_search, pack
from pipeline.seams import Indexer, IndexSchema, IndexSearch
from pipeline.types import Match, Point, SparseVector, Vectors


class Config(BaseModel):
    """Where, if anywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = None
    """Folder to keep the indexes in; without one they vanish with the process."""


TINY = Config()


def build(config: Config) -> Indexer:
    """Open the indexes under ``config.path``."""
    return ExactIndexer(config.path)


class ExactIndexer:
    """See :class:`pipeline.seams.Indexer`."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._indexes: dict[str, _Index] = {}
        self._changed: set[str] = set()
        self._closed = False
        if path is not None:
            with disk_errors(path):
                path.mkdir(parents=True, exist_ok=True)
            for name, manifest in _folders.manifests(path).items():
                self._indexes[name] = _read(_folders.folder(path, name) / "points.npz", manifest.schema)

    def create(self, name: str, schema: IndexSchema) -> None:
        """Make an empty index; nothing happens if it is there with this schema."""
        with self._lock:
            existing = self.schema(name)
            check_schema(name, schema, existing)
            if existing is None:
                self._indexes[name] = _Index(schema)
                self._changed.add(name)
                self.flush()

    def schema(self, name: str) -> IndexSchema | None:
        """The schema it was created with, or None."""
        with self._open():
            index = self._indexes.get(name)
            return index.schema if index else None

    def names(self) -> list[str]:
        """All indexes, sorted."""
        with self._open():
            return sorted(self._indexes)

    def drop(self, name: str) -> None:
        """Remove the index and its files."""
        with self._open():
            if self._indexes.pop(name, None) and self._path is not None:
                _folders.remove(self._path, name)
            self._changed.discard(name)

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Write points, replacing those of equal id, all or none."""
        with self._open():
            index = self._index(name)
            index.put(pack(name, index.schema, points))
            self._changed.add(name)

    def delete(self, name: str, where: Filter) -> None:
        """Remove every point that matches."""
        with self._open():
            self._index(name).remove(where)
            self._changed.add(name)

    def search(self, name: str, searches: Sequence[IndexSearch]) -> list[list[Match]]:
        """Matches best first, one list a search."""
        with self._open():
            index = self._index(name)
            for search in searches:
                check_search(name, index.schema, search)
            return [index.search(search) for search in searches]

    def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of points that match."""
        return sum(1 for _ in self.points(name, where))

    def points(self, name: str, where: Filter | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Id and payload of matching points, in id order."""
        with self._open():
            table = self._index(name).table()
            found = [(i, p) for i, p in zip(table.ids, table.payloads, strict=True) if _selects(where, p)]
        return iter(found)

    def read(self, name: str, where: Filter | None = None) -> Iterator[Point]:
        """Matching points with their vectors, in id order."""
        with self._open():
            return iter(self._index(name).read(where))

    def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vectors]:
        """Vectors of these points, by id."""
        with self._open():
            index = self._index(name)
            check_dense(name, index.schema)
            return index.vectors(ids)

    def problems(self, name: str) -> list[str]:
        """Nothing: what is wrong with it raises."""
        self._index(name)
        return []

    def flush(self) -> None:
        """Return once everything written would survive a power cut."""
        with self._open():
            for name in sorted(self._changed) if self._path is not None else ():
                self._write(name)
            self._changed.clear()

    def optimize(self, name: str) -> None:
        """Build what makes searching fast."""
        with self._open():
            self._index(name).table()

    def close(self) -> None:
        """Flush and let go; further calls raise."""
        with self._lock:
            if not self._closed:
                self.flush()
                self._closed = True

    def _open(self) -> threading.RLock:
        """The lock to hold during a call. Raises IndexingError once closed."""
        if self._closed:
            raise IndexingError("The index is closed.")
        return self._lock

    def _index(self, name: str) -> _Index:
        if name not in self._indexes:
            raise _folders.no_index(name)
        return self._indexes[name]

    def _write(self, name: str) -> None:
        index, path = self._indexes[name], _folders.folder(self._path or Path(), name)
        with disk_errors(path):
            path.mkdir(exist_ok=True)
        _folders.write_durably(path / "points.npz", index.table().serialise())
        _folders.write_manifest(path.parent, _folders.Manifest(name, index.schema, len(index.table().ids)))


class _Table:
    """The points of one index in id order, with what a scan needs."""

    def __init__(self, batch: PointBatch) -> None:
        self.batch = batch
        self.ids = batch.ids
        self.payloads: list[dict[str, Any]] = [json.loads(text) for text in batch.payloads]
        lengths = np.zeros(0, np.int32) if batch.lengths is None else batch.lengths
        self.rows = np.repeat(np.arange(len(lengths)), lengths)

    def scores(self, search: IndexSearch) -> NDArray[np.float64]:
        """One score a point, zero for a point that shares no word with a lexical query."""
        if search.sparse is None:
            assert self.batch.dense is not None
            return self.batch.dense.astype(np.float64) @ np.asarray(search.dense, np.float64)
        return self._bm25(search.sparse)

    def _bm25(self, query: SparseVector) -> NDArray[np.float64]:
        """Robertson and Zaragoza (2009), equation 3.15, with the idf of Lucene: never negative."""
        assert self.batch.indices is not None
        assert self.batch.weights is not None
        scores = np.zeros(len(self.ids))
        for term, weight in zip(query.indices, query.values.astype(np.float64), strict=True):
            at = np.flatnonzero(self.batch.indices == term)
            idf = np.log1p((len(scores) - len(at) + 0.5) / (len(at) + 0.5))
            scores[self.rows[at]] += weight * idf * self.batch.weights[at]
        return scores

    def serialise(self) -> bytes:
        """The points as an ``.npz`` file without pickled objects."""
        arrays = {k: getattr(self.batch, k) for k in ("dense", "lengths", "indices", "weights")}
        text = json.dumps([self.ids, self.batch.payloads], ensure_ascii=False).encode()
        file = io.BytesIO()
        np.savez(
            file,
            text=np.frombuffer(text, np.uint8),
            **{k: v for k, v in arrays.items() if v is not None},
        )
        return file.getvalue()


class _Index:
    """Points by id; the table is rebuilt when it is asked for after a change."""

    def __init__(self, schema: IndexSchema) -> None:
        self.schema = schema
        self._points: dict[str, tuple[str, NDArray[np.float32] | None, SparseVector | None]] = {}
        self._table: _Table | None = None

    def put(self, batch: PointBatch) -> None:
        ends = np.cumsum(batch.lengths) if batch.lengths is not None else None
        for row, (key, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
            dense = batch.dense[row] if batch.dense is not None else None
            sparse = None
            if batch.indices is not None and batch.weights is not None and ends is not None:
                span = slice(ends[row - 1] if row else 0, ends[row])
                sparse = SparseVector(batch.indices[span], batch.weights[span])
            self._points[key] = payload, dense, sparse
        self._table = None

    def remove(self, where: Filter) -> None:
        self._points = {k: v for k, v in self._points.items() if not matches(where, json.loads(v[0]))}
        self._table = None

    def read(self, where: Filter | None) -> list[Point]:
        points = (Point(key, json.loads(p), d, s) for key, (p, d, s) in sorted(self._points.items()))
        return [point for point in points if _selects(where, point.payload)]

    def vectors(self, ids: Sequence[str]) -> dict[str, Vectors]:
        found = ((key, self._points[key]) for key in ids if key in self._points)
        return {key: Vectors(dense.copy(), sparse) for key, (_, dense, sparse) in found if dense is not None}

    def table(self) -> _Table:
        if self._table is None:
            self._table = _Table(pack("", self.schema, self.read(None)))
        return self._table

    def search(self, search: IndexSearch) -> list[Match]:
        table = self.table()
        scores = table.scores(search)
        found = np.flatnonzero(scores > 0) if search.sparse is not None else np.arange(len(scores))
        kept = [row for row in found.tolist() if _selects(search.filter, table.payloads[row])]
        kept.sort(key=lambda row: (-scores[row], row))
        return [
            Match(table.ids[row], float(scores[row]), table.payloads[row]) for row in kept[: search.limit]
        ]


def _selects(where: Filter | None, payload: Mapping[str, Any]) -> bool:
    return where is None or matches(where, payload)


def _read(path: Path, schema: IndexSchema) -> _Index:
    """Raises IndexDamagedError if the file is missing, cut short or changed."""
    index = _Index(schema)
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, payloads = json.loads(file["text"].tobytes())
            arrays = [file.get(k) for k in ("dense", "lengths", "indices", "weights")]
        index.put(PointBatch(ids, payloads, *arrays))
        index.table()
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile, IndexingError) as error:
        raise IndexDamagedError(f"{path} is unreadable: {error!r}.", remedy=_folders.REBUILD) from error
    return index
