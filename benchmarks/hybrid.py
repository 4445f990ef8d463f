"""A hybrid search (by vectors and by words in one request) against each of its parts alone.

python -m benchmarks.hybrid --points 100000
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.indexes import NAME, points, vectors
from benchmarks.report import heading
from pipeline.plugins import load
from pipeline.seams import Indexer, IndexSchema, IndexSearch
from pipeline.types import SparseVector

VOCABULARY = 30_000
WORDS = 40  # of a unit
ASKED = 6  # words of a question


def words(rng: np.random.Generator, count: int) -> SparseVector:
    """Words as frequent as in a language (Zipf), with weights like those of BM25."""
    terms = np.unique(rng.zipf(1.3, count) % VOCABULARY).astype(np.uint32)
    return SparseVector(terms, rng.uniform(0.3, 2.0, len(terms)).astype(np.float32))


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--backend", default="qdrant_edge")
    given = parser.parse_args()
    heading(f"{given.points:,} points of {given.dim} with {WORDS} words; {given.backend}")
    rng = np.random.default_rng(0)
    matrix = vectors(given.points, given.dim)
    folder = Path(tempfile.mkdtemp())
    indexer: Indexer = load("indexers", given.backend, path=folder)
    try:
        indexer.create(NAME, IndexSchema("synthetic", given.dim, True, {}))
        for batch in points(matrix):
            indexer.upsert(NAME, [replace(point, sparse=words(rng, WORDS)) for point in batch])
        indexer.optimize(NAME)
        seconds: dict[str, list[float]] = {"dense": [], "words": [], "hybrid": []}
        for _ in range(given.rounds):
            dense = IndexSearch(given.limit, dense=matrix[rng.integers(0, given.points)])
            lexical = IndexSearch(given.limit, sparse=words(rng, ASKED))
            for name, searches in (("dense", [dense]), ("words", [lexical]), ("hybrid", [dense, lexical])):
                start = time.perf_counter()
                indexer.search(NAME, searches)
                seconds[name].append(time.perf_counter() - start)
        medians = {name: 1000 * statistics.median(each) for name, each in seconds.items()}
        for name, each in seconds.items():
            p95 = 1000 * float(np.percentile(each, 95))
            print(f"{name:8} p50 {medians[name]:7.2f} ms  p95 {p95:7.2f} ms  n={len(each)}")
        slower = max(medians["dense"], medians["words"])
        print(f"ratio of hybrid to its slower part: {medians['hybrid'] / slower:.2f}")
    finally:
        indexer.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
