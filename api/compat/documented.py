"""How the compatible routes describe their errors in OpenAPI."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from api.envelopes import COHERE_PATHS, OPENAI_PATHS


class ErrorDetail(BaseModel):
    """What went wrong, as OpenAI words it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """OpenAI's envelope."""

    error: ErrorDetail


class RerankError(BaseModel):
    """Cohere's envelope."""

    message: str
    code: str


_ALWAYS = (400, 401, 403, 408, 413, 415, 429, 500, 503)


def openai_documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route with OpenAI's envelope may answer besides success."""
    return _documented(ErrorEnvelope, *statuses)


def cohere_documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route with Cohere's envelope may answer besides success."""
    return _documented(RerankError, *statuses)


def _documented(kind: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    every = sorted({*_ALWAYS, *statuses})
    return {status: {"model": kind, "description": HTTPStatus(status).phrase} for status in every}


def without_422(description: dict[str, Any]) -> None:
    """FastAPI says of every route that it answers 422 in a form of its own; none here does."""
    for path, item in description["paths"].items():
        for operation in item.values():
            if path in OPENAI_PATHS | COHERE_PATHS or path.startswith("/v1/models/"):
                operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        description["components"]["schemas"].pop(name, None)
