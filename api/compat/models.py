"""`/v1/models`: collections (to be asked) and the embedder, as OpenAI lists models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel

from api.callers import Asking, Caller
from api.compat.documented import openai_documented
from api.routes.strict import StrictRoute
from api.service import Running, Service, without_words
from pipeline.errors import NotFoundError

router = APIRouter(prefix="/v1/models", tags=["compatible"], route_class=StrictRoute)


class ModelCard(BaseModel):
    """A model. ``longleaf`` says what it is: a collection, with the language model that writes its
    answers, or the embedder, with what its vectors mean."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    longleaf: dict[str, Any]


class ModelList(BaseModel):
    """Every model that the key opens."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


@router.get("", summary="List models", responses=openai_documented())
async def list_models(request: Request, running: Running, asking: Asking) -> ModelList:
    """Collections in order of name, then the embedder."""
    return await running.searching.run(
        request.receive, lambda _: ModelList(data=list(_cards(running, asking)))
    )


@router.get("/{model}", summary="Look at a model", responses=openai_documented(404))
async def get_model(
    model: Annotated[str, Path(description="A collection or the embedder.", examples=["default"])],
    request: Request,
    running: Running,
    asking: Asking,
) -> ModelCard:
    """One of those listed."""

    def work(_: object) -> ModelCard:
        for card in _cards(running, asking):
            if card.id == model:
                return card
        raise NotFoundError(f"There is no model {model[:64]!r}.", remedy="GET /v1/models lists all.")

    return await running.searching.run(request.receive, work)


def _cards(running: Service, asking: Caller) -> Iterator[ModelCard]:
    settings = running.settings
    model = PurePath(settings.language_model.spec)
    language_model = model.name if model.is_absolute() else settings.language_model.spec
    for record in running.longleaf.ledger.collections(asking.tenant):
        if asking.sees(record.name):
            yield ModelCard(
                id=record.name,
                created=int(record.created.timestamp()),
                owned_by=record.tenant,
                longleaf={
                    "kind": "collection",
                    "embedder": record.fingerprint,
                    "language_model": language_model,
                    "mode": settings.answer.mode,
                },
            )
    fingerprint = running.longleaf.embedder.fingerprint
    yield ModelCard(
        id=settings.embedder.name,
        created=0,
        owned_by="longleaf",
        longleaf={
            "kind": "embedder",
            "model": fingerprint.model,
            "dimensions": fingerprint.dim,
            "fingerprint": str(fingerprint),
            "state": without_words(running.models["embedder"]) if running.models else "not loaded yet",
        },
    )
