"""Progress in document tokens, when every token passes through the model more than once."""

from __future__ import annotations

from collections.abc import Callable


class Meter:
    """Turns tokens through the model into document tokens finished.

    ``work`` is the sum of tokens that will pass; ``progress`` receives increments that sum to
    ``tokens`` once :meth:`close` was called.
    """

    def __init__(self, tokens: int, work: int, progress: Callable[[int], None] | None) -> None:
        self._tokens, self._work, self._progress = tokens, max(work, 1), progress
        self._passed = 0
        self._told = 0

    def add(self, passed: int) -> None:
        """So many more tokens went through the model."""
        self._passed += passed
        self._tell(self._tokens * min(self._passed, self._work) // self._work)

    def close(self) -> None:
        """All is done: report what rounding left."""
        self._tell(self._tokens)

    def _tell(self, finished: int) -> None:
        if self._progress and finished > self._told:
            self._progress(finished - self._told)
        self._told = finished
