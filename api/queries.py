"""What a caller typed as a checked query: one place for HTTP and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.sections import ServerSettings
from pipeline.errors import InvalidRequestError, LimitExceededError
from pipeline.types import Query


def checked_query(
    text: str,
    limits: ServerSettings,
    *,
    collection: str,
    top_k: int = 10,
    filter: Mapping[str, Any] | None = None,
    document_id: str | None = None,
    budget_tokens: int | None = None,
) -> Query:
    """The query, or InvalidRequestError for an empty one and LimitExceededError past a limit."""
    if not text.strip():
        raise InvalidRequestError("The query is empty.", remedy="Ask with at least one word.")
    _within("query", len(text), limits.max_query_chars, "characters", "server.max_query_chars")
    _within("top_k", top_k, limits.max_top_k, "hits", "server.max_top_k")
    if budget_tokens is not None:
        _within(
            "budget_tokens", budget_tokens, limits.max_budget_tokens, "tokens", "server.max_budget_tokens"
        )
    return Query(
        text=text,
        collection=collection,
        top_k=top_k,
        filter=filter,
        document_id=document_id,
        budget_tokens=budget_tokens,
    )


def _within(name: str, value: int, limit: int, unit: str, setting: str) -> None:
    if value < 1:
        raise InvalidRequestError(f"{name} is {value}.", remedy="Give a whole number from 1.")
    if value > limit:
        raise LimitExceededError(
            f"{name} is {value} {unit}; at most {limit} are taken.",
            remedy=f"Ask for less, or raise {setting}.",
        )
