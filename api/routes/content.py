"""What is inside a document: its text, its chunks, its original file.

Nothing here may run in a browser: texts are plain text, originals are attachments of a type that no
browser renders, and every answer has the strict headers of the gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from api.build import Longleaf
from api.callers import Readable, Shelf
from api.problems import ProblemResponse, Refusal, documented
from api.routes.strict import StrictRoute
from api.service import Running
from api.work import Cancelled
from pipeline import layers
from pipeline.errors import InvalidRequestError, NotFoundError, UnavailableError
from pipeline.filters import And, AnyOf, Equals
from pipeline.records import VersionKey

router = APIRouter(
    prefix="/v1/collections/{collection}/documents", tags=["documents"], route_class=StrictRoute
)

DocumentId = Annotated[str, Path(description="Id of the document.", examples=["lease"])]
Version = Annotated[
    int | None,
    Query(ge=1, lt=2**31, description="One that `on_conflict=new_version` kept; else the live one."),
]
OCTETS = "application/octet-stream"
_NO_NAMES = ("", ".", "..")  # a client would not know what to call the file
_FILE: dict[str, Any] = {"content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """A chunk of a document's live version. ``parent`` is the ordinal of a unit's passage."""

    id: str
    ordinal: int
    parent: int
    start: int
    end: int
    tokens: int
    text: str
    section: str
    page_start: int | None
    page_end: int | None


@dataclass(frozen=True, slots=True)
class ChunkPage:
    """Chunks in the order of the text. ``next`` is the cursor of the next page, null on the last."""

    document_id: str
    version: int
    chunks: list[ChunkRecord]
    next: int | None


@router.get(
    "/{document_id:path}/text",
    summary="Read a document",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The text"},
        **documented(404),
    },
)
async def text(
    shelf: Readable,
    document_id: DocumentId,
    request: Request,
    running: Running,
    start: Annotated[int, Query(ge=0, description="First character.")] = 0,
    end: Annotated[int | None, Query(ge=0, description="Character after the last one.")] = None,
    version: Version = None,
) -> Response:
    """The text that every offset counts in, whole or `[start, end)` in Unicode code points."""

    def work(_: Cancelled) -> Response:
        ledger = running.longleaf.ledger
        if version is not None:  # the ledger would also load one that is about to be removed
            ledger.document(shelf.tenant, shelf.collection, document_id, version)
        document = ledger.load(shelf.tenant, shelf.collection, document_id, version)
        if end is not None and end < start:
            raise InvalidRequestError(f"end is {end}, before start {start}.", remedy="Ask for [start, end).")
        return Response(
            document.text[start:end].encode("utf-8", "replace"),
            media_type="text/plain; charset=utf-8",
            headers={
                "X-Document-Version": str(document.version),
                "X-Document-Chars": str(len(document.text)),
            },
        )

    return await running.searching.run(request.receive, work)


@router.get("/{document_id:path}/chunks", summary="List a document's chunks", responses=documented(404))
async def chunks(
    shelf: Readable,
    document_id: DocumentId,
    request: Request,
    running: Running,
    kind: Annotated[Literal["passages", "units"], Query(description="What is read, or what is found.")] = (
        "passages"
    ),
    after: Annotated[int | None, Query(ge=0, lt=2**31, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most chunks of a page.")] = 100,
) -> ChunkPage:
    """As the index holds them, which has the live version only."""

    def work(_: Cancelled) -> ChunkPage:
        first = 0 if after is None else after + 1
        return _chunk_page(running.longleaf, shelf, document_id, kind, range(first, first + limit))

    return await running.searching.run(request.receive, work)


def _chunk_page(
    longleaf: Longleaf, shelf: Shelf, document_id: str, kind: layers.Layer, wanted: range
) -> ChunkPage:
    live = longleaf.ledger.document(shelf.tenant, shelf.collection, document_id)
    body = longleaf.ledger.load(shelf.tenant, shelf.collection, live.id, live.version).text
    count = live.passages if kind == "passages" else live.units
    first, stop = wanted.start, min(wanted.stop, count)
    where = And(
        (
            Equals("_document_id", live.id),
            Equals("_version", live.version),
            AnyOf("_ordinal", tuple(range(first, stop))),
        )
    )
    index = layers.index_name(shelf.tenant, shelf.collection, kind)
    found = dict(longleaf.indexer.points(index, where)) if first < stop else {}
    key = VersionKey(shelf.tenant, shelf.collection, live.id, live.version)
    records = [
        ChunkRecord(
            id=point,
            ordinal=payload["_ordinal"],
            parent=payload["_parent"],
            start=payload["_start"],
            end=payload["_end"],
            tokens=payload["_tokens"],
            text=body[payload["_start"] : payload["_end"]],
            section=payload["_section"],
            page_start=payload.get("_page_start"),
            page_end=payload.get("_page_end"),
        )
        for ordinal in range(first, stop)
        if (payload := found.get(point := layers.point_id(key, kind, ordinal)))
    ]
    return ChunkPage(live.id, live.version, records, stop - 1 if first < stop < count else None)


class StoredFile(FileResponse):
    """A file, or the part of it that ``Range`` asks for.

    What the framework would refuse in plain text raises Refusal, and a file that is gone by now
    UnavailableError. A range in another unit than bytes is passed over (RFC 9110, 14.2).
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        unit = Headers(scope=scope).get("range", "").partition("=")[0].strip().lower()
        if unit != "bytes":
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                raise Refusal(_range_problem(message["status"], Headers(raw=message["headers"])))
            begun = True
            await send(message)

        try:
            await super().__call__(scope, receive, watched)
        except RuntimeError as error:  # so the framework says that there is no file
            if begun:
                raise
            raise UnavailableError(
                "The file was replaced or deleted just now.", remedy="Ask for it again."
            ) from error


def _range_problem(status: int, headers: Headers) -> ProblemResponse:
    if status == 400:
        return ProblemResponse(
            400, "bad_request", "The Range is malformed.", remedy="Ask for `bytes=FIRST-LAST`, from 0."
        )
    whole = headers["content-range"]
    return ProblemResponse(
        416,
        "range_not_satisfiable",
        f"The file has {whole.rpartition('/')[2]} bytes and no such part.",
        remedy="Leave out Range for the whole file.",
        headers={"Content-Range": whole},
    )


@router.get(
    "/{document_id:path}/original",
    summary="Download a document's original file",
    response_class=Response,
    responses={
        200: {**_FILE, "description": "The file"},
        206: {**_FILE, "description": "The part of the file that `Range` asks for"},
        304: {"description": "The file is still the one that `If-None-Match` names"},
        **documented(404, 416),
    },
)
async def original(
    shelf: Readable,
    document_id: DocumentId,
    request: Request,
    running: Running,
    version: Version = None,
    if_none_match: Annotated[str, Header(description="`ETag` of the file that is there already.")] = "",
) -> Response:
    """The bytes as they came, as an attachment; for a document that was given as text, that text."""

    def work(_: Cancelled) -> Response:
        ledger = running.longleaf.ledger
        record = ledger.document(shelf.tenant, shelf.collection, document_id, version)
        name = (record.source_name or record.id).replace("\\", "/").rpartition("/")[2]
        name = "document" if name in _NO_NAMES else name
        tag = f'"{record.sha256}"'
        headers = {"X-Media-Type": record.media_type, "X-Document-Version": str(record.version), "ETag": tag}
        if _names(if_none_match, tag):
            return Response(None, 304, headers)
        try:
            path = ledger.original(shelf.tenant, shelf.collection, record.id, record.version)
        except NotFoundError:
            text = ledger.load(shelf.tenant, shelf.collection, record.id, record.version).text
            attached = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(name, safe='')}"}
            return Response(text.encode("utf-8", "replace"), 200, {**headers, **attached}, OCTETS)
        return StoredFile(path, filename=name, media_type=OCTETS, headers=headers)

    return await running.searching.run(request.receive, work)


def _names(listed: str, tag: str) -> bool:
    """Whether an ``If-None-Match`` names the tag (RFC 9110, 13.1.2)."""
    return listed.strip() == "*" or tag in {each.strip().removeprefix("W/") for each in listed.split(",")}
