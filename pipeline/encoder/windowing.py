"""How a text is covered by passes of a model: which of three ways, and why.

1. One window over the whole text, where the model (by its position method) reads that far.
2. Overlapping macro-windows, where the text is longer.
3. Each chunk alone, where no weight asks for late vectors or token vectors cannot be had.

What ran is said in words, which are stored with the document and shown with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

ALONE = "each chunk alone"


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens ``[start, stop)`` are encoded together; the vectors of ``[keep_start, keep_stop)`` count."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


@dataclass(frozen=True, slots=True)
class Windowing:
    """The policy of one embedder: windows of ``content_tokens`` that share ``overlap_tokens`` at least,
    under the position method ``positions``."""

    content_tokens: int
    overlap_tokens: int
    positions: str = "native"

    def plan(self, tokens: int) -> list[Window]:
        """The windows over a document of so many tokens."""
        return windows(tokens, self.content_tokens, self.overlap_tokens)

    def describe(self, plan: Sequence[Window]) -> str:
        """Which way a plan is, and why."""
        if not plan:
            return f"{ALONE}: late vectors have no weight"
        stretched = "" if self.positions in ("native", "pcw") else f" (positions {self.positions})"
        if len(plan) == 1:
            return f"single window{stretched}"
        size = plan[0].stop - plan[0].start
        shared = min(a.stop - b.start for a, b in pairwise(plan))
        return (
            f"{len(plan)} overlapping windows of {size} tokens, {shared} shared: the text has "
            f"{plan[-1].stop} tokens and a window {self.content_tokens}{stretched}"
        )


def windows(tokens: int, size: int, overlap: int) -> list[Window]:
    """Windows of ``size`` tokens that share at least ``overlap`` with their neighbours, evenly spread.

    Every token is kept exactly once: neighbours meet in the middle of what they share. A document that
    fits is one window.
    """
    if tokens <= size:
        return [Window(0, tokens, 0, tokens)] if tokens else []
    count = -(-(tokens - overlap) // (size - overlap))
    starts = [(tokens - size) * i // (count - 1) for i in range(count)]
    seams = [0, *((a + size + b) // 2 for a, b in pairwise(starts)), tokens]
    return [
        Window(a, a + size, left, right) for a, (left, right) in zip(starts, pairwise(seams), strict=True)
    ]
