"""Where drafts come from: texts at hand, a language model on the retrieved passages, or both.

A drafter proposes tokens that may follow what was written; it is told what was really written and never
decides anything. Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import replace
from typing import Protocol

import torch

from pipeline.lm.sampling import Chooser
from pipeline.lm.sequence import Sequence
from pipeline.lm.step_costs import StepCosts
from pipeline.lm.verification import Draft, as_long_as

MOST_MATCH_TOKENS = 8
STOP_BELOW = 0.4
"""A draft ends before a token that the drafter itself gives less than this (the published setting)."""


class Drafter(Protocol):
    """Drafts for one answer."""

    def propose(self, most_tokens: int, cancelled: Callable[[], bool]) -> Draft:
        """At most so many tokens, perhaps none. Returns early, with any draft, once ``cancelled()``."""
        ...

    def settle(self, tokens: Several[int]) -> None:
        """These tokens were written since the last proposal, drafted or not."""
        ...


class LookupDrafter:
    """Copies what followed the last words where they occur in a text at hand, or in the answer itself.

    The longest match of up to eight tokens counts, in the answer so far before the texts, and of equally
    long ones the latest in the answer and the first in the texts (prompt lookup decoding, Saxena 2023;
    LLMA, Yang et al. 2023, Inference with Reference).
    """

    def __init__(self, texts: Several[Several[int]], last: Several[int] = ()) -> None:
        """``texts`` as token ids, best first. ``last`` are tokens before the answer."""
        self._written: list[int] = list(last)
        self._places: dict[tuple[int, ...], tuple[Several[int], int]] = {}
        for text in texts:
            for end in range(1, len(text)):
                self._note(text, end, keep_first=True)

    def propose(self, most_tokens: int, cancelled: Callable[[], bool] = lambda: False) -> Draft:
        """The continuation of the longest match; nothing if not even the last token was seen before."""
        for size in range(min(MOST_MATCH_TOKENS, len(self._written)), 0, -1):
            found = self._places.get(tuple(self._written[-size:]))
            if found is not None:
                text, end = found
                tokens = tuple(text[end : end + most_tokens])
                return Draft(tokens, (None,) * len(tokens), match_tokens=size)
        return Draft()

    def settle(self, tokens: Several[int]) -> None:
        """Look things up behind these tokens from now on, and in them."""
        for token in tokens:
            end = len(self._written)
            self._written.append(token)
            if end:
                self._note(self._written, end, keep_first=False)

    def _note(self, text: Several[int], end: int, *, keep_first: bool) -> None:
        """Remember what precedes ``text[end]``, so that it can be looked up."""
        for size in range(1, min(MOST_MATCH_TOKENS, end) + 1):
            key = tuple(text[end - size : end])
            if not (keep_first and key in self._places):
                self._places[key] = (text, end)


class ModelDrafter:
    """A language model that has read the retrieved passages writes on; it may be the target's own network."""

    def __init__(
        self,
        sequence: Sequence,
        prompt: Several[int],
        chooser: Chooser,
        vocabulary: int,
        costs: StepCosts | None = None,
    ) -> None:
        """``sequence`` has read all of ``prompt`` but its last token at most. Tokens are drawn as
        ``chooser`` would draw them, without being noted as written. ``vocabulary`` is the target's.
        ``costs`` learn how long passes take."""
        self._costs = costs
        self.sequence = sequence
        self._truth = list(prompt)
        self._chooser = chooser
        self._vocabulary = vocabulary
        self.stop_below = STOP_BELOW
        self.guides = False
        """Whether to give probabilities at the position after the draft too, which takes one step more."""

    def propose(self, most_tokens: int, cancelled: Callable[[], bool] = lambda: False) -> Draft:
        """Tokens of the drafter, up to one that it doubts itself. Reads what it has not read yet."""
        tokens: list[int] = []
        proposals: list[torch.Tensor] = []
        guides: list[torch.Tensor] = []
        unread = self._truth[self.sequence.length_tokens :]
        passes = 0
        while not cancelled():
            passes += 1
            scores = self._chooser.scores(self._read(unread)[-1], tokens)
            guide = as_long_as((scores / self._chooser.temperature).softmax(-1), self._vocabulary)
            guides.append(guide)
            if len(tokens) >= most_tokens or (tokens and float(guide.max()) < self.stop_below):
                break
            token, proposal = self._next(scores)
            tokens.append(token)
            proposals.append(proposal)
            if len(tokens) == most_tokens and not self.guides:
                break
            unread = [token]
        return Draft(tuple(tokens), tuple(proposals), tuple(guides), source="model", passes=passes)

    def follow(self, draft: Draft) -> Draft:
        """The same draft with this model's probabilities at each of its positions, read in one pass."""
        unread = self._truth[self.sequence.length_tokens :]
        count = len(draft.tokens) + 1
        logits = self._read([*unread, *draft.tokens], count)
        guides = tuple(
            as_long_as(
                (self._chooser.scores(row, draft.tokens[:at]) / self._chooser.temperature).softmax(-1),
                self._vocabulary,
            )
            for at, row in enumerate(logits)
        )
        return replace(draft, guides=guides, passes=1)

    def settle(self, tokens: Several[int]) -> None:
        """Forget drafted tokens that were not written."""
        start = min(len(self._truth), self.sequence.length_tokens)
        self._truth += tokens
        read, at = self.sequence.ids, start
        while at < min(len(read), len(self._truth)) and read[at] == self._truth[at]:
            at += 1
        self.sequence.roll_back(at)

    def _read(self, ids: Several[int], keep: int = 1) -> torch.Tensor:
        context = self.sequence.length_tokens
        logits = self.sequence.read(ids, keep)
        if self._costs is not None and self.sequence.seconds is not None:
            self._costs.learn(context, len(ids), self.sequence.seconds)
        return logits

    def _next(self, scores: torch.Tensor) -> tuple[int, torch.Tensor]:
        if self._chooser.is_greedy:
            token = int(scores[: self._vocabulary].argmax())
            return token, torch.empty(0)
        proposal = as_long_as(self._chooser.probabilities(scores), self._vocabulary)
        return self._chooser.draw(proposal), proposal
