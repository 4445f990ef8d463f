"""Measures one model: which heads look for answers, where it reads best, and whether looking first pays.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InvalidRequestError, ModelError
from pipeline.lm.attention import require
from pipeline.lm.calibration import AtPosition, Calibration, Fused, Placement
from pipeline.lm.head_choice import FEW_ALIKE, Choice, Observation, choose, recall
from pipeline.lm.looking import look_both
from pipeline.lm.request import Biased
from pipeline.lm.signals import Bias, Floats, Signal, fused
from pipeline.lm.watching import Likelihood, logprob_batch
from pipeline.order import placed_by
from pipeline.prompt import place
from pipeline.types import Hit

if TYPE_CHECKING:
    from pipeline.lm.model import LocalModel

_PLACEMENTS: tuple[Placement, ...] = ("reverse", "score", "edges")
_POSITIONS = 5
_FEWEST = 8
_RESAMPLES = 2000
_WORTH_NATS = 0.05
"""What looking first must bring, a token of the answer: it takes one more reading of all passages. Also a
bias, which costs little, but is compared with a reading that rounds otherwise."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A question, its reference answer, and passages of which the one at ``gold`` holds it. The passages'
    ``score`` is the retriever's."""

    question: str
    answer: str
    passages: tuple[Hit, ...]
    gold: int

    def at(self, position: int) -> list[Hit]:
        """The passages with the gold one at ``position``, the others in their order."""
        others = [hit for n, hit in enumerate(self.passages) if n != self.gold]
        return [*others[:position], self.passages[self.gold], *others[position:]]


def calibrate(
    model: LocalModel,
    trials: Sequence[Trial],
    *,
    pairs: str,
    scored: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Everything that is measured, on these trials (all with as many passages).

    Heads are chosen on all trials; the reference answers are scored, which takes most of the time, on the
    first ``scored`` ones (all if None). ``pairs`` says in words where the questions are from. ``progress``
    is told prompts read, and in all.
    Raises InvalidRequestError for too few or uneven trials and ModelError for a family without support.
    """
    require(model.network, "Calibration")
    counts = {len(trial.passages) for trial in trials}
    if len(trials) < _FEWEST or len(counts) != 1 or min(counts) < 3:
        raise InvalidRequestError(
            f"{len(trials)} questions with {sorted(counts)} passages were given.",
            remedy=f"Give at least {_FEWEST} questions, each with the same number of passages, 3 or more.",
        )
    [passages] = counts
    at = sorted({round(n * (passages - 1) / (_POSITIONS - 1)) for n in range(_POSITIONS)})
    few = trials[: max(scored or len(trials), _FEWEST)]
    done, total = 0, len(trials) * 2 + len(few) * (len(at) + len(_PLACEMENTS) + 3)

    def count(finished: int) -> None:
        nonlocal done
        done += finished
        progress(done, total)

    arranged = [n * 7 % passages for n in range(len(trials))]
    seen = observe(model, [(trial, arranged[n], n) for n, trial in enumerate(trials)], count)
    if not all(np.isfinite(each.masses).all() for one in seen for each in (one.asked, one.free)):
        raise ModelError(
            f"The attention of {model.name} in {model.network.dtype} is not finite.",
            remedy="Load the model with language_model.dtype float32.",
        )
    choices = {"attention_sorting": choose(seen, content_free=False)}
    choices["found_in_the_middle"] = choose(seen, content_free=True)
    few_heads = choose(seen, content_free=False, recipes=FEW_ALIKE)
    orders: dict[str, list[list[Hit]]] = {f"gold at {p}": [t.at(p) for t in few] for p in at}
    for placement in _PLACEMENTS:
        orders[placement] = [
            placed_by(trial.passages, [hit.score for hit in trial.passages], placement) for trial in few
        ]
    likely = likelihoods(model, few, orders, count)
    placement = max(_PLACEMENTS, key=lambda name: _mean(likely[name]))
    attended = {
        order: [
            placed_by(trial.at(arranged[n]), list(_fused_scores(seen[n], choice, n)), placement)
            for n, trial in enumerate(few)
        ]
        for order, choice in choices.items()
    }
    plain = [each.logprob for each in likely[placement]]
    biased = _biased(model, few, orders[placement], count)
    gains = {"bias": interval(np.subtract(biased, plain).tolist())}
    bias_pays = gains["bias"][0] > 0 and gains["bias"][1] >= _WORTH_NATS
    logprobs: dict[str, float] = {name: _mean(likely[name]) for name in _PLACEMENTS}
    logprobs["bias"] = float(np.mean(biased))
    for order, placed in attended.items():  # looking first has to beat what answers would do without
        if bias_pays:
            reached = _biased(model, few, placed, count)
        else:
            reached = [each.logprob for each in likelihoods(model, few, {order: placed}, count)[order]]
        gains[order] = interval(np.subtract(reached, biased if bias_pays else plain).tolist())
        logprobs[order] = float(np.mean(reached))
    pays = [order for order in choices if gains[order][0] > 0 and gains[order][1] >= _WORTH_NATS]
    golds = [one.gold for one in seen]
    return Calibration(
        model=model.name,
        revision=model.revision,
        auto=max(pays, key=lambda order: gains[order][1]) if pays else placement,  # type: ignore[arg-type]
        placement=placement,
        attention_sorting=_fused(choices["attention_sorting"]),
        found_in_the_middle=_fused(choices["found_in_the_middle"]),
        few_heads=_fused(few_heads),
        bias_pays=bias_pays,
        positions=tuple(
            AtPosition(
                p,
                _mean(likely[f"gold at {p}"]),
                float(np.mean([each.greedy for each in likely[f"gold at {p}"]])),
            )
            for p in at
        ),
        recall=_recalls(seen, choices, golds),
        logprobs=logprobs,
        gains=gains,
        pairs=pairs,
        trials=len(trials),
        scored=len(few),
        passages=passages,
        dtype=str(model.network.dtype).removeprefix("torch."),
    )


def observe(
    model: LocalModel,
    asked: Sequence[tuple[Trial, int, int]],
    progress: Callable[[int], None] = lambda _: None,
) -> list[Observation]:
    """Looks at each trial's passages with the gold one at a position; the last number is the group."""
    shown = [(trial.question, trial.at(position)) for trial, position, _ in asked]
    return [
        Observation(own, free, position, np.array([hit.score for hit in hits], np.float32), group)
        for (own, free), (_, position, group), (_, hits) in zip(
            look_both(model, shown, progress), asked, shown, strict=True
        )
    ]


def likelihoods(
    model: LocalModel,
    trials: Sequence[Trial],
    orders: dict[str, list[list[Hit]]],
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, list[Likelihood]]:
    """How likely each trial's reference answer is after its passages in each order; equal prompts are read
    once."""
    distinct: dict[tuple[str, ...], tuple[Trial, list[Hit]]] = {}
    for of_trials in orders.values():
        for trial, hits in zip(trials, of_trials, strict=True):
            key = _key(trial, hits)
            if key in distinct:
                progress(1)
            distinct[key] = (trial, hits)

    def tokens(key: tuple[str, ...]) -> tuple[list[int], list[int]]:
        trial, hits = distinct[key]
        return model.chat.prompt_ids(place(trial.question, hits).messages), model.chat.encode(trial.answer)

    with ThreadPoolExecutor() as pool:
        prompts = dict(zip(distinct, pool.map(tokens, distinct), strict=True))
    found = dict(zip(prompts, logprob_batch(model, list(prompts.values()), progress), strict=True))
    return {
        name: [found[_key(trial, hits)] for trial, hits in zip(trials, of_trials, strict=True)]
        for name, of_trials in orders.items()
    }


def _biased(
    model: LocalModel, trials: Sequence[Trial], orders: Sequence[list[Hit]], progress: Callable[[int], None]
) -> list[float]:
    """Mean log-probability a token of each reference answer, attention biased by the retriever's scores."""
    found = []
    for trial, hits in zip(trials, orders, strict=True):
        prompt = place(trial.question, hits)
        scores = np.array([hit.score for hit in hits], np.float32)
        moved = Biased(prompt.passages, Bias().of(scores))
        found.append(float(np.mean(model.logprob(prompt.messages, trial.answer, moved))))
        progress(1)
    return found


def _key(trial: Trial, hits: Sequence[Hit]) -> tuple[str, ...]:
    return (trial.question, trial.answer, *(hit.chunk_id for hit in hits))


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean with its 95 % bootstrap interval: lower, mean, upper."""
    array = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(array), (_RESAMPLES, len(array)))
    low, high = np.quantile(array[draws].mean(1), [0.025, 0.975])
    return float(low), float(array.mean()), float(high)


def _fused_scores(one: Observation, choice: Choice, n: int) -> Floats:
    return fused(one.retrieved, choice.scores[n], choice.weight)


def _fused(choice: Choice) -> Fused:
    return Fused(choice.signal, choice.weight)


def _recalls(
    seen: Sequence[Observation], choices: dict[str, Choice], golds: Sequence[int]
) -> dict[str, float]:
    signals = {
        "last token, all heads (as published)": Signal("last"),
        "question tokens, all heads": Signal("question"),
        "question tokens less content-free": Signal("question", content_free=True),
    }
    found = {"retriever": recall([one.retrieved for one in seen], golds)}
    for name, signal in signals.items():
        found[name] = recall([signal.scores(one.asked, one.free) for one in seen], golds)
    for order, choice in choices.items():
        found[f"{order}, calibrated"] = choice.recall
        both = [_fused_scores(one, choice, n) for n, one in enumerate(seen)]
        found[f"{order}, fused with the retriever"] = recall(both, golds)
    return found


def _mean(values: Sequence[Likelihood]) -> float:
    return float(np.mean([value.logprob for value in values]))
