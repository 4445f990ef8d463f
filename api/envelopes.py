"""Errors in the form that the clients of each route understand: RFC 9457, or the envelope of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from starlette.responses import Response

from api.problems import ProblemResponse

OPENAI_PATHS = frozenset({"/v1/chat/completions", "/v1/embeddings", "/v1/models"})
COHERE_PATHS = frozenset({"/v1/rerank", "/v2/rerank"})
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def dressed(problem: ProblemResponse, path: str) -> Response:
    """The problem itself, or what a client of the route at ``path`` expects instead.

    Clients of the other dialects know 400, not 422, for a request that is wrong in itself.
    """
    if path in OPENAI_PATHS or path.startswith("/v1/models/"):
        body: Mapping[str, Any] = {"error": openai_error(problem.content)}
    elif path in COHERE_PATHS:
        body = {"message": _sentence(problem.content), "code": problem.content["code"]}
    else:
        return problem
    status = 400 if problem.status_code == 422 else problem.status_code
    headers = {
        name: value
        for name, value in problem.headers.items()
        if name not in ("content-length", "content-type")
    }
    return Response(json.dumps(body).encode("ascii"), status, headers, "application/json")


def openai_error(problem: Mapping[str, Any]) -> dict[str, Any]:
    """The object below ``error``: message, type, param and code."""
    status = problem["status"]
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    faults = problem.get("errors")
    param = _param(faults[0]["pointer"]) if faults else None
    code = {401: "invalid_api_key", 404: "model_not_found"}.get(status, problem["code"])
    return {"message": _sentence(problem), "type": kind, "param": param, "code": code}


def _param(pointer: str) -> str | None:
    """A problem's pointer as OpenAI writes it: names with dots between, none for the whole body."""
    if not pointer.startswith("#"):
        return pointer
    steps = (unquote(step).replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
    return ".".join(steps) or None


def _sentence(problem: Mapping[str, Any]) -> str:
    return " ".join(part for part in (problem["detail"], problem.get("remedy", "")) if part)
