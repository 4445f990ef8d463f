"""A request's wish to move the model's attention between passages -> shares for each of them.

Moving attention is the other way to use a ranking (Hsieh et al. 2024): the passages stay where they stand
in the prompt, and the answer's tokens look at each as much as its score deserves.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from pipeline.answer_config import AnswerConfig
from pipeline.errors import LongleafError, WorkCancelledError
from pipeline.lm.calibration import AttentionOrder
from pipeline.lm.request import GeneratingModel, Weighed
from pipeline.lm.signals import shares
from pipeline.ordering import Advice, Ordered
from pipeline.progress import Progress
from pipeline.prompt import place
from pipeline.seams import LanguageModel
from pipeline.types import Ordering

SHARPNESS = 0.5
"""Temperature of the softmax that makes shares of scores: the one that was measured."""


def weighed(
    made: Ordered, run: Progress, config: AnswerConfig, model: LanguageModel, advice: Advice | None
) -> Ordered:
    """The same order with attention moved as ``config.reweigh`` says. What stands in the way is said in
    ``degraded``, and attention stays as it is. Raises WorkCancelledError while the model looks."""
    if config.reweigh == "off" or made.prompt is None or made.ordering is None:
        return made
    if hindrance := _hindrance(config, model):
        return _unmoved(made, hindrance)
    if len(made.ordering.after) < 2:
        return made
    if advice is None and config.reweigh not in ("score", made.ordering.used):
        return _unmoved(made, "nothing here lets the model look at passages")
    try:
        ordering = _scored(made, run, config, model, advice)
    except WorkCancelledError:
        raise
    except LongleafError as error:
        return _unmoved(made, str(error))
    own = "retrieved" if config.reweigh == "score" else "score"  # an attention order keeps both
    of_each = [ordering.scores[name] for name in ordering.after]
    scores = np.array([of.get(own, of["score"]) for of in of_each], np.float32)
    given = [round(float(share), 6) for share in shares(scores, SHARPNESS)]
    places = place(run.query.text, made.prompt.context.passages).passages
    return replace(
        made,
        ordering=replace(ordering, shares=dict(zip(ordering.after, given, strict=True))),
        weighed=Weighed(places, tuple(given)),
    )


def _hindrance(config: AnswerConfig, model: LanguageModel) -> str:
    """Why attention cannot be moved, if so."""
    capabilities = getattr(model, "capabilities", None)
    if not isinstance(model, GeneratingModel) or capabilities is None or not capabilities.attention:
        return f"{model.name} does not let its attention be changed"
    if config.context_strength:
        return "the answer is decoded context-aware"
    if config.long_tokens:
        return "the model reads more than the passages"
    return ""


def _scored(
    made: Ordered, run: Progress, config: AnswerConfig, model: LanguageModel, advice: Advice | None
) -> Ordering:
    """The report with the scores that decide, for which the model may have to look at the passages."""
    assert made.prompt is not None and made.ordering is not None
    if advice is None or config.reweigh in ("score", made.ordering.used):
        return made.ordering
    order: AttentionOrder = (
        "attention_sorting" if config.reweigh == "attention_sorting" else "found_in_the_middle"
    )
    began = time.perf_counter()
    ranked = advice.reranker(order, model).rerank(run.query.text, made.prompt.context.passages, run.cancelled)
    return replace(
        made.ordering,
        scores={
            hit.chunk_id: {**made.ordering.scores[hit.chunk_id], **hit.scores, "score": hit.score}
            for hit in ranked
        },
        readings=made.ordering.readings + int(ranked[0].scores.get(f"{order}.rounds", 1)),
        seconds=made.ordering.seconds + time.perf_counter() - began,
    )


def _unmoved(made: Ordered, reason: str) -> Ordered:
    return replace(made, degraded=(*made.degraded, f"attention was not moved between passages: {reason}"))
