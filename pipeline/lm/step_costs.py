"""How long a forward pass takes, by the tokens read before it and the tokens it reads.

Measured once for each model and machine on passes over empty states, and refined by every pass that runs.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.remembered import recall, remember

NEW_TOKENS = (1, 2, 4, 9)
_REPEATS = 3
_STEADY = 1.1  # how many times as long as the fastest the second fastest pass takes, at the median
_LOAD_RATE = 0.2
_CLASS_RATE = 0.1
_RECENT_PASSES = 8


class StepCosts:
    """Seconds of a pass: linear in context, linear between the numbers of new tokens that were measured.

    Not one line over all of those: one token is a product with a vector, some are one with a matrix, and
    how many of them cost nothing more depends on the machine and the number format. What runs later only
    scales the costs: by a factor of all passes alike, which is how busy the machine is, and by one for each
    class of more than one new token, which mends the measurement. That one compares a pass with the last one
    of a single token, if that was a moment ago: so a machine that was busy during a few checks of drafts does
    not make checks look dearer than plain steps.
    """

    def __init__(self, measured: Mapping[tuple[int, int], float], *, is_provisional: bool = False) -> None:
        """``measured``: seconds by (context tokens, new tokens), each of one with each of the other; at least
        two contexts, and one new token among others. ``is_provisional``: something else disturbed it."""
        self.is_provisional = is_provisional
        contexts = sorted({context for context, _ in measured})
        self._new = np.array(sorted({new for _, new in measured}), float)
        rows = np.array([[measured[context, int(new)] for new in self._new] for context in contexts])
        # Neither more tokens nor a longer context make a pass faster; noise may have said so.
        rows = np.maximum.accumulate(np.maximum.accumulate(rows, 1), 0)
        self._start = float(contexts[0])
        self._base = rows[0]
        self._slopes = np.maximum.accumulate((rows[-1] - rows[0]) / max(contexts[-1] - contexts[0], 1))
        self._load, self._seen = 1.0, 2
        self._plain, self._since_plain = 1.0, _RECENT_PASSES
        self._of_class: dict[int, tuple[float, int]] = {}
        self._guard = threading.Lock()

    def seconds(self, context_tokens: int, new_tokens: int) -> float:
        """What a pass is expected to take."""
        return self._measured(context_tokens, new_tokens) * self._load * self._class_scale(new_tokens)

    def learn(self, context_tokens: int, new_tokens: int, seconds: float) -> None:
        """A pass took so long. The first ones count most."""
        with self._guard:
            kind, ratio = _class(new_tokens), seconds / self._measured(context_tokens, new_tokens)
            scale, seen = self._of_class.get(kind, (1.0, 0))
            if kind == 1:
                self._plain, self._since_plain = ratio, 0
            elif self._since_plain < _RECENT_PASSES:
                self._since_plain += 1
                scale *= _bounded(ratio / self._plain / scale) ** max(_CLASS_RATE, 1 / (seen + 3))
                self._of_class[kind] = (scale, seen + 1)
            self._load *= _bounded(ratio / scale / self._load) ** max(_LOAD_RATE, 1 / (self._seen + 1))
            self._seen += 1

    def _measured(self, context: int, new: int) -> float:
        """By the measurement alone; beyond its longest row the last slope goes on."""
        row = np.maximum(self._base + self._slopes * (context - self._start), self._base / 2)
        if new <= self._new[-1]:
            return float(np.interp(new, self._new, row))
        step = (row[-1] - row[-2]) / (self._new[-1] - self._new[-2])
        return float(row[-1] + step * (new - self._new[-1]))

    def _class_scale(self, new: int) -> float:
        return self._of_class.get(_class(new), (1.0, 0))[0]


def measure(
    run: Callable[[int, int], float],
    contexts: Sequence[int],
    file: Path | None = None,
    busy: Callable[[], bool] = lambda: False,
) -> StepCosts:
    """Costs from timed passes. ``run(n, m)`` reads m tokens after n and says how many seconds it took.

    The first process that asks measures; later ones find in ``file`` what it measured. A file that is
    damaged, or of other passes, is written anew; one that cannot be written is no obstacle. What is measured
    while the network is ``busy`` with something else, or the machine is, so that a pass takes now longer and
    now shorter, is provisional: good for now, but not kept.
    """
    wanted = {(n, m) for n in contexts for m in NEW_TOKENS}
    known = {} if file is None else _read(file)
    if known.keys() == wanted:
        return StepCosts(known)
    busy_before = busy()
    # The first pass of a shape prepares kernels and memory, so the fastest counts.
    timed = {(n, m): sorted(run(n, m) for _ in range(_REPEATS)) for n, m in sorted(wanted)}
    measured = {key: seconds[0] for key, seconds in timed.items()}
    is_steady = median(seconds[1] / seconds[0] for seconds in timed.values()) <= _STEADY
    is_provisional = not is_steady or busy_before or busy()
    if file is not None and not is_provisional:
        remember(file, [[n, m, seconds] for (n, m), seconds in measured.items()])
    return StepCosts(measured, is_provisional=is_provisional)


def _read(file: Path) -> dict[tuple[int, int], float]:
    """Seconds by (context tokens, new tokens); nothing if the file is not there or makes no sense."""
    with suppress(ValueError, TypeError, OverflowError):
        found = {(int(n), int(m)): float(s) for n, m, s in recall(file)}
        if all(0 < seconds < math.inf for seconds in found.values()):
            return found
    return {}


def _bounded(ratio: float) -> float:
    """An outlier (the machine was busy elsewhere for a moment) moves a scale by a bounded factor."""
    return min(max(ratio, 0.5), 2.0)


def _class(new: int) -> int:
    """1, 2-3, 4-6 and more tokens are refined apart."""
    return 1 if new == 1 else 2 if new < 4 else 4 if new < 7 else 7
