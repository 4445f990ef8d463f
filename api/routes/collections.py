"""Collections and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from api.build import Longleaf
from api.callers import Asking, Readable, Writable
from api.problems import documented
from api.routes.strict import StrictRoute
from api.service import Running
from pipeline import layers
from pipeline.records import CollectionRecord

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=StrictRoute)


class CollectionSummary(BaseModel):
    """A collection with sums over its live documents."""

    name: str
    documents: int
    bytes: int
    tokens: int
    passages: int
    units: int


class CollectionList(BaseModel):
    """Every collection that the key opens."""

    collections: list[CollectionSummary]


class CollectionDetails(CollectionSummary):
    """A collection with what all its documents share and how much the index holds of them."""

    created: datetime
    embedder: str = Field(description="Fingerprint of the embedder that made its vectors.")
    chunking: Mapping[str, Any]
    analyser: Mapping[str, Any] = Field(description="How words become terms.")
    metadata_fields: Mapping[str, str] = Field(description="Type of every field a filter may name.")
    points: Mapping[str, int] = Field(description="Entries of the index by layer.")


class NewCollection(BaseModel):
    """A name, and what its documents are to be made with. What is left out is as configured."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(description="1 to 64 of A-Z a-z 0-9 _ . -")
    embedder: str | None = Field(default=None, description="Plugin that must be the configured one.")
    chunking: dict[str, int] | None = Field(
        default=None, description="passage_tokens, unit_tokens, unit_min_tokens."
    )
    analyser: dict[str, Any] | None = Field(
        default=None, description="k1, b, language, stems, bigram_weight, stop_words."
    )


EXAMPLE = {"name": "contracts", "chunking": {"passage_tokens": 128}, "analyser": {"language": "german"}}


@router.get("", summary="List collections", responses=documented())
async def list_collections(request: Request, running: Running, asking: Asking) -> CollectionList:
    """In order of name; those that the key does not open are left out."""

    def work(_: object) -> CollectionList:
        ledger = running.longleaf.ledger
        return CollectionList(
            collections=[
                CollectionSummary(name=record.name, **asdict(ledger.totals(asking.tenant, record.name)))
                for record in ledger.collections(asking.tenant)
                if asking.sees(record.name)
            ]
        )

    return await running.searching.run(request.receive, work)


@router.post("", status_code=201, summary="Create a collection", responses=documented(409, 415))
async def create(
    body: Annotated[NewCollection, Body(examples=[EXAMPLE])],
    request: Request,
    running: Running,
    asking: Asking,
) -> CollectionDetails:
    """Makes an empty collection. An upload into one that does not exist makes it too, as configured."""
    asking.writing(body.name)

    def work(_: object) -> CollectionDetails:
        record = running.longleaf.benches.create(
            asking.tenant, body.name, embedder=body.embedder, chunking=body.chunking, analyser=body.analyser
        )
        return details(running.longleaf, record)

    return await running.ingesting.run(request.receive, work)


@router.get("/{collection}", summary="Look at a collection", responses=documented(404))
async def look(shelf: Readable, request: Request, running: Running) -> CollectionDetails:
    """Its settings, its size, and the metadata that filters can ask for."""

    def work(_: object) -> CollectionDetails:
        return details(running.longleaf, running.longleaf.ledger.collection(shelf.tenant, shelf.collection))

    return await running.searching.run(request.receive, work)


def details(longleaf: Longleaf, record: CollectionRecord) -> CollectionDetails:
    """What there is to know of a collection."""
    tenant, name = record.tenant, record.name
    names = {layer: layers.index_name(tenant, name, layer) for layer in layers.LAYERS}
    known = set(longleaf.indexer.names())
    return CollectionDetails(
        name=name,
        **asdict(longleaf.ledger.totals(tenant, name)),
        created=record.created,
        embedder=record.fingerprint,
        chunking=record.chunking,
        analyser=record.lexical["analyser"],
        metadata_fields=longleaf.ledger.metadata_fields(tenant, name),
        points={
            layer: longleaf.indexer.count(index) if index in known else 0 for layer, index in names.items()
        },
    )


@router.delete("/{collection}", status_code=204, summary="Drop a collection", responses=documented(404))
async def drop(shelf: Writable, request: Request, running: Running) -> None:
    """Deletes the collection with all its documents."""

    def work(_: object) -> None:
        running.longleaf.ledger.collection(shelf.tenant, shelf.collection)
        running.longleaf.ingestor.drop(shelf.tenant, shelf.collection)

    await running.ingesting.run(request.receive, work)
