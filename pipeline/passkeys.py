"""How long a text may be before an embedder loses a fact in it: passkeys at several lengths.

As in LongEmbed (Zhu et al. 2024, arXiv:2404.12096, section 3.1; after Mohtashami and Jaggi 2023): every
candidate is the same filler with somebody's pass key somewhere in it, and a question asks for one of them.
The right candidate is to come first, by one vector a document and by the best of its units.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import InvalidRequestError
from pipeline.learning import embed_stored
from pipeline.seams import Embedder
from pipeline.types import ChunkedDocument, Document, DocumentEmbeddings

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
_FIRST = (
    "Adele", "Benedikt", "Clara", "Daniel", "Elena", "Frederick", "Gianna", "Hugo", "Ingrid", "Jonathan",
    "Katherine", "Leonard", "Marisol", "Nathaniel", "Olga", "Patrick", "Rosalind", "Samuel", "Tamara", "Ulli",
)  # fmt: skip
_LAST = (
    "Abbot", "Brandt", "Castillo", "Dimitrov", "Ekström", "Fairfax", "Gonzaga", "Hartmann", "Ishikawa",
    "Jankowski", "Kovacs", "Lindgren", "Montague", "Novak",
)  # fmt: skip
_MOST_CANDIDATES = len(_FIRST) * len(_LAST)
_LEAST_TOKENS = 64
EFFECTIVE = 0.9
"""Share of passkeys that must be found for a length to count as within reach."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What was found at one length. ``document`` and ``unit`` are shares of questions whose candidate came
    first, by one vector a document (the mean of its units by tokens) and by its best unit."""

    tokens: int
    candidates: int
    document: float
    unit: float
    windowing: str
    tokens_a_second: float


def measure(
    embedder: Embedder,
    lengths: Sequence[int],
    candidates: int = 20,
    chunking: ChunkConfig | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Reach]:
    """Embed ``candidates`` documents of each length in tokens, and ask for the key of each.

    ``progress`` is told of document tokens finished. Raises InvalidRequestError for a length or a number
    of candidates that makes no sense, before any work, and what the embedder raises.
    """
    if not 2 <= candidates <= _MOST_CANDIDATES:
        raise InvalidRequestError(
            f"Passkeys of {candidates} candidates cannot be measured.",
            remedy=f"Use 2 to {_MOST_CANDIDATES} candidates.",
        )
    shortest = min(lengths, default=0)
    if shortest < _LEAST_TOKENS:
        raise InvalidRequestError(
            f"Passkeys in texts of {shortest:,} tokens cannot be measured.",
            remedy=f"Use lengths of at least {_LEAST_TOKENS} tokens.",
        )
    return _measured(embedder, sorted(set(lengths)), candidates, chunking or ChunkConfig(), seed, progress)


def _measured(  # noqa: PLR0917 - the arguments of measure
    embedder: Embedder,
    lengths: Sequence[int],
    candidates: int,
    chunking: ChunkConfig,
    seed: int,
    progress: Callable[[int], None] | None,
) -> Iterator[Reach]:
    for tokens in lengths:
        documents, questions = _candidates(embedder, tokens, candidates, chunking, seed)
        began = time.perf_counter()
        found = embed_stored(embedder, documents, progress)
        seconds = time.perf_counter() - began
        asked = embedder.embed_queries(questions).vectors
        right = np.arange(candidates)
        ranked = [asked @ _means(documents, found).T, _best_units(asked, found)]
        shares = [float((scores.argmax(1) == right).mean()) for scores in ranked]
        total = sum(len(document.encoding) for document in documents)
        yield Reach(tokens, candidates, shares[0], shares[1], found[0].windowing, total / max(seconds, 1e-9))


def effective_tokens(reached: Sequence[Reach], by: str) -> int:
    """The longest length up to which every measured one found ``EFFECTIVE`` of the keys, by ``document``
    or by ``unit``; 0 if none."""
    longest = 0
    for reach in sorted(reached, key=lambda r: r.tokens):
        if getattr(reach, by) < EFFECTIVE:
            break
        longest = reach.tokens
    return longest


def _candidates(
    embedder: Embedder, tokens: int, count: int, chunking: ChunkConfig, seed: int
) -> tuple[list[ChunkedDocument], list[str]]:
    rng = random.Random(seed)  # noqa: S311 - no secret
    # Neighbours share neither name; all pairs come once.
    names = [f"{_FIRST[i % 20]} {_LAST[(i + 3 * (i // 20)) % 14]}" for i in range(count)]
    a_round = len(embedder.encode(FILLER))
    documents, questions = [], []
    for name in names:
        key = rng.randrange(10_000, 99_999)
        hidden = f"{name}'s pass key is {key}. Remember it. {key} is the pass key for {name}. "
        rounds = max(1, (tokens - len(embedder.encode(hidden))) // a_round)
        before = rng.randrange(rounds + 1)
        text = FILLER * before + hidden + FILLER * (rounds - before)
        documents.append(chunk(Document(name, text), embedder.encode(text), chunking))
        questions.append(f"What is the pass key for {name}?")
    return documents, questions


def _means(documents: Sequence[ChunkedDocument], found: Sequence[DocumentEmbeddings]) -> NDArray[np.float32]:
    rows = []
    for document, vectors in zip(documents, found, strict=True):
        sizes = np.array([max(u.token_end - u.token_start, 1) for u in document.units], np.float32)
        mean = sizes @ vectors.units
        rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows)


def _best_units(asked: NDArray[np.float32], found: Sequence[DocumentEmbeddings]) -> NDArray[np.float32]:
    return np.stack([(asked @ vectors.units.T).max(1) for vectors in found], axis=1)
