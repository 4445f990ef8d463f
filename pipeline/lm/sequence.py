"""The tokens that one request has made a network read, and the states they left behind."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, Any

from pipeline.lm import kv_cache

if TYPE_CHECKING:
    import torch
    from transformers import Cache

    from pipeline.lm.attention import Following, Plan
    from pipeline.lm.engine import Engine


class Sequence:
    """What was read so far. Belongs to one request, and is read on by one thread at a time.

    ``ids`` are the tokens in the cache. A cache that was put together elsewhere (passages read beforehand)
    may hold states of more tokens than were read here: ``before`` counts those, and ``shift`` is what the
    position of the next token exceeds the number of all states by (below 0 where passages share positions).
    """

    def __init__(
        self,
        engine: Engine,
        cache: Cache,
        ids: Several[int] = (),
        *,
        before: int = 0,
        shift: int = 0,
        plan: Plan | None = None,
    ) -> None:
        """``plan`` is followed by every pass of this sequence."""
        self.engine = engine
        self.cache = cache
        self.ids = list(ids)
        self.before = before
        self.shift = shift
        self.plan = plan
        self.seconds: float | None = None
        """How long the last pass took, if it was for this request alone."""

    @property
    def length_tokens(self) -> int:
        """States in the cache."""
        return self.before + len(self.ids)

    @property
    def alone(self) -> bool:
        """Whether no other request may be read in the same pass."""
        return self.plan is not None and not self.plan.packs

    @property
    def following(self) -> Following | None:
        """The plan and how many tokens were read before the next pass, as attention takes them."""
        return None if self.plan is None else (self.plan, self.length_tokens)

    @property
    def can_roll_back(self) -> bool:
        """Whether the last tokens can be forgotten exactly."""
        return kv_cache.can_roll_back(self.cache)

    def read(self, ids: Several[int], keep: int = 1) -> torch.Tensor:
        """Read on. Logits (``keep``, V) at the last positions. Raises ModelError.

        If it fails, nothing of ``ids`` has been read.
        """
        done = self.engine.read(self, ids, keep)
        self.ids += ids
        self.seconds = done.seconds
        return done.logits

    def roll_back(self, length_tokens: int) -> None:
        """Forget all but the first ``length_tokens`` states, exactly."""
        kv_cache.roll_back(self.cache, length_tokens)
        del self.ids[length_tokens - self.before :]


def positions(sequence: Sequence, new: int) -> Any:  # noqa: ANN401 - a torch tensor
    """Position ids (new,) of the next ``new`` tokens of a sequence."""
    import torch

    tokens = torch.arange(sequence.length_tokens, sequence.length_tokens + new) + sequence.shift
    if sequence.plan is not None and sequence.plan.positions is not None:
        return sequence.plan.positions(tokens)
    return tokens
