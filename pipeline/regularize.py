"""Score regularisation: what resembles well-scored passages of other documents scores better itself.

What is relevant resembles what else is relevant (the cluster hypothesis, van Rijsbergen 1979), so scores
should be smooth over resemblances (Diaz, "Regularizing Ad Hoc Retrieval Scores", CIKM 2005, who solves for
the smoothest scores near the given ones). Here it is one step: the mean over all others that were found,
weighed by resemblance. And scores only rise, which measured better on balance: a single passage that answers
is often unlike everything else that was found, and is none the worse for it. Passages of one document do not
count for each other, because they resemble each other anyway, and neither do near-duplicates, because they
say nothing new.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NEAR_DUPLICATE = 0.9  # cosine above which two passages say the same


@dataclass(frozen=True, slots=True)
class Regularization:
    """How far scores rise, and among how many.

    ``share``, in [0, 1], of the way to what neighbours score (0 is off); among the best ``candidates``.
    A neighbour counts ``exp(cosine / temperature)``: the lower the temperature, the more only the nearest.
    Temperature and what counts as a near-duplicate are for cosines that reach from 0 to 1, as those of the
    default embedder do.
    """

    share: float = 0.3
    candidates: int = 50
    temperature: float = 0.05


def regularized(
    scores: NDArray[np.float64],
    vectors: NDArray[np.float32],
    documents: Sequence[Hashable],
    chosen: Regularization,
) -> NDArray[np.float64]:
    """New scores, none lower: ``s + share * max(0, mean of neighbours' scores, by resemblance, - s)``.

    ``scores`` (n,) and unit ``vectors`` (n, dim) of passages, and the document that each stands in.
    A passage without neighbours keeps its score.
    """
    cosines = (vectors @ vectors.T).astype(np.float64)
    place = {document: number for number, document in enumerate(dict.fromkeys(documents))}
    numbers = np.array([place[document] for document in documents])
    neighbours = (numbers[:, None] != numbers) & (cosines <= _NEAR_DUPLICATE)
    nearest = np.max(cosines, axis=1, initial=-1.0, where=neighbours, keepdims=True)
    weights = np.zeros_like(cosines)
    np.exp((cosines - nearest) / chosen.temperature, out=weights, where=neighbours)
    total = weights.sum(1)
    around = np.divide(weights @ scores, total, out=scores.copy(), where=total > 0)
    best = np.max(np.where(neighbours, scores, scores[:, None]), axis=1)  # no mean exceeds it but by rounding
    risen: NDArray[np.float64] = scores + chosen.share * np.maximum(np.minimum(around, best) - scores, 0.0)
    return risen
