"""What the engine's process does: one shard of the embedded Qdrant an index, opened when needed.

Shards have no write-ahead log: it would hold every point twice on disk and be replayed at each start,
while an acknowledged write is promised only once :meth:`Shards.flush` returned, which syncs files
without it. A crash before that leaves the shard as it was flushed, or with some later points whole.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as qdrant

from indexers._edge_kept import keys_in
from indexers._edge_models import DENSE, SPARSE, arrays_of, filter_of, payload_of, request_of, vectors_of
from indexers._edge_worker import translated
from indexers._projection import FACTS, PAYLOAD, range_fields, record
from pipeline import durable
from pipeline.errors import DiskFullError, IndexDamagedError

_MAX_OPEN = 48
_MAX_RANGE_INDEXES = 32

Reply = tuple[dict[str, Any], list[bytes]]


class Shards:
    """Every method answers one kind of request; paths are folders of shards."""

    def __init__(self, opening: Callable[[str], None]) -> None:
        """``opening`` is told a path before the engine reads it, so that a crash can be blamed."""
        self._opening = opening
        self._open: OrderedDict[str, qdrant.EdgeShard] = OrderedDict()
        self._range_fields: dict[str, set[str]] = {}

    def create(
        self, path: str, dim: int | None, lexical: bool, exact_below_points: int, quantized: bool
    ) -> Reply:
        """Make an empty shard in place of whatever an interrupted attempt left there."""
        _check_space(path, 1 << 20, 0)
        self.release(path)
        shutil.rmtree(path, ignore_errors=True)
        Path(path).mkdir(parents=True)
        threshold_kb = max(1, exact_below_points * (dim or 0) * 4 // 1024) if dim else 1000
        dense = {DENSE: _dense(dim, quantized=quantized)} if dim else {}
        sparse = {SPARSE: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)} if lexical else {}
        shard = qdrant.EdgeShard.create(
            path,
            qdrant.EdgeConfig(
                vectors=dense,
                sparse_vectors=sparse,
                hnsw_config=qdrant.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=10_000),
                optimizers=_optimizers(threshold_kb),
                wal_enabled=False,
            ),
        )
        facts = qdrant.IntegerIndexParams(lookup=True, range=False)
        shard.update(qdrant.UpdateOperation.create_field_index(FACTS, facts))
        self._keep(path, shard)
        return self.flush([path])

    def upsert(
        self,
        ids: memoryview,
        payloads: memoryview,
        *arrays: memoryview,
        path: str,
        dim: int | None,
        lexical: bool,
        reserve_bytes: int,
    ) -> Reply:
        """Write points: ids and payloads as JSON lists, then dense floats, then lengths, indices, weights."""
        _check_space(path, 4 * sum(len(a) for a in (ids, payloads, *arrays)), reserve_bytes)
        shard = self._shard(path)
        records = [record(payload) for payload in json.loads(bytes(payloads))]
        self._index_ranges(path, shard, records)
        vectors = vectors_of(len(records), dim, lexical, arrays)
        points = [
            qdrant.Point(key, vector, stored)
            for key, vector, stored in zip(json.loads(bytes(ids)), vectors, records, strict=True)
        ]
        shard.update(qdrant.UpdateOperation.upsert_points(points))
        return {}, []

    def delete(self, path: str, where: Mapping[str, Any]) -> Reply:
        """Remove what matches."""
        self._shard(path).update(qdrant.UpdateOperation.delete_points_by_filter(filter_of(where)))
        return {}, []

    def search(
        self, *queries: memoryview, path: str, searches: Sequence[Mapping[str, Any]], ef: int
    ) -> Reply:
        """Ids of 16 bytes and float32 scores of all searches, one after the other, and how many each has.
        A dense search has one buffer, a sparse one two: indices and weights."""
        buffers = iter(queries)
        requests = [request_of(search, buffers, ef) for search in searches]
        found = self._shard(path).query_batch(qdrant.QueryBatchRequest(requests))
        ids = b"".join([hit.id.bytes for hits in found for hit in hits])  # type: ignore[union-attr]
        scores = array("f", [hit.score for hits in found for hit in hits])
        return {"counts": [len(hits) for hits in found]}, [ids, scores.tobytes()]

    def payloads(self, ids: memoryview, path: str) -> Reply:
        """A JSON list of ``[id, payload]`` of those points that there are, of ids of 16 bytes."""
        wanted: list[Any] = [uuid.UUID(bytes=key) for key in keys_in(ids)]
        records = self._shard(path).retrieve(wanted, with_payload=[PAYLOAD], with_vector=False)
        text = ",".join(f'["{r.id}",{payload_of(r)}]' for r in records)
        return {}, [f"[{text}]".encode()]

    def vectors(self, ids: memoryview, path: str) -> Reply:
        """Ids of 16 bytes of those points that there are, then their vectors as :meth:`upsert` takes them."""
        wanted: list[Any] = [uuid.UUID(bytes=key) for key in keys_in(ids)]
        records: list[Any] = self._shard(path).retrieve(wanted, with_payload=False, with_vector=True)
        return {}, [b"".join(r.id.bytes for r in records), *arrays_of([r.vector for r in records])]

    def count(self, path: str, where: Mapping[str, Any]) -> Reply:
        """Exact number of matching points."""
        return {
            "count": self._shard(path).count(qdrant.CountRequest(exact=True, filter=filter_of(where)))
        }, []

    def scroll(self, path: str, where: Mapping[str, Any], start: str | None, limit: int) -> Reply:
        """A page of ``[id, payload]`` in id order from ``start`` on, and where the next page starts."""
        request = qdrant.ScrollRequest(
            offset=start, limit=limit, filter=filter_of(where), with_payload=[PAYLOAD], with_vector=False
        )
        records, following = self._shard(path).scroll(request)
        text = ",".join(f'["{r.id}",{payload_of(r)}]' for r in records)
        return {"next": None if following is None else str(following)}, [f"[{text}]".encode()]

    def read(self, path: str, where: Mapping[str, Any], start: str | None, limit: int) -> Reply:
        """A page of whole points: ``[id, payload]`` as JSON, then their vectors as :meth:`upsert` takes
        them, and where the next page starts."""
        request = qdrant.ScrollRequest(
            offset=start, limit=limit, filter=filter_of(where), with_payload=[PAYLOAD], with_vector=True
        )
        records, following = self._shard(path).scroll(request)
        text = ",".join(f'["{r.id}",{payload_of(r)}]' for r in records)
        vectors: list[Any] = [r.vector for r in records]
        answer = {"next": None if following is None else str(following)}
        return answer, [f"[{text}]".encode(), *arrays_of(vectors)]

    def flush(self, paths: Sequence[str]) -> Reply:
        """Sync these shards; the number of points in each."""
        for path in paths:
            self._shard(path).flush()
            for folder, _, _ in os.walk(path):
                durable.sync(Path(folder))
        return {"points": [self._contents(path)["points"] for path in paths]}, []

    def contents(self, path: str) -> Reply:
        """The number of points, and how many of them the index of facts knows."""
        return self._contents(path), []

    def _contents(self, path: str) -> dict[str, Any]:
        shard = self._shard(path)
        facts = shard.info().payload_schema.get(FACTS)
        points = shard.count(qdrant.CountRequest(exact=True))
        return {"points": points, "filterable": facts.points if facts else 0}

    def optimize(self, path: str, reserve_bytes: int) -> Reply:
        """Merge and index segments where that is due."""
        size = sum(f.stat().st_blocks * 512 for f in Path(path).rglob("*") if f.is_file())
        _check_space(path, size, reserve_bytes)
        return {"changed": self._shard(path).optimize()}, []

    def release(self, path: str) -> Reply:
        """Close a shard so that its folder can be removed."""
        shard = self._open.pop(path, None)
        if shard is not None:
            shard.close()
        return {}, []

    def close(self) -> None:
        """Close every shard."""
        for path in list(self._open):
            self.release(path)

    def _shard(self, path: str) -> qdrant.EdgeShard:
        shard = self._open.get(path)
        if shard is None:
            self._opening(path)
            try:
                shard = qdrant.EdgeShard.load(path)
            except BaseException as error:  # the engine may panic, and a panic is no Exception
                raise translated(error, IndexDamagedError) from error
            self._keep(path, shard)
        self._open.move_to_end(path)
        return shard

    def _keep(self, path: str, shard: qdrant.EdgeShard) -> None:
        self._open[path] = shard
        self._range_fields[path] = set(shard.info().payload_schema)
        while len(self._open) > _MAX_OPEN:
            oldest = self._open.popitem(last=False)[1]
            oldest.flush()
            oldest.close()

    def _index_ranges(self, path: str, shard: qdrant.EdgeShard, records: Sequence[Mapping[str, Any]]) -> None:
        known = self._range_fields[path]
        for field in sorted(set().union(*map(range_fields, records)) - known):
            if len(known) <= _MAX_RANGE_INDEXES:  # a range on any further field reads payloads
                shard.update(qdrant.UpdateOperation.create_field_index(field, qdrant.PayloadSchemaType.Float))
                known.add(field)


def _optimizers(indexing_threshold_kb: int) -> qdrant.EdgeOptimizersConfig:
    """One segment, written anew whenever anything in it was deleted: the engine only marks what is deleted,
    so until then the text stays readable in its files."""
    return qdrant.EdgeOptimizersConfig(
        indexing_threshold=indexing_threshold_kb,
        default_segment_number=1,
        deleted_threshold=0.0,
        vacuum_min_vector_number=0,
    )


def _check_space(path: str, needed_bytes: int, reserve_bytes: int) -> None:
    """Refuse a write before it starts: the engine writes through memory maps, where a full disk kills."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    if free < needed_bytes + reserve_bytes:
        raise DiskFullError(
            f"The disk of {path} has {free:,} bytes free; this write needs {needed_bytes:,} and "
            f"{reserve_bytes:,} are kept in reserve.",
            remedy="Free space there and try again.",
        )


def _dense(dim: int, *, quantized: bool) -> qdrant.EdgeVectorParams:
    """How vectors are kept. Quantised, a byte a dimension stays in memory, once optimised, and proposes
    what the vectors on disk then score."""
    if not quantized:
        return qdrant.EdgeVectorParams(size=dim, distance=qdrant.Distance.Dot)
    bytes_ = qdrant.ScalarQuantizationConfig(
        type=qdrant.ScalarType.Int8, quantile=0.99, memory=qdrant.Memory.Pinned
    )
    return qdrant.EdgeVectorParams(
        size=dim, distance=qdrant.Distance.Dot, memory=qdrant.Memory.Cold, quantization_config=bytes_
    )
