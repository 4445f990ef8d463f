"""Similarities of any embedder on one scale, so that thresholds mean the same for each.

Cosines of unrelated sentences are near 0 with one embedder and 0.7 with another. The same few questions
and answers are embedded once; the mean cosine of an unrelated pair becomes 0, that of a matching pair 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.seams import Embedder

# Of different subjects and lengths, each answered in other words than it is asked.
_PAIRS = (
    ("When was the bridge opened?", "Traffic first crossed the bridge in the spring of 1932."),
    ("Who pays for repairs to the roof?", "The landlord bears the cost of repairing the roof."),
    ("What causes the tides?", "Tides rise and fall because of the moon's gravity."),
    ("How many people work for the company?", "The company has about four thousand employees."),
    ("Why was the meeting postponed?", "They put the meeting off since two members were ill."),
    ("Where did the painter grow up?", "The painter spent her childhood in a village near Lyon."),
    ("How is the vaccine given?", "The vaccine is injected into the muscle of the upper arm."),
    ("What happens if the tenant leaves early?", "A tenant who leaves early owes rent for two months."),
    ("Which metal is the best conductor?", "Of all metals, silver conducts electricity best."),
    ("Did the court uphold the ruling?", "The ruling was upheld by the court of appeal."),
    ("How did the children get home?", "A neighbour drove the children home after school."),
    ("What does the parser return?", "The parser returns a tree of nodes."),
)


@dataclass(frozen=True, slots=True)
class Similarity:
    """``unrelated`` and ``related`` are the embedder's mean cosines of such pairs."""

    embedder: Embedder
    unrelated: float
    related: float

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors float32 ``(n, dim)``. Raises EmbeddingError for a text without a word."""
        return self.embedder.embed_queries(texts).vectors

    def between(self, vectors: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scaled similarity ``(n,)`` of each row of ``(n, dim)`` to ``(dim,)``: 0 unrelated, 1 related."""
        scaled: NDArray[np.float32] = (vectors @ vector - self.unrelated) / (self.related - self.unrelated)
        return scaled


def calibrate(embedder: Embedder) -> Similarity:
    """Measure the embedder; an embedder that tells nothing apart gets a scale that says nothing."""
    asked = embedder.embed_queries([question for question, _ in _PAIRS]).vectors
    answered = embedder.embed_queries([answer for _, answer in _PAIRS]).vectors
    cosines = asked @ answered.T
    n = len(_PAIRS)
    related = float(np.trace(cosines)) / n
    unrelated = float(cosines.sum() - np.trace(cosines)) / (n * (n - 1))
    return Similarity(embedder, unrelated, max(related, unrelated + 1e-3))
