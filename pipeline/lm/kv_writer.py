"""One thread that writes KV states to disk, so that nobody waits for the disk before the first token."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_MOST_WAITING = 64
_log = logging.getLogger("longleaf.contexts")


class Writer:
    """Runs jobs in order. At most so many wait; whoever adds another one waits for a place."""

    def __init__(self, most_waiting: int = _MOST_WAITING) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(most_waiting)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def add(self, job: Callable[[], None]) -> None:
        """Run this some time soon. The thread starts with the first job."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="kv-write", daemon=True)
                self._thread.start()
        self._jobs.put(job)

    def drain(self) -> None:
        """Return once every job added before is done."""
        self._jobs.join()

    def close(self) -> None:
        """Finish what waits and end the thread."""
        with self._starting:
            if self._thread is not None:
                self._jobs.put(None)
                self._thread.join()
                self._thread = None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - the next ones are to be written all the same
                _log.exception("KV states were not written")
            finally:
                del job  # and the states that it holds, before the next one comes
                self._jobs.task_done()
        self._jobs.task_done()
