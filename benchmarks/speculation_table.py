"""When drafting pays: part ``table`` of :mod:`benchmarks.speculation`."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.long_questions import LongQuestion, questions
from benchmarks.report import heading, interval
from benchmarks.speculation import save
from pipeline.lm.kv_cache import fill
from pipeline.lm.model import LocalModel, load
from pipeline.lm.request import MOST_DRAFT_TOKENS, PLAIN, Generation, Speculation
from pipeline.lm.sequence import Sequence
from pipeline.seams import Sampling

NEW = (1, 2, 3, 5, 9, 17)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question whose long context has been read, once for all ways of decoding."""

    question: LongQuestion
    sequence: Sequence
    logits: torch.Tensor
    prompt_tokens: int
    draft_prompt: list[int]


def asked(model: LocalModel, question: LongQuestion, tokens: int) -> Asked:
    """Read the context."""
    prompt = model.chat.prompt_ids(question.messages(question.passages))
    sequence = model.reader.begin(None, prompt, tokens + MOST_DRAFT_TOKENS)
    logits = model.reader.read(sequence, prompt, lambda: False)
    assert logits is not None
    draft_prompt = model.chat.prompt_ids(question.messages(question.best))
    return Asked(question, sequence, logits, len(prompt), draft_prompt)


def answer(model: LocalModel, read: Asked, kind: Speculation, tokens: int) -> dict[str, Any]:
    """One answer from the states of the context: its usage, text, and seconds a token."""
    read.sequence.roll_back(read.prompt_tokens)
    request = Generation((), Sampling(max_tokens=tokens), kind)
    began = time.perf_counter()
    deltas = list(model.write(request, read.sequence, read.logits, tokens, read.draft_prompt, usage={}))
    seconds = time.perf_counter() - began
    written = sum(d.tokens for d in deltas)
    text = "".join(d.text for d in deltas)
    return {**deltas[-1].usage, "seconds": seconds, "text": text, "tokens": written, "each": seconds / max(written, 1)}  # fmt: skip


def kinds(drafters: list[str], lengths: list[int], *, auto_only: bool) -> dict[str, Speculation]:
    """Every way of decoding by name."""
    found = {}
    for drafter in drafters:
        if not auto_only:
            for length in lengths:
                found[f"{drafter} {length}"] = Speculation("speculative", drafter, draft_tokens=length)  # type: ignore[arg-type]
            found[f"{drafter} adaptive"] = Speculation("speculative", drafter)  # type: ignore[arg-type]
        found[f"{drafter} auto"] = Speculation("auto", drafter)  # type: ignore[arg-type]
    return found


def measured(model: LocalModel, read: Asked, ways: dict[str, Speculation], tokens: int) -> list[dict[str, Any]]:  # fmt: skip
    """Every way of decoding between two plain ones, in seconds a token against the mean of those."""
    answer(model, read, PLAIN, 4)
    rows, before = [], answer(model, read, PLAIN, tokens)
    for name, kind in ways.items():
        drafted = answer(model, read, kind, tokens)
        after = answer(model, read, PLAIN, tokens)
        gain = (before["each"] + after["each"]) / 2 / drafted["each"]
        rows.append(
            {
                "task": read.question.task, "decoding": name, "gain": gain, "plain_ms": 1000 * before["each"],
                "predicted": drafted.get("predicted_gain", 1.0), "drafted": drafted["drafted_tokens"],
                "accepted": drafted["accepted_tokens"], "tokens": drafted["tokens"],
                "reason": drafted.get("not_speculating", ""), "same_text": drafted["text"] == after["text"],
            }
        )  # fmt: skip
        before = after
    return rows


def steps(given: argparse.Namespace) -> None:
    """What a pass costs: the fastest of seven after one, wall clock and processor time."""
    if given.torch_threads:
        torch.set_num_threads(given.torch_threads)
    model = load(given.model, device=given.device, dtype=given.dtype)
    heading(f"{model.describe()}, milliseconds (processor milliseconds) by new tokens")
    for context in given.contexts:
        sequence = Sequence(model.engine, model.reader.new_cache(context + NEW[-1]))
        sequence.read([0])
        fill(sequence.cache, context)
        sequence.ids = [0] * context
        line = f"{context:6}"
        for new in NEW:
            walls, works = [], []
            for _ in range(8):
                wall, work = time.perf_counter(), time.process_time()
                sequence.read([0] * new, new)
                walls.append(time.perf_counter() - wall)
                works.append(time.process_time() - work)
                sequence.roll_back(context)
            line += f"  {new}: {1000 * min(walls[1:]):.1f} ({1000 * min(works[1:]):.1f})"
        print(line, flush=True)


def table(given: argparse.Namespace) -> None:
    """Gain over plain decoding, cell by cell: context, task, drafter and draft length."""
    longest = max(given.contexts) + given.tokens + 300
    positions = f"yarn:{-(-longest // 8192)}" if longest > 8192 else "native"
    if given.torch_threads:
        torch.set_num_threads(given.torch_threads)
    model = load(given.model, device=given.device, dtype=given.dtype, positions=positions)
    heading(f"{model.describe()}, positions {positions}, {given.tokens} tokens, n={given.n} questions a task and context")  # fmt: skip
    ways = kinds(given.drafters, given.lengths, auto_only=given.auto_only)
    began = time.perf_counter()
    model.reader.costs.seconds(1, 1)
    print(f"costs measured in {time.perf_counter() - began:.1f} s", flush=True)
    results: list[dict[str, Any]] = []
    ended = time.monotonic() + given.seconds
    for context in given.contexts:
        each = [questions(given.data, task, given.n, model.count_tokens, context) for task in given.tasks]
        for question in (q for some in itertools.zip_longest(*each) for q in some if q is not None):
            if time.monotonic() > ended:
                break
            read = asked(model, question, given.tokens)
            if set(given.drafters) != {"lookup"}:  # the drafter's prompt is read
                answer(model, read, Speculation("speculative", "model", draft_tokens=1), 3)
            rows = measured(model, read, ways, given.tokens)
            results += [{"context": read.prompt_tokens, "asked": context, **row} for row in rows]
            save(given.out, results)
        report([row for row in results if row["asked"] == context])
    summary(results)


def report(results: list[dict[str, Any]]) -> None:
    """Means over the questions of a cell."""
    cells = defaultdict(list)
    for row in results:
        cells[row["asked"], row["decoding"], row["task"]].append(row)
        cells[row["asked"], row["decoding"], "all"].append(row)
    for (context, name, task), rows in sorted(cells.items()):
        drafted, accepted = sum(r["drafted"] for r in rows), sum(r["accepted"] for r in rows)
        print(
            f"{context:6} {name:17} {task:7} n={len(rows)} accepted {accepted / drafted if drafted else float('nan'):.2f} of {drafted:4} "
            f"gain {_pooled(rows):.3f} predicted {statistics.mean(r['predicted'] for r in rows):.3f} "
            f"plain {statistics.mean(r['plain_ms'] for r in rows):.1f} ms, same text {sum(r['same_text'] for r in rows)}",
            flush=True,
        )


def summary(results: list[dict[str, Any]]) -> None:
    """How well gains were predicted, and what ``auto`` made of the best way of each cell."""
    cells = defaultdict(list)
    for row in results:
        cells[row["asked"], row["task"], row["decoding"]].append(row)
    errors = [
        abs(statistics.mean(r["predicted"] for r in rows) / _pooled(rows) - 1)
        for rows in cells.values()
        if any(r["drafted"] for r in rows)
    ]
    if errors:
        print(f"median error of the predicted gain {statistics.median(errors):.3f} over {len(errors)} cells")
    for name in sorted({key[2] for key in cells if key[2].endswith("auto")}):
        gains = [r["gain"] for r in results if r["decoding"] == name]
        mean, low, high = interval(gains)
        worst = min(_pooled(rows) for key, rows in cells.items() if key[2] == name)
        print(f"{name}: gain {mean:.3f} [{low:.3f}, {high:.3f}], n={len(gains)}; worst cell {worst:.3f}, worst answer {min(gains):.3f}")  # fmt: skip


def _pooled(rows: list[dict[str, Any]]) -> float:
    """Plain seconds over drafted seconds of as many tokens, over all answers of a cell."""
    plain = sum(float(r["plain_ms"]) for r in rows)
    return plain / sum(float(r["plain_ms"] / r["gain"]) for r in rows)
