"""Passages that answer a query."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from api.problems import documented
from api.queries import checked_query
from api.routes.collections import CollectionName
from api.routes.strict import StrictRoute
from api.service import Running
from pipeline.types import Retrieval

router = APIRouter(prefix="/v1/collections/{collection}", tags=["search"], route_class=StrictRoute)


class SearchRequest(BaseModel):
    """A query and what bounds its hits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str = Field(description="The question, in words.")
    top_k: int = Field(default=10, ge=1, description="Most hits.")
    filter: dict[str, Any] | None = Field(default=None, description="Conditions on document metadata.")
    document_id: str | None = Field(default=None, description="Search inside this document only.")
    budget_tokens: int | None = Field(default=None, ge=1, description="Most tokens of all hits together.")


EXAMPLE = {"query": "When may either party end the agreement?", "top_k": 3, "budget_tokens": 1000}


@router.post("/search", summary="Search a collection", responses=documented(404))
async def search(
    collection: CollectionName,
    body: Annotated[SearchRequest, Body(examples=[EXAMPLE])],
    request: Request,
    running: Running,
) -> Retrieval:
    """Hits best first. Offsets are half-open, in Unicode code points of the document's text."""
    bounds = body.model_dump(exclude={"query"})
    query = checked_query(body.query, running.settings.server, collection=collection, **bounds)
    return await running.searching.run(request.receive, lambda _: running.longleaf.retriever.search(query))
