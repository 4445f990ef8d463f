"""One question read behind its passages: answer scored, attention observed, attention moved, from one reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.lm.attention import Plan
from pipeline.lm.attention_bias import biasing, upper_half
from pipeline.lm.kv_cache import new_cache
from pipeline.lm.looking import watched
from pipeline.lm.model import LocalModel
from pipeline.lm.observe import SpanMass
from pipeline.lm.reweigh import reweighing
from pipeline.lm.sequence import Sequence as Read
from pipeline.lm.signals import CONTENT_FREE, Bias, Looks, shares
from pipeline.prompt import place
from pipeline.types import Hit


@dataclass(frozen=True)
class Scored:
    """Logits (n, V) that predict the answer's n tokens."""

    logits: torch.Tensor
    answer: tuple[int, ...]

    @property
    def logprob(self) -> float:
        """Mean log-probability a token."""
        rows = self.logits.float().log_softmax(-1)
        return float(rows[range(len(self.answer)), list(self.answer)].mean())

    @property
    def greedy(self) -> int:
        """Whether greedy decoding would begin with the answer."""
        return int(self.logits.argmax(-1).tolist() == list(self.answer))

    def drawn(self, bare: Scored, strength: float) -> Scored:
        """Context-aware (Shi et al. 2023, equation 3), away from the logits of the question alone."""
        return Scored((1 + strength) * self.logits.float() - strength * bare.logits.float(), self.answer)


class Reading:
    """The passages are read once; everything else comes from the states behind them."""

    def __init__(self, model: LocalModel, question: str, hits: Sequence[Hit], answer: str) -> None:
        self._model, self._hits = model, hits
        self._prompt, self._asked = watched(model.chat, question, hits)
        self._answer = tuple(model.chat.encode(answer))
        room = len(self._prompt.ids) + len(self._answer) + 64
        self._sequence = Read(model.engine, new_cache(model.network.config, room))
        self._start = self._prompt.tokens.start
        self._sequence.read(self._prompt.ids[: self._start])
        self.scored, self.own = self._with_question()

    def free(self) -> Looks:
        """What the content-free question looks at."""
        prompt, asked = watched(self._model.chat, CONTENT_FREE, self._hits)
        seen = SpanMass([prompt.spans], prompt.tokens)
        self._read(prompt.ids[prompt.tokens.start :], Plan(observers=(seen,)))
        return Looks(seen.masses()[:, 0].numpy(), asked)

    def moved(self, scores: Any, temperature: float) -> Scored:
        """The answer with attention spread over the passages by these scores, in the upper half of layers."""
        wanted = shares(np.asarray(scores, np.float32), temperature)
        return self._planned(reweighing([self._prompt.spans], [wanted], [self._last], self._upper))

    def biased(self, scores: Any, bias: Bias = Bias()) -> Scored:  # noqa: B008 - frozen
        """The answer with attention biased by these scores, in the upper half of layers."""
        wanted = bias.of(np.asarray(scores, np.float32))
        return self._planned(biasing(self._prompt.spans, wanted, self._last, self._upper))

    @property
    def _last(self) -> int:
        return len(self._prompt.ids) - 1

    @property
    def _upper(self) -> tuple[int, int]:
        return upper_half(int(self._model.network.config.num_hidden_layers))

    def _planned(self, plan: Plan) -> Scored:
        return Scored(self._read(self._question_and_answer(), plan), self._answer)

    def _with_question(self) -> tuple[Scored, Looks]:
        seen = SpanMass([self._prompt.spans], self._prompt.tokens)
        logits = self._read(self._question_and_answer(), Plan(observers=(seen,)))
        return Scored(logits, self._answer), Looks(seen.masses()[:, 0].numpy(), self._asked)

    def _question_and_answer(self) -> tuple[int, ...]:
        return (*self._prompt.ids[self._start :], *self._answer[:-1])

    def _read(self, ids: Sequence[int], plan: Plan) -> torch.Tensor:
        self._sequence.roll_back(self._start)
        self._sequence.plan = plan
        return self._sequence.read(list(ids), len(self._answer))


def score(model: LocalModel, question: str, hits: Sequence[Hit], answer: str) -> Scored:
    """The answer behind the passages, nothing observed."""
    ids = model.chat.prompt_ids(place(question, hits).messages)
    wanted = tuple(model.chat.encode(answer))
    sequence = Read(model.engine, new_cache(model.network.config, len(ids) + len(wanted)))
    return Scored(sequence.read([*ids, *wanted[:-1]], len(wanted)), wanted)
