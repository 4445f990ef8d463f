"""Absolute positions: a trained matrix with one row a position, read in other ways.

Zhu et al. 2024 (LongEmbed, arXiv:2404.12096, section 4.1) compare these for embedding models.
``rows`` gives for each position of a longer sequence the place in the trained matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.positions.rotary import Native, stretched


@dataclass(frozen=True, slots=True)
class ParallelWindows(Native):
    """Windows of the trained length side by side, each counting from 0 (Ratner et al. 2023, PCW,
    arXiv:2212.10947): ``m mod trained``, and no attention between windows."""

    def __str__(self) -> str:
        return "pcw"


@dataclass(frozen=True, slots=True)
class Grouped:
    """Neighbouring tokens share a position: ``floor(m / factor)``."""

    kinds: ClassVar[frozenset[str]] = frozenset({"absolute"})
    factor: float

    def reach(self, trained_tokens: int) -> int:
        """Trained length times the factor."""
        return stretched(trained_tokens, self.factor)

    def rows(self, trained_tokens: int) -> NDArray[np.float64]:
        """Whole numbers: the row of each position."""
        return np.floor(np.arange(self.reach(trained_tokens)) / self.factor)

    def __str__(self) -> str:
        return f"grouped:{self.factor:g}"


@dataclass(frozen=True, slots=True)
class Recurrent:
    """Positions over and over again, in one sequence: ``m mod trained``."""

    kinds: ClassVar[frozenset[str]] = frozenset({"absolute"})
    factor: float

    def reach(self, trained_tokens: int) -> int:
        """Trained length times the factor."""
        return stretched(trained_tokens, self.factor)

    def rows(self, trained_tokens: int) -> NDArray[np.float64]:
        """Whole numbers: the row of each position."""
        return np.asarray(np.arange(self.reach(trained_tokens)) % trained_tokens, np.float64)

    def __str__(self) -> str:
        return f"recurrent:{self.factor:g}"


def interpolated(matrix: NDArray[np.float32], rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows ``(n, D)`` of a matrix ``(trained, D)`` at places that may lie between its rows."""
    below = np.floor(rows).astype(np.int64)
    above = np.minimum(below + 1, len(matrix) - 1)
    share = (rows - below).astype(np.float32)[:, None]
    return np.asarray(matrix[below] * (1 - share) + matrix[above] * share, np.float32)
