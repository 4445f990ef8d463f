"""Any sentence-transformers CrossEncoder: question and passage are read together and scored.

A passage longer than the model's window is scored in overlapping windows and keeps the best score, so
that nothing of it is cut off unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline import device as devices
from pipeline.errors import InvalidRequestError, ModelError, WorkCancelledError
from pipeline.models import locate
from pipeline.seams import Reranker
from pipeline.types import Hit

_FEWEST_PASSAGE_TOKENS = 16


class Config(BaseModel):
    """Which model, and how it is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "cross-encoder/ms-marco-MiniLM-L6-v2"
    """A folder or hub id, as `pipeline/models.py` takes it."""
    device: str | None = None
    """Where the model runs: `cpu`, `cuda`, `cuda:1` ...; null takes a GPU if there is one."""
    window_tokens: int | None = Field(default=None, ge=32)
    """Most tokens of question and passage together; null takes the model's own."""
    batch_size: int = Field(default=32, ge=1)
    """Pairs of one forward pass."""
    weight: float = Field(default=1.0, ge=0, le=1)
    """How much the model's score weighs against the retriever's (both standardised)."""
    cache: Path | None = None
    """Folder of converted weights; null takes `models.cache`."""
    allow_download: bool = False
    """Whether a hub id may be downloaded; follows `models.allow_download` unless set."""


TINY = Config(device="cpu", batch_size=4)


def build(config: Config) -> Reranker:
    """Load the model. Raises ModelNotFoundError, ModelError, and ConfigurationError for a device that is not
    there."""
    from sentence_transformers import CrossEncoder

    from pipeline.lm.convert import quiet_transformers
    from pipeline.onednn import speed_up

    if config.device is not None:
        devices.check(config.device)
    located = locate(config.model, cache=config.cache, allow_download=config.allow_download)
    try:
        with quiet_transformers():
            encoder = CrossEncoder(
                str(located.path), device=config.device, trust_remote_code=False, local_files_only=True
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The cross-encoder in {located.path} cannot be loaded: {error}",
            remedy="It must be a sequence classifier with one output, as sentence-transformers saves it.",
        ) from error
    labels = encoder.config.num_labels
    if labels != 1:
        raise ModelError(
            f"The cross-encoder {located.name} gives {labels} scores for each pair, not one.",
            remedy="Use a model trained for ranking (num_labels 1).",
        )
    speed_up(encoder)
    return CrossEncoderReranker(encoder, config)


class CrossEncoderReranker:
    """Implements :class:`pipeline.seams.Reranker`."""

    def __init__(self, encoder: Any, config: Config) -> None:  # noqa: ANN401 - a CrossEncoder
        """``encoder`` is a sentence-transformers CrossEncoder with one output."""
        self._encoder = encoder
        self._config = config
        limits = (
            config.window_tokens,
            getattr(encoder, "max_seq_length", None),
            encoder.tokenizer.model_max_length,
            encoder.config.max_position_embeddings,
        )
        self._window_tokens = min(limit for limit in limits if limit)

    def rerank(
        self, query: str, hits: Sequence[Hit], cancelled: Callable[[], bool] = lambda: False
    ) -> list[Hit]:
        """Best first. Scores ``cross_encoder`` (the model's), ``cross_encoder.windows``, and ``retrieved``.

        Raises InvalidRequestError for a question that leaves no room for a passage, and WorkCancelledError
        within one batch of ``cancelled()`` being true.
        """
        from pipeline.lm.signals import fused

        if not hits:
            return []
        pairs, owners = [], []
        for n, hit in enumerate(hits):
            for window in self._windows(query, hit.text):
                pairs.append((query, window))
                owners.append(n)
        scores: list[float] = []
        for start in range(0, len(pairs), self._config.batch_size):
            if cancelled():
                raise WorkCancelledError("The reranking was cancelled.")
            batch = pairs[start : start + self._config.batch_size]
            scores += self._encoder.predict(batch, batch_size=len(batch), show_progress_bar=False).tolist()
        best = [
            max(s for s, owner in zip(scores, owners, strict=True) if owner == n) for n in range(len(hits))
        ]
        both = fused(
            np.array([hit.score for hit in hits], np.float32), np.array(best, np.float32), self._config.weight
        )
        ranked = [
            replace(
                hit,
                score=float(both[n]),
                scores={
                    **hit.scores,
                    "retrieved": hit.score,
                    "cross_encoder": best[n],
                    "cross_encoder.windows": float(owners.count(n)),
                },
            )
            for n, hit in enumerate(hits)
        ]
        return sorted(ranked, key=lambda hit: -hit.score)

    def _windows(self, query: str, text: str) -> list[str]:
        """The text in pieces that fit beside the question, each half over the one before."""
        tokenizer = self._encoder.tokenizer
        asked = len(tokenizer(query, "", truncation=False, verbose=False)["input_ids"])
        room = self._window_tokens - asked
        if room < _FEWEST_PASSAGE_TOKENS:
            raise InvalidRequestError(
                f"The question takes {asked} of the {self._window_tokens} tokens of the cross-encoder.",
                remedy="Shorten the question, or use a model with a longer window.",
            )
        offsets = tokenizer(
            text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        if len(offsets) <= room:
            return [text]
        starts = [*range(0, len(offsets) - room, max(room // 2, 1)), len(offsets) - room]
        return [text[offsets[at][0] : offsets[at + room - 1][1]] for at in starts]
