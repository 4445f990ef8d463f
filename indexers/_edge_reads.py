"""What the engine's process is asked that changes nothing: searches, counts and pages of points."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

import numpy as np

from indexers._edge_kept import Kept, key_of, keys_in
from indexers._edge_payloads import Payloads, Stored
from indexers._edge_points import stored_vectors, whole_points
from indexers._edge_process import Buffer
from indexers._projection import condition
from pipeline.filters import EVERYTHING, Filter
from pipeline.points import check_dense
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Match, Point, Vectors

_SEARCHES = 128
_PAGE_POINTS = 1000
_KEPT_VECTORS = 4_096  # of those that searches fetched last, about 20 MB at 384 dimensions


class Ask(Protocol):
    """Asks the process about an index; an answer is a JSON object and arrays."""

    def __call__(self, do: str, name: str, *arrays: Buffer, **arguments: Any) -> Any: ...  # noqa: ANN401


class Reads:
    """The reading half of :class:`indexers.qdrant_edge.QdrantEdgeIndexer`. Thread-safe."""

    def __init__(self, ask: Ask, payloads: Payloads, ef: int) -> None:
        self._ask = ask
        self._payloads = payloads
        self._vectors: Kept[Vectors] = Kept(_KEPT_VECTORS)
        self._ef = ef

    @contextmanager
    def changing(self, name: str, ids: Sequence[str] | None = None) -> Iterator[None]:
        """Around a write: forgets what is kept of these points, see :meth:`Kept.changing`."""
        with self._payloads.changing(name, ids), self._vectors.changing(name, ids):
            yield

    def search(self, name: str, searches: Sequence[IndexSearch]) -> list[list[Match]]:
        """Matches best first, ties by id, one list a search."""
        found: list[list[Match]] = []
        for start in range(0, len(searches), _SEARCHES):
            found += self._search(name, searches[start : start + _SEARCHES])
        return found

    def count(self, name: str, where: Filter) -> int:
        """Exact number of points that match."""
        count: int = self._ask("count", name, where=condition(where))[0]["count"]
        return count

    def points(self, name: str, where: Filter) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Id and payload of matching points, in id order."""
        for _, (page,) in self._pages("scroll", name, where):
            yield from map(tuple, json.loads(bytes(page)))

    def whole(self, name: str, schema: IndexSchema, where: Filter) -> Iterator[Point]:
        """Matching points with their vectors, in id order."""
        for _, (texts, *arrays) in self._pages("read", name, where):
            yield from whole_points(json.loads(bytes(texts)), schema, arrays)

    def vectors(self, name: str, schema: IndexSchema, ids: Sequence[str]) -> dict[str, Vectors]:
        """Vectors of these points, by id."""
        check_dense(name, schema)
        names = {key_of(point): point for point in ids}
        found = self._vectors.of(name, names, lambda missing: self._fetched_vectors(name, missing, schema))
        return {names[key]: vectors for key, vectors in found.items()}

    def _fetched_vectors(self, name: str, keys: Sequence[bytes], schema: IndexSchema) -> dict[bytes, Vectors]:
        _, (found, *arrays) = self._ask("vectors", name, b"".join(keys))
        stored = zip(keys_in(found), stored_vectors(schema, arrays), strict=True)
        return {key: Vectors(dense.copy(), words) for key, (dense, words) in stored if dense is not None}

    def _pages(self, do: str, name: str, where: Filter) -> Iterator[tuple[Any, list[memoryview]]]:
        start = None
        while True:
            answer, arrays = self._ask(do, name, where=condition(where), start=start, limit=_PAGE_POINTS)
            yield answer, arrays
            start = answer["next"]
            if start is None:
                return

    def _search(self, name: str, searches: Sequence[IndexSearch]) -> list[list[Match]]:
        described, sent = [], []
        for search in searches:
            where = condition(search.filter or EVERYTHING)
            if search.sparse is not None:
                using, arrays = "words", [search.sparse.indices, search.sparse.values]
            else:
                using, arrays = "dense", [np.asarray(search.dense, np.float32)]
            described.append({"limit": search.limit, "using": using, "where": where})
            sent += [array.tobytes() for array in arrays]
        answer, (ids, scores) = self._ask("search", name, *sent, searches=described, ef=self._ef)
        keys = keys_in(ids)
        stored = self._payloads.of(name, keys, lambda missing: self._fetched(name, missing))
        hits = zip(keys, scores.cast("f").tolist(), strict=True)
        matches = []
        for count in answer["counts"]:
            best_first = sorted(islice(hits, count), key=lambda hit: (-hit[1], hit[0]))
            found = ((stored[key], score) for key, score in best_first if key in stored)
            matches.append([Match(point, score, payload) for (point, payload), score in found])
        return matches

    def _fetched(self, name: str, keys: Sequence[bytes]) -> dict[bytes, Stored]:
        _, (answer,) = self._ask("payloads", name, b"".join(keys))
        return {key_of(point): (point, payload) for point, payload in json.loads(bytes(answer))}
