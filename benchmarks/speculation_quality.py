"""What guidance by the drafter does to answers: part ``quality`` of :mod:`benchmarks.speculation`."""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import re
import string
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.long_questions import LongQuestion, questions
from benchmarks.report import heading, interval
from benchmarks.speculation import save
from pipeline.lm.model import LocalModel, load
from pipeline.lm.request import Generation, Speculation
from pipeline.lm.verification import guided
from pipeline.seams import Sampling

TASKS = {"nq": 16, "hotpot": 16, "qmsum": 64}
"""Most tokens of an answer."""


def normal(text: str) -> list[str]:
    """Words as SQuAD's evaluation compares them (Rajpurkar et al. 2016)."""
    words = "".join(" " if c in string.punctuation else c for c in text.lower()).split()
    return [word for word in words if word not in ("a", "an", "the")]


def f1(said: str, answers: tuple[str, ...]) -> float:
    """Best token F1 over the accepted answers."""
    best = 0.0
    for answer in answers:
        shared = sum((Counter(normal(said)) & Counter(normal(answer))).values())
        if shared:
            best = max(best, 2 * shared / (len(normal(said)) + len(normal(answer))))
    return best


def found(said: str, answers: tuple[str, ...]) -> float:
    """Whether an accepted answer stands in the text (the model writes sentences, so not equality)."""
    return float(
        any(re.search(rf"\b{re.escape(' '.join(normal(a)))}\b", " ".join(normal(said))) for a in answers)
    )


def measured(
    model: LocalModel, question: LongQuestion, most_tokens: int, etas: Sequence[float]
) -> dict[str, Any]:
    """All numbers of one question."""
    reference = question.answers[0]
    long, short, wrong = (question.messages(p) for p in (question.passages, question.best, question.wrong))
    target, ids = model.continuation_logits(long, reference)
    row: dict[str, Any] = {"task": question.task}
    answer = torch.tensor(ids, device=target.device)[:, None]
    for name, messages in (("right", short), ("wrong", wrong)):
        drafter = model.continuation_logits(messages, reference)[0].float().softmax(-1)
        scores = target.float()
        for eta in etas:
            shifted = torch.stack(
                [guided(s, q, 1.0, eta, 0.1) if eta else s for s, q in zip(scores, drafter, strict=True)]
            )
            row[f"logprob {name} {eta:g}"] = float(shifted.log_softmax(-1).gather(-1, answer).mean())
    row["logprob drafter alone"] = float(drafter_logprob(model, short, reference))
    if not most_tokens:
        return row
    sampling = Sampling(max_tokens=min(TASKS[question.task], most_tokens))
    for name, messages in (("right", short), ("wrong", wrong)):
        for eta in etas if name == "right" else (0.0, etas[-2]):
            kind = Speculation("speculative", "model", draft_tokens=4, eta=eta)
            text = "".join(d.text for d in model.generate(Generation(long, sampling, kind, messages)))
            row[f"f1 {name} {eta:g}"] = f1(text, question.answers)
            row[f"found {name} {eta:g}"] = found(text, question.answers)
            if eta == 0:
                row[f"text {name}"] = text
    plain = "".join(d.text for d in model.generate(Generation(long, sampling)))
    row["lossless"] = plain == row["text right"] == row["text wrong"]
    if plain.strip():
        both = [model.continuation_logits(m, plain)[0].argmax(-1) for m in (long, short)]
        row["agreement"] = (both[0] == both[1]).int().tolist()
    return row


def drafter_logprob(model: LocalModel, messages: Any, reference: str) -> float:
    """Mean logarithm of a token's probability by the drafter alone."""
    scores = model.logprob(messages, reference)
    return sum(scores) / len(scores)


def report(results: list[dict[str, Any]], etas: Sequence[float]) -> None:
    """Differences to eta 0, paired, with 95 % intervals."""
    by_task = defaultdict(list)
    for row in results:
        by_task[row["task"]].append(row)
    for task, rows in by_task.items():
        print(f"{task}: n={len(rows)}, lossless at eta 0: {sum(r.get('lossless', False) for r in rows)} of "
              f"{sum('lossless' in r for r in rows)}")  # fmt: skip
        alone = interval([r["logprob drafter alone"] - r["logprob right 0"] for r in rows])
        print(
            f"  drafter alone against the target: logprob {alone[0]:+.3f} [{alone[1]:+.3f}, {alone[2]:+.3f}]"
        )
        for name, measure, eta in itertools.product(("right", "wrong"), ("logprob", "f1", "found"), etas):
            key, zero = f"{measure} {name} {eta:g}", f"{measure} {name} 0"
            pairs = [(r[key], r[zero]) for r in rows if key in r]
            if not pairs:
                continue
            mean = sum(a for a, _ in pairs) / len(pairs)
            low = interval([a - b for a, b in pairs])
            print(
                f"  {measure:8} {name} passages, eta {eta:4g}: {mean:+.3f}, against eta 0 {low[0]:+.3f} "
                f"[{low[1]:+.3f}, {low[2]:+.3f}]"
            )


def quality(given: argparse.Namespace) -> None:
    """Questions of the three tasks in turn, until all are done or the time is up."""
    model = load(
        given.model,
        device=given.device,
        dtype=given.dtype,
        prefix_bytes=(8 if given.device == "cuda" else 1) * 2**30,
    )
    context = given.contexts[0]
    heading(
        f"{model.describe()}, {context} tokens of context, 3 passages for the drafter, n={given.n} a task"
    )
    made = [questions(given.data, task, given.n, model.count_tokens, context) for task in given.tasks]
    waiting = iter([q for row in itertools.zip_longest(*made) for q in row if q is not None])
    results: list[dict[str, Any]] = []
    ended, guard = time.monotonic() + given.seconds, threading.Lock()

    def work() -> None:
        while time.monotonic() < ended:
            with guard:
                question = next(waiting, None)
            if question is None:
                return
            row = measured(model, question, given.tokens, given.etas)
            with guard:
                results.append(row)
                save(given.out, results)

    with concurrent.futures.ThreadPoolExecutor(given.threads) as pool:
        for done in [pool.submit(work) for _ in range(given.threads)]:
            done.result()
    save(given.out, results)
    report(results, given.etas)
