"""Search without the language model, against embedding the query and one exact numpy scan.

Both answer the same questions over the same vectors in one process, turn by turn; the ratio of medians
is what counts. The collection is real text repeated with other names until it has enough units, each text
embedded once.

    python -m benchmarks.search --units 20000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from api.build import open_longleaf
from api.settings import load_settings
from benchmarks.report import heading
from pipeline.ingest import Source
from pipeline.layers import index_name
from pipeline.read import read
from pipeline.seams import Embedder
from pipeline.types import ChunkedDocument, DocumentEmbeddings, Query

QUESTIONS = [
    "Who may dismiss a standing trustee?",
    "What does the solely incidental prong require?",
    "How should a party of skiers cross a slope that may avalanche?",
    "When must the annual report be filed?",
    "Which wood makes the best skis?",
    "What compensation may a trustee receive?",
    "How is ice made for a skating rink?",
    "What is investment discretion?",
]


class _Once:
    """An embedder that embeds a document of the same text once."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._made: dict[str, DocumentEmbeddings] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def embed_documents(
        self, documents: Sequence[ChunkedDocument], progress: Callable[[int], None] | None = None
    ) -> list[DocumentEmbeddings]:
        """As the embedder does, from what it has made before where it can."""
        new = [d for d in documents if d.document.text not in self._made]
        for document, made in zip(new, self._embedder.embed_documents(new, progress), strict=True):
            self._made[document.document.text] = made
        return [self._made[document.document.text] for document in documents]


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    heading(f"at least {given.units:,} units, {len(QUESTIONS)} questions, {given.rounds} rounds")
    paths = sorted(p for p in Path("examples").iterdir() if p.suffix in (".pdf", ".epub", ".docx"))
    texts = [read(path, name=path.name).text for path in paths]
    with tempfile.TemporaryDirectory() as data, open_longleaf(load_settings({"data": data})) as longleaf:
        longleaf.made["embedder"] = _Once(longleaf.embedder)
        units = copy = 0
        while units < given.units:
            sources = [Source(name=f"{p.stem}-{copy}", text=t) for p, t in zip(paths, texts, strict=True)]
            list(longleaf.ingestor.ingest(sources))
            units = longleaf.indexer.count(index_name("default", "default", "units"))
            copy += 1
        width = longleaf.embedder.embed_queries(["width"]).vectors.shape[1]
        matrix = np.random.default_rng(0).standard_normal((units, width), np.float32)
        whole, bare = [], []
        stages: dict[str, list[float]] = {}
        for _ in range(given.rounds):
            for question in QUESTIONS:
                start = time.perf_counter()
                found = longleaf.retriever.search(Query(question))
                middle = time.perf_counter()
                scores = matrix @ longleaf.embedder.embed_queries([question]).vectors[0]
                np.argpartition(-scores, 10)
                bare.append(time.perf_counter() - middle)
                whole.append(middle - start)
                for stage, seconds in found.timings.items():
                    stages.setdefault(stage, []).append(seconds)
        n = len(whole)
        for name, seconds in (("search", whole), ("embed + numpy scan", bare)):
            p95 = sorted(seconds)[int(0.95 * n)]
            print(
                f"{name:20} p50 {1000 * statistics.median(seconds):7.1f} ms  p95 {1000 * p95:7.1f} ms  n={n}"
            )
        told = ", ".join(f"{stage} {1000 * statistics.median(s):.1f} ms" for stage, s in stages.items())
        print(f"medians of the stages of a search: {told}")
        print(
            f"ratio of medians over {units:,} units: {statistics.median(whole) / statistics.median(bare):.2f}"
        )


if __name__ == "__main__":
    main()
