"""Another embedder's vectors, changed by what the vectors of the first documents have in common.

That is learnt once, from the first documents ingested, and stored. Later ones do not move it, since vectors
already indexed would be others then; only who learns anew replaces it, for collections that are indexed anew.
It has a name, which stands in the fingerprint and in the file's name, so that neither an index nor a process
that has run for long ever meets another's.
"""

from __future__ import annotations

import abc
import io
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline import learnt, plugins
from pipeline.errors import ConfigurationError, EmbeddingError, StorageError
from pipeline.originals import disk_errors
from pipeline.seams import Embedder, Learner
from pipeline.types import ChunkedDocument, DocumentEmbeddings, Embeddings, Encoding, Fingerprint

_MOST_VECTORS = 50_000

Vectors = NDArray[np.float32]


class FittedConfig(BaseModel):
    """Which embedder is wrapped, and where what is learnt is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inner: str = "late_chunking"
    """The embedder whose vectors are taken."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Its options."""
    statistics: Path | None = None
    """Folder in which mean and directions are kept; without one they last as long as the process."""
    cache: Path | None = None
    """Folder of converted weights; null takes `models.cache`."""
    allow_download: bool = False
    """Whether a hub id may be downloaded; follows `models.allow_download` unless set."""

    def build_inner(self, wrapper: str) -> Embedder:
        """What the embedder named ``wrapper`` wraps. Raises ConfigurationError for one that learns, too."""
        known = plugins.config_class("embedders", self.inner).model_fields
        shared = {"cache": self.cache, "allow_download": self.allow_download}
        options = {**{key: value for key, value in shared.items() if key in known}, **self.options}
        inner: Embedder = plugins.load("embedders", self.inner, **options)
        if isinstance(inner, Learner):
            raise ConfigurationError(
                f"The embedder '{wrapper}' cannot wrap '{self.inner}', which learns from documents as well.",
                remedy="Choose another inner.",
            )
        return inner


@dataclass(frozen=True, slots=True)
class Statistics:
    """What ``count`` vectors have in common, and what is left of it.

    ``mean`` ``(D,)`` is taken away; of each of the orthonormal ``directions`` ``(k, D)`` the share ``kept``
    ``(k,)`` stays.
    """

    mean: Vectors
    directions: Vectors
    kept: Vectors
    count: int

    def apply(self, vectors: Vectors, name: str) -> Vectors:
        """What is left of vectors ``(n, D)``, at unit length. Raises EmbeddingError for nothing left."""
        left = vectors - self.mean
        left -= (left @ self.directions.T * (1 - self.kept)) @ self.directions
        lengths = np.linalg.norm(left, axis=1, keepdims=True)
        if not (lengths > 1e-6).all():
            raise EmbeddingError(
                f"Nothing is left of a vector of {name} without what all vectors share.",
                remedy="Take away less, or use the inner embedder alone.",
            )
        return np.asarray(left / lengths, np.float32)


def sample(vectors: Vectors) -> NDArray[np.float64]:
    """As many of them, evenly spread, as statistics are computed from."""
    return vectors[:: max(1, -(-len(vectors) // _MOST_VECTORS))].astype(np.float64)


class FittedEmbedder(abc.ABC):
    """Implements :class:`pipeline.seams.Embedder` around another one; ``options`` go into the fingerprint."""

    def __init__(
        self, inner: Embedder, name: str, options: Mapping[str, float], folder: Path | None = None
    ) -> None:
        self._inner, self._plugin, self._options, self._folder = inner, name, options, folder
        self._lock = threading.Lock()
        self._found: Statistics | None = None
        self._name = ""

    @abc.abstractmethod
    def fit(self, vectors: Vectors) -> Statistics:
        """What vectors ``(n, D)`` of units have in common."""

    @property
    def fingerprint(self) -> Fingerprint:
        """The inner one's, with the name of these statistics and what they were made with."""
        inner = self._inner.fingerprint
        mine = (f"{self._plugin}={self._identity()}", *(f"{k}={v}" for k, v in self._options.items()))
        return replace(inner, options=tuple(sorted((*inner.options, *mine))))

    def encode(self, text: str) -> Encoding:
        """As the inner embedder does."""
        return self._inner.encode(text)

    @property
    def has_learnt(self) -> bool:
        """Whether it knows what vectors share."""
        return self._statistics() is not None

    def embed_queries(self, queries: Sequence[str]) -> Embeddings:
        """One vector a query. Raises EmbeddingError while nothing has been learnt."""
        vectors = self._inner.embed_queries(queries).vectors
        if not len(vectors):
            return Embeddings(vectors, self.fingerprint)
        return Embeddings(self._known().apply(vectors, "the query"), self.fingerprint)

    def embed_documents(
        self, documents: Sequence[ChunkedDocument], progress: Callable[[int], None] | None = None
    ) -> list[DocumentEmbeddings]:
        """Vectors of every passage and unit. Raises EmbeddingError while nothing has been learnt."""
        return self._changed(documents, self._inner.embed_documents(documents, progress))

    def learn(
        self,
        documents: Sequence[ChunkedDocument],
        progress: Callable[[int], None] | None = None,
        *,
        anew: bool = False,
    ) -> list[DocumentEmbeddings]:
        """Vectors of documents, which say what is common to all if nothing did before, or if ``anew``: then
        they replace it, under another name."""
        found = self._inner.embed_documents(documents, progress)
        has_words = any(len(f.units) for f in found)
        if has_words and (anew or self._statistics() is None):
            self._keep(self.fit(np.concatenate([f.units for f in found])), anew=anew)
        return self._changed(documents, found)

    def _changed(
        self, documents: Sequence[ChunkedDocument], found: Sequence[DocumentEmbeddings]
    ) -> list[DocumentEmbeddings]:
        results = []
        for document, vectors in zip(documents, found, strict=True):
            passages, units = vectors.passages, vectors.units
            if len(units):
                title, known = repr(document.document.title), self._known()
                passages, units = known.apply(passages, title), known.apply(units, title)
            results.append(replace(vectors, passages=passages, units=units, fingerprint=self.fingerprint))
        return results

    def _known(self) -> Statistics:
        statistics = self._statistics()
        if statistics is None:
            raise EmbeddingError(
                f"'{self._plugin}' has not learnt yet what vectors share.",
                remedy="Ingest documents; or, where a collection has some, run `longleaf calibrate embedder` "
                "and then `longleaf reindex`, each with its name.",
            )
        return statistics

    def _keep(self, statistics: Statistics, *, anew: bool) -> None:
        """Of several processes that learn at first the first decides; who learns anew has a name of its own,
        and its statistics are there before the name is."""
        name = uuid.uuid4().hex[:12] if anew else self._identity()
        with self._lock:
            if self._folder is None:
                self._name, self._found = name, statistics
                return
            with disk_errors(self._folder):
                learnt.keep(self._folder, name, _written(statistics))
                if anew:
                    learnt.name_it(self._folder, name)
            self._name, self._found = name, None

    def _statistics(self) -> Statistics | None:
        """Those of this process's name, or what another process has written under it."""
        name = self._identity()
        with self._lock:
            if self._found is None and self._folder is not None:
                file = learnt.statistics(self._folder, name)
                self._found = _read(file) if file.exists() else None
            return self._found

    def _identity(self) -> str:
        """A name drawn once and kept with the statistics, so that an index never meets others."""
        with self._lock:
            if not self._name:
                kept = "" if self._folder is None else learnt.present_name(self._folder)
                self._name = kept or uuid.uuid4().hex[:12]
                if self._folder is not None and not kept:
                    with disk_errors(self._folder):
                        learnt.name_it(self._folder, self._name)
            return self._name


def _read(file: Path) -> Statistics:
    try:
        with np.load(file, allow_pickle=False) as stored:
            directions = stored["directions"]
            kept = stored["kept"] if "kept" in stored else np.zeros(len(directions), np.float32)
            return Statistics(stored["mean"], directions, kept, int(stored["count"]))
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(
            f"The statistics of the embedder in {file} cannot be read: {error}",
            remedy="Restore the file; or remove its folder, run `longleaf calibrate embedder` and then "
            "`longleaf reindex` for every collection.",
        ) from error


def _written(found: Statistics) -> bytes:
    content = io.BytesIO()
    np.savez(content, mean=found.mean, directions=found.directions, kept=found.kept, count=found.count)
    return content.getvalue()
