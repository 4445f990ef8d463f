"""How a job is told from one that was accepted before, and its rows."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline import job_rows
from pipeline.errors import InvalidRequestError
from pipeline.job_tables import job_documents, jobs
from pipeline.jobs import OnConflict
from pipeline.sources import Claim

MAX_KEY_CHARS = 255


def digest_of_key(key: str | None) -> str | None:
    """Keys are not kept: their callers may have put anything into them."""
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidRequestError(
            f"The Idempotency-Key has {len(key)} characters.", remedy=f"Use 1 to {MAX_KEY_CHARS}."
        )
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def digest_of_request(collection: str, on_conflict: OnConflict, claims: Sequence[Claim]) -> str:
    """Equal for equal documents, asked for in the same way."""
    said = [collection, on_conflict, *([c.document_id, c.source.name, c.digest] for c in claims)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def accepted(connection: Connection, tenant: str, key: str | None, request: str) -> str | None:
    """The job that this key stands for. Raises InvalidRequestError if it came with something else."""
    if key is None:
        return None
    known = sa.select(jobs.c.id, jobs.c.request).where(jobs.c.tenant == tenant, jobs.c.idempotency == key)
    row = connection.execute(known).one_or_none()
    if row is None:
        return None
    if row.request != request:
        raise InvalidRequestError(
            "This Idempotency-Key came with another upload before.", remedy="Make a new key for each upload."
        )
    found: str = row.id
    return found


def insert_job(
    connection: Connection, job: dict[str, Any], claims: Sequence[Claim], key: str | None, request: str
) -> None:
    """The rows of a job (its id, tenant, collection and policy) and of its documents."""
    now = time.time()
    connection.execute(
        sa.insert(jobs).values(**job, state="queued", created=now, idempotency=key, request=request)
    )
    shared = {"job_id": job["id"], "tenant": job["tenant"], "collection": job["collection"]}
    rows = [
        {
            **shared,
            "position": position,
            "document_id": claimed.document_id,
            "name": claimed.source.name,
            "title": claimed.source.title,
            "media_type": claimed.source.media_type,
            "metadata": dict(claimed.source.metadata),
            "is_text": claimed.source.text is not None,
            "bytes": claimed.bytes,
            "stage": "queued",
            "checkpoints": {},
        }
        for position, claimed in enumerate(claims)
    ]
    for i in range(0, len(rows), 500):
        connection.execute(sa.insert(job_documents), rows[i : i + 500])
    job_rows.note(connection, job["id"], "queued")
    job_rows.note_stages(connection, [(job["id"], position, "queued") for position in range(len(rows))])
