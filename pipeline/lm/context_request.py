"""What is asked of cached contexts. Importing this is cheap: no model library is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.lm.context_options import ContextOptions
from pipeline.lm.kv_identity import PassageKey
from pipeline.lm.signals import Bias


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage to be attended: its tokens, whose it is, and the retriever's scores: the one that chooses
    among many, and the search's own, which a bias follows."""

    key: PassageKey
    ids: tuple[int, ...]
    score: float = 0.0
    searched: float = 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A question behind some passages, and how one request wants them read, with attention to them biased if
    at all. What a drafter reads is kept for later requests of ``tenant`` alone."""

    question: str
    passages: Sequence[Passage]
    options: ContextOptions = field(default_factory=ContextOptions)
    cancelled: Callable[[], bool] = lambda: False
    tenant: str = "default"
    bias: Bias | None = None
