"""FAISS beside a record: a copy of the vectors that is fast to search and can be rebuilt at any time.

The record (the embedded Qdrant, or another indexer) keeps every point and answers everything that is not a
search by vectors. The copy answers those: filters are evaluated on columns, few rows are scanned exactly,
many are looked for in inverted lists, on GPUs if there are some, and what is found is scored with the stored
vectors. A copy that is damaged or behind its record is not used, says so, and is rebuilt by ``optimize``.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from indexers import _folders
from indexers._faiss_copy import Copy
from indexers._faiss_lists import gpus
from indexers._faiss_scan import Spec
from indexers._faiss_search import search_copy
from pipeline import plugins
from pipeline.errors import ConfigurationError, LongleafError, MissingDependencyError
from pipeline.filters import Filter
from pipeline.originals import disk_errors
from pipeline.points import check_search, pack
from pipeline.seams import Indexer, IndexSchema, IndexSearch
from pipeline.types import Match, Point, Vectors

_PACKAGES = ("faiss-cpu", "faiss-gpu-cu12")
_NEVER = 1_000_000_000
_log = logging.getLogger("longleaf.faiss")


class Config(BaseModel):
    """Where, beside which record, and how vectors are looked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Path("index")
    """Folder of the copies, and of the record if that keeps files."""
    record: Literal["qdrant_edge", "exact"] = "qdrant_edge"
    """Indexer that keeps every point."""
    kind: Literal["flat", "ivf_sq8", "ivf_pq"] = "ivf_sq8"
    """`flat` scores every vector; lists keep a byte a dimension (`ivf_sq8`) or for eight (`ivf_pq`)."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` takes GPUs if FAISS sees some, and else the processor."""
    exact_below_points: int = Field(default=30_000, ge=1)
    """Up to so many vectors that may be found are scanned exactly."""
    nprobe: int = Field(default=32, ge=1)
    """Lists that an unfiltered search looks into: more is slower and finds more."""
    oversample: int = Field(default=4, ge=1, le=100)
    """Candidates for each match, which are scored again with the stored vectors."""
    reserve_bytes: int = Field(default=64 << 20, ge=0)
    """Bytes of the disk that are left free."""


TINY = Config(record="exact", exact_below_points=500, nprobe=16)


def build(config: Config) -> Indexer:
    """Open the record; a copy is opened when it is first needed.

    Raises MissingDependencyError without FAISS, and ConfigurationError with both of its packages.
    """
    _check_packages()
    return FaissIndexer(config)


class FaissIndexer:
    """See :class:`pipeline.seams.Indexer`. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._root = config.path.absolute() / "faiss"
        self._spec = Spec(
            config.kind,
            config.exact_below_points,
            config.nprobe,
            config.oversample,
            gpus(config.device),
            config.reserve_bytes,
        )
        # A record never needs a graph: it is asked for vectors only while the copy cannot be used.
        options = {"exact_below_points": _NEVER} if config.record == "qdrant_edge" else {}
        self._record: Indexer = plugins.load(
            "indexers", config.record, path=config.path / "record", **options
        )
        self._lock = threading.RLock()
        self._copies: dict[str, Copy | None] = {}

    def create(self, name: str, schema: IndexSchema) -> None:
        """Make an empty index; nothing happens if it is there with this schema."""
        self._record.create(name, schema)

    def schema(self, name: str) -> IndexSchema | None:
        """The schema it was created with, or None."""
        return self._record.schema(name)

    def names(self) -> list[str]:
        """All indexes, sorted."""
        return self._record.names()

    def drop(self, name: str) -> None:
        """Remove the index with its copy."""
        with self._lock:
            self._record.drop(name)
            self._copies.pop(name, None)
            path = _folders.folder(self._root, name)
            with disk_errors(path):
                if path.exists():
                    shutil.rmtree(path)

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Write points, replacing those of equal id, all or none."""
        with self._lock:
            copy = self._copy(name)
            batch = pack(name, self._schema(name), points) if copy is not None else None
            with self._in_step(copy):
                self._record.upsert(name, points)
                if copy is not None and batch is not None and len(batch):
                    copy.put(batch)

    def delete(self, name: str, where: Filter) -> None:
        """Remove every point that matches."""
        with self._lock:
            copy = self._copy(name)
            with self._in_step(copy):
                self._record.delete(name, where)
                if copy is not None:
                    copy.remove(where)

    def search(self, name: str, searches: Sequence[IndexSearch]) -> list[list[Match]]:
        """Matches best first, one list a search."""
        copy = self._copy(name)
        if copy is None or not copy.trusted():
            return self._record.search(name, searches)
        schema = self._schema(name)
        for search in searches:
            check_search(name, schema, search)
        dense = [i for i, search in enumerate(searches) if search.dense is not None]
        words = [i for i, search in enumerate(searches) if search.dense is None]
        found: list[list[Match]] = [[] for _ in searches]
        answers = search_copy(copy, [searches[i] for i in dense])
        if not copy.trusted():  # since just now
            return self._record.search(name, searches)
        for i, matches in zip(dense, answers, strict=True):
            found[i] = matches
        if words:
            answers = self._record.search(name, [searches[i] for i in words])
            for i, matches in zip(words, answers, strict=True):
                found[i] = matches
        return found

    def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of points that match."""
        return self._record.count(name, where)

    def points(self, name: str, where: Filter | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Id and payload of matching points, in id order."""
        return self._record.points(name, where)

    def read(self, name: str, where: Filter | None = None) -> Iterator[Point]:
        """Matching points with their vectors, in id order."""
        return self._record.read(name, where)

    def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vectors]:
        """Vectors of these points, by id, as the record has them."""
        return self._record.vectors(name, ids)

    def problems(self, name: str) -> list[str]:
        """What keeps the copy from being used."""
        copy = self._copy(name)
        told = self._record.problems(name)
        if copy is not None and copy.stale:
            told.append(f"Its FAISS copy is not used: {copy.stale}. `longleaf repair` rebuilds it.")
        return told

    def flush(self) -> None:
        """Return once everything written would survive a power cut; the record before its copies."""
        with self._lock:
            self._record.flush()
            for copy in self._copies.values():
                if copy is not None:
                    copy.flush()

    def optimize(self, name: str) -> None:
        """Build what makes searching fast, in the record and in the copy."""
        with self._lock:
            self._record.optimize(name)
            copy = self._copy(name)
            if copy is not None:
                copy.optimize(lambda: self._record.read(name), self._record.count(name))

    def close(self) -> None:
        """Flush and let go; further calls raise."""
        with self._lock:
            try:
                for copy in self._copies.values():
                    if copy is not None:
                        self._record.flush()
                        copy.flush()
                self._copies.clear()
            finally:
                self._record.close()

    def _schema(self, name: str) -> IndexSchema:
        schema = self._record.schema(name)
        assert schema is not None
        return schema

    def _copy(self, name: str) -> Copy | None:
        """The copy of an index; None for one without vectors."""
        if name in self._copies:  # without waiting for those who write
            return self._copies[name]
        with self._lock:
            if name not in self._copies:
                points = self._record.count(name)
                schema = self._schema(name)
                made = None
                if schema.dim is not None:
                    path = _folders.folder(self._root, name)
                    made = Copy(path, schema.dim, schema.fingerprint, self._spec, points)
                    if made.stale:
                        _log.warning("The FAISS copy of %s is not used: %s.", name, made.stale)
                self._copies[name] = made
            return self._copies[name]

    @contextlib.contextmanager
    def _in_step(self, copy: Copy | None) -> Iterator[None]:
        """What fails halfway leaves the copy out of step with its record, so it is used no more."""
        try:
            yield
        except LongleafError as error:
            if copy is not None:
                copy.distrust(f"a change failed ({error.message})")
            raise


def _check_packages() -> None:
    found = [package for package in _PACKAGES if _installed(package)]
    remedy = "pip install 'longleaf[faiss-cpu]', or 'longleaf[faiss-gpu]' where a CUDA device is"
    try:
        import faiss  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise MissingDependencyError(
            f"indexers plugin 'faiss' needs one of {' and '.join(_PACKAGES)}, and neither is installed.",
            remedy=f"Install one with: {remedy}.",
        ) from error
    if len(found) > 1:
        raise ConfigurationError(
            f"{' and '.join(found)} are both installed, and each overwrites the other's files.",
            remedy=f"pip uninstall {' '.join(found)}, then {remedy}.",
        )


def _installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
