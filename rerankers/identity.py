"""No reranking: hits stay as retrieval ordered them. The default, and what others are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from pipeline.types import Hit


class Config(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


TINY = Config()


def build(config: Config) -> Identity:
    """A reranker that changes nothing."""
    return Identity()


class Identity:
    """Implements :class:`pipeline.seams.Reranker`."""

    def rerank(
        self, query: str, hits: Sequence[Hit], cancelled: Callable[[], bool] = lambda: False
    ) -> list[Hit]:
        """The hits, best first by the score they have."""
        best_first = sorted(hits, key=lambda hit: -hit.score)
        return [replace(hit, scores={**hit.scores, "identity": hit.score}) for hit in best_first]
