"""Callers of one model or one engine take turns, first come first served, one step at a time."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Turns:
    """A mutual exclusion that hands over in order of arrival.

    ``threading.Lock`` is not fair: a loop that releases and takes it again at once keeps it, and a second
    stream would wait until the first has written its whole answer, a search until a bulk load is done. Here
    they alternate.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn, hold it inside, hand it to whoever has waited longest."""
        self._take()
        try:
            yield
        finally:
            self._hand_over()

    def _take(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        try:
            mine.wait()
        except BaseException:  # KeyboardInterrupt: leave the queue, or pass on the turn that just came
            with self._guard:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                    raise
            self._hand_over()
            raise

    def _hand_over(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False
