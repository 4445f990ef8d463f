"""`/v1/chat/completions`: the model's name is a collection, the answer comes from its documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.callers import Asking
from api.compat.completion import Completion, Transcript
from api.compat.documented import openai_documented
from api.envelopes import openai_error
from api.events import MEDIA_TYPE, Stream
from api.problems import problem_of
from api.questions import Question
from api.routes.how import HowToAnswer
from api.routes.strict import StrictRoute
from api.service import Running
from pipeline.errors import InvalidRequestError, LongleafError
from pipeline.events import Event
from pipeline.types import ANSWER_TOP_K, Query

router = APIRouter(prefix="/v1", tags=["compatible"], route_class=StrictRoute)

_TAKEN = ConfigDict(extra="allow", frozen=True, strict=True)
# What would change the meaning of the answer and cannot be done is refused; what only shades it is named.
_REFUSED = ("tools", "functions", "audio", "prediction", "web_search_options")
_NOT_USED = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias")


class TextPart(BaseModel):
    """A part of a message. Only text is read."""

    model_config = _TAKEN

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn of the conversation."""

    model_config = _TAKEN

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The words of the message."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    """What a stream tells besides its text."""

    model_config = _TAKEN

    include_usage: bool | None = None


class SearchOptions(HowToAnswer):
    """What only Longleaf takes, as `extra_body={"longleaf": {...}}` of the public client."""

    top_k: int = Field(default=ANSWER_TOP_K, ge=1, description="Most passages.")
    filter: dict[str, Any] | None = Field(default=None, description="Conditions on document metadata.")
    document_id: str | None = Field(default=None, description="Ask this document only.")
    budget_tokens: int | None = Field(default=None, ge=1, description="Most tokens of all passages.")


class ChatRequest(BaseModel):
    """The conversation, of which the last message of the user is asked."""

    model_config = _TAKEN

    model: str = Field(description="Name of a collection.")
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1)
    longleaf: SearchOptions = SearchOptions()

    def degraded(self, most_tokens: int) -> list[str]:
        """What of the request has no effect."""
        extra = self.model_extra or {}
        said = [f"{name} is not used: answers are decoded greedily" for name in _NOT_USED if extra.get(name)]
        if any(message.role in ("system", "developer") and message.text for message in self.messages):
            said.append("system messages are not read: the documents alone decide the answer")
        if sum(message.role == "user" for message in self.messages) > 1:
            said.append("earlier turns are not read: only the last message of the user is asked")
        wanted = self.max_completion_tokens or self.max_tokens
        if wanted is not None and wanted > most_tokens:
            said.append(f"max_tokens is {most_tokens}, the most the server allows")
        return said

    def check(self) -> str:
        """The question. Raises InvalidRequestError for what cannot be done."""
        extra = self.model_extra or {}
        refused = [name for name in _REFUSED if extra.get(name)]
        if (extra.get("response_format") or {"type": "text"}) != {"type": "text"}:
            refused.append("response_format")
        if (self.n or 1) > 1:
            refused.append("n")
        if extra.get("logprobs"):
            refused.append("logprobs")
        if refused:
            raise InvalidRequestError(
                f"{', '.join(refused)} cannot be used here.",
                remedy="Leave it out: answers are text from documents, one for each question.",
            )
        asked = [message.text for message in self.messages if message.role == "user"]
        if not asked:
            raise InvalidRequestError("No message is of the user.", remedy="End with a user message.")
        return asked[-1]


EXAMPLE = {
    "model": "default",
    "messages": [{"role": "user", "content": "When may either party end the lease?"}],
    "longleaf": {"mode": "extractive"},
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, chunks as server-sent events and `[DONE]` at the end.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/chat/completions",
    summary="Answer a chat",
    response_model=Completion,
    responses={**_STREAM, **openai_documented(404)},
)
async def complete(
    body: Annotated[ChatRequest, Body(examples=[EXAMPLE])],
    request: Request,
    running: Running,
    asking: Asking,
) -> Response | Completion:
    """As OpenAI's route of the name. Citations are `[n]` in the text and `annotations` of the message."""
    shelf = asking.reading(body.model)
    most = running.settings.server.max_answer_tokens
    wanted = body.max_completion_tokens or body.max_tokens
    own = body.longleaf
    query = Query(
        text=body.check(),
        collection=shelf.collection,
        tenant=shelf.tenant,
        top_k=own.top_k,
        filter=own.filter,
        document_id=own.document_id,
        budget_tokens=own.budget_tokens,
    )
    options = own.options(None if wanted is None else min(wanted, most))
    asked = Question(running, shelf, query, options)
    transcript = Transcript(body.model, str(request.base_url), body.degraded(most))
    if not body.stream:
        for event in await asked.events(request.receive):
            transcript.hear(event)
        return transcript.completion()
    with_usage = bool(body.stream_options and body.stream_options.include_usage)

    def word(event: Event) -> Iterator[dict[str, Any]]:
        yield from transcript.chunks(event, with_usage=with_usage)

    chunks = await asked.stream(request.receive, word)
    return Stream(chunks, _data, _error, b"data: [DONE]\n\n")


def _data(chunk: object) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode("ascii")


def _error(error: LongleafError) -> bytes:
    return _data({"error": openai_error(problem_of(error, 1).content)})
