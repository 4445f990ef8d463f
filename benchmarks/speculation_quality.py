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
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.long_questions import LongQuestion, questions
from benchmarks.report import heading, interval
from benchmarks.speculation import save
from pipeline.lm.model import LocalModel, load
from pipeline.lm.request import Generation, Speculation
from pipeline.lm.verification import guided, interpolated
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


@dataclass(frozen=True, slots=True)
class Way:
    """One way to let the drafter guide; without it decoding is lossless."""

    eta: float = 0.0
    interpolation: float = 0.0

    @property
    def name(self) -> str:
        """As it is called in tables."""
        return f"interpolation {self.interpolation:g}" if self.interpolation else f"eta {self.eta:g}"

    def scores(self, target: torch.Tensor, drafter: torch.Tensor) -> torch.Tensor:
        """What tokens are chosen by, from the target's logits (n, V) and the drafter's probabilities."""
        if self.interpolation:
            made = [interpolated(z, q, 1.0, self.interpolation) for z, q in zip(target, drafter, strict=True)]
        elif self.eta:
            made = [guided(z, q, 1.0, self.eta, 0.1) for z, q in zip(target, drafter, strict=True)]
        else:
            return target
        return torch.stack(made)


LOSSLESS = Way()


def measured(
    model: LocalModel, question: LongQuestion, most_tokens: int, ways: Sequence[Way]
) -> dict[str, Any]:
    """All numbers of one question; ``ways`` begin with the lossless one."""
    reference = question.answers[0]
    long, short, wrong = (question.messages(p) for p in (question.passages, question.best, question.wrong))
    target, ids = model.continuation_logits(long, reference)
    row: dict[str, Any] = {"task": question.task}
    answer = torch.tensor(ids, device=target.device)[:, None]
    for name, messages in (("right", short), ("wrong", wrong)):
        drafter = model.continuation_logits(messages, reference)[0].float().softmax(-1)
        for way in ways:
            scores = way.scores(target.float(), drafter).log_softmax(-1)
            row[f"logprob {name} {way.name}"] = float(scores.gather(-1, answer).mean())
    row["logprob drafter alone"] = float(drafter_logprob(model, short, reference))
    if not most_tokens:
        return row
    sampling = Sampling(max_tokens=min(TASKS[question.task], most_tokens))
    for name, messages in (("right", short), ("wrong", wrong)):
        for way in ways if name == "right" else (LOSSLESS, ways[-1]):
            kind = Speculation(
                "speculative", "model", draft_tokens=4, eta=way.eta, interpolation=way.interpolation
            )
            text = "".join(d.text for d in model.generate(Generation(long, sampling, kind, messages)))
            row[f"f1 {name} {way.name}"] = f1(text, question.answers)
            row[f"found {name} {way.name}"] = found(text, question.answers)
            if way == LOSSLESS:
                row[f"text {name}"] = text
    plain = "".join(d.text for d in model.generate(Generation(long, sampling)))
    row["lossless"] = plain == row["text right"] == row["text wrong"]
    alone = "".join(d.text for d in model.generate(Generation(short, sampling)))
    row["f1 drafter alone"], row["found drafter alone"] = (f(alone, question.answers) for f in (f1, found))
    if plain.strip():
        both = [model.continuation_logits(m, plain)[0].argmax(-1) for m in (long, short)]
        row["agreement"] = (both[0] == both[1]).int().tolist()
    return row


def drafter_logprob(model: LocalModel, messages: Any, reference: str) -> float:
    """Mean logarithm of a token's probability by the drafter alone."""
    scores = model.logprob(messages, reference)
    return sum(scores) / len(scores)


def report(results: list[dict[str, Any]], ways: Sequence[Way]) -> None:
    """Differences to lossless decoding, paired, with 95 % intervals."""
    by_task = defaultdict(list)
    for row in results:
        by_task[row["task"]].append(row)
    for task, rows in by_task.items():
        print(f"{task}: n={len(rows)}, lossless: {sum(r.get('lossless', False) for r in rows)} of "
              f"{sum('lossless' in r for r in rows)}")  # fmt: skip
        for measure in ("logprob", "f1", "found"):
            compare(rows, f"{measure} drafter alone", f"{measure} right {LOSSLESS.name}")
        for name, measure, way in itertools.product(("right", "wrong"), ("logprob", "f1", "found"), ways):
            compare(rows, f"{measure} {name} {way.name}", f"{measure} {name} {LOSSLESS.name}")


def compare(rows: Sequence[dict[str, Any]], key: str, base: str) -> None:
    """One line: the mean of a measure, and its paired difference to another."""
    pairs = [(row[key], row[base]) for row in rows if key in row]
    if pairs:
        mean = sum(a for a, _ in pairs) / len(pairs)
        change = interval([a - b for a, b in pairs])
        print(f"  {key}: {mean:+.3f}, less lossless {change[0]:+.3f} [{change[1]:+.3f}, {change[2]:+.3f}]")


def quality(given: argparse.Namespace) -> None:
    """Questions of the three tasks in turn, until all are done or the time is up."""
    model = load(
        given.model,
        device=given.device,
        dtype=given.dtype,
        prefix_bytes=(8 if given.device == "cuda" else 1) * 2**30,
    )
    context = given.contexts[0]
    ways = [
        LOSSLESS,
        *(Way(eta=e) for e in given.etas),
        *(Way(interpolation=i) for i in given.interpolations),
    ]
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
            row = measured(model, question, given.tokens, ways)
            with guard:
                results.append(row)
                save(given.out, results)

    with concurrent.futures.ThreadPoolExecutor(given.threads) as pool:
        for done in [pool.submit(work) for _ in range(given.threads)]:
            done.result()
    save(given.out, results)
    report(results, ways)
