"""A language model behind any server that speaks ``POST /v1/chat/completions`` as OpenAI does: vLLM, Ollama,
llama.cpp, LiteLLM, OpenAI itself.

It writes, and that is all (:class:`pipeline.seams.Capabilities`): its attention cannot be observed, its KV
states are not to be had, it scores no given text, and nothing can be drafted for it. Whatever needs one of
these says so in ``degraded`` and goes on without.
"""

from __future__ import annotations

import contextlib
import math
import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from pipeline.errors import ConfigurationError, ModelError, PromptTooLongError, UnavailableError
from pipeline.http_calls import RETRIED, authorization, said
from pipeline.lm.completion_stream import Reader, request_body
from pipeline.seams import Capabilities, Message, Sampling, TextDelta

REMOTE_WINDOW_TOKENS = 8192
"""What a remote model is taken to read unless the settings say otherwise."""
_POLL_SECONDS = 0.05
_MOST_WAIT_SECONDS = 20.0
_BYTES_A_TOKEN = 3
_MESSAGE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """Which server and model. ``tokenizer`` is a folder with ``tokenizer.json`` to count tokens with; without
    one a token is taken to be three bytes, which is fewer than most have, so that prompts fit."""

    url: str
    model: str
    window_tokens: int = REMOTE_WINDOW_TOKENS
    api_key_file: Path | None = None
    timeout_seconds: float = 120.0
    attempts: int = 3
    tokenizer: Path | None = None


class RemoteModel:
    """Implements :class:`pipeline.seams.LanguageModel`. Safe for several threads."""

    def __init__(self, config: RemoteConfig) -> None:
        """Nothing is sent yet. Raises ConfigurationError for an address or file that cannot be used."""
        if not config.url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"The address of the language model's server is {config.url!r}.",
                remedy="Begin it with http:// or https:// and end it with /v1.",
            )
        self._config = config
        headers = authorization(
            config.api_key_file, owner="language model", setting="language_model.api_key_file"
        )
        self._client = httpx.Client(
            base_url=config.url.rstrip("/") + "/", headers=headers, timeout=config.timeout_seconds
        )

    @property
    def name(self) -> str:
        """The model's name, as the server knows it."""
        return self._config.model

    @property
    def window_tokens(self) -> int:
        """Most tokens of prompt and answer together, as the settings say."""
        return self._config.window_tokens

    @property
    def capabilities(self) -> Capabilities:
        """Nothing beyond writing."""
        return Capabilities()

    def describe(self) -> Mapping[str, str | int]:
        """What is running, for ``doctor`` and for stored results."""
        counted = "estimated" if self._config.tokenizer is None else str(self._config.tokenizer)
        return {
            "name": self.name,
            "server": self._config.url,
            "window_tokens": self.window_tokens,
            "tokens": counted,
        }

    def count_tokens(self, text: str) -> int:
        """Tokens of a plain text, by the tokenizer given or estimated."""
        if self._tokenizer is None:
            return math.ceil(len(text.encode()) / _BYTES_A_TOKEN)
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the whole prompt; what a template adds is estimated."""
        return sum(self.count_tokens(message.content) + _MESSAGE_TOKENS for message in messages)

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[TextDelta]:
        """Generate. The connection is closed, which stops the server's work, once ``cancelled()`` or when the
        caller stops listening.

        Raises, at the call itself, PromptTooLongError and InvalidRequestError; while running UnavailableError
        for a server that stays down or overloaded, and ModelError for one that refuses or breaks off.
        """
        from pipeline.lm.sampling import check

        check(sampling)
        needed = self.prompt_tokens(messages) + 1
        if needed > self.window_tokens:
            raise PromptTooLongError(
                f"Prompt and answer need {needed:,} tokens; {self.name} reads {self.window_tokens:,}.",
                remedy="Lower the context budget, or set language_model.window_tokens if it reads more.",
            )
        return self._generate(request_body(self.name, messages, sampling), cancelled)

    def _generate(self, body: Mapping[str, Any], cancelled: Callable[[], bool]) -> Generator[TextDelta]:
        reader = Reader(self.name)
        with contextlib.closing(_Lines(lambda: self._opened(body, cancelled))) as lines:
            while not reader.is_done:
                if cancelled():
                    yield reader.end("cancelled")
                    return
                line = lines.next(_POLL_SECONDS)
                if line is not None:
                    yield from reader.read(line)
        yield reader.end()

    def _opened(self, body: Mapping[str, Any], cancelled: Callable[[], bool]) -> httpx.Response:
        """The server's answer once it begins, asked again while the server is busy or down."""
        trouble = ""
        for attempt in range(self._config.attempts):
            if attempt:
                _rest(0.5 * 2**attempt * random.uniform(0.5, 1.5), cancelled)  # noqa: S311 - no secret
            request = self._client.build_request("POST", "chat/completions", json=body)
            try:
                answer = self._client.send(request, stream=True)
                if answer.status_code not in RETRIED:
                    return self._accepted(answer)
                answer.read()
                answer.close()
                trouble = f"{answer.status_code} {said(answer)}"
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
        raise UnavailableError(
            f"The language model's server {self._config.url} did not answer in {self._config.attempts} "
            f"attempts: {trouble}",
            remedy="Check that it runs and is not overloaded, then try again.",
        )

    def _accepted(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code < 400:
            return answer
        answer.read()
        answer.close()
        message = said(answer)
        if answer.status_code in (401, 403):
            raise ModelError(
                f"The language model's server refuses the key ({answer.status_code}): {message}",
                remedy="Put a valid key into the file that language_model.api_key_file names.",
            )
        if answer.status_code in (404, 405):
            raise ModelError(
                f"The language model's server has nothing at {answer.url} ({answer.status_code}): {message}",
                remedy="Check language_model.url and language_model.spec.",
            )
        if "context" in message.lower() or answer.status_code == 413:
            raise PromptTooLongError(
                f"The language model's server finds the prompt too long: {message}",
                remedy="Set language_model.window_tokens to what the server's model reads.",
            )
        raise ModelError(
            f"The language model's server refuses the request ({answer.status_code}): {message}",
            remedy="Check that it speaks chat completions and knows the parameters set.",
        )

    @cached_property
    def _tokenizer(self) -> Any:  # noqa: ANN401 - a tokenizer
        if self._config.tokenizer is None:
            return None
        from tokenizers import Tokenizer

        file = self._config.tokenizer / "tokenizer.json"
        if not file.is_file():
            raise ConfigurationError(
                f"There is no {file}.", remedy="Give a folder that holds the model's tokenizer.json."
            )
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


class _Lines:
    """Lines of a response, read in a thread of its own, so that whoever waits for one can stop waiting."""

    def __init__(self, opened: Callable[[], httpx.Response]) -> None:
        self._opened = opened
        self._lines: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._response: httpx.Response | None = None
        threading.Thread(target=self._run, name="remote-model", daemon=True).start()

    def next(self, seconds: float) -> str | None:
        """The next line, or None if there is none yet. Raises what ended the reading."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(line, Exception):
            raise line
        return line

    def close(self) -> None:
        """Hang up, also in the middle of a line."""
        self._closed.set()
        stream = self._response.extensions.get("network_stream") if self._response is not None else None
        raw = stream.get_extra_info("socket") if stream is not None else None
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._response = self._opened()
            with contextlib.closing(self._response):
                if not self._closed.is_set():
                    for line in self._response.iter_lines():
                        self._lines.put(line)
            self._lines.put(
                ModelError("The language model's server broke off its answer.", remedy="Try again.")
            )
        except httpx.TransportError as error:
            self._lines.put(
                ModelError(
                    f"The connection to the language model's server broke: {type(error).__name__}: {error}",
                    remedy="Try again.",
                )
            )
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the lines
            self._lines.put(error)


def _rest(seconds: float, cancelled: Callable[[], bool]) -> None:
    until = time.monotonic() + min(seconds, _MOST_WAIT_SECONDS)
    while time.monotonic() < until and not cancelled():
        time.sleep(_POLL_SECONDS)
