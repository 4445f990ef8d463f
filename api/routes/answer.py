"""Answers with citations, whole or as they are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from pydantic import Field

from api.callers import Readable
from api.events import MEDIA_TYPE, Event, EventStream
from api.problems import documented
from api.questions import Question
from api.routes.how import HowToAnswer
from api.routes.search import SearchRequest
from api.routes.strict import StrictRoute
from api.service import Running
from pipeline import events
from pipeline.types import ANSWER_TOP_K, Answer

router = APIRouter(prefix="/v1/collections/{collection}", tags=["answer"], route_class=StrictRoute)


class AnswerRequest(SearchRequest, HowToAnswer):
    """A question, what bounds its hits, and how to answer."""

    top_k: int = Field(default=ANSWER_TOP_K, ge=1, description="Most passages.")
    max_tokens: int | None = Field(default=None, ge=1, description="Most tokens the model writes.")
    stream: bool = Field(default=False, description="Answer as server-sent events.")


EXAMPLE = {"query": "When may either party end the lease?", "mode": "extractive"}

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; or, if asked for, server-sent events: retrieval, context, token, "
        "citation, usage, done, and error.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/answer",
    summary="Answer a question",
    response_model=Answer,
    responses={**_STREAM, **documented(404, 415, 429)},
)
async def answer(
    shelf: Readable,
    body: Annotated[AnswerRequest, Body(examples=[EXAMPLE])],
    request: Request,
    running: Running,
) -> Response | Answer:
    """Every statement carries its citations; `found` is false when the documents hold no answer.

    With `"stream": true` or `Accept: text/event-stream` the answer comes as events. Closing the
    connection stops the work in either form.
    """
    options = body.options(body.max_tokens)
    asked = Question(running, shelf, body.asks(shelf), options)
    if not (body.stream or MEDIA_TYPE in request.headers.get("accept", "")):
        return await asked.answer(request.receive)
    return EventStream(await asked.stream(request.receive, named))


def named(event: events.Event) -> Iterator[Event]:
    """An event of the pipeline as it goes over the wire; the last one also tells the usage."""
    match event:
        case events.Retrieved(retrieval):
            yield "retrieval", retrieval
        case events.Contextualised(context):
            yield "context", context
        case events.TokenDelta():
            yield "token", event
        case events.Cited():
            yield "citation", event
        case events.Done(answer):
            yield "usage", {"tokens": answer.usage, "timings": answer.timings, "decoding": answer.decoding}
            yield "done", answer
