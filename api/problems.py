"""Errors as RFC 9457 problem documents. No answer ever repeats what was sent beyond a short value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from pipeline.errors import InvalidRequestError, LongleafError

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL_CHARS = 600
_CLIENT_CLOSED = 499
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_IN_FRAGMENTS = "!$&'()*+,;=:@/?~"  # RFC 3986, beside what quote() keeps in any case


class ProblemResponse(Response):
    """One problem document, plain ASCII so that any text in it can be sent."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
        **extension: object,
    ) -> None:
        self.content: dict[str, Any] = {
            "type": f"urn:longleaf:problem:{code}",
            "title": _phrase(status),
            "status": status,
            "detail": shorten(detail),
            "code": code,
            **({"remedy": shorten(remedy)} if remedy else {}),
            **extension,
        }
        super().__init__(json.dumps(self.content).encode("ascii"), status, headers=dict(headers or {}))


def shorten(text: str) -> str:
    """At most ``MAX_DETAIL_CHARS`` characters, the cut marked."""
    return text if len(text) <= MAX_DETAIL_CHARS else text[: MAX_DETAIL_CHARS - 1] + "…"


def problem_of(error: LongleafError, retry_after_seconds: int, **extension: object) -> ProblemResponse:
    """The answer to an error of the tree; what may pass by itself says when to try again."""
    wait = getattr(error, "retry_after_seconds", None) or retry_after_seconds
    headers = {"Retry-After": str(wait)} if error.status in (429, 503) else None
    return ProblemResponse(
        error.status, error.code, error.message, remedy=error.remedy, headers=headers, **extension
    )


class Refusal(HTTPException):
    """A problem on its way through the framework, which lets its own kind of exception pass as it is."""

    def __init__(self, problem: ProblemResponse) -> None:
        super().__init__(problem.status_code, problem.content["detail"])
        self.problem = problem


Dress = Callable[[ProblemResponse, str], Response]


def install(app: FastAPI, retry_after_seconds: int, dress: Dress) -> None:
    """Answer every error with a problem document, from 404 to 500, as ``dress`` words it for a path."""

    async def of_longleaf(request: Request, error: Exception) -> Response:
        assert isinstance(error, LongleafError)
        return dress(problem_of(error, retry_after_seconds), request.url.path)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = http_problem(error)
        if problem.status_code == 405:
            problem.headers["Allow"] = ", ".join(_methods_at(request))
        return dress(problem, request.url.path)

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return dress(validation_problem(error.errors(), error.body), request.url.path)

    app.add_exception_handler(LongleafError, of_longleaf)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)


def _methods_at(request: Request) -> list[str]:
    """What the path can be asked with. The framework names the methods of its first route only."""
    routes, scope = request.app.routes, request.scope

    def taken(method: str) -> bool:
        return any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)

    return [method for method in _METHODS if taken(method)]


_REMEDIES = {
    400: "Check that the body is what its Content-Type says.",
    404: "GET /openapi.json lists every route.",
    405: "GET /openapi.json lists the methods of every route.",
    408: "Send the body without pauses.",
    415: "GET /openapi.json says which content types this route takes.",
}


def http_problem(error: HTTPException) -> ProblemResponse:
    """What the framework refuses by itself, with a remedy of ours; or what we refuse through it."""
    if isinstance(error, Refusal):
        return error.problem
    code = _phrase(error.status_code).lower().replace(" ", "_")
    remedy = _REMEDIES.get(error.status_code, "")
    return ProblemResponse(error.status_code, code, str(error.detail), remedy=remedy, headers=error.headers)


def status_of(code: str) -> int:
    """HTTP status of an error of the tree by its code; 500 for a code that no error has."""
    kinds: list[type[LongleafError]] = [LongleafError]
    for kind in kinds:
        if kind.code == code:
            return kind.status
        kinds += kind.__subclasses__()
    return LongleafError.status


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str = ""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what a route may answer besides success, with what every route may."""
    always = (400, 401, 403, 408, 413, 422, 429, 500, 503)
    return {
        status: {"content": {MEDIA_TYPE: {"schema": _SCHEMA}}, "description": _phrase(status)}
        for status in sorted({*always, *statuses})
    }


_SCHEMA = Problem.model_json_schema()


def validation_problem(errors: Sequence[Mapping[str, Any]], body: object = None) -> ProblemResponse:
    """422 with a JSON pointer into ``body`` and a sentence for each fault; neither names the value sent."""
    faults = [
        {"pointer": _pointer(_location(e, body)), "detail": shorten(str(e["msg"]))} for e in errors[:20]
    ]
    first = faults[0]
    return ProblemResponse(
        InvalidRequestError.status,
        InvalidRequestError.code,
        f"{first['pointer']}: {first['detail']}.",
        remedy="GET /openapi.json describes what this route takes.",
        errors=faults,
    )


def _location(error: Mapping[str, Any], body: object) -> Sequence[str | int]:
    """Where a fault is, without the steps by which the validator tells the members of a union apart."""
    where, *path = error["loc"]
    if where != "body" or body is None:
        return where, *path
    found: list[str | int] = []
    here: Any = body
    for step in path:
        if step in here if isinstance(here, dict) else isinstance(here, list) and isinstance(step, int):
            here = here[step]
            found.append(step)
    missing = error.get("type") == "missing" and isinstance(here, dict)
    return where, *found, *(path[-1:] if missing else ())


def _pointer(location: Sequence[str | int]) -> str:
    """JSON pointer into the body as a fragment (RFC 6901, section 6), or ``parameter:name``. Names of the
    caller's own are cut short."""
    where, *path = location
    steps = [str(step)[:64] for step in path]
    if where != "body":
        return f"{where}:{'/'.join(steps)}"
    escaped = (step.replace("~", "~0").replace("/", "~1") for step in steps)
    return "#" + "".join("/" + quote(step, safe=_IN_FRAGMENTS, errors="replace") for step in escaped)


def _phrase(status: int) -> str:
    return "Client Closed Request" if status == _CLIENT_CLOSED else HTTPStatus(status).phrase
