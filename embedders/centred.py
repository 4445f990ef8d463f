"""Another embedder's vectors, centred and without their strongest common directions.

Mu and Viswanath 2018 (arXiv:1702.01417, "All-but-the-top", algorithm 1): vectors of one model share a
mean and a few directions that say little about a text; without them cosines tell texts apart better.
Mean and directions are those of the first documents ingested. They are computed once and stored, never
moved afterwards (vectors already indexed stay valid), and part of the fingerprint. From few vectors they
would be those documents' subject rather than the model's habit, so the mean is shrunk towards nothing
and fewer directions are removed.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline import plugins
from pipeline.errors import ConfigurationError, EmbeddingError, StorageError
from pipeline.seams import Embedder
from pipeline.types import ChunkedDocument, DocumentEmbeddings, Embeddings, Encoding, Fingerprint

_SHRINKAGE = 100  # vectors that weigh as much as the belief that there is no common mean
_VECTORS_A_DIRECTION = 40
_MOST_VECTORS = 50_000

Vectors = NDArray[np.float32]


class Config(BaseModel):
    """Which embedder is wrapped, and how much of its vectors is taken away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inner: str = "late_chunking"
    """The embedder whose vectors are taken."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Its options."""
    directions: int = Field(default=16, ge=0, le=256)
    """Most directions to remove, strongest first; 0 only centres."""
    statistics: Path | None = None
    """Folder in which mean and directions are kept; without one they last as long as the process."""
    cache: Path | None = None
    """Folder of converted weights; null takes `models.cache`."""
    allow_download: bool = False
    """Whether a hub id may be downloaded; follows `models.allow_download` unless set."""


TINY = Config(inner="hashing", options={"dim": 128}, directions=2)


def build(config: Config) -> CentredEmbedder:
    """Build the inner embedder; statistics are read when first needed."""
    if config.inner == "centred":
        raise ConfigurationError("The embedder 'centred' cannot wrap itself.", remedy="Choose another inner.")
    known = type(plugins.configure("embedders", config.inner)).model_fields
    shared = {"cache": config.cache, "allow_download": config.allow_download}
    options = {**{key: value for key, value in shared.items() if key in known}, **config.options}
    inner: Embedder = plugins.load("embedders", config.inner, **options)
    return CentredEmbedder(inner, config.directions, config.statistics)


@dataclass(frozen=True, slots=True)
class Statistics:
    """The common mean ``(D,)`` and directions ``(k, D)``, orthonormal, of ``count`` vectors."""

    mean: Vectors
    directions: Vectors
    count: int

    def apply(self, vectors: Vectors, name: str) -> Vectors:
        """What is left of vectors ``(n, D)``, at unit length. Raises EmbeddingError for nothing left."""
        centred = vectors - self.mean
        centred -= (centred @ self.directions.T) @ self.directions
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        if not (lengths > 1e-6).all():
            raise EmbeddingError(
                f"Nothing is left of a vector of {name} without what all vectors share.",
                remedy="Remove fewer directions, or use the inner embedder alone.",
            )
        return np.asarray(centred / lengths, np.float32)


def common(vectors: Vectors, directions: int) -> Statistics:
    """Mean and strongest directions of vectors ``(n, D)``; fewer and less of them from few vectors."""
    sample = vectors[:: max(1, -(-len(vectors) // _MOST_VECTORS))].astype(np.float64)
    mean = sample.mean(0) * (len(sample) / (len(sample) + _SHRINKAGE))
    rest = sample - mean
    _, axes = np.linalg.eigh(rest.T @ rest)  # weakest first
    kept = min(directions, len(sample) // _VECTORS_A_DIRECTION, vectors.shape[1] // 2)
    strongest = axes[:, ::-1][:, :kept].T
    return Statistics(mean.astype(np.float32), np.ascontiguousarray(strongest, np.float32), len(sample))


class CentredEmbedder:
    """Implements :class:`pipeline.seams.Embedder` around another one."""

    def __init__(self, inner: Embedder, directions: int, folder: Path | None = None) -> None:
        self._inner, self._directions, self._folder = inner, directions, folder
        self._lock = threading.Lock()
        self._found: Statistics | None = None
        self._name = ""

    @property
    def fingerprint(self) -> Fingerprint:
        """The inner one's, with the number of directions and the name of these statistics."""
        inner = self._inner.fingerprint
        mine = (f"centred={self._identity()}", f"directions={self._directions}")
        return replace(inner, options=tuple(sorted((*inner.options, *mine))))

    def encode(self, text: str) -> Encoding:
        """As the inner embedder does."""
        return self._inner.encode(text)

    def embed_queries(self, queries: Sequence[str]) -> Embeddings:
        """One vector a query. Raises EmbeddingError while no document has been ingested."""
        vectors = self._inner.embed_queries(queries).vectors
        if not len(vectors):
            return Embeddings(vectors, self.fingerprint)
        statistics = self._statistics()
        if statistics is None:
            raise EmbeddingError(
                "There are no documents yet whose vectors could be centred.", remedy="Ingest one first."
            )
        return Embeddings(statistics.apply(vectors, "the query"), self.fingerprint)

    def embed_documents(
        self, documents: Sequence[ChunkedDocument], progress: Callable[[int], None] | None = None
    ) -> list[DocumentEmbeddings]:
        """Vectors of every passage and unit. The first call decides what is common to all."""
        found = self._inner.embed_documents(documents, progress)
        if not any(len(f.units) for f in found):
            return [replace(f, fingerprint=self.fingerprint) for f in found]
        statistics = self._statistics() or self._fitted(found)
        results = []
        for document, vectors in zip(documents, found, strict=True):
            title = repr(document.document.title)
            results.append(
                replace(
                    vectors,
                    passages=statistics.apply(vectors.passages, title),
                    units=statistics.apply(vectors.units, title),
                    fingerprint=self.fingerprint,
                )
            )
        return results

    def _fitted(self, found: Sequence[DocumentEmbeddings]) -> Statistics:
        statistics = common(np.concatenate([f.units for f in found]), self._directions)
        with self._lock:
            if self._found is None:
                self._found = statistics
                if self._folder is not None:
                    self._write(self._folder, statistics)
            return self._found

    def _statistics(self) -> Statistics | None:
        """Those of this process, or what another one has written."""
        with self._lock:
            file = None if self._folder is None else self._folder / "statistics.npz"
            if self._found is None and file is not None and file.exists():
                try:
                    with np.load(file, allow_pickle=False) as stored:
                        self._found = Statistics(stored["mean"], stored["directions"], int(stored["count"]))
                except (OSError, ValueError, KeyError) as error:
                    raise StorageError(
                        f"The statistics of the embedder in {file} cannot be read: {error}",
                        remedy="Restore the file, or remove its folder and ingest the collections again.",
                    ) from error
            return self._found

    def _identity(self) -> str:
        """A name drawn once and kept with the statistics, so that an index never meets others."""
        with self._lock:
            if not self._name:
                file = None if self._folder is None else self._folder / "name"
                if file is not None and file.exists():
                    self._name = file.read_text("ascii").strip()
                else:
                    self._name = uuid.uuid4().hex[:12]
                    if file is not None:
                        file.parent.mkdir(parents=True, exist_ok=True)
                        _replace(file, self._name.encode())
            return self._name

    @staticmethod
    def _write(folder: Path, statistics: Statistics) -> None:
        import io

        content = io.BytesIO()
        np.savez(content, mean=statistics.mean, directions=statistics.directions, count=statistics.count)
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "statistics.npz", content.getvalue())


def _replace(file: Path, content: bytes) -> None:
    """Whole or not at all, and on disk."""
    temporary = file.with_name(f".{file.name}-{uuid.uuid4().hex}.tmp")
    with temporary.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
