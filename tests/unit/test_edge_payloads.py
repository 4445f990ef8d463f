"""Payloads kept beside the engine's process: never older than a write, never more than allowed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexers._edge_payloads import Payloads
from indexers.qdrant_edge import Config, QdrantEdgeIndexer
from pipeline.filters import Equals
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Point


class Store:
    """What is stored, and what was asked for."""

    def __init__(self) -> None:
        self.values = {f"p{n}": {"n": n} for n in range(10)}
        self.asked: list[list[str]] = []

    def fetch(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        self.asked.append(list(ids))
        return {i: self.values[i] for i in ids if i in self.values}


def test_what_is_kept_is_not_asked_for_again() -> None:
    store, kept = Store(), Payloads()
    assert kept.of("a", ["p1", "p2", "p1"], store.fetch) == {"p1": {"n": 1}, "p2": {"n": 2}}
    assert kept.of("a", ["p2", "p3", "gone"], store.fetch) == {"p2": {"n": 2}, "p3": {"n": 3}}
    assert kept.of("b", ["p2"], store.fetch) == {"p2": {"n": 2}}, "another index, another point"
    assert store.asked == [["p1", "p2"], ["p3", "gone"], ["p2"]]


def test_written_points_are_asked_for_again() -> None:
    store, kept = Store(), Payloads()
    kept.of("a", ["p1", "p2"], store.fetch)
    with kept.changing("a", ["p1"]):
        store.values["p1"] = {"n": 100}
    assert kept.of("a", ["p1", "p2"], store.fetch)["p1"] == {"n": 100}
    with kept.changing("a"):
        pass
    kept.of("a", ["p1", "p2"], store.fetch)
    assert store.asked == [["p1", "p2"], ["p1"], ["p1", "p2"]]


def test_what_was_fetched_during_a_write_is_not_kept() -> None:
    store, kept = Store(), Payloads()

    def overtaken(ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        old = store.fetch(ids)
        with kept.changing("a", ["p1"]):
            store.values["p1"] = {"n": 100}
        return old

    assert kept.of("a", ["p1"], overtaken) == {"p1": {"n": 1}}, "it was so when it was asked for"
    assert kept.of("a", ["p1"], store.fetch) == {"p1": {"n": 100}}


def test_a_write_that_fails_may_have_taken_place() -> None:
    store, kept = Store(), Payloads()

    def broken() -> None:
        with kept.changing("a", ["p1"]):
            kept.of("a", ["p1"], store.fetch)  # a search, before the write takes place
            store.values["p1"] = {"n": 100}
            raise OSError("the answer did not come")

    with pytest.raises(OSError, match="did not come"):
        broken()
    assert kept.of("a", ["p1"], store.fetch) == {"p1": {"n": 100}}


def test_the_least_recently_used_go_first() -> None:
    store, kept = Store(), Payloads(most=2)
    kept.of("a", ["p1", "p2"], store.fetch)
    kept.of("a", ["p1"], store.fetch)
    kept.of("a", ["p3"], store.fetch)
    kept.of("a", ["p1", "p3"], store.fetch)
    kept.of("a", ["p2"], store.fetch)
    assert store.asked == [["p1", "p2"], ["p3"], ["p2"]]


def test_searches_see_replaced_and_deleted_points(tmp_path: Path) -> None:
    indexer = QdrantEdgeIndexer(Config(path=tmp_path))
    indexer.create("i", IndexSchema("f", 2, False, {}))
    ids = [str(uuid.UUID(int=n)) for n in range(3)]
    right = np.array([1, 0], np.float32)

    def found() -> list[Any]:
        [matches] = indexer.search("i", [IndexSearch(10, dense=right)])
        return sorted(match.payload["v"] for match in matches)

    indexer.upsert("i", [Point(i, {"v": n}, right) for n, i in enumerate(ids)])
    assert found() == [0, 1, 2]
    indexer.upsert("i", [Point(ids[1], {"v": 10}, right)])
    assert found() == [0, 2, 10]
    indexer.delete("i", Equals("v", 0))
    assert found() == [2, 10]
    indexer.drop("i")
    indexer.create("i", IndexSchema("f", 2, False, {}))
    indexer.upsert("i", [Point(ids[2], {"v": 20}, right)])
    assert found() == [20]
    indexer.close()
