"""What drafting is worth: acceptance as it was seen, expected tokens of a round, and the length that pays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

_REMEMBERED = 200.0
_PRIOR_WEIGHT = 4.0


class Acceptance:
    """How often a drafted token is accepted, by what it was drafted from, over all requests.

    One number for each key, a mean over the latest drafts. A request has its own :class:`Trial`, which
    begins with this knowledge and soon trusts its own more.
    """

    def __init__(self, priors: Mapping[Hashable, float], otherwise: float = 0.5) -> None:
        """``priors``: what to expect of a key before anything was seen."""
        self._counts = {key: (rate * _PRIOR_WEIGHT, _PRIOR_WEIGHT) for key, rate in priors.items()}
        self._otherwise = (otherwise * _PRIOR_WEIGHT, _PRIOR_WEIGHT)
        self._guard = threading.Lock()

    def rate(self, key: Hashable) -> float:
        """Expected acceptance of one token, in (0, 1)."""
        accepted, tried = self._counts.get(key, self._otherwise)
        return accepted / tried

    def observe(self, key: Hashable, drafted: int, accepted: int) -> None:
        """Of so many drafted tokens the first ``accepted`` were taken; those after a rejection tell
        nothing."""
        with self._guard:
            taken, tried = self._counts.get(key, self._otherwise)
            fade = min(1.0, _REMEMBERED / tried)
            new = accepted + (accepted < drafted)
            self._counts[key] = (taken * fade + accepted, tried * fade + new)

    def trial(self) -> Trial:
        """What one request will learn for itself."""
        return Trial(self)


class Trial:
    """Acceptance inside one request: begins with what is known, and forgets within a few rounds."""

    _FADE = 0.8

    def __init__(self, known: Acceptance) -> None:
        self._known = known
        self._seen: dict[Hashable, tuple[float, float]] = {}

    def rate(self, key: Hashable) -> float:
        """Expected acceptance of the next drafted token."""
        accepted, tried = self._seen.get(key, (0.0, 0.0))
        return (self._known.rate(key) * _PRIOR_WEIGHT + accepted) / (_PRIOR_WEIGHT + tried)

    def observe(self, key: Hashable, drafted: int, accepted: int) -> None:
        """Learn from a round, here and for all later requests."""
        taken, tried = self._seen.get(key, (0.0, 0.0))
        new = accepted + (accepted < drafted)
        self._seen[key] = (taken * self._FADE + accepted, tried * self._FADE + new)
        self._known.observe(key, drafted, accepted)


def expected_tokens(acceptance: float, draft_tokens: int) -> float:
    """Tokens that a round yields on average, the target's own included: ``(1 - a^(g+1)) / (1 - a)``
    (Leviathan et al. 2023, equation 1)."""
    if acceptance >= 1:
        return draft_tokens + 1.0
    return (1 - acceptance ** (draft_tokens + 1)) / (1 - acceptance)


@dataclass(frozen=True, slots=True)
class Choice:
    """A draft length, how many times as fast as plain decoding everybody is then expected to be, and the
    tokens and seconds of the round."""

    draft_tokens: int
    gain: float
    tokens: float
    seconds: float


def best_length(
    acceptance: float,
    lengths: range,
    plain_seconds: float,
    round_seconds: Callable[[int], float],
    others: int = 0,
) -> Choice:
    """The length among ``lengths`` with the highest expected gain; the shortest of equals.

    ``plain_seconds`` is one step of plain decoding, ``round_seconds(g)`` drafting and verifying g tokens.
    ``others`` go along in each pass with a token each: what a draft adds to the pass they wait for too.
    """
    choices = []
    for length in lengths:
        tokens, seconds = expected_tokens(acceptance, length), round_seconds(length)
        gain = (tokens + others) / (1 + others) * plain_seconds / seconds
        choices.append(Choice(length, gain, tokens, seconds))
    return max(choices, key=lambda choice: choice.gain)
