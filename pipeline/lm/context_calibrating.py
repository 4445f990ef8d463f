"""Finds how a model attends cached passages best, and what that costs against sequential reading.

Temperature, scale and how many passages to attend are chosen on one half of the questions; what the choice
loses or gains is measured on the other half, so it is not flattered by having been chosen.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InvalidRequestError
from pipeline.lm.calibrating import Trial, interval
from pipeline.lm.context_options import ContextCalibration, ContextOptions, ContextsConfig
from pipeline.lm.context_request import Asked, Passage
from pipeline.lm.contexts import Contexts
from pipeline.records import VersionKey

if TYPE_CHECKING:
    from pipeline.lm.model import LocalModel

Heads = tuple[tuple[int, int], ...]

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SCALES = (0.9, 1.0)
ATTENDED = (1, 3, 5)
_FEWEST = 8
_MEMORY_BYTES = 2**31


def calibrate_contexts(
    model: LocalModel,
    trials: Sequence[Trial],
    *,
    heads: Heads = (),
    weight: float = 0.0,
    pairs: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ContextCalibration:
    """What is best for this model on these trials. ``heads`` and ``weight`` are those of the model's
    calibration that find passages, a few that vote alike. ``progress`` is told questions done, and in all.

    Raises InvalidRequestError for too few trials and ModelError for a family without support.
    """
    if len(trials) < _FEWEST:
        raise InvalidRequestError(
            f"{len(trials)} questions were given to calibrate cached contexts.",
            remedy=f"Give at least {_FEWEST}.",
        )
    revision = str(model.describe()["revision"])
    known = ContextCalibration(model.name, revision, heads=heads, weight=weight if heads else 0.0)
    contexts = Contexts(model, ContextsConfig(memory_bytes=_MEMORY_BYTES), calibration=known)
    choosing, judging = trials[::2], trials[1::2]
    done = 0

    def scored(trial: Trial, options: Sequence[ContextOptions], *, also_sequential: bool) -> list[float]:
        nonlocal done
        done += 1
        progress(done, 2 * len(choosing) + len(judging))
        return _scored(contexts, trial, options, also_sequential=also_sequential)

    try:
        grid = [ContextOptions(None, t, s) for t in TEMPERATURES for s in SCALES]
        best = _best(grid, [scored(trial, grid, also_sequential=False) for trial in choosing])
        counts: list[int | None] = [None, *ATTENDED] if heads else [None]
        few = [ContextOptions(None, best.temperature, best.scale, count) for count in counts]
        best = _best(few, [scored(trial, few, also_sequential=False) for trial in choosing])
        judged = [scored(trial, [best], also_sequential=True) for trial in judging]
    finally:
        contexts.close()
    low, mean, high = interval([sequential - cached for cached, sequential in judged])
    return ContextCalibration(
        model.name,
        revision,
        temperature=best.temperature or 1.0,
        scale=best.scale or 1.0,
        attended=best.attended,
        heads=heads,
        weight=known.weight,
        loss_nats=(mean, low, high),
        questions=len(judging),
        pairs=pairs,
    )


def _scored(
    contexts: Contexts, trial: Trial, options: Sequence[ContextOptions], *, also_sequential: bool
) -> list[float]:
    """Mean log-probability a token of the reference answer, for each option and then sequentially."""
    passages = _passages(contexts, trial)
    ways = [Asked(trial.question, passages, each) for each in options]
    scores = [contexts.logprob(asked, trial.answer) for asked in ways]
    if also_sequential:
        scores.append(contexts.logprob(ways[0], trial.answer, sequential=True))
    return [sum(score) / len(score) for score in scores]


def _passages(contexts: Contexts, trial: Trial) -> list[Passage]:
    return [
        contexts.passage(VersionKey("", "", hit.document_id, hit.version), hit.title, hit.text, hit.score)
        for hit in trial.passages
    ]


def _best(options: Sequence[ContextOptions], scores: Sequence[Sequence[float]]) -> ContextOptions:
    return options[int(np.asarray(scores).mean(0).argmax())]
