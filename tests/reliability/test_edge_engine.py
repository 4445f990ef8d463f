"""The embedded index under kills, damage, a full disk and two owners.

Faults are injected into real processes; afterwards the whole index is compared with what was
acknowledged. The full counts run with ``-m slow``.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from indexers import _edge_aside, _edge_process, _folders, qdrant_edge
from indexers.qdrant_edge import Config, QdrantEdgeIndexer
from pipeline.errors import DiskFullError, IndexDamagedError, IndexingError, IndexOwnedError, UnavailableError
from pipeline.filters import Equals, Range
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Point, SparseVector

SCHEMA = IndexSchema("f", 16, True, {})
NAME = "t/c/units"


def point(i: int) -> Point:
    vector = np.random.default_rng(i).standard_normal(16)
    terms = np.array(sorted({i % 5, 10 + i % 7}), np.uint32)
    key = str(uuid.uuid5(uuid.NAMESPACE_OID, str(i)))
    dense = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Point(
        key, {"i": i, "text": f"point {i}"}, dense, SparseVector(terms, np.ones(len(terms), np.float32))
    )


def open_at(path: Path) -> QdrantEdgeIndexer:
    return QdrantEdgeIndexer(Config(path=path, exact_below_points=300))


def check_points(indexer: QdrantEdgeIndexer, at_least: int) -> None:
    """Points 0 to ``at_least`` are there, whole, and found; any other is whole too."""
    found = {payload["i"]: (key, payload) for key, payload in indexer.points(NAME)}
    assert set(range(at_least)) <= set(found)
    assert all((key, payload) == (point(i).id, point(i).payload) for i, (key, payload) in found.items())
    sample = random.Random(at_least).sample(sorted(found), min(20, len(found)))
    for i, matches in zip(
        sample, indexer.search(NAME, [IndexSearch(1, dense=point(i).dense) for i in sample]), strict=True
    ):
        assert matches[0].id == point(i).id
        assert matches[0].score == pytest.approx(1, abs=1e-5)
    lexical = indexer.search(
        NAME, [IndexSearch(10_000, sparse=SparseVector(np.array([3], np.uint32), np.ones(1, np.float32)))]
    )
    assert {m.payload["i"] for m in lexical[0]} == {i for i in found if i % 5 == 3}


@pytest.fixture
def indexer(tmp_path: Path) -> Iterator[QdrantEdgeIndexer]:
    opened = open_at(tmp_path / "index")
    opened.create(NAME, SCHEMA)
    yield opened
    opened.close()


def kill_engine(indexer: QdrantEdgeIndexer) -> None:
    indexer._engine._process.kill()


def test_a_killed_engine_loses_nothing(indexer: QdrantEdgeIndexer) -> None:
    """The owner lives, so even what was not flushed yet is written again."""
    for step in range(8):
        indexer.upsert(NAME, [point(i) for i in range(100 * step, 100 * step + 100)])
        if step % 3 == 1:
            indexer.flush()
        kill_engine(indexer)
        if step == 5:
            indexer.optimize(NAME)
        assert indexer.count(NAME) == 100 * step + 100
    indexer.delete(NAME, Range("i", gte=790))
    kill_engine(indexer)
    check_points(indexer, 790)
    assert indexer.count(NAME) == 790


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from tests.reliability.test_edge_engine import NAME, SCHEMA, open_at, point
    indexer = open_at(Path(sys.argv[1]))
    indexer.create(NAME, SCHEMA)
    print("engine", indexer._engine._process.pid, flush=True)
    start = int(sys.argv[2])  # what is durable; after it there may be part of a batch
    for batch in range(10_000):
        at = start + 40 * batch
        indexer.upsert(NAME, [point(i) for i in range(at, at + 40)])
        if batch % 2:
            indexer.flush()
            print("flushed", at + 40, flush=True)
        if batch % 11 == 5:
            indexer.optimize(NAME)
    """
)


def write_until_killed(path: Path, start: int, seconds: float) -> int:
    """Run a writer from that point on and SIGKILL it after that time; how many points are durable then."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(start)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert writer.stdout is not None
    engine = psutil.Process(int(writer.stdout.readline().split()[1]))
    time.sleep(seconds)
    writer.send_signal(signal.SIGKILL)
    with writer.stdout as told:
        lines = [line.split() for line in told if line.endswith("\n")]
    writer.wait()
    engine.wait(10)  # dies with its owner, whatever it was doing
    return max((int(value) for key, value in lines if key == "flushed"), default=start)


def kill_writers(path: Path, times: int) -> None:
    rng = random.Random(5)
    durable = 0
    for _ in range(times):
        durable = write_until_killed(path, durable, rng.uniform(0.05, 1.2))
        indexer = open_at(path)
        check_points(indexer, durable)
        indexer.close()
    assert durable > 0


def test_flushed_points_survive_the_death_of_the_service(tmp_path: Path) -> None:
    kill_writers(tmp_path / "index", 4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_flushed_points_survive_two_hundred_deaths(tmp_path: Path) -> None:
    kill_writers(tmp_path / "index", 200)


def test_an_engine_that_keeps_dying_is_an_error_and_then_works_again(
    indexer: QdrantEdgeIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexer.upsert(NAME, [point(1)])
    indexer.flush()
    start = indexer._engine._start
    monkeypatch.setattr(indexer._engine, "_start", lambda: (start(), kill_engine(indexer)))
    kill_engine(indexer)
    with pytest.raises(UnavailableError, match="died twice"):
        indexer.count(NAME)
    monkeypatch.undo()
    assert indexer.count(NAME) == 1


def test_a_second_owner_is_told_who_has_it(indexer: QdrantEdgeIndexer, tmp_path: Path) -> None:
    assert indexer.count(NAME) == 0
    second = open_at(tmp_path / "index")
    with pytest.raises(IndexOwnedError, match=f"in use by process {os.getpid()} on"):
        second.names()
    indexer.close()
    assert second.names() == [NAME]
    second.close()


def damage(path: Path, how: str, rng: random.Random) -> None:
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        os.truncate(path, path.stat().st_size // 2)
    else:
        with path.open("r+b") as file:
            file.write(rng.randbytes(min(64, path.stat().st_size)))


def two_indexes(path: Path) -> list[Path]:
    """Make two small indexes; the files of the first one's shard, in an order that does not change."""
    with contextlib.closing(open_at(path)) as indexer:
        for name in (NAME, "other"):
            indexer.create(name, SCHEMA)
            indexer.upsert(name, [point(i) for i in range(60)])
    shard = _folders.folder(path, NAME) / "shard"
    files = [f for f in shard.rglob("*") if f.is_file() and f.stat().st_blocks]
    return sorted(files, key=lambda f: (f.parent.name, f.name))


def check_damaged(path: Path) -> bool:
    """Whether the damage was noticed. If not, the count is right; if it was, the rest goes on and a
    rebuilt index works."""
    with contextlib.closing(open_at(path)) as indexer:
        try:
            assert indexer.count(NAME) == 60
            assert indexer.count(NAME, Equals("text", "point 7")) == 1
            indexer.search(
                NAME, [IndexSearch(5, dense=point(1).dense), IndexSearch(5, sparse=point(1).sparse)]
            )
        except (IndexDamagedError, IndexingError, UnavailableError):
            assert indexer.count("other") == 60
            indexer.drop(NAME)
            indexer.create(NAME, SCHEMA)
            indexer.upsert(NAME, [point(i) for i in range(60)])
            assert indexer.count(NAME) == 60
            return True
    return False


@pytest.mark.parametrize("how", ["missing", "empty", "half", "garbage"])
def test_damaged_files_never_bring_down_the_owner(tmp_path: Path, how: str) -> None:
    rng = random.Random(how)
    for attempt in range(2):
        files = two_indexes(tmp_path / str(attempt))
        damage(rng.choice(files), how, rng)
        check_damaged(tmp_path / str(attempt))


@pytest.mark.parametrize("name", ["page_0.dat", "config.json"])
def test_losing_the_index_of_filters_is_noticed_or_mended(tmp_path: Path, name: str) -> None:
    """Otherwise deletes would match nothing, and say so without an error."""
    next(f for f in two_indexes(tmp_path) if f.parent.name.endswith("facts-map") and f.name == name).unlink()
    with contextlib.closing(open_at(tmp_path)) as indexer:
        try:
            assert indexer.count(NAME, Equals("i", 3)) == 1
        except IndexDamagedError as error:
            assert "longleaf repair" in error.remedy


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damage_to_every_file(tmp_path: Path) -> None:
    rng = random.Random(1)
    count = len(two_indexes(tmp_path / "first"))
    for how in ("missing", "empty", "half", "garbage"):
        missed = []
        for i in range(count):
            path = tmp_path / f"{how}{i}"
            victim = two_indexes(path)[i]
            damage(victim, how, rng)
            if not check_damaged(path):
                missed.append(f"{victim.parent.name}/{victim.name}")
            shutil.rmtree(path)
        print(f"{how}: {count - len(missed)} of {count} noticed; without effect on counts: {missed}")


def test_points_missing_since_the_last_flush_are_noticed(tmp_path: Path) -> None:
    indexer = open_at(tmp_path / "index")
    indexer.create(NAME, SCHEMA)
    indexer.upsert(NAME, [point(i) for i in range(60)])
    indexer.close()
    manifest = _folders.manifests(tmp_path / "index")[NAME]
    assert manifest.points == 60
    _folders.write_manifest(tmp_path / "index", replace(manifest, points=90))
    indexer = open_at(tmp_path / "index")
    with pytest.raises(IndexDamagedError, match="has 60 points; 90 were flushed"):
        indexer.search(NAME, [IndexSearch(1, dense=point(1).dense)])
    indexer.close()


def test_an_unreadable_manifest_is_damage(tmp_path: Path) -> None:
    indexer = open_at(tmp_path / "index")
    indexer.create(NAME, SCHEMA)
    indexer.close()
    (_folders.folder(tmp_path / "index", NAME) / _folders.MANIFEST).write_text("{")
    indexer = open_at(tmp_path / "index")
    with pytest.raises(IndexDamagedError, match="manifest"):
        indexer.names()
    indexer.close()


def test_a_full_disk_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    indexer = open_at(tmp_path / "index")
    indexer.create(NAME, SCHEMA)
    indexer.upsert(NAME, [point(i) for i in range(60)])
    indexer.close()
    more_than_there_is = shutil.disk_usage(tmp_path).free + (1 << 30)
    indexer = QdrantEdgeIndexer(Config(path=tmp_path / "index", reserve_bytes=more_than_there_is))
    with pytest.raises(DiskFullError, match="bytes free"):
        indexer.upsert(NAME, [point(100)])
    assert indexer.count(NAME) == 60
    indexer.delete(NAME, Equals("i", 3))
    indexer.flush()
    assert indexer.count(NAME) == 59
    indexer.close()


def test_an_interrupted_request_leaves_its_answer_to_nobody(
    indexer: QdrantEdgeIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexer.upsert(NAME, [point(i) for i in range(7)])
    receive, interrupts = _edge_process.receive, iter([True])

    def interrupted(channel: socket.socket) -> object:
        if next(interrupts, False):
            raise KeyboardInterrupt
        return receive(channel)

    monkeypatch.setattr(_edge_process, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        indexer.count(NAME)
    indexer.flush()
    assert indexer.count(NAME) == 7
    check_points(indexer, 7)


def shards(indexer: QdrantEdgeIndexer) -> list[str]:
    return sorted(path.name for path in _folders.folder(indexer._root, NAME).glob("shard*"))


def test_searches_go_on_while_a_large_index_is_optimised(
    indexer: QdrantEdgeIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that had found out where to look just before it was replaced; writes come after."""
    indexer.upsert(NAME, [point(i) for i in range(900)])
    optimise, building, proceed = _edge_aside._optimise, threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        building.set()
        assert proceed.wait(30)
        optimise(path)

    monkeypatch.setattr(_edge_aside, "_optimise", slow)
    threads = [threading.Thread(target=indexer.optimize, args=(NAME,))]
    threads.append(threading.Thread(target=lambda: (building.wait(30), indexer.upsert(NAME, [point(900)]))))
    for thread in threads:
        thread.start()
    assert building.wait(30)
    check_points(indexer, 900)
    assert indexer.names() == [NAME]
    assert len(shards(indexer)) == 2
    where = indexer._path(NAME)
    proceed.set()
    for thread in threads:
        thread.join(30)
    assert indexer._path(NAME) != where
    assert shards(indexer) == [Path(indexer._path(NAME)).name]
    with monkeypatch.context() as late:  # finds out where to look, and is overtaken by the replacement
        paths = iter([where])
        honest = indexer._path
        late.setattr(indexer, "_path", lambda name: next(paths, None) or honest(name))
        assert indexer._reads.count(NAME, Range("i", lt=900)) == 900
    check_points(indexer, 901)
    indexer.close()
    again = open_at(indexer._root)
    check_points(again, 901)
    again.close()


def test_a_large_index_is_optimised_when_it_pays(
    indexer: QdrantEdgeIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    copied = _edge_aside.optimised_copy
    monkeypatch.setattr(_edge_aside, "optimised_copy", lambda old, new: (made.append(new), copied(old, new)))

    def times(change: Callable[[], None]) -> int:
        before = len(made)
        change()
        indexer.optimize(NAME)
        return len(made) - before

    assert times(lambda: indexer.upsert(NAME, [point(i) for i in range(200)])) == 0, "small: in place"
    assert times(lambda: indexer.upsert(NAME, [point(i) for i in range(200, 1000)])) == 1
    assert times(lambda: indexer.upsert(NAME, [point(i) for i in range(1000, 1050)])) == 0, "it grew by 5 %"
    assert times(lambda: indexer.upsert(NAME, [point(i) for i in range(1050, 1150)])) == 1, "and by 15 %"
    assert times(lambda: indexer.upsert(NAME, [point(3)])) == 1, "what was replaced must go"
    needle = indexer.search(NAME, [IndexSearch(1, dense=point(7).dense)])[0][0].payload["text"].encode()
    assert times(lambda: indexer.delete(NAME, Equals("i", 7))) == 1
    indexer.flush()
    files = [f.read_bytes() for f in indexer._root.rglob("*") if f.is_file()]
    assert any(b"point 70" in data for data in files)
    assert not any(needle + b'"' in data for data in files)


def test_a_large_index_is_scanned_exactly_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optimised aside, as it is large, but without a graph: it finds every lone point among copies."""
    monkeypatch.setattr(qdrant_edge, "_LARGE_POINTS", 300)
    rng = np.random.default_rng(5)
    common, lone = rng.standard_normal((40, 64)), rng.standard_normal((60, 64)) - 5
    rows = np.concatenate([np.repeat(common, 40, axis=0), lone]).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with contextlib.closing(QdrantEdgeIndexer(Config(path=tmp_path, exact_below_points=5000))) as indexer:
        indexer.create(NAME, IndexSchema("f", 64, False, {}))
        indexer.upsert(NAME, [Point(str(uuid.UUID(int=n)), {"n": n}, row) for n, row in enumerate(rows)])
        indexer.optimize(NAME)
        assert indexer._path(NAME).split("/")[-1] != _folders.SHARD, "optimised aside"
        found = indexer.search(NAME, [IndexSearch(1, dense=rows[n]) for n in range(1600, 1660)])
        assert [matches[0].payload["n"] for matches in found] == list(range(1600, 1660))


def test_an_optimisation_that_fails_leaves_the_old_shard(
    indexer: QdrantEdgeIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexer.upsert(NAME, [point(i) for i in range(900)])
    with monkeypatch.context() as patch:
        patch.setattr(_edge_aside.sys, "executable", "/bin/false")
        with pytest.raises(UnavailableError, match="exit status 1"):
            indexer.optimize(NAME)
    assert shards(indexer) == ["shard"]
    check_points(indexer, 900)
    left = _folders.folder(indexer._root, NAME) / "shard-0123456789ab"
    left.mkdir()
    indexer.close()
    again = open_at(indexer._root)
    check_points(again, 900)
    assert shards(again) == ["shard"]
    again.close()


def test_quantised_vectors_propose_and_stored_ones_score(tmp_path: Path) -> None:
    indexer = QdrantEdgeIndexer(Config(path=tmp_path, exact_below_points=300, quantization="int8"))
    indexer.create(NAME, SCHEMA)
    indexer.upsert(NAME, [point(i) for i in range(2000)])
    indexer.optimize(NAME)
    vectors = np.stack([point(i).dense for i in range(2000)])
    shares = []
    for i in range(0, 2000, 50):
        scores = vectors @ vectors[i]
        found = indexer.search(NAME, [IndexSearch(10, dense=vectors[i])])[0]
        assert [m.score for m in found] == pytest.approx([scores[m.payload["i"]] for m in found], abs=1e-5)
        shares.append(len({m.payload["i"] for m in found} & set(np.argsort(-scores)[:10].tolist())) / 10)
    assert np.mean(shares) >= 0.95
    indexer.close()
