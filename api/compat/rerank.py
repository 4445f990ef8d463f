"""`/v1/rerank`: texts by their relevance to a query, as Cohere's and Jina's routes of the name."""

from __future__ import annotations

import time
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from api.callers import Asking
from api.compat.documented import cohere_documented
from api.compat.embeddings import embedder_of
from api.compat.texts import best_similarity, encoded, reranked
from api.routes.strict import StrictRoute
from api.service import Running
from pipeline.errors import InvalidRequestError, LimitExceededError

router = APIRouter(tags=["compatible"], route_class=StrictRoute)


class RerankText(BaseModel):
    """A text in an object. Other keys are given back and not read."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    text: str


class RerankRequest(BaseModel):
    """A query and texts to be put in order."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    model: str | None = Field(default=None, description="The embedder, or a collection to take its embedder.")
    query: str
    documents: list[str | RerankText] = Field(min_length=1)
    top_n: int | None = Field(default=None, ge=1, description="Most results.")
    return_documents: bool | None = Field(default=None, description="Whether results repeat their text.")


class RerankResult(BaseModel):
    """``index`` is the text's place in the request; ``relevance_score`` is 0 to 1, more is better."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class RerankUsage(BaseModel):
    """Tokens read."""

    total_tokens: int


class RerankResponse(BaseModel):
    """Results, the most relevant first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage
    meta: dict[str, Any]


EXAMPLE = {
    "query": "Who keeps the sluice in repair?",
    "documents": ["The miller keeps the sluice in repair.", "Frost harms the blossoms."],
    "top_n": 1,
}


@router.post("/v1/rerank", summary="Put texts in order", responses=cohere_documented(404))
@router.post("/v2/rerank", summary="Put texts in order, as v2 has it", responses=cohere_documented(404))
async def rerank(
    body: Annotated[RerankRequest, Body(examples=[EXAMPLE])],
    request: Request,
    running: Running,
    asking: Asking,
) -> RerankResponse:
    """The score is the configured reranker's, as 1 / (1 + e^-x), where there is one and no model is named;
    else the cosine of the query with the text or its nearest part, negative ones as 0."""
    limits = running.settings.server
    if not body.query.strip():
        raise InvalidRequestError("The query is empty.", remedy="Ask a question.")
    if len(body.query) > running.settings.retrieval.max_query_chars:
        raise LimitExceededError(
            f"The query has {len(body.query)} characters; the limit is "
            f"{running.settings.retrieval.max_query_chars}.",
            remedy="Shorten it, or raise retrieval.max_query_chars.",
        )
    await running.quotas.ask_tokens(asking.tenant)
    texts = [text if isinstance(text, str) else text.text for text in body.documents]

    def work(_: object) -> RerankResponse:
        name = body.model or running.settings.embedder.name
        embedder = embedder_of(running, asking, name)
        if not len(embedder.encode(body.query)):
            raise InvalidRequestError("The query has no words.", remedy="Ask a question in words.")
        encoded(texts, embedder, limits)  # refuses what is too much
        by_reranker = body.model is None and running.settings.reranker.name != "identity"
        scores = (
            reranked(body.query, texts, running.longleaf.reranker)
            if by_reranker
            else best_similarity(body.query, texts, embedder, limits).clip(0, 1)
        )
        best = sorted(range(len(texts)), key=lambda i: (-scores[i], i))[: body.top_n]
        given = [{"text": d} if isinstance(d, str) else d.model_dump() for d in body.documents]
        return RerankResponse(
            id=uuid4().hex,
            model=running.settings.reranker.name if by_reranker else name,
            results=[
                RerankResult(
                    index=i,
                    relevance_score=float(scores[i]),
                    document=given[i] if body.return_documents else None,
                )
                for i in best
            ],
            usage=RerankUsage(total_tokens=sum(len(embedder.encode(text)) for text in (body.query, *texts))),
            meta={"api_version": {"version": "1"}},
        )

    began = time.perf_counter()
    made = await running.embedding.run(request.receive, work)
    running.telemetry.embedded(
        running.settings.embedder.name, made.usage.total_tokens, time.perf_counter() - began
    )
    running.quotas.spend_tokens(asking.tenant, made.usage.total_tokens)
    return made
