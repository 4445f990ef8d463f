"""Requests to an embedding server: bounded retries, and its failures in Longleaf's errors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import ConfigurationError, EmbeddingError, LongleafError, UnavailableError
from pipeline.http_calls import RETRIED, authorization, said

_MOST_WAIT_SECONDS = 60.0

Item = TypeVar("Item")
Result = TypeVar("Result")


class ServerConfig(BaseModel):
    """Where the server is, and how it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """Address of the server, `http://` or `https://`."""
    api_key_file: Path | None = None
    """File that holds the key to send, alone; settings and their listings then never show it."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """Longest wait for one answer."""
    attempts: int = Field(default=4, ge=1, le=10)
    """How often one request is tried when the server is busy, down or slow."""
    concurrent_requests: int = Field(default=4, ge=1, le=64)
    """Requests under way at the same time."""
    batch_texts: int = Field(default=32, ge=1, le=2048)
    """Most texts of one request."""
    batch_tokens: int = Field(default=16_384, ge=64)
    """Most tokens of one request (one text may exceed it)."""


class Server:
    """One embedding server. Thread-safe."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises ConfigurationError for an address or key file that cannot be used."""
        self._config = config
        headers = authorization(
            config.api_key_file, owner="embedding server", setting="embedder.api_key_file"
        )
        if not config.url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"The address of the embedding server is {config.url!r}.",
                remedy="Begin it with http:// or https://.",
            )
        self._client = httpx.Client(
            base_url=config.url.rstrip("/") + "/", headers=headers, timeout=config.timeout_seconds
        )

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """The answer to a GET, as JSON."""
        return self._asked("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """The answer to a POST, as JSON.

        Raises UnavailableError once all attempts failed, EmbeddingError for an input the server refuses,
        ConfigurationError for a key or address it refuses.
        """
        return self._asked("POST", path, body)

    def each(self, ask: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """``ask`` of every item, in order, a few at a time; the first failure ends it."""
        if len(items) == 1 or self._config.concurrent_requests == 1:
            yield from map(ask, items)
            return
        with ThreadPoolExecutor(self._config.concurrent_requests) as pool:
            try:
                yield from pool.map(ask, items)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _asked(self, method: str, path: str, body: dict[str, Any] | None) -> Any:  # noqa: ANN401 - JSON
        trouble = ""
        for attempt in range(self._config.attempts):
            wait = min(_MOST_WAIT_SECONDS, 0.5 * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code not in RETRIED:
                    return self._read(answer)
                trouble = f"{answer.status_code} {said(answer)}"
                wait = _retry_after(answer) or wait
            if attempt + 1 < self._config.attempts:
                time.sleep(min(wait, _MOST_WAIT_SECONDS))
        raise UnavailableError(
            f"The embedding server {self._config.url} did not answer in {self._config.attempts} attempts: "
            f"{trouble}",
            remedy="Check that it runs and is not overloaded, then try again.",
        )

    def _read(self, answer: httpx.Response) -> Any:  # noqa: ANN401 - JSON
        if answer.status_code >= 400:
            raise self._refusal(answer)
        try:
            return answer.json()
        except ValueError as error:
            raise UnavailableError(
                f"The embedding server at {answer.url} does not answer in JSON: {said(answer)}",
                remedy="Check embedder.url.",
            ) from error

    def _refusal(self, answer: httpx.Response) -> LongleafError:
        message = said(answer)
        if answer.status_code in (401, 403):
            return ConfigurationError(
                f"The embedding server {self._config.url} refuses the key ({answer.status_code}): {message}",
                remedy="Put a valid key into the file that embedder.api_key_file names.",
            )
        if answer.status_code in (404, 405):
            return ConfigurationError(
                f"The embedding server has nothing at {answer.url} ({answer.status_code}): {message}",
                remedy="Check embedder.url and embedder.model.",
            )
        return EmbeddingError(
            f"The embedding server refuses a request ({answer.status_code}): {message}",
            remedy="Use smaller chunks than its model reads, or check the embedder's options.",
        )


def matrix(
    rows: Sequence[Sequence[float]] | NDArray[np.float32], dim: int | None, names: Sequence[str]
) -> NDArray[np.float32]:
    """Rows of an answer as unit vectors float32 ``(n, dim)``.

    Raises EmbeddingError naming the text whose vector is missing, of another width, or no direction.
    """
    if len(rows) != len(names):
        raise EmbeddingError(
            f"The embedding server gives {len(rows)} vectors for {len(names)} texts.",
            remedy="It is not compatible; check embedder.url.",
        )
    width = dim or (len(rows[0]) if len(rows) else 0)
    vectors = np.empty((len(rows), width), np.float32)
    for row, values, name in zip(vectors, rows, names, strict=True):
        found = np.asarray(values, np.float32)
        length = float(np.linalg.norm(found)) if found.shape == (width,) else float("nan")
        if not (np.isfinite(length) and length > 0):
            what = f"shape {found.shape}" if found.shape != (width,) else f"length {length}"
            raise EmbeddingError(
                f"The embedding server's vector of {name} has {what}; it should have {width} numbers.",
                remedy="Check the server's model and embedder.dim.",
            )
        row[:] = found / length
    return vectors


def batches(sizes: Sequence[int], most: int, most_tokens: int) -> list[range]:
    """Runs of consecutive items, bounded in number and in tokens together."""
    runs, start, tokens = [], 0, 0
    for i, size in enumerate(sizes):
        if i > start and (i - start == most or tokens + size > most_tokens):
            runs.append(range(start, i))
            start, tokens = i, 0
        tokens += size
    if start < len(sizes):
        runs.append(range(start, len(sizes)))
    return runs


def _retry_after(answer: httpx.Response) -> float:
    value = answer.headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else 0.0
