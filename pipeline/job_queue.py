"""Accepting jobs, looking at them, and stopping them. Working on them is :mod:`pipeline.worker`'s part.

A job is accepted once its files and rows are synced: whatever happens then, it is worked on, once, unless
it is cancelled. What is refused leaves nothing behind.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline import job_rows, job_views
from pipeline.errors import InvalidRequestError, LongleafError, NotFoundError, UnavailableError
from pipeline.job_accepting import accepted, digest_of_key, digest_of_request, insert_job
from pipeline.job_tables import job_documents, jobs
from pipeline.jobs import Job, JobConfig, JobDocument, JobEvent, check_on_conflict
from pipeline.ledger import Ledger
from pipeline.read import Limits
from pipeline.records import check_name
from pipeline.sources import Claim, Source, claim


class JobQueue:
    """The jobs of one ledger. Thread-safe; several processes may share them."""

    def __init__(self, ledger: Ledger, config: JobConfig | None = None, limits: Limits | None = None) -> None:
        self._ledger = ledger
        self._limits = limits or Limits()
        self.config = config or JobConfig()
        self.arrived = threading.Event()  # set when this process accepted something

    def submit(
        self,
        sources: Iterable[Source],
        *,
        tenant: str = "default",
        collection: str = "default",
        on_conflict: str = "replace",
        idempotency_key: str | None = None,
    ) -> tuple[Job, bool]:
        """Accept documents; the job, and whether it had been accepted before under the same key.

        It is durable once this returns. Raises, with nothing kept: InvalidRequestError for what cannot be
        ingested as it is given, or a key that came with other documents before; LimitExceededError;
        ReadError for a file that cannot be opened; DiskFullError; UnavailableError when too much waits.
        """
        check_name("tenant", tenant)
        check_name("collection", collection)
        policy = check_on_conflict(on_conflict)
        key = digest_of_key(idempotency_key)
        with self._ledger.database.read() as connection:
            self._refuse_excess(connection, tenant, 0, 0)
        job_id = uuid.uuid4().hex
        with self._ledger.arrivals.receiving(job_id) as folder:
            try:
                claims = self._receive(folder, sources)
                request = digest_of_request(collection, policy, claims)
                with self._ledger.database.write() as connection:
                    before = accepted(connection, tenant, key, request)
                    if before is None:
                        sizes = [claimed.bytes for claimed in claims]
                        self._refuse_excess(connection, tenant, len(sizes), sum(sizes))
                        job = {
                            "id": job_id,
                            "tenant": tenant,
                            "collection": collection,
                            "on_conflict": policy,
                        }
                        insert_job(connection, job, claims, key, request)
            except BaseException:
                if not self._known(job_id):  # a commit may have succeeded behind an error
                    self._ledger.arrivals.discard(folder)
                raise
            if before is not None:
                self._ledger.arrivals.discard(folder)
        self.arrived.set()
        return self.get(before or job_id), before is not None

    def _known(self, job_id: str) -> bool:
        with suppress(LongleafError), self._ledger.database.read() as connection:
            return (
                connection.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id)).one_or_none() is not None
            )
        return True

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        """One job. Raises NotFoundError, also for one of another tenant."""
        with self._ledger.database.read() as connection:
            found = job_views.jobs_where(connection, jobs.c.id == job_id, limit=1)
        if not found or (tenant is not None and found[0].tenant != tenant):
            raise NotFoundError(
                f"There is no job {job_id[:64]!r}.",
                remedy="GET /v1/jobs or `longleaf jobs list` shows all. They are forgotten after some days.",
            )
        return found[0]

    def jobs(
        self,
        tenant: str | None = None,
        *,
        sees: Callable[[str], bool] | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> Sequence[Job]:
        """Jobs of collections whose names ``sees`` accepts, newest first; ``before`` is the id of the last
        one of the page before. Raises NotFoundError if that one is gone or another tenant's."""
        wanted: list[sa.ColumnElement[bool]] = []
        if tenant is not None:
            wanted.append(jobs.c.tenant == tenant)
        if state is not None:
            wanted.append(jobs.c.state == state)
        with self._ledger.database.read() as connection:
            if sees is not None:
                names = connection.execute(sa.select(jobs.c.collection).where(*wanted).distinct()).scalars()
                wanted.append(jobs.c.collection.in_([name for name in names if sees(name)]))
            if before is not None:
                asked = [jobs.c.id == before, *([] if tenant is None else [jobs.c.tenant == tenant])]
                edge = connection.execute(sa.select(jobs.c.created).where(*asked)).scalar_one_or_none()
                if edge is None:
                    raise NotFoundError(
                        f"There is no job {before[:64]!r} to go on from.", remedy="Begin with the first page."
                    )
                wanted.append(sa.tuple_(jobs.c.created, jobs.c.id) < sa.tuple_(edge, before))
            return job_views.jobs_where(connection, *wanted, limit=limit)

    def documents(self, job_id: str, *, after: int = -1, limit: int = 100) -> Sequence[JobDocument]:
        """Documents of a job in the order given, those after position ``after``."""
        with self._ledger.database.read() as connection:
            return job_views.documents_of(connection, job_id, after, limit)

    def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JobEvent]:
        """What happened to a job, in order, after the event ``after``."""
        with self._ledger.database.read() as connection:
            return job_views.events_of(connection, job_id, after, limit)

    def cancel(self, job_id: str) -> Job:
        """Stop a job: what is finished stays, nothing else becomes a document. Idempotent."""
        self.get(job_id)
        with self._ledger.database.write() as connection:
            files = job_rows.cancel(connection, job_id)
        for name, position in files:
            self._ledger.arrivals.remove(name, [position])
        return self.get(job_id)

    def retry(self, job_id: str) -> Job:
        """Try the quarantined documents of a job again. Raises InvalidRequestError if there are none."""
        self.get(job_id)
        mine = sa.and_(job_documents.c.job_id == job_id, job_documents.c.stage == "quarantined")
        again = sa.update(job_documents).where(mine)
        with self._ledger.database.write() as connection:
            told = again.values(
                stage="queued", finished=None, attempts=0, not_before=0.0, code="", message=""
            )
            if not connection.execute(told).rowcount:
                raise InvalidRequestError(
                    f"Job {job_id} has no quarantined documents.", remedy="Only those can be tried again."
                )
            reopened = sa.update(jobs).where(jobs.c.id == job_id)
            connection.execute(reopened.values(state="queued", finished=None))
            job_rows.note(connection, job_id, "queued")
        self.arrived.set()
        return self.get(job_id)

    def waiting(self, tenant: str) -> tuple[int, int]:
        """Documents of a tenant that have not ended yet, and their bytes."""
        with self._ledger.database.read() as connection:
            return job_rows.waiting(connection, tenant)

    def backlog(self) -> tuple[dict[str, float], dict[str, float]]:
        """Documents that have not ended, by stage; and for how many seconds the oldest job of each has been
        accepted."""
        waiting = (
            sa.select(job_documents.c.stage, sa.func.count(), sa.func.min(jobs.c.created))
            .select_from(job_documents.join(jobs, jobs.c.id == job_documents.c.job_id))
            .where(job_documents.c.finished.is_(None))
            .group_by(job_documents.c.stage)
        )
        with self._ledger.database.read() as connection:
            rows = connection.execute(waiting).all()
        now = time.time()
        return {row[0]: float(row[1]) for row in rows}, {row[0]: max(now - row[2], 0.0) for row in rows}

    def any_open(self) -> bool:
        """Whether any document has not ended yet."""
        query = sa.select(job_documents.c.seq).where(job_documents.c.finished.is_(None)).limit(1)
        with self._ledger.database.read() as connection:
            return connection.execute(query).one_or_none() is not None

    def tidy(self) -> None:
        """Forget jobs that ended long ago; remove files of jobs that nobody knows or is accepting, and of
        documents that have ended. Only for a process that owns ingestion."""
        with self._ledger.database.write() as connection:
            job_rows.prune(connection, time.time() - self.config.keep_days * 86_400)
        for job_id in self._ledger.arrivals.folders():
            with self._ledger.arrivals.abandoned(job_id) as abandoned:
                if abandoned:
                    self._tidy(job_id)

    def _tidy(self, job_id: str) -> None:
        query = sa.select(job_documents.c.position).where(job_documents.c.job_id == job_id)
        with self._ledger.database.read() as connection:
            wanted = set(connection.execute(query.where(job_rows.on_its_way())).scalars())
        self._ledger.arrivals.keep_only(job_id, wanted)

    def _receive(self, folder: Path, sources: Iterable[Source]) -> list[Claim]:
        claims = []
        for position, source in enumerate(sources):
            if source.password is not None:
                raise InvalidRequestError(
                    f"{source.name!r} comes with a password, which a job would have to keep.",
                    remedy="Ingest it without a job: with ?wait=true, or on the command line.",
                )
            content = source.text.encode("utf-8", "surrogatepass") if source.text is not None else source.data
            claimed = self._claim(position, source)
            assert content is not None  # claim() has seen to it
            path = self._ledger.arrivals.put(folder, position, content)
            if source.text is None:  # hash what was kept: the file may have changed since
                kept = self._claim(position, Source(**{**_fields(source), "data": path}))
                claimed = Claim(
                    **{**_fields(claimed), "sha256": kept.sha256, "digest": kept.digest, "bytes": kept.bytes}
                )
            claims.append(claimed)
        if not claims:
            raise InvalidRequestError("There is nothing to ingest.", remedy="Give at least one document.")
        self._ledger.arrivals.settle(folder)
        return claims

    def _claim(self, position: int, source: Source) -> Claim:
        """The source, checked. What is wrong with it says which of the job's documents it is."""
        try:
            return claim(source, self._limits)
        except LongleafError as error:
            name = source.document_id or source.name
            which = f"Document {position}{f' ({name[:80]!r})' if name else ''}"
            raise type(error)(f"{which}: {error.message}", remedy=error.remedy) from error

    def _refuse_excess(self, connection: Connection, tenant: str, documents: int, size: int) -> None:
        count, held = job_rows.waiting(connection, tenant)
        most, room = self.config.max_queued_documents, self.config.max_queued_bytes
        if count + max(documents, 1) > most or held + size > room:
            raise UnavailableError(
                f"{count:,} documents of {held:,} bytes are waiting; at most {most:,} of {room:,} may.",
                remedy="Try again when some are done, or raise jobs.max_queued_documents or _bytes.",
            )


def _fields(value: Source | Claim) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
