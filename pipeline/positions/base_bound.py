"""How far rotary frequencies can tell a similar token from a random one.

Men et al. 2024 (arXiv:2405.14591, "Base of RoPE bounds context length", theorem 1 and eq. 6): for a head
without other preference that holds while ``B(m) = sum_i cos(m * f_i)`` stays at least 0 for every
distance ``m`` up to the context length. A smaller base gives low perplexity and no retrieval beyond that.
"""

from __future__ import annotations

import numpy as np

from pipeline.positions.choice import Method
from pipeline.positions.rotary import Frequencies, Native, Rope, SelfExtend

_FIRST_BLOCK_TOKENS, _LARGEST_BLOCK_TOKENS = 256, 16_384
_BASE_STEP = 1.01


def longest_reach(frequencies: Frequencies, most_tokens: int) -> int:
    """Longest context up to ``most_tokens`` in which ``B`` does not fall below 0."""
    start, block = 0, _FIRST_BLOCK_TOKENS
    while start <= most_tokens:
        stop = min(start + block, most_tokens + 1)
        places = np.arange(start, stop, dtype=np.float64)
        below = np.flatnonzero(np.cos(places[:, None] * frequencies).sum(1) < 0)
        if below.size:
            return start + int(below[0]) - 1
        start, block = stop, min(2 * block, _LARGEST_BLOCK_TOKENS)
    return most_tokens


def least_base(dim: int, tokens: int) -> float:
    """The smallest base, to 1 %, whose frequencies reach ``tokens`` with heads ``dim`` wide."""
    base = 100.0
    while longest_reach(Rope(dim, base, tokens).frequencies(), tokens) < tokens:
        base *= _BASE_STEP
    return base


def shortfall(method: Method, rope: Rope, window_tokens: int) -> str:
    """A warning in words if the method's frequencies do not reach the window, else nothing.

    What the trained frequencies do not reach within the trained length is not held against a method.
    """
    if isinstance(method, Native | SelfExtend) or not hasattr(method, "rotation"):
        return ""
    trained = longest_reach(rope.frequencies(), rope.trained_tokens)
    asked = int(window_tokens * trained / rope.trained_tokens)
    reached = longest_reach(method.rotation(rope, window_tokens).frequencies, asked)
    if reached >= asked:
        return ""
    return (
        f"{method} tells similar tokens from random ones up to a distance of {reached:,} tokens, short of "
        f"the {asked:,} that this model's own positions would need for a window of {window_tokens:,} "
        f"(Men et al. 2024). A base of {least_base(rope.dim, asked):,.0f} would reach that far."
    )
