"""How long a forward pass takes, by the tokens read before it and the tokens it reads.

Measured once on passes over empty states and refined by every pass that runs. Imports torch, which takes
seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

NEW_TOKENS = (1, 2, 4, 8)
_REPEATS = 2
_SLOWEST_REFINEMENT = 0.1


class StepCosts:
    """Seconds of a pass: linear in context and new tokens, corrected by what was seen since.

    The shape ``a + b n + [m > 1] (c + d (m - 1) + e n (m - 1))`` (n tokens of context, m new ones) is fitted
    to the measurements at the start, in relative error. What runs later only scales it, for each class of m
    apart: so a machine that becomes busy is noticed, and few, uneven observations cannot bend the shape.
    """

    def __init__(self, measured: Mapping[tuple[int, int], float]) -> None:
        """``measured``: seconds by (context tokens, new tokens); at least two of each."""
        rows = np.array([_features(n, m) for n, m in measured])
        seconds = np.array(list(measured.values()))
        # Coefficients below zero would predict nonsense beyond what was measured.
        self._weights = _non_negative(rows / seconds[:, None], np.ones(len(seconds)))
        self._scales: dict[int, tuple[float, int]] = {}
        self._guard = threading.Lock()

    def seconds(self, context_tokens: int, new_tokens: int) -> float:
        """What a pass is expected to take."""
        base = float(_features(context_tokens, new_tokens) @ self._weights)
        return base * self._scales.get(_class(new_tokens), (self._common(), 0))[0]

    def learn(self, context_tokens: int, new_tokens: int, seconds: float) -> None:
        """A pass took so long. The first ones of a class count most."""
        base = float(_features(context_tokens, new_tokens) @ self._weights)
        with self._guard:
            scale, seen = self._scales.get(_class(new_tokens), (self._common(), 2))
            rate = max(_SLOWEST_REFINEMENT, 1 / (seen + 1))
            # An outlier (the machine was busy elsewhere for a moment) moves the scale by a bounded factor.
            ratio = min(max(seconds / base, scale / 2), scale * 2)
            self._scales[_class(new_tokens)] = (scale + rate * (ratio - scale), seen + 1)

    def _common(self) -> float:
        """The scale of classes that were not seen yet: that of what was."""
        scales = [scale for scale, _ in self._scales.values()]
        return float(np.mean(scales)) if scales else 1.0


def measure(run: Callable[[int, int], float], contexts: Sequence[int]) -> StepCosts:
    """Costs from timed passes. ``run(n, m)`` reads m tokens after n and says how many seconds it took."""
    measured = {}
    for context in contexts:
        for new in NEW_TOKENS:
            run(context, new)  # the first pass of a shape prepares kernels and memory
            measured[context, new] = min(run(context, new) for _ in range(_REPEATS))
    return StepCosts(measured)


def _features(context: int, new: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    more = new - 1
    return np.array([1.0, context / 1000, float(more > 0), more, more * context / 1000])


def _class(new: int) -> int:
    """1, 2-3, 4-6 and more tokens are refined apart."""
    return 1 if new == 1 else 2 if new < 4 else 4 if new < 7 else 7


def _non_negative(
    rows: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    wanted: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Least squares with coefficients of 0 or more: the negative ones are left out, the worst first."""
    kept = list(range(rows.shape[1]))
    while True:
        found = np.linalg.lstsq(rows[:, kept], wanted, rcond=None)[0]
        if len(kept) == 1 or found.min() >= 0:
            break
        del kept[int(found.argmin())]
    weights = np.zeros(rows.shape[1])
    weights[kept] = np.maximum(found, 0)
    return weights
