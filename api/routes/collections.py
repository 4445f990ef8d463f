"""Collections and what is in them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel

from api.problems import documented
from api.routes.strict import StrictRoute
from api.service import Running

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=StrictRoute)

CollectionName = Annotated[str, Path(description="Name of the collection.", examples=["default"])]


class CollectionSummary(BaseModel):
    """A collection with sums over its live documents."""

    name: str
    documents: int
    bytes: int
    tokens: int
    passages: int
    units: int


class CollectionList(BaseModel):
    """Every collection."""

    collections: list[CollectionSummary]


@router.get("", summary="List collections", responses=documented())
async def list_collections(request: Request, running: Running) -> CollectionList:
    """In order of name."""

    def work(_: object) -> CollectionList:
        ledger = running.longleaf.ledger
        return CollectionList(
            collections=[
                CollectionSummary(name=record.name, **asdict(ledger.totals("default", record.name)))
                for record in ledger.collections("default")
            ]
        )

    return await running.searching.run(request.receive, work)


@router.delete("/{collection}", status_code=204, summary="Drop a collection", responses=documented(404))
async def drop(collection: CollectionName, request: Request, running: Running) -> None:
    """Deletes the collection with all its documents."""

    def work(_: object) -> None:
        running.longleaf.ledger.collection("default", collection)
        running.longleaf.ingestor.drop("default", collection)

    await running.ingesting.run(request.receive, work)
