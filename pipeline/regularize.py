"""Score regularisation: what resembles well-scored passages of other documents scores better itself.

What is relevant resembles what else is relevant (the cluster hypothesis, van Rijsbergen 1979), so scores
should be smooth over resemblances (Diaz, "Regularizing Ad Hoc Retrieval Scores", CIKM 2005, who solves for
the smoothest scores near the given ones). Here it is one step: the mean over all others that were found,
weighed by resemblance in meaning and in words. And scores only rise, which measured better on balance: a
single passage that answers is often unlike everything else that was found, and is none the worse for it.
Passages of one document do not count for each other, because they resemble each other anyway, and neither
do near-duplicates, because they say nothing new. Passages of long documents rise less: what the rest of
their document says has been counted for them before.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.types import SparseVector, Vectors

_NEAR_DUPLICATE = 0.9  # cosine above which two passages say the same


@dataclass(frozen=True, slots=True)
class Regularization:
    """How far scores rise, and among how many.

    ``share``, in [0, 1], of the way to what neighbours score (0 is off), divided by the square root of how
    many passages the document has; among the best ``candidates``. A neighbour counts
    ``exp(resemblance / temperature)``, where resemblance is the cosine of the vectors plus that of the
    words: the lower the temperature, the more only the nearest. Temperature and what counts as a
    near-duplicate are for cosines that reach from 0 to 1, as those of the default embedder do.
    """

    share: float = 0.6
    candidates: int = 50
    temperature: float = 0.05


class Candidate(NamedTuple):
    """A passage that was found: its score and vectors, its document and how many passages that has."""

    score: float
    vectors: Vectors
    document: Hashable
    passages: int


def regularized(found: Sequence[Candidate], chosen: Regularization) -> NDArray[np.float64]:
    """New scores ``(n,)``, none lower:
    ``s + share / sqrt(passages) * max(0, mean of neighbours' scores, by resemblance, - s)``.

    A passage without neighbours keeps its score.
    """
    scores = np.array([each.score for each in found])
    dense = np.stack([each.vectors.dense for each in found])
    cosines = _products(dense).astype(np.float64)
    place = {document: number for number, document in enumerate(dict.fromkeys(c.document for c in found))}
    documents = np.array([place[each.document] for each in found])
    neighbours = (documents[:, None] != documents) & (cosines <= _NEAR_DUPLICATE)
    alike = cosines + word_cosines([each.vectors.sparse for each in found])
    nearest = np.max(alike, axis=1, initial=-1.0, where=neighbours, keepdims=True)
    weights = np.zeros_like(alike)
    np.exp((alike - nearest) / chosen.temperature, out=weights, where=neighbours)
    total = weights.sum(1)
    around = np.divide(weights @ scores, total, out=scores.copy(), where=total > 0)
    best = np.max(np.where(neighbours, scores, scores[:, None]), axis=1)  # no mean exceeds it but by rounding
    shares = chosen.share / np.sqrt([each.passages for each in found])
    risen: NDArray[np.float64] = scores + shares * np.maximum(np.minimum(around, best) - scores, 0.0)
    return risen


def word_cosines(vectors: Sequence[SparseVector | None]) -> NDArray[np.float32]:
    """Cosines ``(n, n)`` of lexical vectors, in [0, 1], 0 for one without words.

    A term counts by how few of these vectors have it, ``ln(1 + (n - m + .5) / (m + .5))`` where ``m`` of
    ``n`` do, so that what all of them say, like the words asked for, does not make them alike.
    """
    count = len(vectors)
    words = [v if v is not None else SparseVector(_NO_TERMS, _NO_WEIGHTS) for v in vectors]
    rows = np.repeat(np.arange(count), [len(v.indices) for v in words])
    _, terms, held = np.unique(
        np.concatenate([v.indices for v in words]), return_inverse=True, return_counts=True
    )
    rarity = np.log1p((count - held + 0.5) / (held + 0.5)).astype(np.float32)
    weights = np.concatenate([v.values for v in words]) * rarity[terms]
    lengths = np.sqrt(np.bincount(rows, weights**2, minlength=count)).astype(np.float32)
    shared = held > 1  # the others only count for the lengths
    at = np.flatnonzero(shared[terms])
    matrix = np.zeros((count, int(shared.sum())), np.float32)
    matrix[rows[at], (np.cumsum(shared) - 1)[terms[at]]] = weights[at] / lengths[rows[at]]
    return _products(matrix)


def _products(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """``rows @ rows.T``, one dot product after the other. The threads that numpy has for products of matrices
    would wait busily for more, in the way of the embedder's, which cost each search 5 ms."""
    made: NDArray[np.float32] = np.vecdot(rows[:, None], rows[None])
    return made


_NO_TERMS, _NO_WEIGHTS = np.empty(0, np.uint32), np.empty(0, np.float32)
