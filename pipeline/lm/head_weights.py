"""How much each head's vote counts: a conditional logit with a ridge, fitted by Newton's method.

Of P passages one holds the answer. With z the heads' votes, the chance of passage p is softmax(w z)[p]
(McFadden 1974), and w makes the passages that hold the answers likeliest, less ``ridge`` times its squared
length. The problem is convex: the same votes give the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.lm.signals import Floats

_STEPS = 50
_CLOSE = 1e-9


def fit(votes: Floats, golds: Sequence[int], ridge: float) -> NDArray[np.float64]:
    """Weights (F,) of F heads from ``votes`` (questions, F, P) and the passage that holds each answer.

    ``ridge`` is above 0, in nats a squared unit of weight.
    """
    count, heads, passages = votes.shape
    seen = votes.astype(np.float64)
    wanted = np.eye(passages)[list(golds)]
    weights = np.zeros(heads)
    loss = _loss(seen, wanted, weights, ridge)
    for _ in range(_STEPS):
        likely = _likely(seen, weights)
        slope = np.einsum("nfp,np->f", seen, likely - wanted) / count + 2 * ridge * weights
        spread = (seen * np.sqrt(likely)[:, None]).transpose(1, 0, 2).reshape(heads, -1)
        mean = np.einsum("nfp,np->nf", seen, likely)
        bend = (spread @ spread.T - mean.T @ mean) / count + 2 * ridge * np.eye(heads)
        step, size = np.linalg.solve(bend, slope), 1.0
        while (new := _loss(seen, wanted, weights - size * step, ridge)) > loss and size > _CLOSE:
            size /= 2
        if loss - new < _CLOSE:
            break
        weights, loss = weights - size * step, new
    return weights


def _likely(votes: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.einsum("nfp,f->np", votes, weights)
    raised = np.exp(scores - scores.max(1, keepdims=True))
    likely: NDArray[np.float64] = raised / raised.sum(1, keepdims=True)
    return likely


def _loss(
    votes: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.float64], ridge: float
) -> float:
    """Mean surprise at the passages that hold the answers, in nats, and the ridge."""
    likely = (_likely(votes, weights) * wanted).sum(1)
    return float(-np.log(np.maximum(likely, 1e-300)).mean() + ridge * (weights @ weights))
