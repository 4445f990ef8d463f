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
from api.routes.search import SearchRequest
from api.routes.strict import StrictRoute
from api.service import Running
from pipeline import events
from pipeline.answer import AnswerOptions, Mode
from pipeline.compose import MOST_STRENGTH
from pipeline.lm.context_options import MOST_ATTENDED, ContextMode, ContextOptions
from pipeline.lm.request import MOST_DRAFT_TOKENS, Decoding, DrafterName
from pipeline.ordering import Order
from pipeline.types import ANSWER_TOP_K, Answer

router = APIRouter(prefix="/v1/collections/{collection}", tags=["answer"], route_class=StrictRoute)


class AnswerRequest(SearchRequest):
    """A question, what bounds its hits, and how to answer."""

    top_k: int = Field(default=ANSWER_TOP_K, ge=1, description="Most passages looked at.")
    mode: Mode | None = Field(default=None, description="Overrides the configured mode.")
    max_tokens: int | None = Field(default=None, ge=1, description="Most tokens the model writes.")
    order: Order | None = Field(default=None, description="Order of passages in the prompt.")
    compress_tokens: int | None = Field(
        default=None, ge=1, description="Shorten the prompt's passages to their best sentences within these."
    )
    context_strength: float | None = Field(
        default=None, ge=0, le=MOST_STRENGTH, description="Context-aware decoding; 0 is off."
    )
    context: ContextMode | None = Field(
        default=None,
        description="How the model reads passages: in order, anew (sequential) or with what it read before "
        "(prefix, lossless); from cached states in parallel (ape); or the fastest that is as good (auto).",
    )
    context_temperature: float | None = Field(
        default=None, gt=0, le=10, description="Attention temperature over cached passages."
    )
    context_scale: float | None = Field(
        default=None, gt=0, le=10, description="Scale of cached passages' share of attention."
    )
    attended: int | None = Field(
        default=None, ge=1, le=MOST_ATTENDED, description="Most cached passages attended of those found."
    )
    long_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Tokens that the model reads around the passages; a drafter reads the passages alone.",
    )
    decoding: Decoding | None = Field(
        default=None, description="Whether to draft: always, never, or while it is predicted to pay (auto)."
    )
    drafter: DrafterName | None = Field(default=None, description="Where drafts come from.")
    draft_tokens: int | None = Field(
        default=None, ge=1, le=MOST_DRAFT_TOKENS, description="Tokens of a draft; null adapts them."
    )
    eta: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="How strongly the drafter draws the model's distribution; above 0 is not lossless.",
    )
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
    responses={**_STREAM, **documented(404, 429)},
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
    options = AnswerOptions(
        mode=body.mode,
        max_tokens=body.max_tokens,
        order=body.order,
        compress_tokens=body.compress_tokens,
        context_strength=body.context_strength,
        context=ContextOptions(body.context, body.context_temperature, body.context_scale, body.attended),
        long_tokens=body.long_tokens,
        decoding=body.decoding,
        drafter=body.drafter,
        draft_tokens=body.draft_tokens,
        eta=body.eta,
    )
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
