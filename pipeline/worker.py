"""A worker takes documents of jobs, batch by batch, in threads of its own or on demand."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import sqlalchemy as sa

from pipeline import job_rows
from pipeline.errors import LongleafError
from pipeline.ingest import Ingestor
from pipeline.job_batch import Batch, Cache, Told
from pipeline.job_queue import JobQueue
from pipeline.job_rows import OpenDocument
from pipeline.job_tables import job_documents
from pipeline.ledger import Ledger

_TIDY_SECONDS = 600.0
_LONGEST_PAUSE_SECONDS = 10.0  # while another process is the one that may, or the ledger does not answer
_log = logging.getLogger("longleaf.jobs")


class Worker:
    """Works on the jobs of a queue, from :meth:`start` to :meth:`close`, or as :meth:`drain` is called.

    ``ingestor_of`` gives the ingestor for a tenant's collection. ``cache`` builds what is derived from each
    version that went live, before its document counts as done and when no document waits to be stored.
    ``told`` may be set to what is to hear of every result, with its tenant.
    """

    def __init__(
        self,
        ledger: Ledger,
        queue: JobQueue,
        ingestor_of: Callable[[str, str], Ingestor],
        cache: Cache | None = None,
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._ingestor_of = ingestor_of
        self._cache = cache
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._claiming = threading.Lock()
        self._tidied: float | None = None
        self.told: Told | None = None

    def start(self) -> None:
        """Start the threads. They wake when something is there to be done."""
        for i in range(self._queue.config.workers):
            thread = threading.Thread(target=self._loop, name=f"jobs-{i}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop after the step under way; what is finished is noted, and the rest goes on next time."""
        self._closing.set()
        self._queue.arrived.set()
        for thread in self._threads:
            thread.join()

    def drain(self) -> int:
        """Work here and now until nothing is left that could be done; returns how many batches it took."""
        batches = 0
        while self.step():
            batches += 1
        with suppress(LongleafError):  # of no job; the next call tries again
            self.clean()
        return batches

    def step(self) -> bool:
        """Take one batch and see it through. False if there was nothing to take.

        Raises UnavailableError while another process is the only one that may.
        """
        if self._closing.is_set() or not self._queue.any_open():
            return False
        with self._claiming:
            self._own()
            writer = self._ledger.ownership.id
            with self._ledger.database.write() as connection:
                self._ledger.ownership.confirm(connection)
                items = job_rows.claim(connection, writer, self._queue.config)
        if items:
            config = self._queue.config
            batch = Batch(self._ledger, config, writer, items, self._cache, self._wanted, self.told)
            batch.work(self._ingestor_of)
        return bool(items)

    def clean(self) -> None:
        """Remove what interrupted writes, replacements and deletions left, for good: nobody may come to
        ingest or delete anything else, which would do it on the way. Raises what recovering raises."""
        if self._closing.is_set():
            return
        left = [(key.tenant, key.collection) for key in (*self._ledger.leftovers(), *self._ledger.shelved())]
        left += self._ledger.dropped_collections()
        if left:
            self._ingestor_of(*left[0]).recover()  # of all of them

    def _own(self) -> None:
        self._ledger.own_ingestion()
        self._ledger.bury_writers()
        if self._tidied is None or time.monotonic() - self._tidied > _TIDY_SECONDS:
            self._tidied = time.monotonic()
            self._queue.tidy()

    def _loop(self) -> None:
        usual = pause = self._queue.config.poll_seconds
        while not self._closing.is_set():
            try:
                if self.step():
                    pause = usual
                    continue
                self.clean()
                pause = usual
            except LongleafError as error:
                _log.warning("work waits: %s", error.code)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - a worker that ended would leave every job waiting
                _log.error("a worker goes on after %s", type(error).__name__)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self._queue.arrived.wait(pause)
            self._queue.arrived.clear()

    def _wanted(self, writer: str, items: Sequence[OpenDocument]) -> bool:
        """Whether this process goes on, and all these documents are still this writer's; documents that are
        only to be cached let others go first."""
        if self._closing.is_set():
            return False
        query = sa.select(sa.func.count()).where(
            job_documents.c.seq.in_([item.seq for item in items]),
            job_documents.c.writer == writer,
            job_documents.c.finished.is_(None),
        )
        with self._ledger.database.read() as connection:
            if connection.execute(query).scalar_one() != len(items):
                return False
            caching = bool(items) and all(item.stage == "caching" for item in items)
            return not (caching and job_rows.any_urgent(connection))
