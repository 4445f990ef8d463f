"""Documents of a collection: upload, list, look at, delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from api.accepting import accept
from api.callers import Readable, Writable
from api.plain import plain
from api.problems import ProblemResponse, documented, problem_of, status_of
from api.routes.content import DocumentId, Version
from api.routes.strict import StrictRoute
from api.service import Running
from api.uploads import TextDocuments, uploaded
from api.work import Cancelled
from pipeline.errors import LongleafError
from pipeline.jobs import Job, OnConflict
from pipeline.records import DocumentRecord
from pipeline.results import IngestResult

router = APIRouter(
    prefix="/v1/collections/{collection}/documents", tags=["documents"], route_class=StrictRoute
)


EXAMPLE = {
    "documents": [
        {
            "id": "lease",
            "title": "Lease of the mill",
            "text": "The tenant pays 40 pounds a year. Either party may end the lease with a month's notice.",
            "metadata": {"year": 1869},
        }
    ]
}

_FORM = {
    "type": "object",
    "properties": {
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "id": {"type": "string", "description": "For one file."},
        "title": {"type": "string", "description": "For one file."},
        "metadata": {"type": "string", "description": "A JSON object, for every file."},
        "password": {"type": "string", "description": "For every encrypted file; kept nowhere."},
    },
    "required": ["files"],
}
_TEXTS = TextDocuments.model_json_schema(ref_template="#/components/schemas/{model}")
SCHEMAS = _TEXTS.pop("$defs")
"""What the JSON form refers to. The application adds it to its description, which routes cannot do."""
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _TEXTS, "example": EXAMPLE},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}


@dataclass(frozen=True, slots=True)
class UploadReport:
    """One result for each document, in the order given."""

    documents: list[IngestResult]


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """Documents by id. ``next`` is the cursor of the next page, null on the last."""

    documents: list[DocumentRecord]
    next: str | None


@router.post(
    "",
    summary="Upload documents",
    status_code=200,
    response_model=UploadReport,
    openapi_extra=_BODY,
    responses={
        202: {"model": Job, "description": "Accepted: the documents are safe and will be ingested"},
        207: {"model": UploadReport, "description": "Some failed"},
        **documented(409, 415, 429),
    },
)
async def upload(
    shelf: Writable,
    request: Request,
    running: Running,
    wait: Annotated[bool, Query(description="False: answer 202 with a job once all is on disk.")] = True,
    on_conflict: Annotated[
        OnConflict, Query(description="What to do with a document that is there with another content.")
    ] = "replace",
    idempotency_key: Annotated[
        str | None, Header(description="With `wait=false`: the same key and upload again is the same job.")
    ] = None,
) -> Response | UploadReport:
    """Files as a form, or texts as JSON; the collection is made if need be.

    With `wait=false` the answer is 202 with a job as soon as everything is on disk: from then on nothing
    is lost, whatever happens. Otherwise it is 200 when every document is stored and searchable, 207 when
    some failed (each result says which and why), and the problem of the first when all failed. When
    something stops the whole upload, such as a full disk, the answer is that problem. A problem has what
    was done until then under `documents`.
    """
    limits = running.settings.server
    if not wait:
        return await accept(shelf, request, running, on_conflict, idempotency_key)
    with running.ingesting.place() as place:
        await running.quotas.ask_tokens(shelf.tenant)
        async with uploaded(request, limits) as arrived:
            results: list[IngestResult] = []

            def work(cancelled: Cancelled) -> None:
                ingestor = running.bench(shelf).ingestor
                with running.quotas.storing(
                    running.longleaf.ledger,
                    shelf.tenant,
                    documents=arrived.documents,
                    size_bytes=arrived.size_bytes,
                ):
                    results.extend(
                        ingestor.ingest(
                            arrived.sources,
                            tenant=shelf.tenant,
                            collection=shelf.collection,
                            on_conflict=on_conflict,
                            cancelled=cancelled,
                        )
                    )

            try:
                await place.run(request.receive, work)
            except LongleafError as error:  # what was finished before is kept, and told
                return problem_of(error, limits.retry_after_seconds, **plain(UploadReport(results)))
            finally:
                running.telemetry.ingested(results)
                running.quotas.spend_tokens(shelf.tenant, sum(result.tokens for result in results))
    report = UploadReport(results)
    failed = [result for result in results if result.status == "failed"]
    if not failed:
        return report
    if len(failed) < len(results):
        return JSONResponse(plain(report), 207)
    first = failed[0]
    status = status_of(first.code)
    return ProblemResponse(status, first.code, first.message, remedy=first.remedy, **plain(report))


@router.get("", summary="List documents", responses=documented(404))
async def list_documents(
    shelf: Readable,
    request: Request,
    running: Running,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most documents of a page.")] = 100,
) -> DocumentPage:
    """In order of id."""

    def work(_: Cancelled) -> DocumentPage:
        ledger = running.longleaf.ledger
        page = ledger.documents(shelf.tenant, shelf.collection, after=after, limit=limit)
        last = page[-1].id if len(page) == limit else None
        more = last and ledger.documents(shelf.tenant, shelf.collection, after=last, limit=1)
        return DocumentPage(page, last if more else None)

    return await running.searching.run(request.receive, work)


@router.get("/{document_id:path}", summary="Look at a document", responses=documented(404))
async def get_document(
    shelf: Readable, document_id: DocumentId, request: Request, running: Running, version: Version = None
) -> DocumentRecord:
    """What the ledger knows of its live version, or of one that was kept."""

    def work(_: Cancelled) -> DocumentRecord:
        return running.longleaf.ledger.document(shelf.tenant, shelf.collection, document_id, version)

    return await running.searching.run(request.receive, work)


@router.delete("/{document_id:path}", status_code=204, summary="Delete a document", responses=documented(404))
async def delete_document(
    shelf: Writable, document_id: DocumentId, request: Request, running: Running
) -> None:
    """Its text, its original file and everything in the index."""

    def work(_: Cancelled) -> None:
        running.longleaf.ingestor.delete(shelf.tenant, shelf.collection, document_id)

    await running.ingesting.run(request.receive, work)
