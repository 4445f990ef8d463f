"""A request's order of passages -> a prompt in that order, and a report of what it came to.

Some orders only place the passages by the scores they have; two let the model look at them first
(:mod:`pipeline.lm.ranking`). ``auto`` does what the model's calibration found best, which is a look first
only where that was measured to pay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

from pipeline.errors import ConfigurationError, LongleafError, WorkCancelledError
from pipeline.lm.calibration import AttentionOrder, Calibration, Placement
from pipeline.lm.request import Moved
from pipeline.order import ReadingOrder, placed_by
from pipeline.prompt import Prompt, build, place
from pipeline.seams import LanguageModel, Reranker
from pipeline.types import Hit, Ordering

Order = Literal["auto", "score", "reverse", "edges", "document", "attention_sorting", "found_in_the_middle"]
Reweigh = Literal["auto", "off", "bias", "score", "attention_sorting", "found_in_the_middle"]
"""How, and by which scores, the answer's attention is moved between passages (:mod:`pipeline.weighing`)."""
SAFE: Placement = "reverse"
"""Where nothing was measured: the best passage last, next to the question, where every model reads well."""


class Advice(Protocol):
    """What is known about a model, and who ranks by its attention."""

    def calibration(self, model: LanguageModel) -> Calibration | None:
        """What was measured for these very weights. Raises ConfigurationError if it was for others."""
        ...

    def reranker(self, order: AttentionOrder, model: LanguageModel) -> Reranker:
        """The reranker of that name over this model. Raises ModelError for one without attention."""
        ...


@dataclass(frozen=True, slots=True)
class Ordered:
    """The prompt (None if not even the question fits), how it was ordered, what could not be done, and how
    attention is to be moved, if it is."""

    prompt: Prompt | None
    ordering: Ordering | None
    degraded: tuple[str, ...] = ()
    moved: Moved | None = None


def check(order: str) -> None:
    """Raise ConfigurationError for an order that does not exist."""
    if order not in get_args(Order):
        raise ConfigurationError(
            f"There is no order {order!r}.", remedy=f"Choose from: {', '.join(get_args(Order))}."
        )


def ordered(
    question: str,
    hits: Sequence[Hit],
    model: LanguageModel,
    *,
    order: Order,
    budget_tokens: int,
    max_tokens: int,
    advice: Advice | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Ordered:
    """The prompt with its passages in the order asked for; see :func:`pipeline.prompt.build`.

    What stands in the way of an attention order (a remote model, a family without support, a calibration
    of other weights) is said in ``degraded``, and the passages are placed by their scores. Raises
    WorkCancelledError within one step of ``cancelled()`` being true.
    """
    check(order)
    used, placement, known, degraded = _decide(order, model, advice)
    built = build(question, hits, model, budget_tokens=budget_tokens, max_tokens=max_tokens, order=placement)
    if built is None or not built.context.passages:
        return Ordered(built, None, tuple(degraded))
    before = placed_by(built.context.passages, [hit.score for hit in built.context.passages], "score")
    ranked, readings, began = list(built.context.passages), 0, time.perf_counter()
    if used in get_args(AttentionOrder) and len(before) > 1 and advice is not None:
        attention: AttentionOrder = (
            "attention_sorting" if used == "attention_sorting" else "found_in_the_middle"
        )
        try:
            reranker = advice.reranker(attention, model)
            ranked = reranker.rerank(question, built.context.passages, cancelled)
            if known is None:
                degraded.append(f"{model.name} is not calibrated: {attention} is used as published")
            readings = int(ranked[0].scores.get(f"{attention}.rounds", 1))
            passages = placed_by(ranked, [hit.score for hit in ranked], placement)
            built = _rearranged(built, question, passages, model, max_tokens)
        except WorkCancelledError:
            raise
        except LongleafError as error:
            degraded.append(
                f"the order {attention} could not be made, passages are ordered by score: {error}"
            )
            used = placement
    report = Ordering(
        asked=order,
        used=used,
        before=tuple(hit.chunk_id for hit in before),
        after=tuple(hit.chunk_id for hit in built.context.passages),
        scores={hit.chunk_id: {**hit.scores, "score": hit.score} for hit in ranked},
        readings=readings,
        seconds=time.perf_counter() - began if readings else 0.0,
    )
    return Ordered(built, report, tuple(degraded))


def unusable(error: ConfigurationError) -> str:
    """What ``degraded`` says of a calibration that was made for other weights, or is damaged."""
    return f"the calibration of the language model is not used: {error}"


def _decide(
    order: Order, model: LanguageModel, advice: Advice | None
) -> tuple[Order, ReadingOrder, Calibration | None, list[str]]:
    """What the order comes to for this model, where the best passage goes, what is known of the model, and
    what went wrong."""
    if order not in ("auto", *get_args(AttentionOrder)):
        return order, order, None, []  # type: ignore[return-value]
    degraded: list[str] = []
    known: Calibration | None = None
    if advice is not None:
        try:
            known = advice.calibration(model)
        except ConfigurationError as error:
            degraded.append(unusable(error))
    placement: ReadingOrder = known.placement if known else SAFE
    if order == "auto":
        return (known.auto if known else SAFE), placement, known, degraded
    if advice is None:
        degraded.append(f"the order {order} needs a language model whose attention can be seen")
        return placement, placement, known, degraded
    return order, placement, known, degraded


def _rearranged(
    built: Prompt, question: str, passages: Sequence[Hit], model: LanguageModel, max_tokens: int
) -> Prompt:
    """The same passages in their new order, unless that happens to take more tokens than there are."""
    messages = place(question, passages).messages
    tokens = model.prompt_tokens(messages)
    if tokens > model.window_tokens - max_tokens:
        return built
    return Prompt(messages, replace(built.context, passages=tuple(passages)), tokens)
