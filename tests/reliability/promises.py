"""How often each promise is tried, and the line that is printed for it.

`make reliability` sets ``LONGLEAF_RELIABILITY=full``; otherwise a few dozen cases must do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

FULL = os.environ.get("LONGLEAF_RELIABILITY") == "full"


def cases(short: int, full: int) -> int:
    """How many cases to try."""
    return full if FULL else short


def report(promise: int, what: str, tried: int, wrong: int, seconds: Sequence[float] = ()) -> None:
    """Print how many of the cases went wrong. Of none in N, the 95 % upper bound is 3/N (Hanley and
    Lippman-Hand 1983, "If nothing goes wrong, is everything all right?")."""
    bound = f", 95 % upper bound {3 / tried:.2%}" if not wrong and tried else ""
    ordered = sorted(seconds)
    times = (
        f"; p50 {ordered[len(ordered) // 2]:.3f} s, p99 {ordered[int(len(ordered) * 0.99)]:.3f} s"
        if ordered
        else ""
    )
    print(f"\npromise {promise:2}: {what}: {wrong} wrong of {tried:,}{bound}{times}")
