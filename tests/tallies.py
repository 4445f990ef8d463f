"""What was tried for each promise, and what went wrong: one line a promise at the end of a run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one promise. ``seconds`` are of recoveries."""

    cases: int = 0
    lost: int = 0
    duplicated: int = 0
    leaked: int = 0
    seconds: list[float] = field(default_factory=list)

    def line(self, promise: str) -> str:
        bad = self.lost + self.duplicated + self.leaked
        told = f"promise {promise}: {self.cases} cases, {self.lost} lost, {self.duplicated} duplicated"
        told += f", {self.leaked} leaked"
        if self.seconds:
            ordered = sorted(self.seconds)
            late = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
            told += f", recovery p50 {statistics.median(ordered):.2f} s p99 {late:.2f} s"
        if not bad and self.cases:  # 0 of N: rule of three
            told += f", 95 % upper bound {min(1.0, 3 / self.cases):.4f}"
        return told


TALLIES: dict[str, Tally] = {}


def tally(
    promise: str, *, lost: int = 0, duplicated: int = 0, leaked: int = 0, seconds: float | None = None
) -> None:
    """One more case."""
    counts = TALLIES.setdefault(promise, Tally())
    counts.cases += 1
    counts.lost += lost
    counts.duplicated += duplicated
    counts.leaked += leaked
    if seconds is not None:
        counts.seconds.append(seconds)


def lines() -> Iterator[str]:
    for promise in sorted(TALLIES, key=lambda name: (int(name.partition(" ")[0]), name)):
        yield TALLIES[promise].line(promise)
