"""The values that flow through the pipeline. All are frozen; a stage takes one and returns another.

Offsets everywhere are half-open ``[start, end)`` in Unicode code points of ``Document.text``, so
``document.text[x.start:x.end]`` is the text of anything that has a start and an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

BlockKind = Literal["paragraph", "heading", "list_item", "table_row", "code", "footnote", "caption"]
ChunkKind = Literal["passage", "unit"]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the source: ``number`` counts from 1, ``label`` is what is printed on it ("iv")."""

    number: int
    start: int
    end: int
    label: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what it governs, up to the next heading of the same or a higher level.

    ``level`` is 1 for the highest. ``start`` is where the heading begins.
    """

    title: str
    level: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Block:
    """A span that layout treats as one thing. Blocks are in order, do not overlap, and need not
    cover separators between them. ``level`` is the heading's level, else 0."""

    kind: BlockKind
    start: int
    end: int
    level: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """What a reader makes of a file, plus its identity once ingestion has assigned one.

    ``version`` counts from 1 and grows each time the content of ``id`` changes; 0 means not yet
    ingested. ``warnings`` say what could not be read; they are shown wherever the document is.
    """

    title: str
    text: str
    pages: tuple[Page, ...] = ()
    sections: tuple[Section, ...] = ()
    blocks: tuple[Block, ...] = ()
    media_type: str = "text/plain"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    id: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Encoding:
    """One tokenisation of a whole document, without special tokens and without truncation.

    ``ids`` is int32 ``(T,)``; ``offsets`` is int32 ``(T, 2)`` of code-point spans into the text.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]

    def __len__(self) -> int:
        return int(self.ids.shape[0])


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document that is embedded.

    A *passage* is what is read; a *unit* (a sentence, or part of a long one) is what is found, and
    ``parent`` is the ordinal of the passage that contains it. For a passage ``parent == ordinal``.
    ``[token_start, token_end)`` is the same span in the document's :class:`Encoding`.
    """

    kind: ChunkKind
    ordinal: int
    parent: int
    start: int
    end: int
    token_start: int
    token_end: int
    text: str
    section: str = ""
    page_start: int | None = None
    page_end: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkedDocument:
    """A document with its one encoding, its passages and its units."""

    document: Document
    encoding: Encoding
    passages: tuple[Chunk, ...]
    units: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that decides what a vector means. Two indexes with equal fingerprints mix.

    ``options`` holds the settings of wrappers (blend weight, overlap, temperature) and of the
    chunker as sorted ``key=value`` strings.
    """

    model: str
    revision: str
    dim: int
    pooling: str
    window_tokens: int
    positions: str = "native"
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"{self.model}@{self.revision[:12]} dim={self.dim} {self.pooling}"
        tail = f"window={self.window_tokens} positions={self.positions}"
        return " ".join((head, tail, *self.options))


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors float32 ``(n, dim)`` with unit rows, and the fingerprint that says what they mean."""

    vectors: NDArray[np.float32]
    fingerprint: Fingerprint

    def __len__(self) -> int:
        return int(self.vectors.shape[0])


@dataclass(frozen=True, slots=True)
class DocumentEmbeddings:
    """Vectors of one document: float32 ``(passages, dim)`` and ``(units, dim)``, unit rows.

    ``windowing`` says how the text was covered ("single window", "7 overlapping windows of 510
    tokens, 64 shared", "each chunk alone") and is stored with the document.
    """

    passages: NDArray[np.float32]
    units: NDArray[np.float32]
    fingerprint: Fingerprint
    windowing: str


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Lexical weights: ``indices`` uint32 ``(m,)`` ascending and unique, ``values`` float32 ``(m,)``."""

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Point:
    """One entry of an index. ``id`` is a UUID string derived from what it stands for, so writing
    it twice has one effect. ``payload`` holds keywords, integers, floats and nested metadata."""

    id: str
    payload: Mapping[str, Any]
    dense: NDArray[np.float32] | None = None
    sparse: SparseVector | None = None


@dataclass(frozen=True, slots=True)
class Vectors:
    """What a point is found by. They are not to be written to."""

    dense: NDArray[np.float32]
    sparse: SparseVector | None = None


class Match(NamedTuple):
    """A point found by one search of one index. Higher ``score`` is better, always.

    A tuple, since a question makes hundreds, and a frozen dataclass takes four times as long to make.
    """

    id: str
    score: float
    payload: Mapping[str, Any]


# Passages that an answer looks at unless told otherwise: about 2,500 tokens at the default size.
ANSWER_TOP_K = 20


@dataclass(frozen=True, slots=True)
class Query:
    """A question asked of one collection. Its type differs from a document's on purpose.

    ``filter`` is JSON as the HTTP API takes it (see :mod:`pipeline.filters`). ``budget_tokens``
    bounds the tokens of all hits together, counted with the embedder's tokenizer.
    """

    text: str
    collection: str = "default"
    tenant: str = "default"
    top_k: int = 10
    filter: Mapping[str, Any] | None = None
    document_id: str | None = None
    budget_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Location:
    """Where a passage stands, and the score that the search gave it."""

    document_id: str
    version: int
    title: str
    start: int
    end: int
    score: float
    page_start: int | None = None
    page_end: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that answers a query, with the scores every stage gave it.

    ``chunk_id`` names the passage (the first one, where neighbours were merged). ``also`` are the
    places of near-duplicates, best first: the same clause in another contract; those that rank before the
    first passage which ``top_k`` or the budget leaves out.
    """

    chunk_id: str
    document_id: str
    version: int
    title: str
    text: str
    start: int
    end: int
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    section: str = ""
    page_start: int | None = None
    page_end: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[Location, ...] = ()

    @property
    def location(self) -> Location:
        """Where it stands."""
        pages = self.page_start, self.page_end
        return Location(self.document_id, self.version, self.title, self.start, self.end, self.score, *pages)

    @property
    def locations(self) -> tuple[Location, ...]:
        """Where it stands, and what repeats it."""
        return self.location, *self.also


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What a search returns: hits best first, seconds by stage, and what could not be done."""

    hits: tuple[Hit, ...]
    timings: Mapping[str, float] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """The passages a model reads, in reading order, within ``budget_tokens`` of its tokenizer."""

    passages: tuple[Hit, ...]
    tokens: int
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ordering:
    """How the passages of a prompt came into their order.

    ``asked`` is the order the request named, ``used`` what it came to. ``before`` are the passages
    (``chunk_id``) as retrieval ranks them, best first; ``after`` is their order in the prompt. ``scores`` are
    each passage's, by stage. ``readings`` counts how often the model read the passages to order them,
    before it read them to answer, and ``seconds`` what those readings took. ``shares`` are what each passage
    got of the answer's attention to all of them, ``biases`` what was added to the logits of its attention to
    each, if it was moved one way or the other.
    """

    asked: str
    used: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    readings: int = 0
    seconds: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)
    biases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a language model wrote before anything was checked."""

    text: str
    finish: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a statement comes from. ``quote == document.text[start:end]``, exactly."""

    document_id: str
    version: int
    title: str
    chunk_id: str
    start: int
    end: int
    quote: str
    page_start: int | None = None
    page_end: int | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence of an answer.

    ``origin`` says whether it is quoted from a document or written by the model. ``support``, in
    ``[0, 1]``, says how far the passages carry it. It is ``supported`` when that passes the threshold, its
    citation stands the recheck and, if composed, its source is to the point: a true one beside the question
    keeps its ``support`` but is not ``supported`` and has no citations.
    """

    text: str
    origin: Literal["quoted", "composed"]
    supported: bool
    support: float
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of asking. ``found`` is False when the documents do not contain an answer;
    ``text`` then says so and ``statements`` is empty.

    ``decoding`` says how the language model's tokens were decoded, ``trace`` shows what it read and wrote
    where that is not the context and the text.
    """

    text: str
    found: bool
    statements: tuple[Statement, ...]
    context: Context
    mode: Literal["extractive", "composed"]
    timings: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[str, int] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    ordering: Ordering | None = None
    decoding: Mapping[str, int | float | str] = field(default_factory=dict)
    trace: Mapping[str, Any] = field(default_factory=dict)
