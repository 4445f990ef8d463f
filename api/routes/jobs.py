"""Ingestion jobs: list, look at, watch, cancel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from api.callers import Asking, Caller
from api.events import MEDIA_TYPE, Event, EventStream
from api.problems import documented
from api.questions import chained
from api.routes.strict import StrictRoute
from api.service import Running, Service
from api.work import Cancelled
from pipeline.jobs import Job, JobDocument, JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

JobId = Annotated[str, Path(description="Id of the job.", examples=["0123456789abcdef0123456789abcdef"])]

_LOOK_SECONDS = 0.25
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
}


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs, newest first. ``next`` is the cursor of the next page, null on the last."""

    jobs: list[Job]
    next: str | None


@dataclass(frozen=True, slots=True)
class JobDocumentPage:
    """Documents of a job in the order given. ``next`` is the cursor of the next page, null on the last."""

    documents: list[JobDocument]
    next: int | None


@router.get("", summary="List jobs", responses=documented(404))
async def list_jobs(
    asking: Asking,
    request: Request,
    running: Running,
    state: Annotated[JobState | None, Query(description="Only those in this state.")] = None,
    before: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most jobs of a page.")] = 100,
) -> JobPage:
    """Those of collections that the key opens."""

    def work(_: Cancelled) -> JobPage:
        found = running.longleaf.job_queue.jobs(
            asking.tenant, sees=asking.sees, state=state, before=before, limit=limit + 1
        )
        page = list(found[:limit])
        return JobPage(page, page[-1].id if len(found) > limit else None)

    return await running.searching.run(request.receive, work)


@router.get("/{job_id}", summary="Look at a job", responses=documented(404))
async def get_job(asking: Asking, job_id: JobId, request: Request, running: Running) -> Job:
    """How far it is, and how it ended."""
    return await running.searching.run(request.receive, lambda _: _job(running, asking, job_id))


@router.get("/{job_id}/documents", summary="List the documents of a job", responses=documented(404))
async def list_job_documents(
    asking: Asking,
    job_id: JobId,
    request: Request,
    running: Running,
    after: Annotated[int, Query(ge=-1, le=2**31 - 1, description="`next` of the page before.")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most documents of a page.")] = 100,
) -> JobDocumentPage:
    """What became of each, in the order given. A document that was deleted is not listed any more."""

    def work(_: Cancelled) -> JobDocumentPage:
        _job(running, asking, job_id)
        found = running.longleaf.job_queue.documents(job_id, after=after, limit=limit + 1)
        page = list(found[:limit])
        return JobDocumentPage(page, page[-1].position if len(found) > limit else None)

    return await running.searching.run(request.receive, work)


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=documented(404))
async def cancel_job(asking: Asking, job_id: JobId, request: Request, running: Running) -> Job:
    """What is finished stays; nothing else becomes a document. Cancelling what has ended does nothing."""

    def work(_: Cancelled) -> Job:
        asking.writing(_job(running, asking, job_id).collection)
        return running.longleaf.job_queue.cancel(job_id)

    return await running.searching.run(request.receive, work)


@router.get(
    "/{job_id}/events",
    summary="Watch a job",
    response_class=Response,
    responses={**_EVENTS, **documented(404)},
)
async def watch_job(
    asking: Asking,
    job_id: JobId,
    request: Request,
    running: Running,
    last_event_id: Annotated[int, Header(ge=0, le=2**62, description="Only what came after it.")] = 0,
) -> Response:
    """Server-sent events until the job has ended or the service stops: `job` and `document` as they
    happen, with ids to come back to, and `progress` with the whole job whenever it has changed."""
    queue = running.longleaf.job_queue

    def produce(cancelled: Cancelled) -> Iterator[Event]:
        job, after = _job(running, asking, job_id), last_event_id
        yield "progress", job
        while not cancelled():
            events = queue.events(job_id, after=after)
            for event in events:
                after = event.id
                yield event.kind, event, event.id
            before, job = job, queue.get(job_id)
            if job != before:
                yield "progress", job
            if (job.finished and not events) or running.stopping.wait(_LOOK_SECONDS):
                return

    patience = running.settings.server.heartbeat_seconds
    made = running.watching.stream(request.receive, produce, heartbeat_seconds=patience)
    return EventStream(chained(await anext(made, None), made))


def _job(running: Service, asking: Caller, job_id: str) -> Job:
    """A job that the caller may see. Raises NotFoundError for any other, ForbiddenError for the wrong key."""
    job = running.longleaf.job_queue.get(job_id, asking.tenant)
    asking.reading(job.collection)
    return job
