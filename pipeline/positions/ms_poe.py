"""Ms-PoE: every head counts positions on a scale of its own (Zhang et al. 2024, arXiv:2403.04797, "Found in
the Middle: How Language Models Use Long Contexts Better via Plug-and-Play Positional Encoding").

Long distances are trained for least; shrunk positions bring the middle of a text nearer. How much differs
by head: one that finds what matters wherever it stands is changed least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.positions.rotary import Rope, Rotation


@dataclass(frozen=True, slots=True)
class MsPoe:
    """Position ``m`` becomes ``m / r`` with ``r`` from ``least`` for the most position-aware head of a layer
    to ``most`` for the least aware (their eqs. 4-5); see :mod:`pipeline.lm.head_turns`. The window stays."""

    kinds: ClassVar[frozenset[str]] = frozenset({"rotary"})
    least: float = 1.2
    most: float = 1.8

    @property
    def factor(self) -> float:
        """The largest ratio."""
        return self.most

    def reach(self, trained_tokens: int) -> int:
        """No more than trained: the first layers keep their positions."""
        return trained_tokens

    def rotation(self, rope: Rope, tokens: int) -> Rotation:
        """The trained frequencies: what heads add to them is theirs."""
        return Rotation(rope.frequencies())

    def ratios(self, awareness: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ratio of each head of a layer, from their position-awareness scores ``(H,)``. Equal scores are
        told apart by the heads' numbers; a single head gets ``least``."""
        ranks = np.empty(len(awareness))
        ranks[np.argsort(-awareness, kind="stable")] = np.arange(len(awareness))
        return np.asarray(self.least + (self.most - self.least) * ranks / max(len(awareness) - 1, 1))

    def __str__(self) -> str:
        return f"ms_poe:{self.least:g}:{self.most:g}"
