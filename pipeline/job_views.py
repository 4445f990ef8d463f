"""Rows of jobs as records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline.job_tables import job_documents, job_events, jobs
from pipeline.jobs import Job, JobDocument, JobEvent
from pipeline.ledger_collections import utc

_FAILED = ("failed", "quarantined")


def jobs_where(connection: Connection, *conditions: sa.ColumnElement[bool], limit: int) -> list[Job]:
    """Jobs with their progress, newest first."""
    query = sa.select(jobs).where(*conditions).order_by(jobs.c.created.desc(), jobs.c.id.desc())
    rows = connection.execute(query.limit(limit)).all()
    column = job_documents.c
    sums = [sa.cast(sa.func.sum(part), sa.BigInteger) for part in (column.bytes, column.pages, column.tokens)]
    counted = (
        sa.select(column.job_id, column.stage, column.finished.is_not(None), sa.func.count(), *sums)
        .where(column.job_id.in_([row.id for row in rows]))
        .group_by(column.job_id, column.stage, column.finished.is_not(None))
    )
    groups: dict[str, list[Any]] = {}
    for group in connection.execute(counted):
        groups.setdefault(group.job_id, []).append(group)
    return [_job(row, groups.get(row.id, [])) for row in rows]


def documents_of(connection: Connection, job_id: str, after: int, limit: int) -> list[JobDocument]:
    """Documents of one job by position."""
    query = sa.select(job_documents).where(job_documents.c.job_id == job_id, job_documents.c.position > after)
    rows = connection.execute(query.order_by(job_documents.c.position).limit(limit))
    return [JobDocument(**{name: getattr(row, name) for name in JobDocument.__slots__}) for row in rows]


def events_of(connection: Connection, job_id: str, after: int, limit: int) -> list[JobEvent]:
    """Events of one job in order."""
    query = sa.select(job_events).where(job_events.c.job_id == job_id, job_events.c.seq > after)
    rows = connection.execute(query.order_by(job_events.c.seq).limit(limit))
    return [JobEvent(row.seq, utc(row.at), row.kind, row.position, row.detail) for row in rows]


def _job(row: Any, groups: list[Any]) -> Job:  # noqa: ANN401 - rows of the database
    total = done = failed = size = size_done = pages = tokens = 0
    stages: dict[str, int] = {}
    for _, stage, ended, count, its_bytes, its_pages, its_tokens in groups:
        stages[stage] = stages.get(stage, 0) + count
        total, size = total + count, size + int(its_bytes)
        pages, tokens = pages + int(its_pages), tokens + int(its_tokens)
        if ended and stage != "cancelled":
            size_done += int(its_bytes)
        if stage == "done":
            done += count
        elif stage in _FAILED:
            failed += count
    values: Mapping[str, Any] = {
        "id": row.id,
        "tenant": row.tenant,
        "collection": row.collection,
        "state": row.state,
        "on_conflict": row.on_conflict,
        "waiting": row.waiting,
    }
    return Job(
        **values,
        created=utc(row.created),
        started=None if row.started is None else utc(row.started),
        finished=None if row.finished is None else utc(row.finished),
        documents_total=total,
        documents_done=done,
        documents_failed=failed,
        bytes_total=size,
        bytes_done=size_done,
        pages=pages,
        tokens=tokens,
        seconds_left=_seconds_left(row, size_done, size),
        stages=stages,
    )


def _seconds_left(row: Any, done: int, total: int) -> float | None:  # noqa: ANN401 - a row of `jobs`
    if row.finished is not None:
        return 0.0
    if row.started is None or not done:
        return None
    return float(round((time.time() - row.started) / done * (total - done), 1))
