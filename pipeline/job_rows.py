"""The rows of jobs: statements, inside the ledger's transactions.

A document of a job is *open* until it has ended in a stage of ``ENDED``. Whoever works on it has its
process's id in ``writer``; a row with the id of a dead process is free again. Every change of an open
document asks for that id, so that one that was cancelled, deleted or taken over cannot be changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline import lifecycle, writers
from pipeline.database import insert
from pipeline.job_tables import job_documents, job_events, job_turns, jobs
from pipeline.jobs import JobConfig, JobStage, JobState
from pipeline.records import VersionKey

_MESSAGE_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class OpenDocument:
    """A document of a job, as it was when somebody took it to work on it."""

    seq: int
    job_id: str
    position: int
    tenant: str
    collection: str
    document_id: str
    name: str
    title: str | None
    media_type: str | None
    metadata: Mapping[str, Any]
    is_text: bool
    bytes: int
    stage: JobStage
    checkpoints: Mapping[str, str]
    attempts: int
    waits: int
    version: int


def note(connection: Connection, job_id: str, detail: JobState) -> None:
    """A job's state changed."""
    row = {"job_id": job_id, "at": time.time(), "kind": "job", "position": None, "detail": detail}
    connection.execute(sa.insert(job_events).values(row))


def note_stages(connection: Connection, moved: Iterable[tuple[str, int, str]]) -> None:
    """Documents (job, position) entered stages."""
    now = time.time()
    rows = [
        {"job_id": job_id, "at": now, "kind": "document", "position": position, "detail": stage}
        for job_id, position, stage in moved
    ]
    if rows:
        connection.execute(sa.insert(job_events), rows)


def on_its_way() -> sa.ColumnElement[bool]:
    """Documents whose files are still needed: those that are not stored yet, and the quarantined ones."""
    unstored = sa.and_(job_documents.c.finished.is_(None), job_documents.c.stage != "caching")
    return sa.or_(unstored, job_documents.c.stage == "quarantined")


def free() -> sa.ColumnElement[bool]:
    """Open documents that may be worked on now, each after all earlier ones of its id that are not stored."""
    earlier = job_documents.alias()
    before = sa.select(earlier.c.seq).where(
        earlier.c.finished.is_(None),
        earlier.c.stage != "caching",
        earlier.c.tenant == job_documents.c.tenant,
        earlier.c.collection == job_documents.c.collection,
        earlier.c.document_id == job_documents.c.document_id,
        earlier.c.seq < job_documents.c.seq,
    )
    return sa.and_(
        job_documents.c.finished.is_(None),
        job_documents.c.not_before <= time.time(),
        sa.or_(job_documents.c.writer == "", job_documents.c.writer.not_in(writers.alive())),
        ~before.exists(),
    )


def any_urgent(connection: Connection) -> bool:
    """Whether a document waits that is not stored yet: caching can wait for it."""
    urgent = sa.select(job_documents.c.seq).where(free(), job_documents.c.stage != "caching")
    return connection.execute(urgent.limit(1)).one_or_none() is not None


def claim(connection: Connection, writer: str, config: JobConfig) -> list[OpenDocument]:
    """Take the next documents of one job for ``writer``; empty if there are none.

    Tenants take turns; within a tenant jobs and documents go in the order in which they were accepted.
    One that was tried before is taken alone, so that it cannot take others down with it; so is one that is
    stored and only to be cached, and those come after everything else.
    """
    is_cached = job_documents.c.stage == "caching"
    return _claim(connection, writer, config, ~is_cached) or _claim(connection, writer, config, is_cached)


def _claim(
    connection: Connection, writer: str, config: JobConfig, kind: sa.ColumnElement[bool]
) -> list[OpenDocument]:
    able = sa.and_(free(), kind)
    waiting = sa.select(job_documents.c.tenant).where(able).distinct().subquery()
    turns = (
        sa.select(waiting.c.tenant)
        .select_from(waiting.outerjoin(job_turns, waiting.c.tenant == job_turns.c.tenant))
        .order_by(sa.func.coalesce(job_turns.c.last, 0), waiting.c.tenant)
    )
    tenant = connection.execute(turns.limit(1)).scalar_one_or_none()
    if tenant is None:
        return []
    mine = sa.select(job_documents).where(able, job_documents.c.tenant == tenant)
    first = connection.execute(mine.order_by(job_documents.c.seq).limit(1)).one()
    same = mine.where(job_documents.c.job_id == first.job_id).order_by(job_documents.c.seq)
    alone = first.attempts or first.stage == "caching"
    rows = [first] if alone else _batch(connection.execute(same.limit(config.batch_documents)), config)
    taken = job_documents.c.seq.in_([row.seq for row in rows])
    connection.execute(
        sa.update(job_documents)
        .where(taken)
        .values(writer=writer, attempts=job_documents.c.attempts + 1, code="", message="", remedy="")
    )
    turn = insert(connection, job_turns).values(tenant=tenant, last=time.time())
    connection.execute(turn.on_conflict_do_update(index_elements=["tenant"], set_={"last": time.time()}))
    begun = sa.update(jobs).where(jobs.c.id == first.job_id, jobs.c.state == "queued")
    begun = begun.values(state="running", started=sa.func.coalesce(jobs.c.started, time.time()))
    if connection.execute(begun).rowcount:
        note(connection, first.job_id, "running")
    connection.execute(sa.update(jobs).where(jobs.c.id == first.job_id).values(waiting=""))
    now_mine = connection.execute(sa.select(job_documents).where(taken).order_by(job_documents.c.seq))
    names = OpenDocument.__slots__
    return [OpenDocument(**{name: getattr(row, name) for name in names}) for row in now_mine]


def _batch(candidates: Iterable[Any], config: JobConfig) -> list[Any]:
    rows: list[Any] = []
    size = 0
    for row in candidates:
        size += row.bytes
        if rows and (size > config.batch_bytes or row.attempts):
            break
        rows.append(row)
    return rows


def change(
    connection: Connection,
    item: OpenDocument,
    by: str,
    **values: Any,  # noqa: ANN401 - columns
) -> bool:
    """Change a document that the writer ``by`` works on. False when it no longer does."""
    mine = sa.update(job_documents).where(
        job_documents.c.seq == item.seq,
        job_documents.c.writer == by,
        job_documents.c.finished.is_(None),
    )
    return connection.execute(mine.values(**values)).rowcount == 1


def end(
    connection: Connection,
    item: OpenDocument,
    by: str,
    stage: JobStage,
    **values: Any,  # noqa: ANN401 - columns
) -> bool:
    """A document ends in ``stage``, and its job, if it was the last. False when ``by`` has lost it."""
    if "message" in values:
        values["message"] = values["message"][:_MESSAGE_CHARS]
    if not change(connection, item, by, **values, stage=stage, finished=time.time(), writer=""):
        return False
    note_stages(connection, [(item.job_id, item.position, stage)])
    conclude(connection, item.job_id)
    return True


def conclude(connection: Connection, job_id: str, *, cancelled: bool = False) -> None:
    """Give a job its last state, if all its documents have ended; ``cancelled`` if somebody stopped it."""
    by_stage = (
        sa.select(job_documents.c.stage, sa.func.count())
        .where(job_documents.c.job_id == job_id)
        .group_by(job_documents.c.stage)
    )
    counts = {str(row[0]): int(row[1]) for row in connection.execute(by_stage)}
    open_ones = sa.select(job_documents.c.seq).where(
        job_documents.c.job_id == job_id, job_documents.c.finished.is_(None)
    )
    if connection.execute(open_ones.limit(1)).one_or_none():
        return
    done = counts.get("done", 0)
    failed = counts.get("failed", 0) + counts.get("quarantined", 0)
    state: JobState = "done"
    if cancelled or counts.get("cancelled") or not counts:
        state = "cancelled"
    elif failed:
        state = "partial" if done else "failed"
    ended = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.finished.is_(None))
    if connection.execute(ended.values(state=state, finished=time.time(), waiting="")).rowcount:
        note(connection, job_id, state)


def cancel(connection: Connection, job_id: str) -> list[tuple[str, int]]:
    """End every open document of a job, as cancelled if it is not stored yet; returns whose files may go."""
    is_stored = job_documents.c.stage == "caching"
    rows = connection.execute(
        sa.update(job_documents)
        .where(job_documents.c.job_id == job_id, job_documents.c.finished.is_(None))
        .values(
            stage=sa.case((is_stored, "done"), else_="cancelled"),
            message=sa.case((is_stored, "Cancelled before all its states were cached."), else_=""),
            finished=time.time(),
            writer="",
        )
        .returning(job_documents.c.job_id, job_documents.c.position, job_documents.c.stage)
    ).all()
    note_stages(connection, [(row.job_id, row.position, row.stage) for row in rows])
    if rows:
        conclude(connection, job_id, cancelled=True)
    return [(row.job_id, row.position) for row in rows]


def names(connection: Connection, tenant: str, collection: str) -> set[str]:
    """Ids of the documents of a collection that jobs know."""
    inside = (job_documents.c.tenant == tenant, job_documents.c.collection == collection)
    return set(connection.execute(sa.select(job_documents.c.document_id).where(*inside)).scalars())


def forget(
    connection: Connection, tenant: str, collection: str, document_id: str | None = None
) -> list[tuple[str, int]]:
    """Erase the rows of a document, or of all of a collection; returns whose files are to go.

    What was still on its way gets a tombstone. A job that is left without documents stays, and says only
    that there was one.
    """
    named = [job_documents.c.tenant == tenant, job_documents.c.collection == collection]
    if document_id is not None:
        named.append(job_documents.c.document_id == document_id)
    unborn = sa.select(job_documents.c.document_id).where(*named, on_its_way())
    for name in connection.execute(unborn.distinct()).scalars().all():
        lifecycle.bury_unborn(connection, VersionKey(tenant, collection, name, 0))
    rows = connection.execute(
        sa.delete(job_documents).where(*named).returning(job_documents.c.job_id, job_documents.c.position)
    ).all()
    for job_id in {row.job_id for row in rows}:
        conclude(connection, job_id)
    return [(row.job_id, row.position) for row in rows]


def waiting(connection: Connection, tenant: str) -> tuple[int, int]:
    """Documents of a tenant that are neither stored nor ended, and their bytes."""
    sums = sa.select(
        sa.func.count(), sa.cast(sa.func.coalesce(sa.func.sum(job_documents.c.bytes), 0), sa.BigInteger)
    )
    row = connection.execute(
        sums.where(
            job_documents.c.tenant == tenant,
            job_documents.c.finished.is_(None),
            job_documents.c.stage != "caching",
        )
    ).one()
    return int(row[0]), int(row[1])


def prune(connection: Connection, before: float) -> Sequence[str]:
    """Erase jobs that ended before a time, and all that is known of them; returns their ids."""
    ids = list(connection.execute(sa.select(jobs.c.id).where(jobs.c.finished < before)).scalars())
    for i in range(0, len(ids), 500):
        for table in (job_events, job_documents):
            connection.execute(sa.delete(table).where(table.c.job_id.in_(ids[i : i + 500])))
        connection.execute(sa.delete(jobs).where(jobs.c.id.in_(ids[i : i + 500])))
    return ids
