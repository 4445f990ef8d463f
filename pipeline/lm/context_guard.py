"""Whether answers behind cached passages stay as good as sequential reading would have them.

Of a sampled share of answers, the log-probability that sequential reading gives the same answer is computed
in the background, when the model has nothing else to do. If it falls short on average, cached contexts are
no longer used until somebody looks (a change of model, corpus or language can do that).
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import LongleafError

_log = logging.getLogger("longleaf.contexts")
_WINDOW = 50
_FEWEST = 8
_WAITING = 8
_PAUSE_SECONDS = 0.2


class Scored(Protocol):
    """An answer that can be scored both ways."""

    def __call__(self, *, sequential: bool) -> float:
        """Mean log-probability a token, read sequentially or behind cached passages."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """The state of the guard. ``difference_nats`` is how much less a token of the compared answers is
    likely under sequential reading, averaged over the last ``compared`` of them."""

    compared: int
    difference_nats: float
    drifted: bool
    failed: int


class Guard:
    """Compares a share of answers. Thread-safe."""

    def __init__(
        self,
        share: float,
        most_nats: float,
        is_busy: Callable[[], bool] = lambda: False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``is_busy`` is asked before each comparison; while it is true, the comparison waits."""
        self._share = share
        self._most_nats = most_nats
        self._is_busy = is_busy
        self._chance = chance
        self._differences: deque[float] = deque(maxlen=_WINDOW)
        self._failed = 0
        self._drifted = False
        self._jobs: queue.Queue[Scored | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @property
    def drifted(self) -> bool:
        """Whether the mean difference has exceeded what is allowed; stays so until :meth:`reset`."""
        return self._drifted

    def state(self) -> Watched:
        """What was found so far, for metrics."""
        with self._lock:
            mean = sum(self._differences) / len(self._differences) if self._differences else 0.0
            return Watched(len(self._differences), mean, self._drifted, self._failed)

    def offer(self, answer: Scored) -> bool:
        """Compare this answer some time soon, if it is among the sampled; whether it is.

        Never waits: while many wait already, further ones are passed over.
        """
        if self._closed.is_set() or self._chance() >= self._share:
            return False
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="context-guard", daemon=True)
                self._thread.start()
        try:
            self._jobs.put_nowait(answer)
        except queue.Full:
            return False
        return True

    def reset(self) -> None:
        """Forget what was found, and trust cached contexts again."""
        with self._lock:
            self._differences.clear()
            self._drifted = False

    def drain(self) -> None:
        """Return once everything offered was compared."""
        self._jobs.join()

    def close(self) -> None:
        """Give up what waits, and end the thread after what it is doing."""
        self._closed.set()
        if self._thread is not None:
            while True:
                try:
                    self._jobs.get_nowait()
                    self._jobs.task_done()
                except queue.Empty:
                    break
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (answer := self._jobs.get()) is not None:
            while self._is_busy() and not self._closed.is_set():
                time.sleep(_PAUSE_SECONDS)
            try:
                if not self._closed.is_set():
                    self._compare(answer)
            finally:
                self._jobs.task_done()
        self._jobs.task_done()

    def _compare(self, answer: Scored) -> None:
        try:
            difference = answer(sequential=False) - answer(sequential=True)
        except LongleafError as error:
            with self._lock:
                self._failed += 1
            _log.info("an answer behind cached passages could not be compared: %s", error.code)
            return
        with self._lock:
            self._differences.append(difference)
            mean = sum(self._differences) / len(self._differences)
            if len(self._differences) >= _FEWEST and mean > self._most_nats and not self._drifted:
                self._drifted = True
                _log.warning("cached contexts are switched off: answers differ by %.2f nats a token", mean)
