"""Mutual exclusion in order of arrival.

``threading.Lock`` lets a thread that releases and at once takes it again overtake those that wait, so a
bulk load would starve searches.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A context manager that one thread holds at a time, first come, first served. Not reentrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            ticket = threading.Lock()
            ticket.acquire()
            self._waiting.append(ticket)
        try:
            ticket.acquire()
        except BaseException:  # interrupted: leave the queue, or pass on a turn that came meanwhile
            with self._guard:
                waiting = ticket in self._waiting
                if waiting:
                    self._waiting.remove(ticket)
            if not waiting:
                self._next()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next()

    def _next(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
