"""From the scores of the next token to a token.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from pipeline.errors import InvalidRequestError, ModelError
from pipeline.seams import Sampling

_MOST_STOP_STRINGS = 16
_MOST_STOP_CHARS = 256


def check(sampling: Sampling) -> None:
    """Raise InvalidRequestError for a setting that makes no sense, naming it and its value."""
    wrong = [
        (name, value, rule)
        for name, value, is_right, rule in (
            ("max_tokens", sampling.max_tokens, sampling.max_tokens >= 1, "at least 1"),
            ("temperature", sampling.temperature, sampling.temperature >= 0, "at least 0"),
            ("top_p", sampling.top_p, 0 < sampling.top_p <= 1, "above 0 and at most 1"),
            ("top_k", sampling.top_k, sampling.top_k >= 0, "0 (all) or more"),
            ("repetition_penalty", sampling.repetition_penalty, sampling.repetition_penalty > 0, "above 0"),
            (
                "stop",
                len(sampling.stop),
                len(sampling.stop) <= _MOST_STOP_STRINGS,
                f"at most {_MOST_STOP_STRINGS}",
            ),
            *(
                ("stop", stop, 0 < len(stop) <= _MOST_STOP_CHARS, f"1 to {_MOST_STOP_CHARS} characters")
                for stop in sampling.stop
            ),
        )
        if not is_right
    ]
    if wrong:
        name, value, rule = wrong[0]
        raise InvalidRequestError(f"{name} is {value!r}.", remedy=f"It must be {rule}.")


class Chooser:
    """Chooses tokens for one answer. Knows what it chose before, for the repetition penalty.

    Choosing happens in float32 on the CPU with its own generator, so that a seed gives the same
    answer whatever else runs and wherever the model runs.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._chosen: set[int] = set()
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always the one chosen."""
        return self._sampling.temperature == 0

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities; 1 where the choice is greedy."""
        return self._sampling.temperature or 1.0

    def choose(self, logits: torch.Tensor) -> int:
        """The next token for float ``logits`` (V,). Raises ModelError if they are not numbers."""
        scores = self.scores(logits)
        token = int(scores.argmax()) if self.is_greedy else self.draw(self.probabilities(scores))
        self.note(token)
        return token

    def scores(self, logits: torch.Tensor, after: Sequence[int] = ()) -> torch.Tensor:
        """Logits (V,) as float32 on the CPU, with what was chosen and would be chosen in ``after`` made
        worse. Raises ModelError if they are not numbers."""
        penalty = self._sampling.repetition_penalty
        scores = penalised(logits.float().cpu(), self._chosen.union(after) if penalty != 1 else (), penalty)
        if torch.isnan(scores.max()):
            raise ModelError(
                "The model computed NaN for the next token.", remedy="Load it with dtype float32."
            )
        return scores

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """The distribution (V,) that a token is drawn from, for temperature, top_k and top_p."""
        kept = nucleus(scores / self.temperature, self._sampling.top_k, self._sampling.top_p)
        return kept.softmax(-1)

    def draw(self, weights: torch.Tensor) -> int:
        """A token drawn in proportion to ``weights`` (V,), which need not sum to 1."""
        return int(torch.multinomial(weights, 1, generator=self._generator))

    def chance(self) -> float:
        """A number drawn evenly from [0, 1)."""
        return float(torch.rand((), generator=self._generator))

    def note(self, token: int) -> None:
        """Remember a token of the answer."""
        self._chosen.add(token)


def penalised(scores: torch.Tensor, chosen: Iterable[int], penalty: float) -> torch.Tensor:
    """Scores (V,) with those of tokens chosen before made worse (Keskar et al. 2019, CTRL, section 4.1).

    Only tokens of the answer count, not those of the prompt: an answer from documents has to repeat
    their words.
    """
    if penalty == 1 or not (tokens := sorted(chosen)):
        return scores
    at = torch.tensor(tokens)
    old = scores[at]
    return scores.index_put((at,), torch.where(old > 0, old / penalty, old * penalty))


def nucleus(scores: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Scores (V,) with -inf for all but the ``top_k`` best, and of these all but the nucleus.

    The nucleus is the smallest set of best tokens whose probability reaches ``top_p`` (Holtzman et al.
    2020, The Curious Case of Neural Text Degeneration, equation 2).
    """
    if 0 < top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < torch.topk(scores, top_k).values[-1], -torch.inf)
    if top_p < 1:
        ordered, order = scores.sort(descending=True, stable=True)
        probabilities = ordered.softmax(-1)
        # A token is outside if the better ones alone reach top_p; the best one never is.
        outside = probabilities.cumsum(-1) - probabilities >= top_p
        outside[0] = False
        scores = scores.masked_fill(outside.scatter(0, order, outside), -torch.inf)
    return scores
