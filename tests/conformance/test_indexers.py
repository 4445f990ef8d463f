"""Every indexer does what the exact one does, on the same points and questions.

A plugin that keeps its indexes in a folder has a ``path`` in its ``Config``. The Qdrant server is one that
the tests bring along (:mod:`qdrant_server`), and with ``LONGLEAF_TEST_QDRANT_URL`` a real one as well.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_server import qdrant_server

from indexers.exact import ExactIndexer
from pipeline import plugins
from pipeline.errors import FingerprintMismatchError, IndexingError
from pipeline.filters import EVERYTHING, And, AnyOf, Equals, Exists, Filter, Not, Or, Range
from pipeline.points import MAX_LIMIT
from pipeline.seams import Indexer, IndexSchema, IndexSearch
from pipeline.types import Match, Point, SparseVector

DIM = 32
SCHEMA = IndexSchema("model@1", DIM, True, {"analyser": "words", "avg_len": 12.5})
NAME = "tenant/collection/passages"
Reopen = Callable[[], Indexer]


@functools.cache
def point(i: int, generation: int = 0) -> Point:
    """A point that depends on its number and generation alone; some payloads lack some fields."""
    rng = np.random.default_rng([i, generation])
    dense = rng.standard_normal(DIM) + 3 * np.random.default_rng([i % 7]).standard_normal(DIM)
    terms = np.unique(rng.zipf(1.4, 12) % 60).astype(np.uint32)
    payload: dict[str, Any] = {
        "_document_id": f"документ {i % 40}",
        "_version": 1 + generation,
        "_ordinal": i,
        "_start": 100 * i,
        "_page_start": None if i % 2 else i // 10,
        "year": 1860 + i % 10,
        "rare": i % 200 == 0,
        "published": f"20{i % 30:02d}-0{1 + i % 9}-15",
        "mixed": [1, "1", 1.5, "true", True, "naïve", "nai\u0308ve"][i % 7],
    }
    if i % 3:
        payload["tags"] = [f"tag {j}" for j in range(i % 4)]
        payload["publisher"] = {"country": "FR" if i % 2 else "États-Unis", "a.b": {"c": -float(i)}}
    weights = rng.uniform(0.2, 2.4, len(terms)).astype(np.float32)
    key = str(uuid.uuid5(uuid.NAMESPACE_OID, str(i)))
    return Point(key, payload, unit(dense), SparseVector(terms, weights))


def unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def dense_query(i: int) -> np.ndarray:
    return unit(point(i).dense + 0.1 * np.random.default_rng([1, i]).standard_normal(DIM))


def sparse_query(i: int) -> SparseVector:
    rng = np.random.default_rng([2, i])
    terms = np.unique(np.append(rng.integers(0, 60, 5), 10**9)).astype(np.uint32)
    return SparseVector(terms, rng.integers(1, 4, len(terms)).astype(np.float32))


REAL_SERVER = os.environ.get("LONGLEAF_TEST_QDRANT_URL", "")
BACKENDS = [*plugins.names("indexers"), *(["qdrant over HTTP", "qdrant over gRPC"] if REAL_SERVER else [])]

Opener = Callable[[Path], Reopen]


@pytest.fixture(scope="module", params=BACKENDS)
def opener(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    """Opens the plugin's indexes that belong to a folder, again and again."""
    name, _, transport = request.param.partition(" over ")
    plugin = plugins._module("indexers", name)
    if name != "qdrant":
        yield lambda path: lambda: plugin.build(plugin.TINY.model_copy(update={"path": path / "index"}))
        return
    made: set[str] = set()
    with contextlib.ExitStack() as closing:
        url = REAL_SERVER
        if not transport:
            url = closing.enter_context(qdrant_server(tmp_path_factory.mktemp("server"))).url

        def at(path: Path) -> Reopen:
            prefix = f"test-{uuid.uuid5(uuid.NAMESPACE_URL, str(path)).hex}"
            made.add(prefix)
            options = {"url": url, "prefix": prefix, "prefer_grpc": transport == "gRPC"}
            return lambda: plugin.build(plugin.TINY.model_copy(update=options))

        yield at
        for prefix in made if transport else ():
            left = plugin.build(plugin.Config(url=url, prefix=prefix))
            for index in left.names():
                left.drop(index)
            left.close()


@pytest.fixture
def reopen(opener: Opener, tmp_path: Path) -> Reopen:
    return opener(tmp_path)


@pytest.fixture
def indexer(reopen: Reopen) -> Iterator[Indexer]:
    opened = reopen()
    opened.create(NAME, SCHEMA)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def filled(opener: Opener, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Indexer, Indexer]]:
    """An index and the oracle with the same 400 points, some of them deleted and replaced."""
    tested, oracle = opener(tmp_path_factory.mktemp("filled"))(), ExactIndexer(None)
    for each in (tested, oracle):
        each.create(NAME, SCHEMA)
        each.upsert(NAME, [point(i) for i in range(450)])
        each.delete(NAME, Range("_ordinal", gte=400))
        each.upsert(NAME, [point(i, 1) for i in range(50, 90)])
    tested.flush()
    yield tested, oracle
    tested.close()


def assert_same(found: list[Match], oracle: Indexer, search: IndexSearch) -> None:
    """Same scores in the same order, same points; points of equal score may differ where a list ends."""
    everything = IndexSearch(MAX_LIMIT, search.dense, search.sparse, search.filter)
    expected = oracle.search(NAME, [everything])[0]
    scores = {match.id: match.score for match in expected}
    assert [m.score for m in found] == pytest.approx(
        [m.score for m in expected][: search.limit], rel=1e-4, abs=1e-5
    )
    assert [scores[m.id] for m in found] == pytest.approx([m.score for m in found], rel=1e-4, abs=1e-5)
    assert len({m.id for m in found}) == len(found)
    assert found == sorted(found, key=lambda m: (-m.score, m.id))
    payloads = {match.id: match.payload for match in expected}
    assert all(match.payload == payloads[match.id] for match in found)


SELECTIVITY: dict[str, Filter] = {
    "all": EVERYTHING,
    "0.5 %": Equals("rare", "true"),
    "10 %": Equals("year", 1863),
    "90 %": Not(Equals("year", 1863)),
    "one document": And((Equals("_document_id", "документ 3"), AnyOf("_ordinal", tuple(range(200))))),
    "none": Or(()),
}


@pytest.mark.parametrize("where", SELECTIVITY.values(), ids=SELECTIVITY.keys())
@pytest.mark.parametrize("limit", [1, 10, 300])
def test_searches_equal_the_oracle(filled: tuple[Indexer, Indexer], where: Filter, limit: int) -> None:
    tested, oracle = filled
    dense = [IndexSearch(limit, dense=dense_query(i), filter=where) for i in range(0, 400, 50)]
    lexical = [IndexSearch(limit, sparse=sparse_query(i), filter=where) for i in range(8)]
    for search, found in zip(dense + lexical, tested.search(NAME, dense + lexical), strict=True):
        assert_same(found, oracle, search)


FIELDS = ["year", "rare", "published", "mixed", "tags", "publisher.country", "publisher.a.b.c", "nothing"]
FIELDS += ["_document_id", "_ordinal", "_start", "_page_start"]
VALUES = st.sampled_from(
    [
        1,
        1.0,
        "1",
        1.5,
        "true",
        "false",
        "naïve",
        "FR",
        "États-Unis",
        "tag 1",
        1865,
        0,
        0.0,
        -0.0,
        -7,
        700,
        "2004-05-15",
        "документ 3",
        "",
        "?",
    ]
)
BOUND = st.none() | st.sampled_from([-100.0, 0.0, 1.0, 1.5, 100.0, 1863.0, 2500.0, 1.1e9])
RANGES = st.builds(Range, st.sampled_from(FIELDS), BOUND, BOUND, BOUND, BOUND).filter(
    lambda r: any(b is not None for b in (r.gt, r.gte, r.lt, r.lte))
)
LEAVES = st.one_of(
    st.builds(Equals, st.sampled_from(FIELDS), VALUES),
    st.builds(AnyOf, st.sampled_from(FIELDS), st.lists(VALUES, max_size=4).map(tuple)),
    st.builds(Exists, st.sampled_from([*FIELDS, "publisher", "publisher.a", "publi"])),
    RANGES,
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=FILTERS)
def test_any_filter_means_the_same(filled: tuple[Indexer, Indexer], where: Filter) -> None:
    tested, oracle = filled
    assert list(tested.points(NAME, where)) == list(oracle.points(NAME, where))
    assert tested.count(NAME, where) == oracle.count(NAME, where)
    everything = IndexSearch(MAX_LIMIT, dense=dense_query(7), filter=where)
    assert_same(tested.search(NAME, [everything])[0], oracle, everything)


def test_whole_points_come_back(filled: tuple[Indexer, Indexer]) -> None:
    tested, oracle = filled
    for where in (None, Equals("rare", "true"), Or(())):
        for mine, expected in itertools.zip_longest(tested.read(NAME, where), oracle.read(NAME, where)):
            assert (mine.id, mine.payload) == (expected.id, expected.payload)
            np.testing.assert_array_equal(mine.dense, expected.dense)
            np.testing.assert_array_equal(mine.sparse.indices, expected.sparse.indices)
            np.testing.assert_array_equal(mine.sparse.values, expected.sparse.values)


def test_vectors_come_back_by_id(filled: tuple[Indexer, Indexer]) -> None:
    """In any order, of replaced points the new ones, and none of points that were deleted or never were."""
    tested, oracle = filled
    ids = [point(i).id for i in (70, 3, 399, 430, 51, 3)] + [str(uuid.uuid4())]
    found, expected = tested.vectors(NAME, ids), oracle.vectors(NAME, ids)
    assert found.keys() == expected.keys() == {point(i).id for i in (70, 3, 399, 51)}
    for i, generation in ((70, 1), (3, 0), (399, 0), (51, 1)):
        for vectors in (found[point(i).id], expected[point(i).id]):
            np.testing.assert_array_equal(vectors.dense, point(i, generation).dense)
            np.testing.assert_array_equal(vectors.sparse.indices, point(i, generation).sparse.indices)
            np.testing.assert_array_equal(vectors.sparse.values, point(i, generation).sparse.values)
            assert vectors.dense.dtype == vectors.sparse.values.dtype == np.float32
    assert tested.vectors(NAME, []) == {}


def test_vectors_follow_every_change(indexer: Indexer) -> None:
    """What was asked for before is never given after a replacement, a deletion or a new index."""
    ids = [point(i).id for i in range(6)]

    def current() -> dict[str, list[float]]:
        return {key: vectors.dense.tolist() for key, vectors in indexer.vectors(NAME, ids).items()}

    indexer.upsert(NAME, [point(i) for i in range(6)])
    assert current() == {point(i).id: point(i).dense.tolist() for i in range(6)}
    indexer.upsert(NAME, [point(i, 1) for i in range(3)])
    assert current() == {point(i).id: point(i, int(i < 3)).dense.tolist() for i in range(6)}
    indexer.delete(NAME, Range("_ordinal", lt=2))
    assert list(current()) == ids[2:]
    indexer.drop(NAME)
    indexer.create(NAME, SCHEMA)
    assert current() == {}


def test_tenants_do_not_see_each_other(indexer: Indexer) -> None:
    """Two tenants with the same collection, documents and ids; what one writes and deletes is its own."""
    names = [f"tenant {letter}/collection/passages" for letter in "ab"]
    for offset, name in enumerate(names):
        indexer.create(name, SCHEMA)
        indexer.upsert(name, [point(i, offset) for i in range(60)])
    indexer.delete(names[0], Range("_ordinal", lt=50))
    searches = [IndexSearch(60, dense=dense_query(3)), IndexSearch(60, sparse=sparse_query(3))]
    for offset, (name, left) in enumerate(zip(names, (10, 60), strict=True)):
        assert indexer.count(name) == left
        alone = ExactIndexer(None)
        alone.create(NAME, SCHEMA)
        alone.upsert(NAME, [point(i, offset) for i in range(60 - left, 60)])
        for search, found in zip(searches, indexer.search(name, searches), strict=True):
            assert_same(found, alone, search)


def test_fused_results_equal_the_oracle(filled: tuple[Indexer, Indexer]) -> None:
    """Both halves of a hybrid search as one convex sum of their scores over everything that was found."""
    tested, oracle = filled

    def fused(index: Indexer, i: int) -> dict[str, float]:
        both = [
            IndexSearch(300, dense=dense_query(i), filter=SELECTIVITY["90 %"]),
            IndexSearch(300, sparse=sparse_query(i), filter=SELECTIVITY["90 %"]),
        ]
        totals: dict[str, float] = {}
        for weight, found in zip((0.6, 0.4), index.search(NAME, both), strict=True):
            best = max((match.score for match in found), default=1.0)
            for match in found:
                totals[match.id] = totals.get(match.id, 0.0) + weight * match.score / best
        return totals

    for i in range(0, 40, 5):
        mine, expected = fused(tested, i), fused(oracle, i)
        ranked = sorted(expected, key=expected.__getitem__, reverse=True)[:50]
        assert [mine[key] for key in ranked] == pytest.approx([expected[key] for key in ranked], rel=1e-4)


def test_the_hundredth_field_has_ranges_too(indexer: Indexer) -> None:
    """Engines index some fields of numbers; on all others a range works as well."""
    many = [
        Point(point(i).id, {f"field {n}": i * n for n in range(100)}, point(i).dense, point(i).sparse)
        for i in range(20)
    ]
    indexer.upsert(NAME, many)
    for n in (0, 31, 32, 33, 99):
        where = Range(f"field {n}", gt=3.0 * n, lte=7.0 * n)
        expected = sorted(p.id for p in many if 3 * n < p.payload[f"field {n}"] <= 7 * n)
        assert [key for key, _ in indexer.points(NAME, where)] == expected
        found = indexer.search(NAME, [IndexSearch(20, dense=dense_query(1), filter=where)])[0]
        assert sorted(match.id for match in found) == expected


def test_scores_follow_every_change(indexer: Indexer) -> None:
    """Document frequencies count the points there are, after deletes and replacements as well."""
    oracle = ExactIndexer(None)
    oracle.create(NAME, SCHEMA)
    for step in range(6):
        for each in (indexer, oracle):
            each.upsert(NAME, [point(i, step) for i in range(40 * step, 40 * step + 60)])
            each.delete(NAME, Equals("mixed", 1))
            if step == 3:
                each.flush()
                each.optimize(NAME)
        for search in (IndexSearch(20, sparse=sparse_query(step)), IndexSearch(20, dense=dense_query(step))):
            assert_same(indexer.search(NAME, [search])[0], oracle, search)
    empty = Point(
        point(0).id, {}, point(0).dense, SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))
    )
    for each in (indexer, oracle):
        each.upsert(NAME, [empty])
    search = IndexSearch(20, sparse=sparse_query(1))
    assert_same(indexer.search(NAME, [search])[0], oracle, search)


def test_the_last_of_equal_ids_is_kept(indexer: Indexer) -> None:
    indexer.upsert(
        NAME, [point(1), point(2), Point(point(1).id, {"new": True}, point(1).dense, point(1).sparse)]
    )
    assert dict(indexer.points(NAME))[point(1).id] == {"new": True}
    assert indexer.count(NAME) == 2


def test_an_empty_index_answers(indexer: Indexer) -> None:
    assert indexer.search(NAME, []) == []
    assert indexer.search(
        NAME, [IndexSearch(5, dense=dense_query(0)), IndexSearch(5, sparse=sparse_query(0))]
    ) == [[], []]
    indexer.upsert(NAME, [])
    indexer.delete(NAME, EVERYTHING)
    indexer.optimize(NAME)
    assert indexer.count(NAME) == 0
    assert list(indexer.points(NAME)) == []
    nothing_asked = SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))
    indexer.upsert(NAME, [point(0)])
    assert indexer.search(NAME, [IndexSearch(5, sparse=nothing_asked)]) == [[]]


def test_lexical_only_and_dense_only(indexer: Indexer) -> None:
    indexer.create("words", IndexSchema("f", None, True, {}))
    indexer.create("vectors", IndexSchema("f", DIM, False, {}))
    indexer.upsert("words", [Point(point(i).id, {"i": i}, None, point(i).sparse) for i in range(30)])
    indexer.upsert("vectors", [Point(point(i).id, {"i": i}, point(i).dense) for i in range(30)])
    term = point(4).sparse
    assert indexer.search("words", [IndexSearch(30, sparse=term)])[0][0].payload == {"i": 4}
    assert indexer.search("vectors", [IndexSearch(1, dense=point(9).dense)])[0][0].payload == {"i": 9}
    for name, search in (
        ("words", IndexSearch(1, dense=point(9).dense)),
        ("vectors", IndexSearch(1, sparse=term)),
    ):
        with pytest.raises(IndexingError):
            indexer.search(name, [search])
    ((found, vectors),) = indexer.vectors("vectors", [point(9).id]).items()
    assert (found, vectors.sparse) == (point(9).id, None)
    with pytest.raises(IndexingError, match="Index 'words' has no vectors"):
        indexer.vectors("words", [point(9).id])


@pytest.mark.parametrize(
    "name", ["a", "tenant/collection/units", "平家物語/第一章/units", "a" * 900, "../..", 'Ü?*|:"<> ']
)
def test_any_name_and_no_mixing(indexer: Indexer, reopen: Reopen, name: str) -> None:
    other = name.swapcase() + "."
    for each in (name, other):
        indexer.create(each, SCHEMA)
    indexer.upsert(name, [point(1)])
    assert indexer.count(other) == 0
    assert indexer.names() == sorted([NAME, name, other])
    indexer.close()
    again = reopen()
    assert (again.count(name), again.count(other)) == (1, 0)
    again.drop(name)
    again.drop(name)
    assert again.names() == sorted([NAME, other])
    assert again.schema(name) is None
    again.create(name, SCHEMA)
    assert again.count(name) == 0
    again.close()


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "a" * 1001])
def test_impossible_names_are_refused(indexer: Indexer, name: str) -> None:
    with pytest.raises(IndexingError, match="cannot be named"):
        indexer.create(name, SCHEMA)


def test_a_restart_changes_nothing(indexer: Indexer, reopen: Reopen) -> None:
    indexer.upsert(NAME, [point(i) for i in range(100)])
    indexer.delete(NAME, Range("_ordinal", lt=10))
    indexer.flush()
    searches = [IndexSearch(10, dense=dense_query(50)), IndexSearch(10, sparse=sparse_query(0))]
    before = indexer.search(NAME, searches), list(indexer.points(NAME))
    indexer.close()
    again = reopen()
    assert (again.search(NAME, searches), list(again.points(NAME))) == before
    assert again.schema(NAME) == SCHEMA
    again.upsert(NAME, [point(0)])
    assert again.count(NAME) == 91
    again.close()


def test_another_fingerprint_is_refused(indexer: Indexer) -> None:
    indexer.create(NAME, IndexSchema(SCHEMA.fingerprint, DIM, True, {"avg_len": 99}))
    assert indexer.schema(NAME) == SCHEMA
    for other in (IndexSchema("model@2", DIM, True, {}), IndexSchema("model@1", 64, True, {})):
        with pytest.raises(FingerprintMismatchError, match=r"model@1.*cannot hold"):
            indexer.create(NAME, other)
    with pytest.raises(IndexingError):
        indexer.create("nothing", IndexSchema("f", None, False, {}))


def test_ten_thousand_questions_at_once(indexer: Indexer) -> None:
    indexer.upsert(NAME, [point(i) for i in range(20)])
    queries = [IndexSearch(1, dense=point(i % 20).dense) for i in range(10_000)]
    found = indexer.search(NAME, queries)
    assert [matches[0].payload["_ordinal"] for matches in found] == [i % 20 for i in range(10_000)]


def test_thousands_of_points_in_id_order(indexer: Indexer) -> None:
    points = [point(i) for i in range(2500)]
    indexer.upsert(NAME, points)
    assert [key for key, _ in indexer.points(NAME)] == sorted(p.id for p in points)
    third = list(indexer.points(NAME, Range("_ordinal", gte=1000, lt=2200)))
    assert sorted(payload["_ordinal"] for _, payload in third) == list(range(1000, 2200))
    indexer.flush()
    indexer.optimize(NAME)
    queries = [IndexSearch(10, dense=dense_query(i)) for i in range(0, 2500, 50)]
    oracle = ExactIndexer(None)
    oracle.create(NAME, SCHEMA)
    oracle.upsert(NAME, points)
    pairs = zip(indexer.search(NAME, queries), oracle.search(NAME, queries), strict=True)
    recalls = [len({m.id for m in a} & {m.id for m in b}) / 10 for a, b in pairs]
    assert np.mean(recalls) >= 0.95


def broken_points() -> dict[str, Point]:
    good = point(5)
    nan, short = good.dense.copy(), good.dense[:-1]
    nan[3] = np.nan
    unsorted = SparseVector(np.array([5, 3], np.uint32), np.ones(2, np.float32))
    repeated = SparseVector(np.array([3, 3], np.uint32), np.ones(2, np.float32))
    negative = SparseVector(np.array([3], np.uint32), -np.ones(1, np.float32))
    return {
        "NaN": Point(good.id, {}, nan, good.sparse),
        "dimension": Point(good.id, {}, short, good.sparse),
        "length": Point(good.id, {}, 2 * good.dense, good.sparse),
        "no dense": Point(good.id, {}, None, good.sparse),
        "no words": Point(good.id, {}, good.dense, None),
        "unsorted": Point(good.id, {}, good.dense, unsorted),
        "repeated": Point(good.id, {}, good.dense, repeated),
        "negative": Point(good.id, {}, good.dense, negative),
        "id": Point("doc-1", {}, good.dense, good.sparse),
        "upper-case id": Point(good.id.upper(), {}, good.dense, good.sparse),
        "payload NaN": Point(good.id, {"x": float("nan")}, good.dense, good.sparse),
        "payload object": Point(good.id, {"x": object()}, good.dense, good.sparse),
        "payload surrogate": Point(good.id, {"x": "\ud800"}, good.dense, good.sparse),
    }


@pytest.mark.parametrize("case", broken_points())
def test_one_bad_point_and_nothing_is_written(indexer: Indexer, case: str) -> None:
    indexer.upsert(NAME, [point(1)])
    with pytest.raises(IndexingError):
        indexer.upsert(NAME, [point(1, 1), *[point(i) for i in range(10, 1200)], broken_points()[case]])
    assert list(indexer.points(NAME)) == [(point(1).id, point(1).payload)]


@pytest.mark.parametrize(
    "search",
    [
        IndexSearch(0, dense=point(1).dense),
        IndexSearch(MAX_LIMIT + 1, dense=point(1).dense),
        IndexSearch(1, dense=point(1).dense[:-1]),
        IndexSearch(1, dense=point(1).dense * np.nan),
        IndexSearch(1, dense=point(1).dense * 3),
        IndexSearch(1),
        IndexSearch(1, dense=point(1).dense, sparse=point(1).sparse),
    ],
)
def test_a_bad_search_is_refused(indexer: Indexer, search: IndexSearch) -> None:
    with pytest.raises(IndexingError):
        indexer.search(NAME, [search])


def test_unknown_and_closed(indexer: Indexer) -> None:
    for call in (
        lambda: indexer.search("no", [IndexSearch(1, dense=dense_query(0))]),
        lambda: indexer.upsert("no", [point(1)]),
        lambda: indexer.delete("no", EVERYTHING),
        lambda: indexer.count("no"),
        lambda: indexer.vectors("no", [point(1).id]),
        lambda: list(indexer.points("no")),
        lambda: indexer.optimize("no"),
    ):
        with pytest.raises(IndexingError, match="no index 'no'"):
            call()
    assert indexer.schema("no") is None
    indexer.close()
    indexer.close()
    with pytest.raises(IndexingError, match="closed"):
        indexer.count(NAME)


def test_threads_read_and_write_together(indexer: Indexer) -> None:
    """Eight threads write, search, flush and delete; what each wrote last is there in the end."""
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for round_ in range(5):
                mine = [point(i, round_) for i in range(100 * worker, 100 * worker + 20)]
                indexer.upsert(NAME, mine)
                indexer.flush()
                best = indexer.search(NAME, [IndexSearch(1, dense=mine[3].dense)])[0][0]
                assert (best.id, best.payload["_version"]) == (mine[3].id, round_ + 1)
            indexer.delete(NAME, And((Range("_ordinal", gte=100 * worker + 10, lt=100 * worker + 100),)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    expected = {point(i, 4).id: point(i, 4).payload for w in range(8) for i in range(100 * w, 100 * w + 10)}
    assert {key: dict(payload) for key, payload in indexer.points(NAME)} == expected
