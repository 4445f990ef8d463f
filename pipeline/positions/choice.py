"""From a spec in the settings (``yarn:4``) to a method and the window it gives."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigurationError
from pipeline.positions.absolute import Grouped, ParallelWindows, Recurrent
from pipeline.positions.ms_poe import MsPoe
from pipeline.positions.rotary import (
    DynamicNtk,
    LongRope,
    Native,
    Ntk,
    PositionInterpolation,
    SelfExtend,
    String,
    Yarn,
)

Kind = Literal["absolute", "rotary"]
AbsoluteMethod = Native | ParallelWindows | Grouped | Recurrent | PositionInterpolation
RotaryMethod = (
    Native | ParallelWindows | PositionInterpolation | Ntk | DynamicNtk | Yarn | LongRope | SelfExtend | MsPoe
)
Method = AbsoluteMethod | RotaryMethod

_PLAIN: dict[str, Callable[[], Method]] = {"native": Native, "pcw": ParallelWindows}
_STRETCHED: dict[str, Callable[[float], Method]] = {
    "pi": PositionInterpolation,
    "grouped": Grouped,
    "recurrent": Recurrent,
    "ntk": Ntk,
    "dynamic_ntk": DynamicNtk,
    "yarn": Yarn,
    "by_parts": lambda factor: Yarn(factor, temperature=False),
}
_NAMES = (*_PLAIN, *_STRETCHED, "longrope", "self_extend", "string", "ms_poe")
_STRING_SHARE, _STRING_LOCAL = 3, 128  # An et al. 2024, section 4.1
_MOST_FACTOR = 512  # Ding et al. 2024 go from 4,096 to 2,097,152 tokens, farther than anybody else
_NEIGHBOURS_SHARE = 4  # of the trained length; Jin et al. use a quarter to a half


@dataclass(frozen=True, slots=True)
class Choice:
    """A method, and the most tokens of one sequence with it."""

    method: Method
    window_tokens: int


def choose(spec: str, kind: Kind, trained_tokens: int, window_tokens: int | None = None) -> Choice:
    """Read a spec for a model whose positions are of ``kind`` and trained to ``trained_tokens``.

    Without a factor (``yarn``) it is the one that just reaches ``window_tokens``; without a window it is
    all that the method reaches. Raises ConfigurationError for an unknown or misplaced method, a factor
    below 1 or so large that nobody has tried it, and a window that is not reached.
    """
    name, *values = spec.strip().split(":")
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ConfigurationError(
            f"There is no position method {spec!r}.", remedy=f"{hint}Methods: {', '.join(_NAMES)}."
        )
    method = _method(name, values, spec, trained_tokens, window_tokens)
    if kind not in method.kinds:
        (needed,) = method.kinds
        raise ConfigurationError(
            f"The position method {spec!r} needs {needed} positions, and this model has {kind} ones.",
            remedy=f"Methods for them: {', '.join(_usable(kind))}.",
        )
    reach = method.reach(trained_tokens)
    most = _MOST_FACTOR * trained_tokens
    if reach > most:
        raise ConfigurationError(
            f"positions {spec!r} would stretch {trained_tokens:,} trained positions to {reach:,}.",
            remedy=f"At most {_MOST_FACTOR} times as many are possible: {most:,}.",
        )
    if window_tokens is not None and window_tokens > reach:
        raise ConfigurationError(
            f"window_tokens={window_tokens} exceeds the {reach} positions that {str(method)!r} gives this "
            f"model, trained with {trained_tokens}.",
            remedy=f"Set it to at most that{_or_stretch(window_tokens, trained_tokens)}.",
        )
    return Choice(method, window_tokens or reach)


def _or_stretch(window_tokens: int, trained_tokens: int) -> str:
    """The other way to a window; the factor is rounded up, so that it is enough."""
    if window_tokens > _MOST_FACTOR * trained_tokens:
        return ""
    return f", or stretch positions by at least {math.ceil(100 * window_tokens / trained_tokens) / 100:.10g}"


def _method(
    name: str, values: Sequence[str], spec: str, trained_tokens: int, window_tokens: int | None
) -> Method:
    if name == "longrope":
        return _longrope(":".join(values), spec)
    if name in _PLAIN:
        _numbers(values, spec, most=0)
        return _PLAIN[name]()
    needed = max((window_tokens or trained_tokens) / trained_tokens, 1.0)
    if name == "self_extend":
        numbers = _numbers(values, spec, most=2)
        neighbours = int(numbers[1]) if len(numbers) > 1 else trained_tokens // _NEIGHBOURS_SHARE
        if not 1 <= neighbours < trained_tokens:
            raise ConfigurationError(
                f"{spec!r} keeps {neighbours} neighbours of {trained_tokens} trained positions.",
                remedy="Keep a quarter to a half of them.",
            )
        wanted = (window_tokens or trained_tokens) - neighbours
        group = int(numbers[0]) if numbers else -(-wanted // (trained_tokens - neighbours))
        if numbers and group != numbers[0]:
            raise ConfigurationError(f"The group of {spec!r} is not a whole number.", remedy="Try 4 or 8.")
        return SelfExtend(group, neighbours)
    if name in ("string", "ms_poe"):
        return _string(values, spec, trained_tokens) if name == "string" else _ms_poe(values, spec)
    numbers = _numbers(values, spec, most=3 if name in ("yarn", "by_parts") else 1)
    if len(numbers) == 3:
        return Yarn(numbers[0], name == "yarn", numbers[1], numbers[2])
    return _STRETCHED[name](numbers[0] if numbers else needed)


def _string(values: Sequence[str], spec: str, trained_tokens: int) -> String:
    """The paper's defaults: from a third of the trained length on, counted from 128 again."""
    given = [int(number) for number in _numbers(values, spec, most=2)]
    neighbours = given[0] if given else trained_tokens // _STRING_SHARE
    local = given[1] if len(given) > 1 else min(_STRING_LOCAL, max(neighbours - 1, 1))
    if not 1 <= local < neighbours < trained_tokens:
        raise ConfigurationError(
            f"{spec!r} counts from {local} again at {neighbours} of {trained_tokens} trained positions.",
            remedy="Write string:<distance>:<counted again from>, such as string:2731:128.",
        )
    return String(1, neighbours, local)


def _ms_poe(values: Sequence[str], spec: str) -> MsPoe:
    given = _numbers(values, spec, most=2)
    if len(given) == 1 or given != sorted(given):
        raise ConfigurationError(
            f"{spec!r} names no ratios from the least to the most.", remedy="Write ms_poe:1.2:1.8."
        )
    return MsPoe(*given)


def _numbers(values: Sequence[str], spec: str, most: int) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = [float("nan")]
    if len(numbers) > most or any(not 0 < number < 1e6 for number in numbers) or len(numbers) == 2 < most:
        raise ConfigurationError(
            f"The position method {spec!r} is not written as it should be.",
            remedy="Write for example yarn:4, self_extend:8:128 or native.",
        )
    if numbers and numbers[0] < 1:
        raise ConfigurationError(
            f"The factor {numbers[0]:g} of {spec!r} is below 1, which would shorten the window.",
            remedy="Give a factor of at least 1.",
        )
    return numbers


def _longrope(file: str, spec: str) -> LongRope:
    """From a JSON file with ``factor``, ``long_factor`` and ``short_factor``, as configurations name them."""
    try:
        content = json.loads(Path(file).expanduser().read_text("utf-8"))
        lists = [tuple(float(x) for x in content[key]) for key in ("long_factor", "short_factor")]
        factor = float(content["factor"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"The factors of {spec!r} cannot be read: {error}",
            remedy='Write longrope:FILE with {"factor": 4, "long_factor": [...], "short_factor": [...]}.',
        ) from error
    if factor < 1 or len(lists[0]) != len(lists[1]) or min((0.0, *lists[0], *lists[1])[1:], default=0) <= 0:
        raise ConfigurationError(
            f"{file!r} has a factor of {factor:g} and lists of {len(lists[0])} and {len(lists[1])}.",
            remedy="The factor is at least 1; both lists have one positive number for each frequency.",
        )
    return LongRope(factor, *lists)


def _usable(kind: Kind) -> list[str]:
    if kind == "absolute":
        return [*_PLAIN, "pi", "grouped", "recurrent"]
    return [name for name in _NAMES if name not in ("grouped", "recurrent")]
