"""Uploads that are not waited for: 202 with a job, once files and rows are synced to the disk."""

from __future__ import annotations

import json

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from api.callers import Shelf
from api.plain import plain
from api.service import Service
from api.uploads import uploaded
from api.work import Cancelled
from pipeline.jobs import Job, OnConflict


async def accept(
    shelf: Shelf, request: Request, running: Service, on_conflict: OnConflict, key: str | None
) -> Response:
    """Take the documents of a request as a job. What is refused leaves nothing behind."""
    queue = running.longleaf.job_queue
    with running.accepting.place() as place:
        await running.quotas.ask_tokens(shelf.tenant)
        async with uploaded(request, running.settings.server) as arrived:

            def work(_: Cancelled) -> tuple[Job, bool]:
                waiting, waiting_bytes = queue.waiting(shelf.tenant)
                with running.quotas.storing(
                    running.longleaf.ledger,
                    shelf.tenant,
                    documents=waiting + arrived.documents,
                    size_bytes=waiting_bytes + arrived.size_bytes,
                ):
                    return queue.submit(
                        arrived.sources,
                        tenant=shelf.tenant,
                        collection=shelf.collection,
                        on_conflict=on_conflict,
                        idempotency_key=key,
                    )

            job, before = await place.run(request.receive, work)
    headers = {"Location": f"/v1/jobs/{job.id}"}
    if before:
        headers["Idempotency-Replayed"] = json.dumps(True)
    return JSONResponse(plain(job), 202, headers)
