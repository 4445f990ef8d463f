"""Every index on the same clustered vectors: build time, disk, memory, and search against a flat scan.

Vectors are synthetic (points around random centres, unit length), which is fine for speed. The limit line is
one numpy product with the whole matrix and a partial sort, in the same run; recall is against it.

    python -m benchmarks.indexes --points 100000 --backends qdrant_edge faiss:ivf_sq8 --out indexes.json

``--keep`` leaves the indexes in a folder and only asks those that are there: a large one is built while others
work, and asked when the machine is quiet. The seconds and the memory of building stay with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.report import heading
from pipeline.filters import Equals, Filter
from pipeline.plugins import load
from pipeline.seams import Indexer, IndexSchema, IndexSearch
from pipeline.types import Point

NAME = "benchmark/indexes/units"
ONE_PERCENT = Equals("percent", 7)
TOP = 10
BATCH = 2_000


def vectors(points: int, dim: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around one centre for every hundred of them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, points // 100), dim)).astype(np.float32)
    made = np.empty((points, dim), np.float32)
    for start in range(0, points, 50_000):
        end = min(start + 50_000, points)
        made[start:end] = centres[rng.integers(0, len(centres), end - start)]
        made[start:end] += 0.8 * rng.standard_normal((end - start, dim)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def points(matrix: np.ndarray, first: int = 0) -> Iterator[list[Point]]:
    """Points of these vectors in batches, with a payload like that of a unit."""
    for start in range(0, len(matrix), BATCH):
        yield [
            Point(
                str(uuid.uuid5(uuid.NAMESPACE_OID, str(first + i))),
                {
                    "_document_id": f"document {i // 40}",
                    "_version": 1,
                    "_ordinal": i % 40,
                    "_start": 200 * (i % 40),
                    "_end": 200 * (i % 40) + 190,
                    "percent": i % 100,
                },
                matrix[i],
            )
            for i in range(start, min(start + BATCH, len(matrix)))
        ]


class Memory:
    """Peaks of the memory of this process and its children, sampled: all of it, with the pages of mapped files
    that the system takes back when others need them, and what is their own."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._ended = threading.Event()
        self.peak_bytes = self.own_peak_bytes = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.peak_bytes = max(self.peak_bytes, self.now())
            self.own_peak_bytes = max(self.own_peak_bytes, self.now(own=True))

    def now(self, *, own: bool = False) -> int:
        """Bytes now, this process's and its children's; ``own`` leaves mapped files out."""
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                memory = process.memory_info()
                total += memory.rss - (getattr(memory, "shared", 0) if own else 0)
            except psutil.NoSuchProcess:
                continue
        return total


def timed(search: Callable[[np.ndarray], Any], queries: np.ndarray) -> tuple[float, float, list[Any]]:
    """p50 and p95 of one query at a time, in milliseconds, and the answers."""
    seconds, answers = [], []
    for query in queries:
        start = time.perf_counter()
        answers.append(search(query))
        seconds.append(time.perf_counter() - start)
    ordered = sorted(seconds)
    return 1000 * statistics.median(ordered), 1000 * ordered[int(0.95 * len(ordered))], answers


def flat_scan(matrix: np.ndarray, query: np.ndarray) -> list[int]:
    """The limit line: every score, and the best of them."""
    scores = matrix @ query
    best = np.argpartition(-scores, TOP)[:TOP]
    return sorted(best.tolist(), key=lambda i: -scores[i])


def measure(
    backend: str,
    options: dict[str, Any],
    matrix: np.ndarray,
    queries: np.ndarray,
    baseline: Memory,
    keep: Path | None,
) -> dict[str, Any]:
    """One back end: build it, then ask it."""
    name, _, kind = backend.partition(":")
    own = {"kind": kind} if name == "faiss" and kind else {"quantization": kind} if kind else {}
    folder = keep / f"{backend.replace(':', '-')}-{len(matrix)}" if keep else Path(tempfile.mkdtemp())
    open_ = partial(load, "indexers", name, path=folder / "index", **own, **options)
    try:
        built = folder / "built.json"
        if not built.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            built.write_text(json.dumps({"backend": backend, **_built(open_(), folder, matrix)}))
        row: dict[str, Any] = json.loads(built.read_text())
        before, own_before = baseline.now(), baseline.now(own=True)
        indexer: Indexer = open_()
        start = time.perf_counter()
        indexer.search(NAME, [IndexSearch(1, dense=queries[0])])
        row["first_search_after_open_seconds"] = round(time.perf_counter() - start, 2)
        row["memory_mb_searching_above_start"] = round((baseline.now() - before) / 1e6)
        for label, where in (("all", None), ("1 %", ONE_PERCENT)):
            row |= _searched(indexer, label, where, matrix, queries)
        row["memory_mb_searched_above_start"] = round((baseline.now() - before) / 1e6)
        row["of_it_own_mb_searched"] = round((baseline.now(own=True) - own_before) / 1e6)
        indexer.close()
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return row


def _built(indexer: Indexer, folder: Path, matrix: np.ndarray) -> dict[str, Any]:
    """Store every point and optimise: seconds, disk, and the most memory above what there was."""
    with Memory() as memory:
        before, own_before = memory.now(), memory.now(own=True)
        with contextlib.closing(indexer):
            indexer.create(NAME, IndexSchema("synthetic", matrix.shape[1], False, {}))
            start = time.perf_counter()
            for batch in points(matrix):
                indexer.upsert(NAME, batch)
            indexer.flush()
            stored = time.perf_counter()
            indexer.optimize(NAME)
            optimised = time.perf_counter()
    return {
        "points": len(matrix),
        "store_seconds": round(stored - start, 1),
        "optimise_seconds": round(optimised - stored, 1),
        "disk_mb": round(sum(f.stat().st_blocks * 512 for f in folder.rglob("*") if f.is_file()) / 1e6),
        "peak_memory_mb_above_start": round((memory.peak_bytes - before) / 1e6),
        "of_it_own_mb": round((memory.own_peak_bytes - own_before) / 1e6),
    }


def _searched(
    indexer: Indexer, label: str, where: Filter | None, matrix: np.ndarray, queries: np.ndarray
) -> dict[str, Any]:
    rows = np.arange(7, len(matrix), 100) if where is not None else None
    part = matrix if rows is None else np.ascontiguousarray(matrix[rows])
    flat_p50, flat_p95, exact = timed(lambda query: flat_scan(part, query), queries)
    p50, p95, found = timed(
        lambda query: indexer.search(NAME, [IndexSearch(TOP, dense=query, filter=where)])[0], queries
    )
    numbers = [{i if rows is None else int(rows[i]) for i in each} for each in exact]
    shares = [
        len({40 * int(m.payload["_document_id"].split()[1]) + m.payload["_ordinal"] for m in each} & best)
        / TOP
        for each, best in zip(found, numbers, strict=True)
    ]
    return {
        f"{label}: p50_ms": round(p50, 2),
        f"{label}: p95_ms": round(p95, 2),
        f"{label}: recall": round(float(np.mean(shares)), 4),
        f"{label}: flat_p50_ms": round(flat_p50, 2),
        f"{label}: flat_p95_ms": round(flat_p95, 2),
        f"{label}: p50_to_flat": round(p50 / flat_p50, 2),
    }


def main() -> None:
    """Print and save one row a back end, as each is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--backends", nargs="+", default=["qdrant_edge", "faiss:ivf_sq8", "faiss:flat"])
    parser.add_argument("--device", default=None, help="cpu, gpu or auto, for FAISS")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=JSON")
    parser.add_argument("--keep", type=Path, help="folder in which indexes stay, and are found again")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    heading(f"{given.points:,} clustered vectors of {given.dim}, {given.queries} queries, top {TOP}")
    matrix = vectors(given.points, given.dim)
    rng = np.random.default_rng(1)
    queries = matrix[rng.integers(0, len(matrix), given.queries)]
    queries = queries + 0.5 * rng.standard_normal(queries.shape).astype(np.float32) / np.sqrt(given.dim) * 2
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    rows = []
    for backend in given.backends:
        options = {k: json.loads(v) for k, v in (o.split("=", 1) for o in given.option)}
        if given.device and backend.startswith("faiss"):
            options["device"] = given.device
        rows.append(measure(backend, options, matrix, queries, Memory(), given.keep))
        print(json.dumps(rows[-1], indent=1), flush=True)
        if given.out:
            given.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
