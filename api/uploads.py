"""An upload request as sources: multipart files, or documents in JSON. Both are checked before work."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
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
from pipeline.sources import Source, identify

FILE_FIELDS = ("files", "file")
TEXT_FIELDS = ("id", "title", "metadata", "password")
MAX_FIELD_BYTES = 1024 * 1024
_FORM_LIMITS = {  # as the framework begins to say it: what it means here
    "Too many fields": f"The form has over {len(TEXT_FIELDS)} fields beside its files, the most there are.",
    "Part exceeded": f"A field of the form has over {MAX_FIELD_BYTES} bytes, the most that are taken.",
}


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
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        async with _form(request, limits.max_upload_documents) as form:
            yield _from_form(form)
    elif strict_json.is_named(content_type):
        fetching = request.app.state.service.settings.fetching
        content = await strict_json.read(await request.body(), max_depth=limits.max_json_depth)
        yield await asyncio.to_thread(_from_json, content, limits, fetching)  # texts are hashed there
    else:
        raise HTTPException(415, "Send multipart/form-data with files, or application/json with documents.")


def _from_json(content: object, limits: ServerSettings, fetching: FetchSettings) -> Upload:
    try:
        upload = TextDocuments.model_validate(content)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(
            [{**fault, "loc": ("body", *fault["loc"])} for fault in faults], body=content
        ) from None
    if len(upload.documents) > limits.max_upload_documents:
        raise _too_many(str(len(upload.documents)), limits.max_upload_documents)
    for i, given in enumerate(upload.documents):
        if (given.text is None) == (given.url is None):
            raise InvalidRequestError(
                f"Document {i} has not exactly one of `text` and `url`.", remedy="Give one of them."
            )
        if given.url is not None and not fetching.enabled:
            fetch(given.url, fetching)  # says that it is off
    _refuse_twins(_source_named(given) for given in upload.documents)
    size_bytes = sum(len((given.text or "").encode()) for given in upload.documents)
    return Upload((_source(given, fetching) for given in upload.documents), len(upload.documents), size_bytes)


def _source_named(given: TextDocument) -> Source:
    """A document before its address is fetched, which is its name until then."""
    return Source(
        name=given.url or "",
        text=given.text,
        title=given.title,
        metadata=given.metadata,
        document_id=given.id,
    )


def _source(given: TextDocument, fetching: FetchSettings) -> Source:
    source = _source_named(given)
    if given.url is None:
        return source
    found = fetch(given.url, fetching)
    return replace(
        source,
        name=found.name,
        data=found.data,
        media_type=_declared(found.media_type),
        document_id=given.id if given.id is not None else identify(source, ""),
    )


@asynccontextmanager
async def _form(request: Request, most_files: int) -> AsyncIterator[FormData]:
    """The form of a request. Raises LimitExceededError for what the framework would call a bad request."""
    try:
        form = await request.form(
            max_files=most_files, max_fields=len(TEXT_FIELDS), max_part_size=MAX_FIELD_BYTES
        )
    except HTTPException as error:
        if error.detail.startswith("Too many files"):
            raise _too_many(f"over {most_files}", most_files) from None
        for beginning, said in _FORM_LIMITS.items():
            if error.detail.startswith(beginning):
                remedy = f"Fields are {', '.join(TEXT_FIELDS)}, each once; send long texts as files."
                raise LimitExceededError(said, remedy=remedy) from None
        raise
    try:
        yield form
    finally:
        await form.close()


def _from_form(form: FormData) -> Upload:
    texts: dict[str, str] = {}
    files: list[UploadFile] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name in FILE_FIELDS:
            files.append(value)
        elif isinstance(value, str) and name in TEXT_FIELDS:
            if name in texts:
                raise InvalidRequestError(f"The form has the field {name!r} twice.", remedy="Send it once.")
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
    if len(files) > 1 and ("id" in texts or "title" in texts):
        raise InvalidRequestError(
            f"`id` and `title` name one document, but there are {len(files)} files.",
            remedy="Upload it alone.",
        )
    _refuse_twins(Source(name=file.filename) for file in files if file.filename)
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


def _refuse_twins(sources: Iterable[Source]) -> None:
    """Two of one id would be two versions of one document, and only the last would remain. What has no id
    and no name may come twice if nothing else tells the two apart: that is one document."""
    first: dict[str, str | None] = {}
    for source in sources:
        named = source.document_id is not None or source.name
        text = b"" if named else (source.text or "").encode()
        try:
            identity = identify(source, hashlib.sha256(text).hexdigest())
        except InvalidRequestError:  # such an id fails by itself, and the others go on
            continue
        said = None if named else json.dumps([source.title, source.metadata], sort_keys=True)
        if identity in first and (said is None or said != first[identity]):
            raise InvalidRequestError(
                f"Two documents of the upload would both have the id {identity[:80]!r}.",
                remedy="Give each an id of its own, or another file name.",
            )
        first[identity] = said


def _declared(media_type: str | None) -> str | None:
    """What a browser or curl says when it does not know says nothing."""
    return None if media_type in (None, "", "application/octet-stream") else media_type


def _metadata(text: str) -> Mapping[str, Any]:
    given = text.encode("utf-8", "surrogatepass")
    metadata = strict_json.loads(given, max_depth=32, what="The field `metadata`")
    if not isinstance(metadata, dict):
        raise InvalidRequestError(
            "The field `metadata` is not a JSON object.",
            remedy=f"Write for example {json.dumps({'year': 1869})}.",
        )
    return metadata


def _too_many(count: str, most: int) -> LimitExceededError:
    return LimitExceededError(
        f"The upload has {count} documents; at most {most} are taken.",
        remedy="Send several uploads, or raise server.max_upload_documents.",
    )
