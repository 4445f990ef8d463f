"""Who asks, and what they may touch. The gate finds out; routes ask here before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from api.keys import Access, Key
from pipeline.errors import ForbiddenError

IN_SCOPE = "longleaf.caller"

CollectionName = Annotated[str, Path(description="Name of the collection.", examples=["default"])]


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a key, or in single-user mode whoever is at this machine (``key`` is then empty)."""

    key: str = ""
    tenant: str = "default"
    collections: tuple[str, ...] = ("*",)
    access: Access = "write"

    @classmethod
    def of(cls, key: Key) -> Caller:
        """What a key allows."""
        return cls(key.id, key.tenant, key.collections, key.access)

    def sees(self, collection: str) -> bool:
        """Whether a collection is in the key's scope."""
        return any(
            collection == wanted or (wanted.endswith("*") and collection.startswith(wanted[:-1]))
            for wanted in self.collections
        )

    @property
    def operates(self) -> bool:
        """Whether metrics may be seen: with a key for it, or at the machine itself."""
        return self.access == "operate" or not self.key

    def reading(self, collection: str) -> Shelf:
        """The collection, to be looked at. Raises ForbiddenError, whether it exists or not."""
        if not self.sees(collection):
            raise ForbiddenError(
                f"This key does not open collection {collection[:64]!r}.",
                remedy=f"It opens: {', '.join(self.collections)}.",
            )
        return Shelf(self.tenant, collection)

    def writing(self, collection: str) -> Shelf:
        """The collection, to be changed. Raises ForbiddenError."""
        shelf = self.reading(collection)
        if self.access != "write":
            raise ForbiddenError("This key may only read.", remedy="Use a key with access write.")
        return shelf


@dataclass(frozen=True, slots=True)
class Shelf:
    """One tenant's collection of a name, which the caller may use."""

    tenant: str
    collection: str


def caller(request: Request) -> Caller:
    """Whom the gate let in."""
    known: Caller = request.scope[IN_SCOPE]
    return known


Anyone = Annotated[Caller, Depends(caller)]


def asker(known: Anyone) -> Caller:
    """Whom the gate let in, if anything may be asked of the documents. Raises ForbiddenError."""
    if known.access == "operate":
        raise ForbiddenError("This key is for metrics only.", remedy="Use a key with access read.")
    return known


Asking = Annotated[Caller, Depends(asker)]


def readable(collection: CollectionName, asking: Asking) -> Shelf:
    """The collection of the path, to be looked at."""
    return asking.reading(collection)


def writable(collection: CollectionName, asking: Asking) -> Shelf:
    """The collection of the path, to be changed."""
    return asking.writing(collection)


Readable = Annotated[Shelf, Depends(readable)]
Writable = Annotated[Shelf, Depends(writable)]
