"""JSON from strangers: what the standard parser lets through and later code chokes on is refused here."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, NoReturn

from pipeline.errors import InvalidRequestError

_LARGEST = 2**63
_SHORT_BYTES = 64 * 1024


def is_named(content_type: str) -> bool:
    """Whether a ``Content-Type`` says that a body is JSON (RFC 6839 for ``+json``)."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


async def read(body: bytes, *, max_depth: int) -> Any:  # noqa: ANN401 - any JSON value
    """:func:`loads`, in a thread when that takes longer than a thread costs: the event loop goes on."""
    if len(body) <= _SHORT_BYTES:
        return loads(body, max_depth=max_depth)
    return await asyncio.to_thread(loads, body, max_depth=max_depth)


def loads(body: bytes, *, max_depth: int, what: str = "The body") -> Any:  # noqa: ANN401 - any JSON value
    """Parse UTF-8 JSON; ``what`` names it in the error.

    Raises InvalidRequestError for anything that is not JSON by RFC 8259 (``NaN`` included), and for
    what is but cannot be kept: numbers beyond float64 or int64, lone surrogates, nesting over
    ``max_depth``. No message repeats the body.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_constant, parse_float=_float, parse_int=_int)
        _check(value, max_depth)
    except UnicodeDecodeError as error:
        why = f"byte {error.start} is not UTF-8"
    except json.JSONDecodeError as error:
        why = f"{error.msg} at character {error.pos}"
    except RecursionError:
        why = _too_deep(max_depth)
    except _UnfitError as error:
        why = str(error)
    else:
        return value
    raise InvalidRequestError(
        f"{what} cannot be taken as JSON: {why}.", remedy="Send RFC 8259 JSON in UTF-8."
    )


class _UnfitError(Exception):
    """Says what is in the JSON that later code would choke on."""


def _too_deep(max_depth: int) -> str:
    return f"it is nested deeper than {max_depth} levels"


def _check(value: Any, max_depth: int) -> None:  # noqa: ANN401 - any JSON value
    """Depth and text of every part, without recursion."""
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _text(item)
            elif isinstance(item, dict):
                for key in item:
                    _text(key)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level, depth = below, depth + 1
        if depth > max_depth and level:
            raise _UnfitError(_too_deep(max_depth))


def _text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _UnfitError("it contains half of a surrogate pair, which is not a character") from None


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _UnfitError("it contains a number too large for a double")
    return number


def _int(digits: str) -> int:
    # Long digit strings are refused before int() reads them: its cost grows with their square.
    if len(digits) > 20 or not -_LARGEST <= (number := int(digits)) < _LARGEST:
        raise _UnfitError("it contains an integer beyond 64 bits")
    return number


def _constant(name: str) -> NoReturn:
    raise _UnfitError(f"{name} is not JSON")
