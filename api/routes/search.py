"""Passages that answer a query."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.callers import Readable, Shelf
from api.problems import documented
from api.routes.strict import StrictRoute
from api.service import Running, written
from pipeline.types import Query, Retrieval

router = APIRouter(prefix="/v1/collections/{collection}", tags=["search"], route_class=StrictRoute)


class SearchRequest(BaseModel):
    """A query and what bounds its hits."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    query: str = Field(description="The question, in words.")
    top_k: int = Field(default=10, ge=1, description="Most hits.")
    filter: dict[str, Any] | None = Field(default=None, description="Conditions on document metadata.")
    document_id: str | None = Field(default=None, description="Search inside this document only.")
    budget_tokens: int | None = Field(default=None, ge=1, description="Most tokens of all hits together.")

    def asks(self, shelf: Shelf) -> Query:
        """The query, for one collection; the retriever checks it."""
        return Query(
            text=self.query,
            collection=shelf.collection,
            tenant=shelf.tenant,
            top_k=self.top_k,
            filter=self.filter,
            document_id=self.document_id,
            budget_tokens=self.budget_tokens,
        )


EXAMPLE = {"query": "When may either party end the agreement?", "top_k": 3, "budget_tokens": 1000}


@router.post(
    "/search", summary="Search a collection", response_model=Retrieval, responses=documented(404, 415, 429)
)
async def search(
    shelf: Readable,
    body: Annotated[SearchRequest, Body(examples=[EXAMPLE])],
    request: Request,
    running: Running,
) -> Response:
    """Hits best first. Offsets are half-open, in Unicode code points of the document's text."""
    query = body.asks(shelf)
    await running.quotas.ask_tokens(shelf.tenant)

    def work(_: object) -> Response:
        found = running.bench(shelf).retriever.search(query)
        running.telemetry.searched(shelf, found)
        running.quotas.spend_tokens(shelf.tenant, sum(hit.tokens for hit in found.hits))
        return written(found)

    return await running.searching.run(request.receive, work)
