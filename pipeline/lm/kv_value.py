"""What is worth keeping: the cost of building an entry again, per byte, times how often it is used.

Costs are measured seconds on a machine that does other things too, so they count relative to the usual
cost and within bounds: nothing stays because it happened to be built in a busy moment.

Counts outlive the entries they are of (Einziger et al. 2017, TinyLFU, section 3.3), so an entry that
comes back competes with its history, and entries that a scan touches once only displace each other.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock

_SAMPLE = 100_000
_CHEAPEST, _DEAREST = 0.5, 2.0
_SMOOTHING = 0.1


@dataclass(slots=True)
class Use:
    """What one entry costs: bytes kept and seconds to build it (None: not known, so as usual); ``last``
    orders by recency."""

    size_bytes: int
    seconds: float | None = None
    last: int = 0


class Uses:
    """How often keys were used lately. Thread-safe; at most ``sample`` keys are remembered."""

    def __init__(self, sample: int = _SAMPLE) -> None:
        """After ``sample`` uses all counts are halved, and what was used once is forgotten."""
        self._sample = sample
        self._counts: dict[Hashable, int] = {}
        self._counted = 0
        self._clock = 0
        self._usual: float | None = None
        self._lock = Lock()

    def touch(self, key: Hashable) -> int:
        """Count one use; returns a number that grows from use to use."""
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + 1
            self._counted += 1
            self._clock += 1
            if self._counted >= self._sample:
                self._counts = {k: count // 2 for k, count in self._counts.items() if count > 1}
                self._counted = sum(self._counts.values())
            return self._clock

    def count(self, key: Hashable) -> int:
        """Uses of this key within the sample."""
        return self._counts.get(key, 0)

    def forget(self, key: Hashable) -> None:
        """Drop the history of a key that will not come back."""
        with self._lock:
            self._counted -= self._counts.pop(key, 0)

    def learn(self, use: Use) -> None:
        """Let the usual cost per byte follow that of an entry that was just built."""
        if use.seconds is None:
            return
        cost = use.seconds / max(use.size_bytes, 1)
        with self._lock:
            self._usual = cost if self._usual is None else self._usual + _SMOOTHING * (cost - self._usual)

    def worth(self, key: Hashable, use: Use) -> tuple[float, int]:
        """Sorts entries: the least worth keeping first, and of equals the one used longest ago."""
        relative = 1.0
        if use.seconds is not None and self._usual:
            relative = use.seconds / max(use.size_bytes, 1) / self._usual
        return self.count(key) * min(max(relative, _CHEAPEST), _DEAREST), use.last
