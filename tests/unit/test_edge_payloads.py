"""Payloads kept beside the engine's process: never older than a write, never more than allowed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexers._edge_kept import key_of
from indexers._edge_payloads import Payloads, Stored
from indexers.qdrant_edge import Config, QdrantEdgeIndexer
from pipeline.filters import Equals
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Point

IDS = [str(uuid.UUID(int=n)) for n in range(10)]
K1, K2, K3 = (key_of(IDS[n]) for n in (1, 2, 3))
GONE = key_of(str(uuid.UUID(int=99)))


class Store:
    """What is stored, and what was asked for."""

    def __init__(self) -> None:
        self.values = {key_of(i): (i, {"n": n}) for n, i in enumerate(IDS)}
        self.asked: list[list[bytes]] = []

    def fetch(self, keys: Sequence[bytes]) -> Mapping[bytes, Stored]:
        self.asked.append(list(keys))
        return {key: self.values[key] for key in keys if key in self.values}


def test_what_is_kept_is_not_asked_for_again() -> None:
    store, kept = Store(), Payloads()
    assert kept.of("a", [K1, K2, K1], store.fetch) == {K1: (IDS[1], {"n": 1}), K2: (IDS[2], {"n": 2})}
    assert kept.of("a", [K2, K3, GONE], store.fetch) == {K2: (IDS[2], {"n": 2}), K3: (IDS[3], {"n": 3})}
    assert kept.of("b", [K2], store.fetch) == {K2: (IDS[2], {"n": 2})}, "another index, another point"
    assert store.asked == [[K1, K2], [K3, GONE], [K2]]


def test_written_points_are_asked_for_again() -> None:
    store, kept = Store(), Payloads()
    kept.of("a", [K1, K2], store.fetch)
    with kept.changing("a", [IDS[1]]):
        store.values[K1] = (IDS[1], {"n": 100})
    assert kept.of("a", [K1, K2], store.fetch)[K1] == (IDS[1], {"n": 100})
    with kept.changing("a"):
        pass
    kept.of("a", [K1, K2], store.fetch)
    assert store.asked == [[K1, K2], [K1], [K1, K2]]


def test_what_was_fetched_during_a_write_is_not_kept() -> None:
    store, kept = Store(), Payloads()

    def overtaken(keys: Sequence[bytes]) -> Mapping[bytes, Stored]:
        old = store.fetch(keys)
        with kept.changing("a", [IDS[1]]):
            store.values[K1] = (IDS[1], {"n": 100})
        return old

    assert kept.of("a", [K1], overtaken) == {K1: (IDS[1], {"n": 1})}, "it was so when it was asked for"
    assert kept.of("a", [K1], store.fetch) == {K1: (IDS[1], {"n": 100})}


def test_a_write_that_fails_may_have_taken_place() -> None:
    store, kept = Store(), Payloads()

    def broken() -> None:
        with kept.changing("a", [IDS[1]]):
            kept.of("a", [K1], store.fetch)  # a search, before the write takes place
            store.values[K1] = (IDS[1], {"n": 100})
            raise OSError("the answer did not come")

    with pytest.raises(OSError, match="did not come"):
        broken()
    assert kept.of("a", [K1], store.fetch) == {K1: (IDS[1], {"n": 100})}


def test_the_least_recently_used_go_first() -> None:
    store, kept = Store(), Payloads(most=2)
    kept.of("a", [K1, K2], store.fetch)
    kept.of("a", [K1], store.fetch)
    kept.of("a", [K3], store.fetch)
    kept.of("a", [K1, K3], store.fetch)
    kept.of("a", [K2], store.fetch)
    assert store.asked == [[K1, K2], [K3], [K2]]


def test_what_was_written_is_kept_where_there_is_room() -> None:
    store, kept = Store(), Payloads(most=3)
    kept.of("a", [K3], store.fetch)
    with kept.changing("a", IDS[:3]):
        pass
    kept.written("a", IDS[:3], [f'{{"n": {n}}}' for n in range(3)])
    assert kept.of("a", [key_of(IDS[0]), K1], store.fetch) == {
        key_of(IDS[0]): (IDS[0], {"n": 0}),
        K1: (IDS[1], {"n": 1}),
    }
    kept.of("a", [K3, K2], store.fetch)
    assert store.asked == [[K3], [K2]], "what is asked about stayed, and the third had no room"


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
