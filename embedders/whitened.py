"""Another embedder's vectors, partly whitened.

Texts of one kind share a few strong directions: their subject, their tone, the model's habit. They rule
every cosine and tell such texts little apart. Whitening (Su et al. 2021, arXiv:2103.15316, section 3) gives
all directions the same strength, which also lifts what is noise. Here a direction is multiplied by
``(1 + s / m) ** (-exponent / 2)``, where ``s`` is the mean square of the vectors' components along it and
``m`` the mean of all ``s``: strong ones are turned down, weak ones stay. The mean is not taken away; it is a
strong direction as well.

The directions are those of the first documents ingested (:mod:`embedders._fitted`). From few vectors their
strengths are shrunk towards ``m``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from embedders._fitted import FittedConfig, FittedEmbedder, Statistics, Vectors, sample
from pipeline.seams import Embedder


class Config(FittedConfig):
    """Which embedder is wrapped, and how far its strong directions are turned down."""

    exponent: float = Field(default=0.5, gt=0, le=2)
    """How far: towards 0 hardly, 1 nearly to equal strength."""


TINY = Config(inner="hashing", options={"dim": 128})


def build(config: Config) -> WhitenedEmbedder:
    """Build the inner embedder; statistics are read when first needed."""
    return WhitenedEmbedder(config.build_inner("whitened"), config.exponent, config.statistics)


def whitening(vectors: Vectors, exponent: float) -> Statistics:
    """All directions of vectors ``(n, D)`` and what is kept of each; nearly all of all from few vectors."""
    taken = sample(vectors)
    strengths, axes = np.linalg.eigh(taken.T @ taken / len(taken))
    usual, dim = strengths.mean(), len(strengths)
    strengths = (len(taken) * np.maximum(strengths, 0) + dim * usual) / (len(taken) + dim)
    kept = (1 + strengths / usual) ** (-exponent / 2)
    return Statistics(
        np.zeros(dim, np.float32),
        np.ascontiguousarray(axes.T, np.float32),
        (kept / kept.max()).astype(np.float32),
        len(taken),
    )


class WhitenedEmbedder(FittedEmbedder):
    """Turns strong directions down."""

    def __init__(self, inner: Embedder, exponent: float, folder: Path | None = None) -> None:
        super().__init__(inner, "whitened", {"exponent": exponent}, folder)
        self._exponent = exponent

    def fit(self, vectors: Vectors) -> Statistics:
        """See :func:`whitening`."""
        return whitening(vectors, self._exponent)
