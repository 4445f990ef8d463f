"""Which fusion is best across sets, by leave-one-set-out cross-validation.

python -m benchmarks.vectors DATA/qmsum DATA/covidqa ... --out VECTORS     (once; minutes)
python -m benchmarks.fusion DATA --vectors VECTORS                         (seconds a choice)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.signals import Array, Choices, Set, Signals
from pipeline.evaluation.dataset import load_set
from pipeline.regularize import Candidate, Regularization, regularized
from pipeline.types import Vectors

FAIR_MATCH = 1 / 3


@dataclass(frozen=True)
class Fusion:
    """How signals become one score."""

    method: str = "convex"
    dense: float = 0.65
    unit: float = 0.5
    passage: float = 0.5
    rrf_k: int = 60
    usual_words: int = 20
    length_discount: float = 0.03


def fused(signals: Signals, fusion: Fusion, docs: Array) -> Array:
    """Scores (Q, P)."""
    parts = {
        "unit": signals.unit,
        "passage": signals.passage,
        "lexical": _relative(signals.lexical, signals.query_weight),
        "document_unit": signals.document_unit,
        "document_passage": signals.document_passage,
        "document_lexical": _relative(signals.document_lexical, signals.query_weight),
    }
    if fusion.method in ("rrf", "weighted_rrf"):
        parts = {name: 1 / (fusion.rrf_k + _ranks(values)) for name, values in parts.items()}
    elif fusion.method == "distribution":
        parts = {
            name: _distribution(values, signals.allowed if values.shape[1] == len(docs) else None)
            for name, values in parts.items()
        }
    if fusion.method == "rrf":
        fusion = Fusion("rrf", dense=0.5, unit=0.5, passage=fusion.passage, usual_words=0)
    d, u, p = fusion.dense, fusion.unit, _shares(fusion, signals.query_words)[:, None]
    own = d * (u * parts["unit"] + (1 - u) * parts["passage"]) + (1 - d) * parts["lexical"]
    whole = (
        d * (u * parts["document_unit"] + (1 - u) * parts["document_passage"])
        + (1 - d) * parts["document_lexical"]
    )
    if fusion.method == "convex":
        sizes = np.bincount(docs, minlength=whole.shape[1])
        whole = whole - d * fusion.length_discount * np.log(np.maximum(sizes, 1))
    scores: Array = p * own + (1 - p) * whole[:, docs]
    return scores if signals.allowed is None else np.where(signals.allowed, scores, -np.inf)


def risen(scores: Array, vectors: Sequence[Vectors], docs: Array, chosen: Regularization) -> Array:
    """Scores (Q, P) after :func:`pipeline.regularize.regularized` among the best of each question."""
    made, sizes = scores.copy(), np.bincount(docs)
    for row, best in enumerate(np.argsort(-scores, axis=1, kind="stable")[:, : chosen.candidates]):
        found = best[np.isfinite(scores[row, best])]
        candidates = [
            Candidate(float(scores[row, p]), vectors[p], int(docs[p]), int(sizes[docs[p]])) for p in found
        ]
        if candidates:
            made[row, found] = regularized(candidates, chosen)
    return made


def _shares(fusion: Fusion, words: Array) -> Array:
    """Of the passage's own evidence, by question: see :meth:`pipeline.fuse.Fusion.share_of_passage`."""
    usual = np.where(words > 0, fusion.usual_words, 0)
    own, whole = fusion.passage * usual, (1 - fusion.passage) * words
    shares: Array = np.where(usual > 0, own / np.maximum(own + whole, 1e-9), fusion.passage)
    return shares


def _relative(scores: Array, query_weight: Array) -> Array:
    best = np.maximum(scores.max(axis=1), FAIR_MATCH * query_weight)
    return scores / np.maximum(best, 1e-9)[:, None]


def _ranks(scores: Array) -> Array:
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, scores.shape[1] + 1)[None].repeat(len(scores), 0), axis=1)
    return ranks


def _distribution(scores: Array, allowed: Array | None) -> Array:
    """Mean +- 3 standard deviations of the 300 best to [0, 1], as Qdrant does it."""
    n = min(300, scores.shape[1])
    top = np.partition(scores, scores.shape[1] - n, axis=1)[:, -n:]
    mean, spread = top.mean(1, keepdims=True), np.maximum(top.std(1, keepdims=True), 1e-6)
    return np.clip((scores - mean + 3 * spread) / (6 * spread), 0, 1)


def evaluate(
    data: Set, signals: Signals, scores: Array, cut: Mapping[str, Array], budget: int = 1000
) -> dict[str, Array]:
    """nDCG@10 by document and span recall at the budget, one value a question (NaN: not applicable)."""
    count = len(data.given.documents)
    gains = np.full(len(data.questions), np.nan)
    recalls = np.full(len(data.questions), np.nan)
    for i, q in enumerate(data.questions):
        row = scores[i]
        if q.scope is None:
            best = np.full(count, -np.inf)
            np.maximum.at(best, cut["doc"], row)
            top = np.argsort(-best, kind="stable")[:10]
            relevance = {data.number[d]: g for d, g in q.relevance.items()}
            gain = sum(max(0, relevance.get(int(d), 0)) / np.log2(r + 2) for r, d in enumerate(top))
            ideal = sorted((g for g in relevance.values() if g > 0), reverse=True)[:10]
            gains[i] = gain / sum(g / np.log2(r + 2) for r, g in enumerate(ideal))
        if q.spans:
            recalls[i] = _span_recall(data, q, row, signals.best_unit[i], cut, budget)
    return {"ndcg": gains, "recall": recalls}


def _span_recall(
    data: Set, q: Any, row: Array, best_unit: Array, cut: Mapping[str, Array], budget: int
) -> float:
    taken: dict[int, list[tuple[int, int]]] = {}
    left = budget
    n = min(len(row), 60)
    top = np.argpartition(-row, n - 1)[:n]
    for p in top[np.argsort(-row[top], kind="stable")].tolist():
        if left < 16 or row[p] == -np.inf:
            break
        tokens = int(cut["tokens"][p])
        start, end = int(cut["start"][p]), int(cut["end"][p])
        if tokens > left:
            start, end, tokens = _trim(data, int(best_unit[p]), p, cut, left)
        taken.setdefault(int(cut["doc"][p]), []).append((start, end))
        left -= tokens
    wanted = covered = 0
    for d, spans in q.spans.items():
        for a, b in spans:
            wanted += b - a
            covered += sum(max(0, min(b, e) - max(a, s)) for s, e in taken.get(data.number[d], ()))
    return covered / wanted


def _trim(data: Set, unit: int, p: int, cut: Mapping[str, Array], left: int) -> tuple[int, int, int]:
    """Units around the best one that fit, what follows first."""
    tokens, starts, ends = data.arrays["tokens"], data.arrays["start"], data.arrays["end"]
    first = int(cut["first"][p])
    stop = int(cut["first"][p + 1]) if p + 1 < len(cut["first"]) else len(tokens)
    a = b = unit
    used = int(tokens[unit])
    if used > left:
        return int(starts[unit]), int(starts[unit] + (ends[unit] - starts[unit]) * left / used), left
    while True:
        if b + 1 < stop and used + tokens[b + 1] <= left:
            b += 1
            used += int(tokens[b])
        elif a > first and used + tokens[a - 1] <= left:
            a -= 1
            used += int(tokens[a])
        else:
            return int(starts[a]), int(ends[b]), used


def grid() -> list[Fusion]:
    """What is tried: shares of convex and weighted sums, and the methods without shares."""
    shares = [
        Fusion(method=method, dense=d, unit=u, passage=p, usual_words=words)
        for method in ("convex", "weighted_rrf", "distribution")
        for d in (0.0, 0.4, 0.5, 0.6, 0.65, 0.7, 1.0)
        for u in (0.25, 0.5, 0.75, 1.0)
        for p, words in ((0.25, 0), (0.5, 0), (0.5, 10), (0.5, 20), (0.5, 40), (0.75, 0), (1.0, 0))
    ]
    return [*shares, Fusion(method="rrf")]


def objective(found: Mapping[str, Array]) -> float:
    """Mean of what the set has: nDCG@10 by document, span recall within 1,000 tokens."""
    means = [float(np.nanmean(values)) for values in found.values() if not np.isnan(values).all()]
    return sum(means) / len(means)


def leave_one_out(
    table: Mapping[str, Mapping[Fusion, float]],
) -> list[tuple[str, Fusion, float, Fusion, float]]:
    """For each set: the fusion that is best on average over the others, its value here, and the best here."""
    rows = []
    for left_out, values in table.items():
        others = [table[name] for name in table if name != left_out]
        chosen = max(values, key=lambda f: sum(other[f] for other in others))
        best = max(values, key=lambda f: values[f])
        rows.append((left_out, chosen, values[chosen], best, values[best]))
    return rows


def main() -> None:
    """Evaluate the grid on every set that has vectors, and choose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--documents", type=int, help="as the vectors were made")
    parser.add_argument("--questions", type=int, default=300)
    given = parser.parse_args()
    table: dict[str, dict[Fusion, float]] = {}
    for path in sorted(given.vectors.glob("*.npz")):
        found = load_set(given.data / path.stem).sample(given.documents, None)
        data = Set(found, path)
        data.sample(given.questions)
        choices = Choices()
        signals, cut = data.signals(choices), data.passages(choices.passage_tokens)
        table[path.stem] = {
            each: objective(evaluate(data, signals, fused(signals, each, cut["doc"]), cut)) for each in grid()
        }
        default = table[path.stem][Fusion()]
        print(f"{path.stem}: {len(data.questions)} questions, the default {default:.4f}", flush=True)
    print("\n| set left out | chosen on the others | here | best here | default |\n|---|---|---|---|---|")
    for name, chosen, value, best, most in leave_one_out(table):
        default = table[name][Fusion()]
        print(f"| {name} | {told(chosen)} | {value:.4f} | {most:.4f} ({told(best)}) | {default:.4f} |")
    ranked = sorted(grid(), key=lambda f: -sum(values[f] for values in table.values()))
    print(
        "\n"
        + "\n".join(f"{sum(v[f] for v in table.values()) / len(table):.4f} {told(f)}" for f in ranked[:10])
    )


def told(fusion: Fusion) -> str:
    """A fusion in words."""
    return f"{fusion.method} d={fusion.dense} u={fusion.unit} p={fusion.passage} words={fusion.usual_words}"


if __name__ == "__main__":
    main()
