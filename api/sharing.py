"""Who may use the processors: searches leave answers that are being written their share.

A language model's pass takes all processors at once, some hundred times an answer, and each waits for the
slowest of its threads; a search takes one for a few hundredths of a second. If searches may fill every
processor, each of those passes stands behind them, and answers stand still for as long as searches come. So
while an answer is in work, fewer searches run at once; the others wait in their line, as they would anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import WorkCancelledError

_LOOK_SECONDS = 0.1


class Share:
    """Counts both kinds of work. Thread-safe."""

    def __init__(self, beside: Callable[[], int]) -> None:
        """``beside`` says how many followers may run at once while a leader does; at least one may."""
        self._beside = beside
        self._changed = threading.Condition()
        self._leading = 0
        self._following = 0

    @contextmanager
    def lead(self, _cancelled: Callable[[], bool]) -> Iterator[None]:
        """Work that others leave room for. Begins at once."""
        with self._changed:
            self._leading += 1
        try:
            yield
        finally:
            with self._changed:
                self._leading -= 1
                self._changed.notify_all()

    @contextmanager
    def follow(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Work that waits while a leader runs and enough others follow. Raises WorkCancelledError when
        nobody wants it any more before it began."""
        most = max(self._beside(), 1)
        with self._changed:
            while self._leading and self._following >= most:
                if cancelled():
                    raise WorkCancelledError("The client left before the work began.")
                self._changed.wait(_LOOK_SECONDS)
            self._following += 1
        try:
            yield
        finally:
            with self._changed:
                self._following -= 1
                self._changed.notify_all()
