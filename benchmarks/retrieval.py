"""Retrieval quality of the defaults, end to end, on sets in the uniform layout.

A set is a folder with ``corpus.jsonl.gz``, ``queries.jsonl.gz`` and ``qrels.jsonl.gz``. Documents are
ingested and searched as a user would. Reported are nDCG@10 by document (best passage of each) and, where
qrels have spans, the share of their characters inside the hits of a token budget. A query with
``scope_doc`` is searched inside that document.

    python -m benchmarks.retrieval FOLDER... --documents 50 --queries 200
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from api.build import Longleaf, open_longleaf
from api.settings import load_settings
from benchmarks.report import heading, shown
from pipeline.ingest import Source
from pipeline.types import Hit, Query

Span = tuple[int, int]


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """One file of a set."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ndcg(ranking: Sequence[str], relevance: dict[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen 2002), gain = relevance."""
    gained = sum(relevance.get(d, 0) / math.log2(rank + 2) for rank, d in enumerate(ranking[:k]))
    best = sorted((r for r in relevance.values() if r > 0), reverse=True)[:k]
    ideal = sum(r / math.log2(rank + 2) for rank, r in enumerate(best))
    return gained / ideal if ideal else 0.0


def span_recall(hits: Iterable[Hit], spans: dict[str, list[Span]]) -> float:
    """Share of the characters of the spans that some hit covers. Hits do not overlap."""
    hits = list(hits)
    wanted = sum(end - start for found in spans.values() for start, end in found)
    covered = sum(
        max(0, min(end, hit.end) - max(start, hit.start))
        for document, found in spans.items()
        for start, end in found
        for hit in hits
        if hit.document_id == document
    )
    return min(1.0, covered / wanted)


def measure(longleaf: Longleaf, folder: Path, documents: int, queries: int, budget_tokens: int) -> None:
    """Ingest one set and print its line."""
    corpus = rows(folder, "corpus")[:documents]
    known = {row["id"] for row in corpus if row["text"].strip()}
    relevance: dict[str, dict[str, float]] = defaultdict(dict)
    spans: dict[str, dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for row in rows(folder, "qrels"):
        if row["doc_id"] in known and row["relevance"] > 0:
            relevance[row["query_id"]][row["doc_id"]] = row["relevance"]
            spans[row["query_id"]][row["doc_id"]] += [(a, b) for a, b in row.get("spans") or ()]
    asked = [q for q in rows(folder, "queries") if q["id"] in relevance]
    asked = asked[:: max(1, len(asked) // queries)][:queries]
    sources = [
        Source(name=row["id"], text=row["text"], title=row.get("title") or None)
        for row in corpus
        if row["id"] in known
    ]
    started = time.perf_counter()
    results = list(longleaf.ingestor.ingest(sources, collection=folder.name))
    seconds = time.perf_counter() - started
    tokens = sum(r.tokens for r in results)
    gains, recalls, times = [], [], []
    for q in asked:
        scope = q.get("scope_doc")
        # qmsum and contractnli name the question apart from the text that is searched for.
        query = Query(q["text"], collection=folder.name, top_k=100, document_id=scope)
        started = time.perf_counter()
        hits = longleaf.retriever.search(query).hits
        times.append(time.perf_counter() - started)
        ranking = list(dict.fromkeys(hit.document_id for hit in hits))
        gains.append(ndcg(ranking, relevance[q["id"]]))
        wanted = {d: s for d, s in spans[q["id"]].items() if s}
        if wanted:
            within = Query(q["text"], collection=folder.name, document_id=scope, budget_tokens=budget_tokens)
            recalls.append(span_recall(longleaf.retriever.search(within).hits, wanted))
    times.sort()
    print(
        f"{folder.name:16} {len(sources)} documents, {tokens:,} tokens at {tokens / seconds:,.0f}/s; "
        f"query p50 {1000 * times[len(times) // 2]:.0f} ms; nDCG@10 {shown(gains)}"
        + (f"; span recall@{budget_tokens} {shown(recalls)}" if recalls else ""),
        flush=True,
    )


def main() -> None:
    """Measure every set named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--budget-tokens", type=int, default=1000)
    given = parser.parse_args()
    heading(f"defaults; at most {given.documents} documents and {given.queries} queries a set")
    for folder in given.sets:
        with tempfile.TemporaryDirectory() as data, open_longleaf(load_settings({"data": data})) as longleaf:
            measure(longleaf, folder, given.documents, given.queries, given.budget_tokens)


if __name__ == "__main__":
    main()
