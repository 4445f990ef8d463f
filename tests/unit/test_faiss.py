"""The FAISS copy: as good as a scan, never trusted when it should not be, always rebuilt."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
from workplace import text, workplace

from indexers import _faiss_copy, _faiss_lists, faiss
from indexers._columns import ColumnsWriter
from indexers._projection import condition, record
from indexers.exact import ExactIndexer
from pipeline import plugins
from pipeline.errors import ConfigurationError, DiskFullError, MissingDependencyError
from pipeline.filters import EVERYTHING, And, Equals, Filter, Not, Or, Range, matches
from pipeline.reconcile import repair, verify
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Point

DIM = 32
NAME = "tenant/collection/units"
SCHEMA = IndexSchema("model@1", DIM, False, {})
POINTS = 2500


def point(i: int, generation: int = 0) -> Point:
    rng = np.random.default_rng([i, generation])
    vector = rng.standard_normal(DIM) + 2 * np.random.default_rng([i % 50]).standard_normal(DIM)
    payload = {"i": i, "generation": generation, "tenth": i % 10, "even": i % 2 == 0, "words": f"word{i}"}
    key = str(uuid.uuid5(uuid.NAMESPACE_OID, str(i)))
    return Point(key, payload, (vector / np.linalg.norm(vector)).astype(np.float32))


def queries(limit: int, where: Filter | None = None) -> list[IndexSearch]:
    return [IndexSearch(limit, dense=point(i, 9).dense, filter=where) for i in range(0, 400, 20)]


def open_at(path: Path, **options: object) -> faiss.FaissIndexer:
    return faiss.build(faiss.TINY.model_copy(update={"path": path, **options}))


@pytest.fixture(scope="module")
def oracle() -> ExactIndexer:
    made = ExactIndexer(None)
    made.create(NAME, SCHEMA)
    made.upsert(NAME, [point(i) for i in range(POINTS)])
    return made


def recall(indexer, oracle, where: Filter | None = None) -> float:
    pairs = zip(
        indexer.search(NAME, queries(10, where)), oracle.search(NAME, queries(10, where)), strict=True
    )
    shares = []
    for mine, expected in pairs:
        scores = {match.id: match.score for match in expected}
        shares.append(len({match.id for match in mine} & set(scores)) / len(scores))
        for match in mine:
            assert match.id not in scores or match.score == pytest.approx(scores[match.id], abs=1e-5)
        assert mine == sorted(mine, key=lambda m: (-m.score, m.id))
    return float(np.mean(shares))


@pytest.mark.parametrize("kind", ["flat", "ivf_sq8", "ivf_pq"])
def test_every_kind_finds_what_a_scan_finds(tmp_path, oracle, kind):
    filters = [None, Not(Equals("tenth", 3)), Equals("even", "true"), Equals("tenth", 3), Range("i", lt=40)]
    indexer = open_at(tmp_path, kind=kind)
    indexer.create(NAME, SCHEMA)
    indexer.upsert(NAME, [point(i) for i in range(POINTS)])
    indexer.optimize(NAME)
    (part,), fresh = indexer._copy(NAME).snapshot()
    assert (part.lists is not None, fresh) == (kind != "flat", {})
    for where in filters:
        assert recall(indexer, oracle, where) >= 0.95, where
    assert recall(indexer, oracle, filters[-1]) == 1, "few rows are scanned exactly"
    indexer.close()
    again = open_at(tmp_path, kind=kind)
    assert again.problems(NAME) == []
    assert recall(again, oracle) >= 0.95
    again.close()


def same(indexer, oracle) -> None:
    """Everything that is alive is found, with the right payload, and nothing else is."""
    search = [IndexSearch(POINTS, dense=point(3, 9).dense)]
    (mine,), (expected,) = indexer.search(NAME, search), oracle.search(NAME, search)
    assert {m.id: m.payload for m in mine} == {m.id: m.payload for m in expected}
    assert [m.score for m in mine] == pytest.approx([m.score for m in expected], abs=1e-5)


def test_changes_are_seen_at_every_stage(tmp_path, monkeypatch):
    """In memory, in a segment, merged into the largest, after a restart."""
    monkeypatch.setattr(_faiss_copy, "_FRESH_POINTS", 150)
    indexer, oracle = open_at(tmp_path), ExactIndexer(None)
    for each in (indexer, oracle):
        each.create(NAME, SCHEMA)
    for step in range(6):
        for each in (indexer, oracle):
            each.upsert(NAME, [point(i, step) for i in range(100 * step, 100 * step + 200)])
            each.delete(NAME, And((Equals("tenth", step), Range("i", lt=100 * step + 150))))
        same(indexer, oracle)
        if step % 2:
            indexer.flush()
            same(indexer, oracle)
        if step == 3:
            indexer.optimize(NAME)
            (part,), fresh = indexer._copy(NAME).snapshot()
            assert (part.alive, fresh) == (len(part.segment), {})
            same(indexer, oracle)
    assert len(indexer._copy(NAME).snapshot()[0]) > 1
    indexer.close()
    again = open_at(tmp_path)
    assert again.problems(NAME) == []
    same(again, oracle)
    for each in (again, oracle):
        each.delete(NAME, EVERYTHING)
    again.optimize(NAME)
    same(again, oracle)
    assert again._copy(NAME).snapshot() == ((), {})
    again.close()


def test_many_flushes_do_not_make_many_segments(tmp_path):
    indexer, oracle = open_at(tmp_path), ExactIndexer(None)
    for each in (indexer, oracle):
        each.create(NAME, SCHEMA)
    for step in range(60):
        for each in (indexer, oracle):
            each.upsert(NAME, [point(i, step) for i in range(2 * step, 2 * step + 3)])
            each.flush()
    assert 1 < len(indexer._copy(NAME).snapshot()[0]) <= 17
    same(indexer, oracle)
    indexer.close()
    again = open_at(tmp_path)
    same(again, oracle)
    again.close()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with 800 points, optimised and closed; tests copy it."""
    root = tmp_path_factory.mktemp("built") / "index"
    indexer = open_at(root)
    indexer.create(NAME, SCHEMA)
    indexer.upsert(NAME, [point(i) for i in range(800)])
    indexer.optimize(NAME)
    indexer.close()
    return root


def files_of(root: Path) -> list[Path]:
    return sorted(f for f in (root / "faiss").rglob("*") if f.is_file() and f.stat().st_size)


@pytest.mark.parametrize("how", ["flipped", "cut short", "missing"])
def test_a_damaged_file_is_never_loaded(built, tmp_path, monkeypatch, caplog, how):
    """Each file in turn: the record answers, the damage is told, and optimising mends it."""
    names = [f.name for f in files_of(built)]
    assert "lists.faiss" in names
    loaded: list[object] = []
    for number in range(len(names)):
        root = tmp_path / str(number)
        shutil.copytree(built, root)
        victim = files_of(root)[number]
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 0x10
        if how == "missing":
            victim.unlink()
        else:
            victim.write_bytes(data if how == "flipped" else data[: len(data) // 2])
        with monkeypatch.context() as patch:
            patch.setattr(_faiss_lists, "Lists", lambda *a: loaded.append(a))
            indexer = open_at(root)
            with caplog.at_level(logging.WARNING):
                (told,) = indexer.problems(NAME)
            assert "longleaf repair" in told
            assert loaded == []
        assert "is not used" in caplog.text
        assert indexer.search(NAME, [IndexSearch(1, dense=point(5).dense)])[0][0].payload["i"] == 5
        if number % 4 == 0:
            indexer.optimize(NAME)
            assert indexer.problems(NAME) == []
            assert indexer._copy(NAME).alive() == 800
        indexer.close()


def test_a_copy_that_a_crash_left_behind_is_not_used(tmp_path):
    indexer = open_at(tmp_path)
    indexer.create(NAME, SCHEMA)
    indexer.upsert(NAME, [point(i) for i in range(50)])
    indexer.flush()
    indexer.upsert(NAME, [point(1, 1)])
    indexer._record.flush()  # and here the process is killed: the copy was not flushed
    again = open_at(tmp_path)
    assert "changed after it was last written" in again.problems(NAME)[0]
    assert again.search(NAME, [IndexSearch(1, dense=point(1, 1).dense)])[0][0].payload["generation"] == 1
    again.upsert(NAME, [point(50)])
    again.optimize(NAME)
    assert again.problems(NAME) == []
    assert again._copy(NAME).alive() == 51


def test_a_change_that_failed_halfway_is_distrusted(tmp_path, monkeypatch):
    indexer = open_at(tmp_path)
    indexer.create(NAME, SCHEMA)
    indexer.upsert(NAME, [point(1)])

    def full(name, points):
        raise DiskFullError("No room.")

    with monkeypatch.context() as patch:
        patch.setattr(indexer._record, "upsert", full)
        with pytest.raises(DiskFullError):
            indexer.upsert(NAME, [point(2)])
    assert "a change failed (No room.)" in indexer.problems(NAME)[0]
    assert [m.payload["i"] for m in indexer.search(NAME, [IndexSearch(5, dense=point(1).dense)])[0]] == [1]


def test_deleting_leaves_no_bytes(tmp_path):
    indexer = open_at(tmp_path)
    indexer.create(NAME, SCHEMA)
    indexer.upsert(NAME, [point(i) for i in range(700)])
    indexer.optimize(NAME)
    indexer.delete(NAME, Equals("i", 77))
    indexer.optimize(NAME)
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert any(b"word78" in f.read_bytes() for f in files)
    assert not any(b'word77"' in f.read_bytes() or point(77).dense.tobytes() in f.read_bytes() for f in files)
    indexer.close()


def test_a_full_disk_leaves_the_old_copy(tmp_path, monkeypatch):
    indexer = open_at(tmp_path)
    indexer.create(NAME, SCHEMA)
    indexer.upsert(NAME, [point(i) for i in range(700)])
    indexer.optimize(NAME)
    indexer.delete(NAME, Equals("i", 3))
    monkeypatch.setattr(_faiss_copy, "free_bytes", lambda path: 1000)
    with pytest.raises(DiskFullError, match="1,000 bytes free"):
        indexer.optimize(NAME)
    assert len(indexer.search(NAME, [IndexSearch(700, dense=point(1).dense)])[0]) == 699
    monkeypatch.undo()
    indexer.optimize(NAME)
    indexer.close()


def test_verify_tells_and_repair_rebuilds(tmp_path):
    def settled() -> None:
        with workplace(tmp_path, indexer="faiss") as place:
            place.ingest(text("a", "An otter swims."), text("b", "A heron stands."))

    settled()
    for manifest in (tmp_path / "index" / "faiss").rglob("copy.json"):
        manifest.write_bytes(manifest.read_bytes().replace(b"true", b"tru", 1))
    with workplace(tmp_path, indexer="faiss") as place:
        (found,) = verify(place.ledger, place.indexer)
        assert not found.clean
        assert [len(layer.problems) for layer in found.layers] == [0, 1, 1]
        repair(place.ledger, place.indexer, place.embedder, place.analyser, place.ingestor._chunking)
        assert verify(place.ledger, place.indexer)[0].clean


def test_columns_select_what_the_payloads_say():
    payloads = [
        {"n": i % 7, "tags": [f"t{j}" for j in range(i % 3)], "day": f"2024-0{1 + i % 9}-01", "_start": 3 * i}
        for i in range(60)
    ]
    payloads[5] = {}
    writer = ColumnsWriter()
    for payload in payloads:
        writer.add(record(json.dumps(payload)))
    columns = writer.columns()
    bounds = (None, 0.0, 3.0, 6.0)
    ranges = [Range("n", *b) for b in itertools.product(bounds, repeat=4) if any(x is not None for x in b)]
    others = [
        Equals("tags", "t1"),
        Equals("n", "3"),
        Equals("_start", 9),
        Or(()),
        And(()),
        Not(Equals("n", 3)),
    ]
    for where in (*ranges, *others, Range("day", gte=1.70e9, lt=1.72e9), Range("nothing", gt=0)):
        expected = [matches(where, payload) for payload in payloads]
        assert columns.select(condition(where)).tolist() == expected, where


def test_without_faiss_both_packages_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingDependencyError) as caught:
        plugins.load("indexers", "faiss")
    assert all(name in str(caught.value) for name in ("faiss-cpu", "faiss-gpu"))


def test_both_packages_at_once_are_refused(monkeypatch):
    monkeypatch.setattr(faiss, "_installed", lambda package: True)
    with pytest.raises(ConfigurationError, match="faiss-cpu and faiss-gpu-cu12 are both installed"):
        plugins.load("indexers", "faiss")


def test_a_gpu_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(_faiss_lists.library(), "get_num_gpus", lambda: 0, raising=False)
    with pytest.raises(ConfigurationError, match="sees no GPU"):
        open_at(tmp_path, device="gpu")
