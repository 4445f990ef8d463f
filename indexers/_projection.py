"""How payloads and filters look inside Qdrant, embedded or served.

A stored record has the payload as one JSON text under ``payload``, which is all that searches return.
Beside it lies what filters need: under ``facts`` a 63-bit hash of every statement "this field has
this value" and "this field exists", and under ``n_<field>`` the numbers and dates that ranges
compare. So one integer index, made up front, answers equality on every field whatever its type, and
values compare exactly as :mod:`pipeline.metadata` says. (Integers also cross into the engine five
times faster than strings.)

Fields of the index itself that are numbers do not state that they exist, since their number shows it,
and those that differ in nearly every point state nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.filters import And, AnyOf, Condition, Equals, Exists, Filter, Not, Or, Range
from pipeline.metadata import comparable, flatten, number

PAYLOAD = "payload"
FACTS = "facts"
NUMBER_PREFIX = "n_"
POINT = 0  # a fact of every point, so that the index of facts can be seen to be whole
NOTHING: dict[str, Any] = {"has_id": []}

_NO_FACTS = frozenset({"_start", "_end", "_tokens", "_page_start", "_page_end"})
_NO_RANGE_INDEX = _NO_FACTS | {"_version", "_ordinal", "_parent"}
_EXISTS = object()


def record(payload: str) -> dict[str, Any]:
    """The stored form of a payload given as JSON text."""
    facts = {POINT}
    numbers: dict[str, list[float]] = {}
    for path, values in flatten(json.loads(payload)):
        for value in values:
            stated, at = _statements(path, value)
            facts.update(stated)
            if at is not None:
                numbers.setdefault(number_key(path), []).append(at)
    single = {key: found[0] if len(found) == 1 else found for key, found in numbers.items()}
    return {PAYLOAD: payload, FACTS: list(facts), **single}


@functools.lru_cache(maxsize=65_536, typed=True)  # typed: 1, 1.0 and True hash alike
def _statements(path: str, value: object) -> tuple[tuple[int, ...], float | None]:
    """The facts that follow from one value of one field, and its number."""
    at = number(value)
    if at is not None and at.is_integer():
        at = int(at)  # cheaper for the engine, and the same to it
    if path in _NO_FACTS:
        return (), at
    facts = [_fact(path, comparable(value))]
    if not (path.startswith("_") and at is not None):
        parts = path.split(".")
        facts += [_fact(".".join(parts[: i + 1]), _EXISTS) for i in range(len(parts))]
    return tuple(facts), at


def range_fields(stored: Mapping[str, Any]) -> set[str]:
    """The number keys of a record that deserve an index: those of user metadata."""
    return {key for key in stored if key.startswith(NUMBER_PREFIX) and key not in _UNINDEXED_KEYS}


def condition(where: Filter) -> dict[str, Any]:
    """A filter in the JSON of Qdrant's REST interface, as one condition."""
    match where:
        case And(parts):
            return {"must": [condition(part) for part in parts]}
        case Or(parts):
            return {"should": [condition(part) for part in parts]} if parts else NOTHING
        case Not(inner):
            return {"must_not": [condition(inner)]}
    return _field_condition(where)


def _field_condition(where: Condition) -> dict[str, Any]:
    match where:
        case Equals(field, value):
            return _any_of(field, (value,))
        case AnyOf(field, values):
            return _any_of(field, values)
        case Range(field):
            bounds = {bound: getattr(where, bound) for bound in ("gt", "gte", "lt", "lte")}
            given = {bound: value for bound, value in bounds.items() if value is not None}
            return {"key": number_key(field), "range": given}
        case Exists(field):
            stated = {"key": FACTS, "match": {"value": _fact(field, _EXISTS)}}
            if not field.startswith("_"):
                return stated
            return {"should": [stated, {"must_not": [{"is_empty": {"key": number_key(field)}}]}]}


@functools.lru_cache(maxsize=4096)
def number_key(field: str) -> str:
    """The key of a field's numbers: the name where it is plain, else a hash of it."""
    if re.fullmatch(r"[A-Za-z0-9_]{1,40}", field):
        return f"{NUMBER_PREFIX}{field}"
    return f"{NUMBER_PREFIX}-{hashlib.blake2b(field.encode(), digest_size=8).hexdigest()}"


_UNINDEXED_KEYS = frozenset(map(number_key, _NO_RANGE_INDEX))


def _any_of(field: str, values: tuple[Any, ...]) -> dict[str, Any]:
    if not values:
        return NOTHING
    if field in _NO_FACTS:
        numbers = [v for v in map(comparable, values) if isinstance(v, float)]
        ranges = [{"key": number_key(field), "range": {"gte": n, "lte": n}} for n in numbers]
        return {"should": ranges} if ranges else NOTHING
    facts = dict.fromkeys(_fact(field, comparable(value)) for value in values)  # 1 and 1.0 are one
    return {"key": FACTS, "match": {"any": list(facts)}}


@functools.lru_cache(maxsize=65_536)
def _fact(field: str, value: str | float | object) -> int:
    """63 bits of BLAKE2b of a field and a comparable value, the type among them."""
    if isinstance(value, float):
        tagged = f"number {value + 0.0!r}"  # -0.0 equals 0.0
    elif isinstance(value, str):
        tagged = f"text {value}"
    else:
        tagged = "exists"
    text = f"{len(field)} {field} {tagged}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
