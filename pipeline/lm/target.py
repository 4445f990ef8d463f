"""The model whose answer it is: what it has read, what it has not read yet, and what it expects next.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several

import torch

from pipeline.lm.sampling import Chooser
from pipeline.lm.sequence import Sequence
from pipeline.lm.writing import Token


class Target:
    """A sequence that has read a whole prompt, and the logits (1, V) that came after it."""

    def __init__(self, sequence: Sequence, logits: torch.Tensor) -> None:
        self.sequence = sequence
        self._ready: torch.Tensor | None = logits
        self._unread: list[int] = []
        self._base = sequence.length_tokens
        self.seconds: float | None = None
        """How long the last pass took, if there was one and it was for this request alone."""

    @property
    def context_tokens(self) -> int:
        """States in the cache."""
        return self.sequence.length_tokens

    @property
    def others(self) -> int:
        """Answers that are being written in the same passes as this one."""
        return 0 if self.sequence.alone else self.sequence.engine.sharing - 1

    def read(self, draft: Several[int] = ()) -> torch.Tensor:
        """Logits (n + 1, V) at each of n drafted tokens' positions and after the last."""
        self._base = self.sequence.length_tokens
        self.seconds = None
        ready, self._ready = self._ready, None
        if ready is None:
            rows = self.sequence.read([*self._unread, *draft], len(draft) + 1)
            self.seconds = self.sequence.seconds
            return rows
        if not draft:
            return ready
        return torch.cat([ready, self.sequence.read(draft, len(draft))])

    def settle(self, tokens: Several[Token]) -> None:
        """These were chosen after :meth:`read`; all but the last of them had been drafted."""
        kept = self._base + len(self._unread) + len(tokens) - 1
        if kept < self.sequence.length_tokens:
            self.sequence.roll_back(kept)
        self._unread = [tokens[-1].id]


class PlainRounds:
    """Writes one answer token by token."""

    def __init__(self, target: Target, chooser: Chooser, degraded: str = "", reason: str = "") -> None:
        """``degraded`` says what was asked for instead, ``reason`` why nothing is drafted."""
        self._target = target
        self._chooser = chooser
        self._reason = reason
        self.degraded: tuple[str, ...] = (degraded,) if degraded else ()

    def next(self, most_tokens: int, cancelled: Callable[[], bool]) -> list[Token]:
        """The next token."""
        token = Token(self._chooser.choose(self._target.read()[-1]))
        self._target.settle([token])
        return [token]

    def usage(self) -> dict[str, int | float | str]:
        """How the answer was decoded."""
        return {"decoding": "plain", **({"not_speculating": self._reason} if self._reason else {})}

    def close(self) -> None:
        """Nothing to do."""
