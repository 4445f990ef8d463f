"""The embedded default: Qdrant's engine in a process of its own, one folder for everything.

One process owns the folder at a time. Writes are durable once ``flush`` returned. Up to
``exact_below_points`` vectors an index is scanned exactly; beyond that ``optimize`` builds an HNSW
graph (Malkov and Yashunin 2018). A graph hardly reaches what lies apart from everything else, as a single
fact in a long text does, so the limit is high.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from indexers import _edge_aside, _folders
from indexers._edge_payloads import Payloads
from indexers._edge_points import buffers
from indexers._edge_process import Buffer, EngineProcess
from indexers._edge_reads import Reads
from indexers._projection import condition
from pipeline.errors import IndexDamagedError, IndexingError, LongleafError
from pipeline.filters import EVERYTHING, Filter
from pipeline.originals import disk_errors
from pipeline.points import PointBatch, check_schema, check_search, pack
from pipeline.seams import Indexer, IndexSchema, IndexSearch
from pipeline.types import Match, Point, Vectors

_UPSERT_POINTS = 128  # searches wait for one such batch, about 20 ms
_LARGE_POINTS = 30_000  # an index of more is optimised aside, since that takes longer than a search may wait
_GROWN_SHARE = 0.1  # a large index that has grown by no more than this is not optimised again
_UNFLUSHED_BYTES = 32 << 20  # what may have to be written again if the engine dies


class Config(BaseModel):
    """Where, and when a graph is built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Path("index")
    """Folder of all indexes."""
    exact_below_points: int = Field(default=250_000, ge=1)
    """Up to so many vectors an index is scanned exactly; beyond that a graph is built, which is faster and
    misses some; for new indexes."""
    ef: int = Field(default=256, ge=16, le=4096)
    """Candidates that a graph search keeps: more is slower and finds more."""
    quantization: Literal["none", "int8"] = "none"
    """`int8` keeps one byte a dimension in memory and rescores with the vectors on disk; for new indexes."""
    reserve_bytes: int = Field(default=64 << 20, ge=0)
    """Bytes of the disk that are left free."""


TINY = Config(exact_below_points=500)


def build(config: Config) -> Indexer:
    """Start the engine's process. Whether the folder is free is known at the first call."""
    return QdrantEdgeIndexer(config)


class QdrantEdgeIndexer:
    """See :class:`pipeline.seams.Indexer`. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._root = config.path.absolute()
        with disk_errors(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._known: dict[str, _folders.Manifest] | None = None
        self._checked: set[str] = set()
        self._flushed: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._closed = False
        self._payloads = Payloads()
        self._reads = Reads(self._ask, self._payloads, config.ef)
        self._engine = EngineProcess(self._root)

    def create(self, name: str, schema: IndexSchema) -> None:
        """Make an empty index; nothing happens if it is there with this schema."""
        with self._lock:
            existing = self.schema(name)
            check_schema(name, schema, existing)
            if existing is None:
                threshold = self._config.exact_below_points
                self._engine.read(
                    "create",
                    path=self._path(name),
                    dim=schema.dim,
                    lexical=schema.lexical,
                    exact_below_points=threshold,
                    quantized=self._config.quantization == "int8",
                )
                self._record(_folders.Manifest(name, schema))
                self._checked.add(name)

    def schema(self, name: str) -> IndexSchema | None:
        """The schema it was created with, or None."""
        with self._lock if self._known is None else contextlib.nullcontext():  # nor for an optimisation
            manifest = self._manifests().get(name)
            return manifest.schema if manifest else None

    def names(self) -> list[str]:
        """All indexes, sorted."""
        with self._lock if self._known is None else contextlib.nullcontext():
            return sorted(list(self._manifests()))

    def drop(self, name: str) -> None:
        """Remove the index and its files."""
        with self._lock:
            path = self._path(name)
            if self._manifests().pop(name, None):
                with self._reads.changing(name):
                    self._engine.forget(path)
                _folders.remove(self._root, name)
                self._checked.discard(name)

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Write points, replacing those of equal id, all or none."""
        batch = pack(name, self._index(name), points)
        for start in range(0, len(batch), _UPSERT_POINTS):
            self._upsert(name, batch, slice(start, start + _UPSERT_POINTS))

    def delete(self, name: str, where: Filter) -> None:
        """Remove every point that matches."""
        with self._lock:
            self._changing(name)
            self._worn(name)
            with self._reads.changing(name):
                self._engine.write("delete", path=self._path(name), where=condition(where))

    def search(self, name: str, searches: Sequence[IndexSearch]) -> list[list[Match]]:
        """Matches best first, one list a search."""
        schema = self._index(name)
        for search in searches:
            check_search(name, schema, search)
        return self._reads.search(name, searches)

    def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of points that match."""
        self._index(name)
        return self._reads.count(name, where or EVERYTHING)

    def points(self, name: str, where: Filter | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Id and payload of matching points, in id order."""
        self._index(name)
        return self._reads.points(name, where or EVERYTHING)

    def read(self, name: str, where: Filter | None = None) -> Iterator[Point]:
        """Matching points with their vectors, in id order."""
        return self._reads.whole(name, self._index(name), where or EVERYTHING)

    def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vectors]:
        """Vectors of these points, by id."""
        return self._reads.vectors(name, self._index(name), ids)

    def problems(self, name: str) -> list[str]:
        """Nothing: what is wrong with it raises."""
        self._index(name)
        return []

    def flush(self) -> None:
        """Return once everything written would survive a power cut."""
        with self._lock:
            changed = [m for m in self._manifests().values() if m.points is None]
            if changed:
                counts = self._engine.flush([self._path(m.name) for m in changed])
                for manifest, points in zip(changed, counts, strict=True):
                    grown = points - self._flushed.pop(manifest.name, points)
                    replaced = grown != self._written.pop(manifest.name, grown)
                    settled = None if replaced else manifest.settled
                    self._record(replace(manifest, points=points, settled=settled))

    def optimize(self, name: str) -> None:
        """Build what makes searching fast and clear what was deleted, aside if it would take long:
        searches go on meanwhile, writes wait. A large index that only grew a little is left for later."""
        with self._lock:
            self._index(name)
            self.flush()
            manifest = self._manifests()[name]
            points = manifest.points or 0
            most = min(self._config.exact_below_points, _LARGE_POINTS)
            large = points > most
            grown = points - manifest.settled if manifest.settled is not None else points
            if large and grown <= min(_GROWN_SHARE * points, most):
                return
            reserve = self._config.reserve_bytes
            if large and _edge_aside.has_room(Path(self._path(name)), reserve):
                self._optimise_aside(manifest)
            else:
                self._changing(name)
                self._engine.read("optimize", path=self._path(name), reserve_bytes=reserve)
                self.flush()
                self._record(replace(self._manifests()[name], settled=points))

    def _optimise_aside(self, manifest: _folders.Manifest) -> None:
        old = Path(self._path(manifest.name))
        new = old.with_name(_edge_aside.new_name())
        _edge_aside.optimised_copy(old, new)
        found, _ = self._engine.read("contents", path=str(new))
        if found["points"] != manifest.points:
            raise IndexingError(f"{new} has {found['points']} points, not {manifest.points}.")
        self._record(replace(manifest, shard=new.name, settled=manifest.points))
        self._engine.forget(str(old))
        _edge_aside.remove_others(old.parent, new.name)

    def close(self) -> None:
        """Flush and let go; further calls raise."""
        with self._lock:
            try:
                if self._known is not None and not self._closed:
                    self.flush()
            finally:
                self._closed = True
                self._engine.close()

    def _path(self, name: str) -> str:
        manifest = self._manifests().get(name)
        shard = manifest.shard if manifest is not None else _folders.SHARD
        return str(_folders.folder(self._root, name) / shard)

    def _ask(self, do: str, name: str, *arrays: Buffer, **arguments: Any) -> Any:  # noqa: ANN401 - JSON values
        """Ask about an index; once more if its shard was replaced by a better one before it was asked."""
        path = self._path(name)
        try:
            return self._engine.read(do, *arrays, path=path, **arguments)
        except LongleafError:
            if self._path(name) == path:
                raise
            return self._engine.read(do, *arrays, path=self._path(name), **arguments)

    def _manifests(self) -> dict[str, _folders.Manifest]:
        """What there is, read once the folder is known to be ours."""
        if self._known is None:
            self._engine.flush([])
            self._known = _folders.manifests(self._root)
        return self._known

    def _record(self, manifest: _folders.Manifest) -> None:
        _folders.write_manifest(self._root, manifest)
        self._manifests()[manifest.name] = manifest

    def _upsert(self, name: str, batch: PointBatch, part: slice) -> None:
        """Write a slice of a batch. The lock keeps a flush from taking place between note and write."""
        with self._lock:
            schema = self._changing(name)
            with self._reads.changing(name, batch.ids[part]):
                self._engine.write(
                    "upsert",
                    *buffers(batch, part),
                    path=self._path(name),
                    dim=schema.dim,
                    lexical=schema.lexical,
                    reserve_bytes=self._config.reserve_bytes,
                )
            self._payloads.written(name, batch.ids[part], batch.payloads[part])
            self._written[name] = self._written.get(name, 0) + len(batch.ids[part])
            if self._engine.unflushed_bytes > _UNFLUSHED_BYTES:
                self.flush()

    def _changing(self, name: str) -> IndexSchema:
        """Note on disk that the count is about to change, so that a lower one after a crash is no damage."""
        schema = self._index(name)
        manifest = self._manifests()[name]
        if manifest.points is not None:
            self._flushed[name] = manifest.points
            self._record(replace(manifest, points=None))
        return schema

    def _worn(self, name: str) -> None:
        """Note that its files hold what was deleted."""
        manifest = self._manifests()[name]
        if manifest.settled is not None:
            self._record(replace(manifest, settled=None))

    def _index(self, name: str) -> IndexSchema:
        """The schema, after a first look whether all that was flushed is there."""
        manifest = self._known.get(name) if self._known and name in self._checked else None
        if manifest is not None:  # without waiting for a flush of others
            return manifest.schema
        with self._lock:
            manifest = self._manifests().get(name)
            if manifest is None:
                raise _folders.no_index(name)
            if name not in self._checked:
                self._check(manifest)
            self._checked.add(name)
            return manifest.schema

    def _check(self, manifest: _folders.Manifest) -> None:
        _edge_aside.remove_others(_folders.folder(self._root, manifest.name), manifest.shard)
        found, _ = self._engine.read("contents", path=self._path(manifest.name))
        if manifest.points not in (None, found["points"]):
            raise IndexDamagedError(
                f"Index {manifest.name!r} has {found['points']} points; {manifest.points} were flushed.",
                remedy=_folders.REBUILD,
            )
        if found["filterable"] < found["points"]:  # the engine takes a lost index for an empty one
            raise IndexDamagedError(
                f"Filters of index {manifest.name!r} see {found['filterable']} of {found['points']} points.",
                remedy=_folders.REBUILD,
            )
