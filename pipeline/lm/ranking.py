"""Passages ranked by what a language model's attention says, fused with the retriever's scores.

Importing this is cheap; torch comes with the first ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InvalidRequestError
from pipeline.lm.calibration import AttentionOrder, Fused
from pipeline.lm.signals import CONTENT_FREE, Floats, Looks, Signal, fused, less_dummies
from pipeline.order import placed_by
from pipeline.types import Hit

if TYPE_CHECKING:
    from pipeline.lm.model import LocalModel

DUMMY = "This is a passage that says nothing about anything. " * 8
"""The document without content of found in the middle as published (Hsieh et al. 2024, section 3.1)."""


@dataclass(frozen=True, slots=True)
class Attended:
    """Scores of the passages, one each in the sequence asked, and named evidence for each."""

    scores: Floats
    evidence: Mapping[str, Floats]


def by_signal(
    model: LocalModel,
    question: str,
    passages: Sequence[Hit],
    signal: Signal,
    *,
    rounds: int = 1,
    cancelled: Callable[[], bool] = lambda: False,
) -> Attended:
    """Scores by one signal, with the passages read in the sequence given. With more ``rounds`` they are
    sorted, best last, and read again until the order stays (Peysakhovich and Lerer 2023, section 3)."""
    from pipeline.lm.looking import look

    questions = [question, CONTENT_FREE] if signal.content_free else [question]
    reading, done = list(range(len(passages))), 0
    while True:
        shown = [passages[n] for n in reading]
        looks = look(model, [(each, shown) for each in questions], cancelled)
        scores = _unsorted(signal.scores(*looks), reading)
        done += 1
        ranked = sorted(reading, key=lambda n: scores[n])
        if done == rounds or ranked == reading:
            break
        reading = ranked
    evidence = {"question": _unsorted(_mass(looks[0], signal), reading)}
    if signal.content_free:
        evidence["content_free"] = _unsorted(_mass(looks[1], signal), reading)
    if rounds > 1:
        evidence["rounds"] = np.full(len(passages), done, np.float32)
    return Attended(scores, evidence)


def by_dummies(
    model: LocalModel,
    question: str,
    passages: Sequence[Hit],
    cancelled: Callable[[], bool] = lambda: False,
) -> Attended:
    """Found in the middle as published: one more reading for each passage, with a dummy in its place."""
    from pipeline.lm.looking import look

    count, prompts = len(passages), [(question, passages)]
    for n in reversed(range(count)):  # so that each prompt shares all before its dummy with the last one
        dummy = replace(passages[n], title="", text=DUMMY)
        prompts.append((question, [*passages[:n], dummy, *passages[n + 1 :]]))
    asked, *dummies = look(model, prompts, cancelled)
    dummies.reverse()
    lengths = [model.count_tokens(hit.text) for hit in passages]
    scores = less_dummies(asked, dummies, lengths, model.count_tokens(DUMMY))
    own = asked.mean("last").sum((0, 1))
    place = np.array([each.mean("last").sum((0, 1))[n] for n, each in enumerate(dummies)], np.float32)
    return Attended(scores, {"question": own, "dummy": place})


def ranked(name: AttentionOrder, hits: Sequence[Hit], attended: Attended, weight: float) -> list[Hit]:
    """The hits best first by the fused scores, with what each was made of under the reranker's name."""
    retrieved = np.array([hit.score for hit in hits], np.float32)
    both = fused(retrieved, attended.scores, weight)
    scored = [
        replace(
            hit,
            score=float(both[n]),
            scores={
                **hit.scores,
                "retrieved": hit.score,
                name: float(attended.scores[n]),
                **{f"{name}.{kind}": float(values[n]) for kind, values in attended.evidence.items()},
            },
        )
        for n, hit in enumerate(hits)
    ]
    return placed_by(scored, [hit.score for hit in scored], "score")


def check(hits: Sequence[Hit]) -> None:
    """Raise InvalidRequestError for a passage without text."""
    for hit in hits:
        if not hit.text.strip():
            raise InvalidRequestError(
                f"The passage {hit.chunk_id!r} is empty.", remedy="Leave empty passages out."
            )


def choose(found: Fused | None, given: Signal | None, weight: float | None, published: Signal) -> Fused:
    """What was asked for, else what a calibration found, else the published form, unfused."""
    if given is not None:
        return Fused(given, 1.0 if weight is None else weight)
    chosen = found or Fused(published, 1.0)
    return chosen if weight is None else replace(chosen, weight=weight)


def _mass(looks: Looks, signal: Signal) -> Floats:
    """Attention mass of each passage, over the heads that count."""
    masses = looks.mean(signal.tokens)
    if signal.heads is not None:
        own: Floats = np.stack([masses[layer, head] for layer, head in signal.heads]).sum(0)
        return own
    first, end = signal.layers or (0, len(masses))
    added: Floats = masses[first:end].sum((0, 1))
    return added


def _unsorted(values: Floats, reading: Sequence[int]) -> Floats:
    """Values of passages in reading order, back in the sequence asked."""
    result = np.empty_like(values)
    result[list(reading)] = values
    return result
