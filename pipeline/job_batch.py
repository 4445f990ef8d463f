"""One batch of a job's documents, from being taken until every one has ended or was given back.

What is wrong with one document is that document's end: at once where trying again cannot help, after
``max_attempts`` otherwise. What is wrong with the world (a full disk, a server that is down) is waited
for. What ends the process counts as an attempt of whatever it was working on. A document whose states
are being cached is stored: whatever goes wrong then, it is done, after ``max_attempts`` waits at most.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from pipeline import job_rows
from pipeline.errors import (
    ConfigurationError,
    FingerprintMismatchError,
    LongleafError,
    PasswordRequiredError,
    StorageError,
    UnavailableError,
    WorkCancelledError,
)
from pipeline.ingest import Ingestor
from pipeline.job_journal import JobJournal
from pipeline.job_rows import OpenDocument
from pipeline.job_tables import job_documents, jobs
from pipeline.jobs import JobConfig, JobStage, OnConflict
from pipeline.ledger import Ledger
from pipeline.records import VersionKey
from pipeline.results import IngestResult

Cache = Callable[[VersionKey, Callable[[], bool]], Iterator[tuple[int, int]]]
"""Builds the states of a version, until told to stop; yields how many of its passages are cached, of all."""
Told = Callable[[str, IngestResult], None]
Wanted = Callable[[str, Sequence[OpenDocument]], bool]

_HOPELESS = (ConfigurationError, FingerprintMismatchError)
_WORTH_ANOTHER_TRY = ("internal", "reader_limit", "index")
_LOOK_SECONDS = 0.25
_NOTE_SECONDS = 1.0
_log = logging.getLogger("longleaf.jobs")


class Batch:
    """Documents of one job that ``writer`` has taken; ``wanted`` says whether it still may."""

    def __init__(  # noqa: PLR0917 - one call
        self,
        ledger: Ledger,
        config: JobConfig,
        writer: str,
        items: Sequence[OpenDocument],
        cache: Cache | None,
        wanted: Wanted,
        told: Told | None = None,
    ) -> None:
        self._ledger = ledger
        self._config = config
        self._writer = writer
        self._items = items
        self._cache = cache
        self._wanted = wanted
        self._told = told
        self._open = {item.document_id: item for item in items}
        self._journal = JobJournal(ledger, writer, items, caches=cache is not None)
        self._looked = time.monotonic()
        self._looking = threading.Lock()

    def work(self, ingestor_of: Callable[[str, str], Ingestor]) -> None:
        """Ingest them. Nothing that goes wrong is raised but what ends the process."""
        try:
            self._settle()
            if self._open:
                first = self._items[0]
                self._ingest(ingestor_of(first.tenant, first.collection))
        except WorkCancelledError:
            self._give_back()
        except _HOPELESS as error:
            self._fail_all(error)
        except LongleafError as error:
            _log.warning("job %s waits: %s", self._items[0].job_id, error.code)
            self._give_back(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, these documents are to end
            _log.error("job %s: %s", self._items[0].job_id, type(error).__name__)
            self._fail_all(error)
        except BaseException:
            self._give_back()
            raise
        finally:
            self._tidy()

    def _settle(self) -> None:
        """What needs no ingestion: tried too often, or stored already and only not cached."""
        for item in self._items:
            if item.attempts > self._config.max_attempts:
                self._give_up(
                    item,
                    code="worker_ended",
                    message=f"The process that worked on it ended {item.attempts - 1} times, "
                    f"last at {item.stage}.",
                    remedy="Look at the service's log and memory; `longleaf jobs retry` tries it again."
                    if item.stage != "caching"
                    else "Look at the service's log and memory; `longleaf kv warm` tries it again.",
                )
            elif item.stage == "caching":
                self._build_states(item)

    def _ingest(self, ingestor: Ingestor) -> None:
        first = self._items[0]
        results = ingestor.ingest(
            [self._journal.source(item) for item in self._open.values()],
            tenant=first.tenant,
            collection=first.collection,
            on_conflict=self._on_conflict(first.job_id),
            journal=self._journal,
            cancelled=self._unwanted,
        )
        with contextlib.closing(results):
            for result in results:
                if self._told is not None:
                    self._told(first.tenant, result)
                item = self._open[result.document_id]
                key = self._journal.published_keys.get(result.document_id)
                if result.status == "failed":
                    self._fail(item, result)
                elif key is None:
                    self._end(item, "done", status=result.status, version=result.version)
                else:  # it ended in the transaction that published it, or is left to be cached
                    self._done(item)

    def _on_conflict(self, job_id: str) -> OnConflict:
        with self._ledger.database.read() as connection:
            found = connection.execute(sa.select(jobs.c.on_conflict).where(jobs.c.id == job_id))
            policy: OnConflict = found.scalar_one()
        return policy

    def _unwanted(self) -> bool:
        """Asked often, looked up now and then."""
        with self._looking:
            if time.monotonic() - self._looked < _LOOK_SECONDS:
                return False
            self._looked = time.monotonic()
        published = self._journal.published_keys
        items = [item for name, item in list(self._open.items()) if name not in published]
        return not self._wanted(self._writer, items)

    def _build_states(self, item: OpenDocument) -> None:
        """See the last stage through. Raises WorkCancelledError when something else is to be done first."""
        stopped = False

        def stop() -> bool:
            nonlocal stopped
            stopped = stopped or self._unwanted()
            return stopped

        key = VersionKey(item.tenant, item.collection, item.document_id, item.version)
        noted = time.monotonic()
        try:
            for cached, passages in self._cache(key, stop) if self._cache is not None else ():
                if time.monotonic() - noted > _NOTE_SECONDS:
                    noted = time.monotonic()
                    self._note(item, message=f"{cached:,} of {passages:,} passages are cached")
        except WorkCancelledError:
            raise
        except (UnavailableError, StorageError) as error:
            if item.waits < self._config.max_attempts:
                raise
            self._give_up(item, code=error.code, message=str(error), remedy=error.remedy)
            return
        except Exception as error:  # noqa: BLE001 - the document is stored, and can do without
            self._fail(item, IngestResult.failed(item.name, item.document_id, error))
            return
        if stopped:
            raise WorkCancelledError("Something else is to be done first.")
        self._end(item, "done", message="")

    def _note(self, item: OpenDocument, **values: Any) -> None:  # noqa: ANN401 - columns
        with self._ledger.database.write() as connection:
            job_rows.change(connection, item, self._writer, **values)

    def _fail(self, item: OpenDocument, result: IngestResult) -> None:
        """End a document that failed, or have it tried again."""
        said = {"code": result.code, "message": result.message, "remedy": result.remedy}
        if result.code == PasswordRequiredError.code:  # a job keeps none, so it cannot be given one
            said["remedy"] = "Ingest it with its password and without a job, or save it without a password."
        if result.code not in _WORTH_ANOTHER_TRY and item.stage != "caching":
            self._end(item, "failed", status="failed", **said)
        elif result.code not in _WORTH_ANOTHER_TRY or item.attempts >= self._config.max_attempts:
            self._give_up(item, **said)
        else:
            again = time.time() + self._pause(item.attempts)
            self._journal.flush()
            with self._ledger.database.write() as connection:
                job_rows.change(connection, item, self._writer, writer="", not_before=again, **said)
            self._done(item)

    def _give_up(self, item: OpenDocument, **said: str) -> None:
        """Quarantine it, unless it is stored already."""
        if item.stage == "caching":
            self._end(item, "done", **said)
        else:
            self._end(item, "quarantined", status="failed", **said)

    def _fail_all(self, error: Exception) -> None:
        for item in list(self._open.values()):
            self._fail(item, IngestResult.failed(item.name, item.document_id, error))

    def _give_back(self, because: LongleafError | None = None) -> None:
        """Leave the rest to another time. It was not the documents' fault: no attempt is counted."""
        with contextlib.suppress(LongleafError):
            self._journal.flush()
            with self._ledger.database.write() as connection:
                for item in self._open.values():
                    values: dict[str, Any] = {"writer": "", "attempts": item.attempts - 1}
                    if because is not None:
                        pause = self._pause(item.waits + 1)
                        values |= {"waits": item.waits + 1, "not_before": time.time() + pause}
                    job_rows.change(connection, item, self._writer, **values)
                if because is not None:
                    job = sa.update(jobs).where(jobs.c.id == self._items[0].job_id)
                    connection.execute(job.values(waiting=str(because)))

    def _end(self, item: OpenDocument, stage: JobStage, **values: Any) -> None:  # noqa: ANN401 - columns
        self._journal.flush()
        with self._ledger.database.write() as connection:
            job_rows.end(connection, item, self._writer, stage, **values)
        self._done(item)

    def _done(self, item: OpenDocument) -> None:
        self._open.pop(item.document_id, None)

    def _pause(self, times: int) -> float:
        return min(self._config.backoff_seconds * 2.0 ** (times - 1), self._config.max_backoff_seconds)

    def _tidy(self) -> None:
        """Remove the files of what is stored or has ended."""
        needed = sa.select(job_documents.c.position).where(
            job_documents.c.seq.in_([item.seq for item in self._items]), job_rows.on_its_way()
        )
        with contextlib.suppress(LongleafError):
            with self._ledger.database.read() as connection:
                kept = set(connection.execute(needed).scalars())
            ended = {item.position for item in self._items} - kept
            self._ledger.arrivals.remove(self._items[0].job_id, ended)
