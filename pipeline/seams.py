"""The protocols through which the pipeline meets its plugins. Small on purpose.

Cross-cutting behaviour (caching, limits, timing) wraps a seam; it is never a flag inside one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pipeline.filters import Filter
from pipeline.types import (
    ChunkedDocument,
    DocumentEmbeddings,
    Embeddings,
    Encoding,
    Fingerprint,
    Hit,
    Match,
    Point,
    SparseVector,
    Vectors,
)


@runtime_checkable
class Embedder(Protocol):
    """Text to unit vectors. Queries and documents have different methods because they differ."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What the vectors mean; stored with every index built from them."""
        ...

    def encode(self, text: str) -> Encoding:
        """Tokenise a whole text once: no special tokens, no truncation, exact offsets."""
        ...

    def embed_queries(self, queries: Sequence[str]) -> Embeddings:
        """One vector a query, in order. Raises EmbeddingError for an empty query."""
        ...

    def embed_documents(
        self, documents: Sequence[ChunkedDocument], progress: Callable[[int], None] | None = None
    ) -> list[DocumentEmbeddings]:
        """Vectors of every passage and unit. ``progress`` is told document tokens finished."""
        ...


@runtime_checkable
class Learner(Embedder, Protocol):
    """An embedder whose vectors depend on documents it has learnt from. Until then it refuses to embed."""

    @property
    def has_learnt(self) -> bool:
        """Whether it has learnt from documents."""
        ...

    def learn(
        self,
        documents: Sequence[ChunkedDocument],
        progress: Callable[[int], None] | None = None,
        *,
        anew: bool = False,
    ) -> list[DocumentEmbeddings]:
        """Embed documents, and learn from them if it had not learnt before, or if ``anew``: then the
        fingerprint is another afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class IndexSchema:
    """What one index holds. ``dim`` is None for a lexical-only index, ``lexical`` False for a
    dense-only one. ``parameters`` are the lexical settings queries must share (analyser, avg_len)."""

    fingerprint: str
    dim: int | None
    lexical: bool
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IndexSearch:
    """One nearest-neighbour or lexical search: exactly one of ``dense`` and ``sparse`` is given.

    Dense scores are cosines. Lexical scores are the dot product of query weights with stored
    weights times the index's inverse document frequency, ``ln(1 + (N - n + .5) / (n + .5))``.
    """

    limit: int
    dense: Any | None = None
    sparse: SparseVector | None = None
    filter: Filter | None = None


@runtime_checkable
class Indexer(Protocol):
    """A store of points in named indexes. Names are ``tenant/collection/layer``, opaque here.

    Writes are durable once ``flush`` returned. Every method raises ``IndexingError`` or a subclass.
    """

    def create(self, name: str, schema: IndexSchema) -> None:
        """Make the index, or do nothing if it exists with this fingerprint.

        Raises FingerprintMismatchError if it exists with another.
        """
        ...

    def schema(self, name: str) -> IndexSchema | None:
        """The schema the index was created with, or None if there is no such index."""
        ...

    def names(self) -> list[str]:
        """All indexes, sorted."""
        ...

    def drop(self, name: str) -> None:
        """Remove the index and its files. Nothing happens if it does not exist."""
        ...

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Write points, replacing those of equal id. All are checked before any is written."""
        ...

    def delete(self, name: str, where: Filter) -> None:
        """Remove every point that matches. An empty result is no error."""
        ...

    def search(self, name: str, searches: Sequence[IndexSearch]) -> list[list[Match]]:
        """One list of matches, best first, for each search. Equal scores order by id."""
        ...

    def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of points that match."""
        ...

    def points(self, name: str, where: Filter | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Id and payload of every point that matches, in id order."""
        ...

    def read(self, name: str, where: Filter | None = None) -> Iterator[Point]:
        """Every point that matches, whole, in id order: what moving it to another index needs."""
        ...

    def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of points, by id as it was given, without those of points that are not there.
        Raises IndexingError for an index without dense vectors."""
        ...

    def problems(self, name: str) -> list[str]:
        """What of the index is not as it should be although it answers, in words; usually nothing."""
        ...

    def flush(self) -> None:
        """Return once everything written so far would survive a power cut."""
        ...

    def optimize(self, name: str) -> None:
        """Build whatever makes searching fast; searching works without it."""
        ...

    def close(self) -> None:
        """Flush and release files and processes. Further calls raise."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """Hits in, hits out: the same ones, with new scores and in a new order."""

    def rerank(
        self, query: str, hits: Sequence[Hit], cancelled: Callable[[], bool] = lambda: False
    ) -> list[Hit]:
        """Best first. Adds its own entry to each hit's ``scores``. ``cancelled`` is asked at every step."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. ``temperature`` 0 is greedy. ``stop`` strings end the text and are not
    part of it. ``seed`` makes sampling repeatable."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of generated text. The last one has ``finish`` set to stop, length or cancelled.

    ``marks`` has a letter for each of its tokens: ``p`` plain decoding, ``d`` drafted, ``c`` corrected or
    added where something was drafted; empty for models that do not tell. ``usage`` comes with the last one:
    how the answer was decoded (see :mod:`pipeline.lm.request`), and ``degraded`` what could not be done as
    asked.
    """

    text: str
    tokens: int
    finish: str | None = None
    marks: str = ""
    usage: Mapping[str, int | float | str] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a language model can do beyond writing. What it cannot is said in ``degraded`` when asked for."""

    attention: bool = False
    """Whether its attention can be observed and changed (attention sorting, found in the middle)."""
    kv_cache: bool = False
    """Whether its KV states can be kept, copied and put together (prefix reuse, cached passages)."""
    logprobs: bool = False
    """Whether it scores a given continuation."""
    speculation: bool = False
    """Whether answers can be drafted and verified."""


@runtime_checkable
class LanguageModel(Protocol):
    """A chat model. Local ones run in this process; remote ones stand behind the same seam."""

    @property
    def name(self) -> str:
        """Shown to users and stored with calibrations."""
        ...

    @property
    def window_tokens(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a plain text, no template."""
        ...

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the whole prompt, chat template included."""
        ...

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[TextDelta]:
        """Generate. ``cancelled`` is asked before each step. Raises PromptTooLongError."""
        ...
