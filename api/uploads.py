"""An upload request as sources: multipart files, or documents in JSON. Both are checked before work."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from api import strict_json
from api.fetching import fetch
from api.sections import FetchSettings, ServerSettings
from pipeline.errors import InvalidRequestError, LimitExceededError
from pipeline.records import MAX_DOCUMENT_ID_CHARS
from pipeline.sources import Source

FILE_FIELDS = ("files", "file")
TEXT_FIELDS = ("id", "title", "metadata", "password")


class TextDocument(BaseModel):
    """A document given as text, or by an address where `fetching.enabled` allows it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: str | None = Field(default=None, description="The whole text.")
    url: str | None = Field(default=None, description="Where the file is, instead of the text.")
    id: str | None = Field(default=None, description="Its id; made from the text or address if absent.")
    title: str | None = Field(default=None, description="Shown in citations.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="What filters can ask for.")


class TextDocuments(BaseModel):
    """The JSON form of an upload."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    documents: list[TextDocument] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Upload:
    """What a request brings: its sources, how many they are, and their bytes together."""

    sources: Iterator[Source]
    documents: int
    size_bytes: int


@asynccontextmanager
async def uploaded(request: Request, limits: ServerSettings) -> AsyncIterator[Upload]:
    """The sources of a request. Files of a form are read one at a time, and gone at the end.

    Raises InvalidRequestError, LimitExceededError and RequestValidationError.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        most = limits.max_upload_documents
        async with request.form(max_files=most, max_fields=len(TEXT_FIELDS)) as form:
            yield _from_form(form, most)
    elif media_type == "application/json" or media_type.endswith("+json"):
        fetching = request.app.state.service.settings.fetching
        content = await strict_json.read(await request.body(), max_depth=limits.max_json_depth)
        yield _from_json(content, limits, fetching)
    else:
        raise HTTPException(415, "Send multipart/form-data with files, or application/json with documents.")


def _from_json(content: object, limits: ServerSettings, fetching: FetchSettings) -> Upload:
    try:
        upload = TextDocuments.model_validate(content)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(
            [{**fault, "loc": ("body", *fault["loc"])} for fault in faults]
        ) from None
    _check_count(len(upload.documents), limits.max_upload_documents)
    _refuse_twins(given.id for given in upload.documents)
    for i, given in enumerate(upload.documents):
        if (given.text is None) == (given.url is None):
            raise InvalidRequestError(
                f"Document {i} has not exactly one of `text` and `url`.", remedy="Give one of them."
            )
        if given.url is not None and not fetching.enabled:
            fetch(given.url, fetching)  # says that it is off
    size_bytes = sum(len((given.text or "").encode()) for given in upload.documents)
    return Upload((_source(given, fetching) for given in upload.documents), len(upload.documents), size_bytes)


def _source(given: TextDocument, fetching: FetchSettings) -> Source:
    if given.url is None:
        return Source(
            name="", text=given.text, title=given.title, metadata=given.metadata, document_id=given.id
        )
    found = fetch(given.url, fetching)
    return Source(
        name=found.name,
        data=found.data,
        media_type=_declared(found.media_type),
        title=given.title,
        metadata=given.metadata,
        document_id=given.id or given.url[:MAX_DOCUMENT_ID_CHARS],
    )


def _from_form(form: FormData, most: int) -> Upload:
    texts: dict[str, str] = {}
    files: list[UploadFile] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name in FILE_FIELDS:
            files.append(value)
        elif isinstance(value, str) and name in TEXT_FIELDS:
            texts[name] = value
        elif name in FILE_FIELDS:
            raise InvalidRequestError(
                f"The part {name!r} of the form has no file name.",
                remedy="Send it as a file, with a name.",
            )
        else:
            raise InvalidRequestError(
                f"The form has a field {name[:80]!r} that is not taken here.",
                remedy=f"Files go in `files`; other fields: {', '.join(TEXT_FIELDS)}.",
            )
    if not files:
        raise InvalidRequestError("The form has no file.", remedy="Put files in the field `files`.")
    _check_count(len(files), most)
    if len(files) > 1 and ("id" in texts or "title" in texts):
        raise InvalidRequestError(
            f"`id` and `title` name one document, but there are {len(files)} files.",
            remedy="Upload it alone.",
        )
    _refuse_twins(file.filename for file in files)
    metadata = _metadata(texts.get("metadata", "{}"))
    sources = (
        Source(
            name=file.filename or "",
            data=file.file.read(),
            media_type=_declared(file.content_type),
            metadata=metadata,
            document_id=texts.get("id"),
            title=texts.get("title"),
            password=texts.get("password"),
        )
        for file in files
    )
    return Upload(sources, len(files), sum(file.size or 0 for file in files))


def _refuse_twins(names: Iterable[str | None]) -> None:
    """Two of one name would be two versions of one document, and only the last would remain."""
    for name, count in Counter(filter(None, names)).items():
        if count > 1:
            raise InvalidRequestError(
                f"{count} documents of the upload have the name {name[:80]!r}.",
                remedy="Give each its own id or file name, or upload them one after the other.",
            )


def _declared(media_type: str | None) -> str | None:
    """What a browser or curl says when it does not know says nothing."""
    return None if media_type in (None, "", "application/octet-stream") else media_type


def _metadata(text: str) -> Mapping[str, Any]:
    metadata = strict_json.loads(text.encode("utf-8", "surrogatepass"), max_depth=32)
    if not isinstance(metadata, dict):
        raise InvalidRequestError(
            "The field `metadata` is not a JSON object.",
            remedy=f"Write for example {json.dumps({'year': 1869})}.",
        )
    return metadata


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise LimitExceededError(
            f"The upload has {count} documents; at most {most} are taken.",
            remedy="Send several uploads, or raise server.max_upload_documents.",
        )
