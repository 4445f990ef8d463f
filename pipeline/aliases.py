"""Which index a collection's name means now, so that another can be built beside it and switched to.

Indexes of a collection that was indexed anew are called ``tenant/collection/layer@generation``. The ledger
says which generation readers see and which one is being built; both change in its transactions, so a switch
is one commit. This wraps an :class:`~pipeline.seams.Indexer`, and nobody else needs to know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import LongleafError
from pipeline.filters import Filter
from pipeline.layers import LAYERS, is_of_collection
from pipeline.ledger import Ledger
from pipeline.seams import Indexer, IndexSchema, IndexSearch
from pipeline.types import Match, Point, Vectors


def generation_name(name: str, generation: int) -> str:
    """The name of an index in one generation, whatever is current."""
    return f"{name}@{generation}"


class Aliased:
    """See :class:`pipeline.seams.Indexer`. A name with ``@generation`` means that one, without it the
    current one."""

    def __init__(self, indexer: Indexer, ledger: Ledger) -> None:
        self._indexer = indexer
        self._ledger = ledger

    def create(self, name: str, schema: IndexSchema) -> None:
        """In the current generation."""
        self._indexer.create(self._now(name), schema)

    def schema(self, name: str) -> IndexSchema | None:
        """Of the current generation."""
        return self._indexer.schema(self._now(name))

    def names(self) -> list[str]:
        """Those of current generations by their plain names, all others with their generation."""
        return sorted(map(self._shown, self._indexer.names()))

    def drop(self, name: str) -> None:
        """Every generation, unless one is named."""
        if "@" in name:
            self._indexer.drop(self._now(name))
            return
        for stored in self._indexer.names():
            if stored.partition("@")[0] == name:
                self._indexer.drop(stored)

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Into the current generation."""
        self._indexer.upsert(self._now(name), points)

    def delete(self, name: str, where: Filter) -> None:
        """From the current generation and from the one that is being built."""
        self._indexer.delete(self._now(name), where)
        building = self._settings(name).get("building")
        if building is not None and "@" not in name:
            stored = _stored(name, building)
            if self._indexer.schema(stored) is not None:
                self._indexer.delete(stored, where)

    def search(self, name: str, searches: Sequence[IndexSearch]) -> list[list[Match]]:
        """In the current generation."""
        return self._indexer.search(self._now(name), searches)

    def count(self, name: str, where: Filter | None = None) -> int:
        """In the current generation."""
        return self._indexer.count(self._now(name), where)

    def points(self, name: str, where: Filter | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Of the current generation."""
        return self._indexer.points(self._now(name), where)

    def read(self, name: str, where: Filter | None = None) -> Iterator[Point]:
        """From the current generation."""
        return self._indexer.read(self._now(name), where)

    def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vectors]:
        """From the current generation."""
        return self._indexer.vectors(self._now(name), ids)

    def problems(self, name: str) -> list[str]:
        """Of the current generation."""
        return self._indexer.problems(self._now(name))

    def flush(self) -> None:
        """Everything."""
        self._indexer.flush()

    def optimize(self, name: str) -> None:
        """The current generation."""
        self._indexer.optimize(self._now(name))

    def close(self) -> None:
        """Flush and let go."""
        self._indexer.close()

    def _now(self, name: str) -> str:
        base, _, generation = name.partition("@")
        if generation.isdecimal():
            return _stored(base, int(generation))
        return _stored(name, self._settings(name).get("generation", 0))

    def _shown(self, stored: str) -> str:
        base, _, generation = stored.partition("@")
        if not is_of_collection(base) or (generation and not generation.isdecimal()):
            return stored
        number = int(generation or 0)
        return base if number == self._settings(base).get("generation", 0) else f"{base}@{number}"

    def _settings(self, name: str) -> Mapping[str, Any]:
        parts = name.split("/")
        if len(parts) != 3 or parts[2] not in LAYERS:
            return {}
        try:
            return self._ledger.collection(parts[0], parts[1]).settings
        except LongleafError:  # there is no such collection
            return {}


def _stored(base: str, generation: int) -> str:
    return f"{base}@{generation}" if generation else base
