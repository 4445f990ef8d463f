"""A request's wish to move the model's attention between passages -> a bias or a share for each of them.

Moving attention is the other way to use a ranking (Hsieh et al. 2024): the passages stay where they stand
in the prompt, and the answer's tokens look at each as its score deserves. A bias leaves the model a say
(:mod:`pipeline.lm.attention_bias`); shares are as published (:mod:`pipeline.lm.reweigh`).
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from pipeline.answer_config import AnswerConfig
from pipeline.errors import ConfigurationError, LongleafError, WorkCancelledError
from pipeline.lm.calibration import AttentionOrder
from pipeline.lm.request import Biased, GeneratingModel, Weighed
from pipeline.lm.signals import Bias, Floats, shares
from pipeline.lm.spans import Place
from pipeline.ordering import Advice, Ordered, Reweigh, unusable
from pipeline.progress import Progress
from pipeline.prompt import place
from pipeline.seams import LanguageModel
from pipeline.types import Ordering

SHARPNESS = 0.5
"""Temperature of the softmax that makes shares of scores: the one that was measured."""


def weighed(
    made: Ordered, run: Progress, config: AnswerConfig, model: LanguageModel, advice: Advice | None
) -> Ordered:
    """The same order with attention moved as ``config.reweigh`` says. What stands in the way of what was
    asked for is said in ``degraded``, and attention stays as it is. Raises WorkCancelledError while the model
    looks."""
    how = config.reweigh
    if how == "off" or made.prompt is None or made.ordering is None:
        return made
    hindrance = _hindrance(config, model)
    if hindrance:
        return made if how == "auto" else _unmoved(made, hindrance)
    if how in ("auto", "bias"):
        said: list[str] = []
        bias = wanted_bias(config, model, advice, said)
        if new := [each for each in said if each not in made.degraded]:  # by whoever ordered the passages
            return replace(made, degraded=(*made.degraded, *new))
        return made if bias is None else _biased(made, run, bias)
    return made if len(made.ordering.after) < 2 else _shared(made, run, how, model, advice)


def wanted_bias(
    config: AnswerConfig, model: LanguageModel, advice: Advice | None, degraded: list[str]
) -> Bias | None:
    """The bias of attention that ``config`` asks for, with `auto` only if the model's calibration found that
    it helps. A calibration that cannot be used is said in ``degraded``."""
    bias = Bias(config.attention_bias, config.attention_raise)
    if config.reweigh != "auto" or advice is None:
        return bias if config.reweigh == "bias" else None
    try:
        known = advice.calibration(model)
    except ConfigurationError as error:
        degraded.append(unusable(error))
        return None
    return bias if known is not None and known.bias_pays else None


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


def _biased(made: Ordered, run: Progress, bias: Bias) -> Ordered:
    assert made.ordering is not None
    places, given = _places(made, run), bias.of(_scores(made.ordering, "search"))
    told = dict(zip(made.ordering.after, given, strict=True))
    return replace(made, ordering=replace(made.ordering, biases=told), moved=Biased(places, given))


def _shared(
    made: Ordered, run: Progress, how: Reweigh, model: LanguageModel, advice: Advice | None
) -> Ordered:
    """With shares as published, by scores for which the model may have to look at the passages."""
    assert made.ordering is not None
    if advice is None and how not in ("score", made.ordering.used):
        return _unmoved(made, "nothing here lets the model look at passages")
    try:
        ordering = _scored(made, run, how, model, advice)
    except WorkCancelledError:
        raise
    except LongleafError as error:
        return _unmoved(made, str(error))
    scores = _scores(ordering, "retrieved" if how == "score" else "score")
    given = tuple(round(float(share), 6) for share in shares(scores, SHARPNESS))
    told = dict(zip(ordering.after, given, strict=True))
    return replace(made, ordering=replace(ordering, shares=told), moved=Weighed(_places(made, run), given))


def _places(made: Ordered, run: Progress) -> tuple[Place, ...]:
    """Where the passages stand in the prompt."""
    assert made.prompt is not None
    return place(run.query.text, made.prompt.context.passages).passages


def _scores(ordering: Ordering, by: str) -> Floats:
    """The passages' scores of this stage in their order in the prompt, or the one score they have where they
    come from elsewhere."""
    of_each = [ordering.scores[name] for name in ordering.after]
    return np.array([of.get(by, of["score"]) for of in of_each], np.float32)


def _scored(
    made: Ordered, run: Progress, how: Reweigh, model: LanguageModel, advice: Advice | None
) -> Ordering:
    """The report with the scores that decide, for which the model may have to look at the passages."""
    assert made.prompt is not None and made.ordering is not None
    if advice is None or how in ("score", made.ordering.used):
        return made.ordering
    order: AttentionOrder = "attention_sorting" if how == "attention_sorting" else "found_in_the_middle"
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
