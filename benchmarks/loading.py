"""Searches while an index is loaded in bulk, against searches of the same index when nothing else happens.

One thread searches without pause; another stores points and optimises in the end. Both run in one process,
as in the service. The ratio of the 95th percentiles is what counts.

    python -m benchmarks.loading --points 50000 --load 50000
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.indexes import NAME, points, vectors
from benchmarks.report import heading
from pipeline.plugins import load
from pipeline.seams import Indexer, IndexSchema, IndexSearch


def searching(indexer: Indexer, queries: np.ndarray, limit: int, until: threading.Event) -> list[float]:
    """Seconds of each search until the event is set."""
    seconds: list[float] = []
    while not until.is_set():
        query = queries[len(seconds) % len(queries)]
        start = time.perf_counter()
        indexer.search(NAME, [IndexSearch(limit, dense=query)])
        seconds.append(time.perf_counter() - start)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    p50, p95, p99 = (1000 * float(np.percentile(seconds, p)) for p in (50, 95, 99))
    return {
        "n": len(seconds),
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "p99_ms": round(p99, 2),
        "max_ms": round(1000 * max(seconds), 1),
    }


def main() -> None:
    """Print both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--load", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--backend", default="qdrant_edge")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=JSON")
    given = parser.parse_args()
    heading(f"{given.points:,} points of {given.dim}, {given.load:,} more loaded; {given.backend}")
    matrix = vectors(given.points + given.load, given.dim)
    folder = Path(tempfile.mkdtemp())
    options = {k: json.loads(v) for k, v in (o.split("=", 1) for o in given.option)}
    indexer: Indexer = load("indexers", given.backend, path=folder, **options)
    try:
        indexer.create(NAME, IndexSchema("synthetic", given.dim, False, {}))
        for batch in points(matrix[: given.points]):
            indexer.upsert(NAME, batch)
        indexer.optimize(NAME)
        queries = matrix[np.random.default_rng(1).integers(0, given.points, 500)]
        idle_ended = threading.Event()
        threading.Timer(given.seconds, idle_ended.set).start()
        idle = summary(searching(indexer, queries, given.limit, idle_ended))
        print(json.dumps({"idle": idle}), flush=True)
        loaded, times = threading.Event(), {}

        def store() -> None:
            try:
                start = time.perf_counter()
                for batch in points(matrix[given.points :], first=given.points):
                    indexer.upsert(NAME, batch)
                indexer.flush()
                times["store_seconds"] = round(time.perf_counter() - start, 1)
                indexer.optimize(NAME)
                times["with_optimise_seconds"] = round(time.perf_counter() - start, 1)
            finally:
                loaded.set()

        thread = threading.Thread(target=store)
        thread.start()
        busy = summary(searching(indexer, queries, given.limit, loaded))
        thread.join()
        print(json.dumps({"loading": busy, **times}), flush=True)
        print(f"ratio of p95: {busy['p95_ms'] / idle['p95_ms']:.2f}", flush=True)
    finally:
        indexer.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
