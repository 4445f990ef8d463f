"""Requests for chat completions, and their server-sent events to deltas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.errors import ModelError
from pipeline.seams import Message, Sampling, TextDelta

_FINISHES = {"stop": "stop", "length": "length", "max_tokens": "length", "eos": "stop"}


def request_body(model: str, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    """The request. What the standard lacks (top_k, repetition_penalty) is sent only if it is set."""
    optional = {
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "top_k": sampling.top_k or None,
        "repetition_penalty": None if sampling.repetition_penalty == 1 else sampling.repetition_penalty,
    }
    return {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name, value in optional.items() if value is not None},
    }


class Reader:
    """Reads one answer, line by line. ``is_done`` once the server has said that it is complete."""

    def __init__(self, model: str) -> None:
        """``model`` is named in errors."""
        self._model = model
        self._finish: str | None = None
        self._written = 0
        self._counted: int | None = None
        self._degraded: tuple[str, ...] = ()
        self.is_done = False

    def read(self, line: str) -> Iterator[TextDelta]:
        """What a line adds to the text. Raises ModelError for an error that the server tells midway, or for
        what is not JSON."""
        name, _, data = line.partition(":")
        data = data.strip()
        if name != "data" or not data:  # comments, event names, empty lines
            return
        if data == "[DONE]":
            self._check_complete()
            self.is_done = True
            return
        try:
            event = json.loads(data)
            choices, usage = event.get("choices") or [], event.get("usage") or {}
            error = event.get("error")
            text = (choices[0].get("delta") or {}).get("content") or "" if choices else ""
            finish = choices[0].get("finish_reason") if choices else None
        except (ValueError, AttributeError, KeyError, IndexError, TypeError) as wrong:
            raise ModelError(
                f"The server of {self._model} sends what is not a chat completion: {data[:100]!r}",
                remedy="Check language_model.url.",
            ) from wrong
        if error is not None:
            raise ModelError(f"The server of {self._model} failed midway: {error}", remedy="Try again.")
        self._counted = usage.get("completion_tokens", self._counted)
        if finish is not None:
            self._finish = _FINISHES.get(finish, "stop")
            if finish not in _FINISHES:
                self._degraded = (f"{self._model} ended its answer early: {finish}",)
        if text:
            self._written += 1
            yield TextDelta(text, 1)

    def end(self, finish: str | None = None) -> TextDelta:
        """The last delta. Tokens that the server counted and pieces did not show are in it."""
        uncounted = max(0, (self._counted or 0) - self._written)
        return TextDelta("", uncounted, finish or self._finish, degraded=self._degraded)

    def _check_complete(self) -> None:
        if self._finish is None:
            raise ModelError(f"The server of {self._model} ended without saying why.", remedy="Try again.")
