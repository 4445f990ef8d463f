"""An answer in the form of a chat completion, whole or in chunks, with its citations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

from pydantic import BaseModel

from api.plain import plain
from api.version import VERSION
from pipeline.events import Cited, Done, Event, Retrieved, TokenDelta
from pipeline.types import Answer, Citation


class UrlCitation(BaseModel):
    """Which characters of the message stand on what. ``url`` ends in the offsets of RFC 5147."""

    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(BaseModel):
    """A citation as OpenAI has it."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class AssistantMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None
    annotations: list[Annotation]


class Choice(BaseModel):
    """The only one."""

    index: int = 0
    message: AssistantMessage
    finish_reason: Literal["stop"] = "stop"
    logprobs: None = None


class Usage(BaseModel):
    """Tokens that the language model read and wrote; a quoted answer needed none."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Extension(BaseModel):
    """What Longleaf says besides: whether there is an answer, each statement, what was not done."""

    found: bool
    mode: str
    statements: list[dict[str, Any]]
    degraded: list[str]
    timings: Mapping[str, float]


class Completion(BaseModel):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    longleaf: Extension


class Transcript:
    """Hears the events of one answer and knows where in its text each statement stands."""

    def __init__(self, model: str, base_url: str, degraded: list[str]) -> None:
        """``base_url`` ends in a slash; ``degraded`` is what of the request has no effect."""
        self._head = {
            "id": f"chatcmpl-{uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"longleaf-{VERSION}",
        }
        self._base_url = base_url
        self._degraded = degraded
        self._text = ""
        self._last = (0, 0)
        self._annotations: list[Annotation] = []
        self._answer: Answer | None = None

    def hear(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case TokenDelta(text):
                start = len(self._text) + len(text) - len(text.lstrip("\n"))
                self._text += text
                self._last = start, len(self._text)
            case Cited(_, statement) if statement.supported:
                self._annotations += [self._annotation(citation) for citation in statement.citations]
            case Done(answer):
                self._answer = answer

    def completion(self) -> Completion:
        """The whole, once every event was heard."""
        message = AssistantMessage(content=self._text, annotations=self._annotations)
        return Completion(
            **self._head,  # type: ignore[arg-type]
            choices=[Choice(message=message)],
            usage=self._usage(),
            longleaf=self._extension(),
        )

    def chunks(self, event: Event, *, with_usage: bool) -> Iterator[dict[str, Any]]:
        """What an event adds to a stream. Annotations come with the last chunk, when all are known."""
        self.hear(event)
        match event:
            case Retrieved():
                yield self._chunk({"role": "assistant", "content": ""})
            case TokenDelta(text):
                yield self._chunk({"content": text})
            case Done():
                annotations = [annotation.model_dump() for annotation in self._annotations]
                last = self._chunk({"annotations": annotations}, "stop")
                yield {**last, "longleaf": self._extension().model_dump()}
                if with_usage:
                    yield {**self._chunk({}), "choices": [], "usage": self._usage().model_dump()}

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _annotation(self, citation: Citation) -> Annotation:
        document = quote(citation.document_id, safe="/")
        place = f"v1/collections/{quote(str(self._head['model']))}/documents/{document}/text"
        return Annotation(
            url_citation=UrlCitation(
                start_index=self._last[0],
                end_index=self._last[1],
                title=citation.title,
                url=f"{self._base_url}{place}#char={citation.start},{citation.end}",
            )
        )

    def _usage(self) -> Usage:
        usage = self._answer.usage if self._answer else {}
        read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)

    def _extension(self) -> Extension:
        answer = self._answer
        assert answer is not None, "an answer always ends with Done"
        return Extension(
            found=answer.found,
            mode=answer.mode,
            statements=plain(answer.statements),
            degraded=[*answer.degraded, *self._degraded],
            timings=answer.timings,
        )
