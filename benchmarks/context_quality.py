"""Log-probability of reference answers under ways of reading the same passages."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.context_questions import Asked, questions
from benchmarks.ordering_cells import embedded
from benchmarks.report import interval, shown
from pipeline.lm import contexts as cached
from pipeline.lm.context_options import ContextCalibration, ContextOptions, ContextsConfig
from pipeline.lm.contexts import Contexts
from pipeline.lm.kv_format import KvFormat
from pipeline.lm.model import LocalModel, load
from pipeline.lm.signals import Bias
from pipeline.records import VersionKey

HEADS = ((18, 6), (17, 3), (17, 4), (18, 7), (14, 3), (21, 8), (23, 2))
"""Heads of the default model that attend to the passage that answers, found on other questions."""

FEW = ((1.0, 1.0), (0.9, 0.9), (0.6, 1.0), (0.8, 1.0))
CHOSEN = ((0.8, 1.0, 1), (0.8, 1.0, 3), (0.9, 0.9, 3), (1.0, 1.0, 3), (0.8, 1.0, 5))
GRID = tuple((t, s) for t in (0.7, 0.8, 0.9, 1.0) for s in (0.8, 0.9, 1.0))
GRID_CHOSEN = (
    *((t, s, n) for n in (3, 5) for t in (0.8, 0.9, 1.0) for s in (0.9, 1.0)),
    *((t, s, n) for n in (1, 2, 7) for t, s in ((0.9, 0.9), (1.0, 1.0))),
)
BIASED = ((0.9, 0.9, None), (0.9, 0.9, 3))
BEST = (0.8, 1.0)
KINDS: tuple[KvFormat, ...] = ("int8", "int4")


def run(options: argparse.Namespace) -> None:
    """Go through the sets side by side, one question of each at a time; print and save as it comes."""
    model = load(options.model, device=options.device, dtype=options.dtype, threads=options.threads)
    contexts = _contexts(model)
    results: dict[str, Any] = {"model": dict(model.describe()), "sets": {}}
    counts: dict[str, int] = {}
    asked: dict[str, list[Asked]] = {}
    for name, n, skip in ((*each.split(":"), "", "")[:3] for each in options.sets.split(",")):
        first = int(skip or options.skip)
        counts[name] = int(n or options.n)
        asked[name] = questions(options.data, name, counts[name] + first)[first:]
    names = list(counts)
    for place in range(max(counts.values())):
        for name in names:
            if time.monotonic() > options.until or place >= len(asked[name]):
                continue
            rows = results["sets"].setdefault(name, [])
            rows.append(dict(_measured(contexts, asked[name][place], grid=options.grid)))
        options.out.write_text(json.dumps(results))
    print_tables(results)


def _contexts(model: LocalModel) -> Contexts:
    config = ContextsConfig(memory_bytes=2**31)
    revision = model.describe()["revision"]
    calibration = ContextCalibration(model.name, str(revision), heads=HEADS, weight=0.5)
    return Contexts(model, config, calibration=calibration)


def _measured(native: Contexts, question: Asked, *, grid: bool) -> Iterator[tuple[str, Any]]:
    owner = VersionKey("benchmark", "contexts", question.id, 1)
    texts = [f"{title}. {text}" for title, text in question.passages]
    cosines = (embedded([question.question]) @ embedded(texts).T)[0].tolist()
    passages = [
        native.passage(owner, title, text, score, cosine)
        for (title, text), score, cosine in zip(question.passages, question.retrieved, cosines, strict=True)
    ]

    def lp(options: ContextOptions, through: Any = None, bias: Bias | None = None) -> float:
        asked = cached.Asked(question.question, passages, options, bias=bias)
        return _mean(native.logprob(asked, question.answer, through=through))

    yield "id", question.id
    yield "tokens", sum(passage.key.tokens for passage in passages)
    plain = cached.Asked(question.question, passages)
    yield "sequential", _mean(native.logprob(plain, question.answer, sequential=True))
    for temperature, scale in GRID if grid else FEW:
        yield f"ape T={temperature} S={scale}", lp(ContextOptions(None, temperature, scale))
    for temperature, scale, count in GRID_CHOSEN if grid else CHOSEN:
        name = f"ape T={temperature} S={scale}, best {count}"
        yield name, lp(ContextOptions(None, temperature, scale, count))
    for temperature, scale, count in () if grid else BIASED:
        options = ContextOptions(None, temperature, scale, count)
        yield f"ape T={temperature} S={scale}, best {count or 'all'}, biased", lp(options, bias=Bias())
    for kind in () if grid else KINDS:
        yield f"{kind} T={BEST[0]} S={BEST[1]}", lp(ContextOptions(None, *BEST), through=kind)
    yield from _ranks(native, question, passages)
    native.store.remove([owner])


def _ranks(contexts: Contexts, question: Asked, passages: list[Any]) -> Iterator[tuple[str, bool]]:
    """Whether the passage that scores best is a gold one: by the heads, by BM25, by both."""
    looked, fused = contexts.rank(cached.Asked(question.question, passages))
    for name, scores in (("heads", looked), ("bm25", question.retrieved), ("fused", fused)):
        yield f"R@1 {name}", int(np.argmax(scores)) in question.gold


def print_tables(results: dict[str, Any]) -> None:
    """Means, and differences to sequential reading paired by question, with 95 % intervals."""
    for name, rows in results["sets"].items():
        print(f"\n{name}: {len(rows)} questions, {np.mean([row['tokens'] for row in rows]):.0f} tokens each")
        base = np.array([row["sequential"] for row in rows])
        for key, value in rows[0].items():
            if key in ("id", "tokens"):
                continue
            values = np.array([row[key] for row in rows], float)
            if isinstance(value, bool):
                print(f"  {key:28s} {shown(values.tolist())}")
                continue
            mean, low, high = interval((values - base).tolist())
            print(f"  {key:28s} {values.mean():7.3f}   {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        for kind in [kind for kind in KINDS if any(key.startswith(kind) for key in rows[0])]:
            native, coded = (f"{k} T={BEST[0]} S={BEST[1]}" for k in ("ape", kind))
            mean, low, high = interval([row[coded] - row[native] for row in rows])
            print(f"  {kind} less native            {mean:+.4f} [{low:+.4f}, {high:+.4f}]")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    import sys

    print_tables(json.loads(Path(sys.argv[1]).read_text()))
