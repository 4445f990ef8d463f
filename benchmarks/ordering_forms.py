"""The signals and interventions that ``benchmarks.ordering`` compares."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.compress import compress
from pipeline.lm.calibrating import Trial
from pipeline.lm.calibration import Calibration
from pipeline.lm.head_choice import Observation
from pipeline.lm.looking import look_batch, watched
from pipeline.lm.model import LocalModel
from pipeline.lm.reweigh import reweighing, shares
from pipeline.lm.signals import Looks, Signal, fused, less_dummies
from pipeline.lm.watching import logprob_batch
from pipeline.order import placed_by
from pipeline.types import Hit

DUMMY = "This is a passage that says nothing about anything. " * 8
ROUNDS = 2


def signal_scores(seen: list[Observation], calibration: Calibration) -> dict[str, list[Any]]:
    """Scores of the passages of every observation, by form."""
    sorting, middle = calibration.attention_sorting, calibration.found_in_the_middle
    forms = {
        "sorting (published)": Signal("last"),
        "question tokens": Signal("question"),
        "question less N/A": Signal("question", content_free=True),
        "sorting calibrated": sorting.signal,
        "middle calibrated": middle.signal,
    }
    scores: dict[str, list[Any]] = {"retriever": [one.retrieved for one in seen]}
    for name, signal in forms.items():
        scores[name] = [signal.scores(one.asked, one.free) for one in seen]
    for name, weight in (("sorting", sorting.weight), ("middle", middle.weight)):
        scores[f"{name} fused"] = [
            fused(one.retrieved, attended, weight)
            for one, attended in zip(seen, scores[f"{name} calibrated"], strict=True)
        ]
    return scores


def dummy_scores(model: LocalModel, shown: Any, asked: Any, seen: list[Observation]) -> list[Any]:
    """Found in the middle as published: a prompt a passage, with a dummy in its place."""
    prompts = [
        (one.question, [*hits[:k], _dummy(k), *hits[k + 1 :]])
        for (one, _, _), hits in zip(asked, shown, strict=True)
        for k in range(len(hits))
    ]
    looks = look_batch(model, prompts)
    found, at = [], 0
    for hits, observation in zip(shown, seen, strict=True):
        lengths = [model.count_tokens(hit.text) for hit in hits]
        dummies = looks[at : at + len(hits)]
        found.append(less_dummies(observation.asked, dummies, lengths, model.count_tokens(DUMMY)))
        at += len(hits)
    return found


def repeated_sorting(model: LocalModel, shown: Any, asked: Any, seen: list[Observation]) -> list[Any]:
    """Attention sorting as published: sort by the last token's attention, read again, and again."""
    signal, ranked = Signal("last"), shown
    looks: list[Looks] = [one.asked for one in seen]
    for _ in range(ROUNDS):
        ranked = [
            placed_by(hits, list(signal.scores(look)), "reverse")
            for hits, look in zip(ranked, looks, strict=True)
        ]
        looks = look_batch(
            model, [(one.question, hits) for (one, _, _), hits in zip(asked, ranked, strict=True)]
        )
    final = [dict(zip([hit.chunk_id for hit in hits], signal.scores(look), strict=True))
             for hits, look in zip(ranked, looks, strict=True)]  # fmt: skip
    return [
        np.array([each[hit.chunk_id] for hit in hits], np.float32)
        for hits, each in zip(shown, final, strict=True)
    ]


def interventions(model: LocalModel, shown: Any, trials: list[Trial], scores: Any) -> dict[str, Any]:
    """The order as given, with attention moved inside the model instead of passages in the prompt."""
    layers = len(model.network.model.layers)
    found = {}
    for form, temperature in (("middle (published)", 0.5), ("middle fused", 0.5), ("middle fused", 0.25)):
        if form not in scores:
            continue
        wanted = [shares(each, temperature) for each in scores[form]]
        prompts = [
            watched(model.chat, one.question, hits)[0] for one, hits in zip(trials, shown, strict=True)
        ]
        answers = [model.chat.encode(one.answer) for one in trials]

        def plan(numbers: Any, prompts: Any = prompts, wanted: Any = wanted) -> Any:
            return reweighing(
                [prompts[n].spans for n in numbers], [wanted[n] for n in numbers],
                [len(prompts[n].ids) - 1 for n in numbers], (layers // 2, layers),
            )  # fmt: skip

        name = f"given, attention moved by {form}, t={temperature}"
        found[name] = logprob_batch(
            model, [(p.ids, a) for p, a in zip(prompts, answers, strict=True)], plan=plan
        )
    return found


def _dummy(k: int) -> Hit:
    return Hit(f"dummy{k}", "dummy", 1, "", DUMMY, 0, len(DUMMY), 0.0)


def compressed(model: LocalModel, cells: Any, asked: Any, shown: Any, share: float) -> list[list[Hit]]:
    """The passages in their order with the best sentences that fit a share of their tokens."""
    count, made = functools.lru_cache(maxsize=None)(model.count_tokens), []
    for (one, _, n), hits in zip(asked, shown, strict=True):
        scored = [
            [(start, end, score) for name, start, end, score in cells[n]["sentences"] if name == hit.chunk_id]
            for hit in hits
        ]
        whole = sum(count(hit.text) for hit in one.passages)
        extracts = compress(hits, scored, budget_tokens=int(whole * share), count_tokens=count)
        short = [extract.shortened() for extract in extracts]
        made.append([replace(hit, chunk_id=f"{hit.chunk_id} {share}") for hit in short])
    return made
