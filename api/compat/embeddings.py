"""`/v1/embeddings`: vectors of texts, each alone or, with `late_chunking`, in the context of the others."""

from __future__ import annotations

import base64
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.callers import Asking, Caller
from api.compat.documented import openai_documented
from api.compat.texts import embedded, encoded, together
from api.routes.strict import StrictRoute
from api.service import Running, Service
from pipeline.errors import InvalidRequestError, NotFoundError
from pipeline.seams import Embedder

router = APIRouter(prefix="/v1", tags=["compatible"], route_class=StrictRoute)

_QUERY_TASKS = frozenset({"query", "search_query", "retrieval.query"})


class EmbeddingsRequest(BaseModel):
    """Texts to be embedded. Token numbers instead of texts are not taken."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    model: str = Field(description="The embedder, or a collection to take its embedder.")
    input: str | list[str] = Field(description="One text or several.")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, description="Only the model's own width.")
    late_chunking: bool | None = Field(
        default=None, description="Read all texts as one document and give each its vector in that context."
    )
    task: str | None = Field(default=None, description="`retrieval.query` for questions, else documents.")
    input_type: str | None = Field(default=None, description="`query` for questions, else documents.")

    @property
    def texts(self) -> list[str]:
        """The texts, in order."""
        return [self.input] if isinstance(self.input, str) else list(self.input)

    @property
    def asks(self) -> bool:
        """Whether the texts are questions."""
        return self.task in _QUERY_TASKS or self.input_type in _QUERY_TASKS


class EmbeddingRow(BaseModel):
    """One vector, of unit length: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the texts. ``longleaf.windowing`` says how the texts were read."""

    object: Literal["list"] = "list"
    data: list[EmbeddingRow]
    model: str
    usage: EmbeddingsUsage
    longleaf: dict[str, Any]


EXAMPLE = {"model": "default", "input": ["The tenant pays 40 pounds.", "She pays it in May."]}


@router.post(
    "/embeddings",
    summary="Embed texts",
    response_model=EmbeddingsResponse,
    responses=openai_documented(404),
)
async def embed(
    body: Annotated[EmbeddingsRequest, Body(examples=[EXAMPLE])],
    request: Request,
    running: Running,
    asking: Asking,
) -> Response:
    """As OpenAI's route of the name, with Jina's `late_chunking` and `task`."""
    await running.quotas.ask_tokens(asking.tenant)

    def work(_: object) -> tuple[Response, int]:
        made = _embed(body, embedder_of(running, asking, body.model), running)
        # Written here, in the thread: half a million numbers take a while.
        return Response(made.model_dump_json(), media_type="application/json"), made.usage.total_tokens

    began = time.perf_counter()
    answer, tokens = await running.embedding.run(request.receive, work)
    running.telemetry.embedded(running.settings.embedder.name, tokens, time.perf_counter() - began)
    running.quotas.spend_tokens(asking.tenant, tokens)
    return answer


def embedder_of(running: Service, asking: Caller, model: str) -> Embedder:
    """The embedder of a name: the configured one, its model, or that of a collection.

    Raises NotFoundError, and ForbiddenError for a collection that the key does not open.
    """
    configured = running.longleaf.embedder
    if model in (running.settings.embedder.name, configured.fingerprint.model):
        return configured
    shelf = asking.reading(model)
    if not any(record.name == model for record in running.longleaf.ledger.collections(shelf.tenant)):
        raise NotFoundError(
            f"There is no embedder {model[:64]!r}.", remedy="GET /v1/models lists collections and embedder."
        )
    return running.bench(shelf).embedder


def _embed(body: EmbeddingsRequest, embedder: Embedder, running: Service) -> EmbeddingsResponse:
    texts = body.texts
    encodings = encoded(texts, embedder, running.settings.server)
    if body.dimensions not in (None, embedder.fingerprint.dim):
        raise InvalidRequestError(
            f"The vectors have {embedder.fingerprint.dim} dimensions, not {body.dimensions}.",
            remedy="Leave `dimensions` out.",
        )
    if body.late_chunking and not body.asks:
        vectors, windowing = together(texts, embedder)
    elif body.asks:
        vectors, windowing = embedder.embed_queries(texts).vectors, "each query alone"
    else:
        vectors, windowing = embedded(texts, encodings, embedder), "each text alone"
    as_text = body.encoding_format == "base64"
    tokens = sum(map(len, encodings))
    return EmbeddingsResponse(
        data=[
            EmbeddingRow(
                index=i,
                embedding=base64.b64encode(row.astype("<f4").tobytes()).decode() if as_text else row.tolist(),
            )
            for i, row in enumerate(vectors)
        ],
        model=body.model,
        usage=EmbeddingsUsage(prompt_tokens=tokens, total_tokens=tokens),
        longleaf={"fingerprint": str(embedder.fingerprint), "windowing": windowing},
    )
