"""Rotary positions (RoPE, Su et al. 2021, arXiv:2104.09864, eq. 15) and the ways to stretch them.

A head's width is taken in pairs; pair ``i`` of a token at position ``m`` is turned by ``m * f_i`` with
``f_i = theta ** (-2 i / dim)``. A method replaces the ``f_i``, and may scale queries and keys.
Frequencies are float64 here, so that the same settings give the same vectors on every machine.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Frequencies = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rope:
    """What a model was trained with: turned width of a head, base, and longest sequence."""

    dim: int
    theta: float
    trained_tokens: int

    def frequencies(self, theta: float | None = None) -> Frequencies:
        """Radians a token, ``(dim / 2,)``, fastest first."""
        powers = np.arange(0, self.dim, 2, dtype=np.float64) / self.dim
        return np.asarray((theta or self.theta) ** -powers)


@dataclass(frozen=True, slots=True)
class Rotation:
    """Radians a token ``(dim / 2,)``, and the factor by which queries and keys are both scaled."""

    frequencies: Frequencies
    scale: float = 1.0


def stretched(trained_tokens: int, factor: float) -> int:
    """Tokens for ``factor`` times as many positions; 100 times 1.15 are 115, although not in floats."""
    return int(round(trained_tokens * factor, 6))


@dataclass(frozen=True, slots=True)
class Native:
    """Positions as trained."""

    kinds: ClassVar[frozenset[str]] = frozenset({"absolute", "rotary"})
    factor: float = 1.0

    def reach(self, trained_tokens: int) -> int:
        """Most tokens of one sequence."""
        return trained_tokens

    def rotation(self, rope: Rope, tokens: int) -> Rotation:
        """The trained frequencies."""
        return Rotation(rope.frequencies())

    def rows(self, trained_tokens: int) -> NDArray[np.float64]:
        """Every position once."""
        return np.arange(trained_tokens, dtype=np.float64)

    def __str__(self) -> str:
        return "native"


@dataclass(frozen=True, slots=True)
class PositionInterpolation:
    """Position ``m`` becomes ``m / factor`` (Chen et al. 2023, arXiv:2306.15595, eq. 4).

    For absolute positions rows between the trained ones are interpolated linearly (Zhu et al. 2024,
    LongEmbed, arXiv:2404.12096, section 4.1).
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"absolute", "rotary"})
    factor: float

    def reach(self, trained_tokens: int) -> int:
        """Trained length times the factor."""
        return stretched(trained_tokens, self.factor)

    def rotation(self, rope: Rope, tokens: int) -> Rotation:
        """All frequencies divided by the factor."""
        return Rotation(rope.frequencies() / self.factor)

    def rows(self, trained_tokens: int) -> NDArray[np.float64]:
        """Where in the trained matrix each position lies; beyond the last row, at it."""
        places = np.arange(self.reach(trained_tokens)) / self.factor
        return np.minimum(places, trained_tokens - 1)

    def __str__(self) -> str:
        return f"pi:{self.factor:g}"


@dataclass(frozen=True, slots=True)
class Ntk:
    """A larger base: ``theta * factor ** (dim / (dim - 2))`` (bloc97 2023; Peng et al. 2023, YaRN,
    arXiv:2309.00071, eq. 16). The slowest pair is interpolated by the factor, the fastest kept."""

    kinds: ClassVar[frozenset[str]] = frozenset({"rotary"})
    factor: float

    def reach(self, trained_tokens: int) -> int:
        """Trained length times the factor."""
        return stretched(trained_tokens, self.factor)

    def rotation(self, rope: Rope, tokens: int) -> Rotation:
        """Frequencies of the larger base."""
        return Rotation(rope.frequencies(rope.theta * self.factor ** (rope.dim / (rope.dim - 2))))

    def __str__(self) -> str:
        return f"ntk:{self.factor:g}"


@dataclass(frozen=True, slots=True)
class DynamicNtk:
    """As :class:`Ntk`, but only as much as this document needs (emozilla 2023; YaRN, section 3.3):
    ``theta * (factor * n / trained - (factor - 1)) ** (dim / (dim - 2))`` for ``n > trained`` tokens.

    ``n`` is the length of the sequence itself, never of what it shares a batch with or of what came
    before it.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"rotary"})
    factor: float

    def reach(self, trained_tokens: int) -> int:
        """Trained length times the factor."""
        return stretched(trained_tokens, self.factor)

    def rotation(self, rope: Rope, tokens: int) -> Rotation:
        """Frequencies for a sequence of ``tokens``."""
        share = max(tokens, rope.trained_tokens) / rope.trained_tokens
        grown = self.factor * share - (self.factor - 1)
        return Rotation(rope.frequencies(rope.theta * grown ** (rope.dim / (rope.dim - 2))))

    def __str__(self) -> str:
        return f"dynamic_ntk:{self.factor:g}"


@dataclass(frozen=True, slots=True)
class Yarn:
    """NTK by parts and attention temperature (Peng et al. 2023, arXiv:2309.00071, eqs. 17-22).

    Pairs that turn more than ``beta_fast`` times within the trained length are kept, those that turn
    less than ``beta_slow`` times interpolated, and between them a ramp. Logits are divided by ``t`` with
    ``sqrt(1 / t) = 0.1 ln(factor) + 1``, which queries and keys share; without it this is "by parts".
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"rotary"})
    factor: float
    temperature: bool = True
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def reach(self, trained_tokens: int) -> int:
        """Trained length times the factor."""
        return stretched(trained_tokens, self.factor)

    def rotation(self, rope: Rope, tokens: int) -> Rotation:
        """Frequencies between kept and interpolated, and the scale of the temperature."""
        low = max(math.floor(self._pair(rope, self.beta_fast)), 0)
        high = min(math.ceil(self._pair(rope, self.beta_slow)), rope.dim - 1)
        ramp = (np.arange(rope.dim // 2) - low) / (max(high - low, 1e-3))
        interpolated = np.clip(ramp, 0, 1)
        kept = rope.frequencies()
        mixed = kept / self.factor * interpolated + kept * (1 - interpolated)
        return Rotation(mixed, 0.1 * math.log(self.factor) + 1 if self.temperature else 1.0)

    @staticmethod
    def _pair(rope: Rope, turns: float) -> float:
        """Which pair turns so often within the trained length."""
        return rope.dim * math.log(rope.trained_tokens / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    def __str__(self) -> str:
        name = f"{'yarn' if self.temperature else 'by_parts'}:{self.factor:g}"
        return (
            name
            if (self.beta_fast, self.beta_slow) == (32, 1)
            else f"{name}:{self.beta_fast:g}:{self.beta_slow:g}"
        )


@dataclass(frozen=True, slots=True)
class LongRope:
    """A divisor for each frequency, found by search (Ding et al. 2024, arXiv:2402.13753, eq. 3).

    ``short`` divides in sequences of the trained length, ``long`` in longer ones; queries and keys are
    scaled by ``sqrt(1 + ln(factor) / ln(trained))`` as in its implementation.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"rotary"})
    factor: float
    long: tuple[float, ...]
    short: tuple[float, ...]

    def reach(self, trained_tokens: int) -> int:
        """Trained length times the factor."""
        return stretched(trained_tokens, self.factor)

    def rotation(self, rope: Rope, tokens: int) -> Rotation:
        """Frequencies for a sequence of ``tokens``."""
        divisors = self.long if tokens > rope.trained_tokens else self.short
        scale = math.sqrt(1 + math.log(self.factor) / math.log(rope.trained_tokens))
        return Rotation(rope.frequencies() / np.asarray(divisors), scale)

    def __str__(self) -> str:
        content = repr((self.long, self.short)).encode()
        return f"longrope:{self.factor:g}:{hashlib.sha256(content).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class SelfExtend:
    """Distances up to ``neighbours`` as they are, farther ones in steps of ``group`` (Jin et al. 2024,
    arXiv:2401.01325, eqs. 3-4); see :mod:`pipeline.positions.self_extend`."""

    kinds: ClassVar[frozenset[str]] = frozenset({"rotary"})
    group: int
    neighbours: int

    @property
    def factor(self) -> float:
        """The group size: what the reach tends to, in trained lengths."""
        return float(self.group)

    @property
    def shift(self) -> int:
        """What is added to the position of a query that looks at far keys."""
        return self.neighbours - self.neighbours // self.group

    def reach(self, trained_tokens: int) -> int:
        """``(trained - neighbours) * group + neighbours`` (their section 3.3)."""
        return (trained_tokens - self.neighbours) * self.group + self.neighbours

    def rotation(self, rope: Rope, tokens: int) -> Rotation:
        """The trained frequencies: positions change, not they."""
        return Rotation(rope.frequencies())

    def __str__(self) -> str:
        return f"self_extend:{self.group}:{self.neighbours}"


@dataclass(frozen=True, slots=True)
class String(SelfExtend):
    """Distances from ``neighbours`` on are counted from ``local`` again (STRING, An et al. 2024,
    arXiv:2410.18745, eqs. 1-2), since models are trained far less on long distances than on short ones:
    a key at distance ``d`` is seen as at ``d - neighbours + local``. ``group`` is 1."""

    local: int

    @property
    def factor(self) -> float:
        """As a share of the trained length it depends on that; no more than this."""
        return 2.0

    @property
    def shift(self) -> int:
        """Towards the keys, by the distances that are left out."""
        return self.local - self.neighbours

    def reach(self, trained_tokens: int) -> int:
        """The longest text in which no distance exceeds the trained ones."""
        return trained_tokens + self.neighbours - self.local

    def __str__(self) -> str:
        return f"string:{self.neighbours}:{self.local}"
