"""Answers with citations, whole or as they are made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from pydantic import Field

from api.events import MEDIA_TYPE, Event, EventStream
from api.problems import documented
from api.routes.collections import CollectionName
from api.routes.search import SearchRequest
from api.routes.strict import StrictRoute
from api.service import Running
from api.work import Cancelled
from pipeline import events
from pipeline.answer import AnswerOptions, Mode
from pipeline.errors import LimitExceededError
from pipeline.types import Answer

router = APIRouter(prefix="/v1/collections/{collection}", tags=["answer"], route_class=StrictRoute)


class AnswerRequest(SearchRequest):
    """A question, what bounds its hits, and how to answer."""

    mode: Mode | None = Field(default=None, description="Overrides the configured mode.")
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
    "/answer", summary="Answer a question", response_model=Answer, responses={**_STREAM, **documented(404)}
)
async def answer(
    collection: CollectionName,
    body: Annotated[AnswerRequest, Body(examples=[EXAMPLE])],
    request: Request,
    running: Running,
) -> Response | Answer:
    """Every statement carries its citations; `found` is false when the documents hold no answer.

    With `"stream": true` or `Accept: text/event-stream` the answer comes as events. Closing the
    connection stops the work in either form.
    """
    limits = running.settings.server
    query = body.asks(collection)
    if body.max_tokens is not None and body.max_tokens > limits.max_answer_tokens:
        raise LimitExceededError(
            f"max_tokens is {body.max_tokens}; at most {limits.max_answer_tokens} are taken.",
            remedy="Ask for less, or raise server.max_answer_tokens.",
        )
    options = AnswerOptions(mode=body.mode, max_tokens=body.max_tokens)
    if not (body.stream or MEDIA_TYPE in request.headers.get("accept", "")):
        return await running.answering.run(
            request.receive, lambda cancelled: running.longleaf.answerer.answer(query, options, cancelled)
        )

    def produce(cancelled: Cancelled) -> Iterator[Event]:
        for event in running.longleaf.answerer.stream(query, options, cancelled):
            yield from named(event)

    made = running.answering.stream(request.receive, produce, heartbeat_seconds=limits.heartbeat_seconds)
    # Waiting for the first event lets an error that comes before it be an ordinary problem document.
    first = await anext(made, None)
    return EventStream(_chained(first, made))


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
            yield "usage", {"tokens": answer.usage, "timings": answer.timings}
            yield "done", answer


async def _chained(
    first: Event | None, rest: AsyncGenerator[Event | None, None]
) -> AsyncGenerator[Event | None, None]:
    try:
        yield first
        async for event in rest:
            yield event
    finally:
        await rest.aclose()
