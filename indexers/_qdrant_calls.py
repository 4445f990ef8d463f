"""Calls to a Qdrant server: which may be tried again, how often, and what their errors mean here."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from pipeline.errors import DiskFullError, IndexingError, LongleafError, UnavailableError

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_DOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
_GRPC_STATUS = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
}


class MissingOnServerError(IndexingError):
    """The server does not have that collection (any more)."""


class ExistsOnServerError(IndexingError):
    """The server has that collection already."""


@dataclass(frozen=True, slots=True)
class Calls:
    """How the server is called. ``url`` is shown in errors; ``attempts`` counts the first one."""

    url: str
    attempts: int

    def idempotent(self, what: str, call: Callable[[], T]) -> T:
        """The answer. A call that found the server down, slow or overloaded is tried again, which does
        no harm because doing it twice has one effect. Raises UnavailableError after the last attempt."""
        for attempt in range(1, self.attempts + 1):
            try:
                return self.once(what, call)
            except UnavailableError as error:
                if attempt == self.attempts:
                    raise
                time.sleep(_pause(attempt, error.__cause__))
        raise AssertionError("attempts is at least 1")

    def once(self, what: str, call: Callable[[], T]) -> T:
        """The answer of a call that must not be repeated blindly."""
        try:
            return call()
        except ResourceExhaustedResponse as error:
            raise self._down(what, "it says that it has too much to do") from error
        except ResponseHandlingException as error:
            raise self._down(what, _told(error.source)) from error
        except httpx.HTTPError as error:
            raise self._down(what, _told(error)) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self._down(what, "what it sent is not JSON") from error
        except UnexpectedResponse as error:
            text = (error.content or b"").decode(errors="replace")
            raise self._refusal(what, error.status_code or 0, text) from error
        except grpc.RpcError as error:
            code = error.code()
            if code in _DOWN:
                raise self._down(what, f"{code.name}: {error.details()}") from error
            raise self._refusal(what, _GRPC_STATUS.get(code, 500), error.details() or code.name) from error

    def _down(self, what: str, why: str) -> UnavailableError:
        return UnavailableError(
            f"The Qdrant server at {self.url} did not answer {what}: {why[:300]}.",
            remedy="Check that it runs and can be reached, then try again.",
        )

    def _refusal(self, what: str, status: int, text: str) -> LongleafError:
        told = f"The Qdrant server at {self.url} refused {what} ({status}): {text[:500]}"
        if "No space left" in text or status == 507:
            return DiskFullError(told, remedy="Free space on the server's disk and try again.")
        if status == 409 or "already exists" in text:
            return ExistsOnServerError(told)
        if status == 429 or status >= 500:
            return self._down(what, f"status {status}: {text}" if text else f"status {status}")
        if status in (401, 403):
            return IndexingError(told, remedy="Set indexer.api_key to a key that may write there.")
        if status == 404:
            return MissingOnServerError(told)
        return IndexingError(told, remedy="See the server's log; its version should be near the client's.")


def _pause(attempt: int, cause: BaseException | None) -> float:
    """Seconds before the next attempt: as the server asks, else doubling with jitter (Brooker 2015)."""
    if isinstance(cause, ResourceExhaustedResponse):
        return min(float(cause.retry_after_s), _LONGEST_PAUSE_SECONDS)
    longest = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
