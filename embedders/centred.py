"""Another embedder's vectors, centred and without their strongest common directions.

Mu and Viswanath 2018 (arXiv:1702.01417, "All-but-the-top", algorithm 1): vectors of one model share a
mean and a few directions that say little about a text; without them cosines tell texts apart better.
Mean and directions are those of the first documents ingested (:mod:`embedders._fitted`). From few vectors
they would be those documents' subject rather than the model's habit, so the mean is shrunk towards nothing
and fewer directions are removed. :mod:`embedders.whitened` turns directions down instead, which costs less
where they do say something.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from embedders._fitted import FittedConfig, FittedEmbedder, Statistics, Vectors, sample
from pipeline.seams import Embedder

_SHRINKAGE = 100  # vectors that weigh as much as the belief that there is no common mean
_VECTORS_A_DIRECTION = 40


class Config(FittedConfig):
    """Which embedder is wrapped, and how much of its vectors is taken away."""

    directions: int = Field(default=16, ge=0, le=256)
    """Most directions to remove, strongest first; 0 only centres."""


TINY = Config(inner="hashing", options={"dim": 128}, directions=2)


def build(config: Config) -> CentredEmbedder:
    """Build the inner embedder; statistics are read when first needed."""
    return CentredEmbedder(config.build_inner("centred"), config.directions, config.statistics)


def common(vectors: Vectors, directions: int) -> Statistics:
    """Mean and strongest directions of vectors ``(n, D)``; fewer and less of them from few vectors."""
    taken = sample(vectors)
    mean = taken.mean(0) * (len(taken) / (len(taken) + _SHRINKAGE))
    rest = taken - mean
    _, axes = np.linalg.eigh(rest.T @ rest)  # weakest first
    count = min(directions, len(taken) // _VECTORS_A_DIRECTION, vectors.shape[1] // 2)
    strongest = np.ascontiguousarray(axes[:, ::-1][:, :count].T, np.float32)
    return Statistics(mean.astype(np.float32), strongest, np.zeros(count, np.float32), len(taken))


class CentredEmbedder(FittedEmbedder):
    """Takes away the mean and ``directions``."""

    def __init__(self, inner: Embedder, directions: int, folder: Path | None = None) -> None:
        super().__init__(inner, "centred", {"directions": directions}, folder)
        self._directions = directions

    def fit(self, vectors: Vectors) -> Statistics:
        """See :func:`common`."""
        return common(vectors, self._directions)
